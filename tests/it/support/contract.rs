//! Holds every answer that a test sees against `openapi.yaml`.

use std::sync::OnceLock;

use serde_json::{Value, json};

/// The document, as JSON.
pub fn document() -> &'static Value {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    DOCUMENT.get_or_init(|| serde_norway::from_str(include_str!("../../../openapi.yaml")).unwrap())
}

/// The documented route of a path; the path itself if there is none.
pub fn route(path: &str) -> &str {
    let routes = document()["paths"].as_object().unwrap().keys();
    let matches = |route: &&String| {
        let (route, path) = (route.split('/'), path.split('/'));
        let is_there = |(route, path): (&str, &str)| route.starts_with('{') || route == path;
        route.clone().count() == path.clone().count() && route.zip(path).all(is_there)
    };
    routes.into_iter().find(matches).map_or(path, String::as_str)
}

/// Follows a `$ref` within the document.
fn follow(value: &'static Value) -> &'static Value {
    match value["$ref"].as_str() {
        Some(reference) => document().pointer(reference.trim_start_matches('#')).expect(reference),
        None => value,
    }
}

/// Panics unless the document has this answer: route, status, and every field of the body.
pub fn check(method: &str, route: &str, status: u16, headers: &reqwest::header::HeaderMap, body: &[u8]) {
    let operation = &document()["paths"][route][method.to_lowercase()];
    assert!(operation.is_object(), "openapi.yaml has no {method} {route}");
    let at = format!("{method} {route} -> {status}");
    let response = follow(&operation["responses"][status.to_string()]);
    assert!(response.is_object(), "openapi.yaml has no {at}: {}", String::from_utf8_lossy(body));
    for (name, header) in response["headers"].as_object().into_iter().flatten() {
        let header = follow(header);
        let Some(value) = headers.get(name) else {
            assert_eq!(header["required"], false, "{at} lacks the header {name}");
            continue;
        };
        let kind = &header["schema"]["type"];
        assert!(
            kind != "integer" || value.to_str().unwrap().parse::<u64>().is_ok(),
            "{at}: {name}: {value:?}"
        );
    }
    let Some(media) = response["content"].as_object() else {
        assert!(body.is_empty(), "{at} has a body that openapi.yaml does not know");
        return;
    };
    let kind = headers["content-type"].to_str().unwrap();
    let Some((media, content)) = media.iter().find(|(media, _)| kind.starts_with(media.as_str())) else {
        panic!("{at} is {kind}, which openapi.yaml does not say");
    };
    if media == "application/json" {
        validate(&content["schema"], &serde_json::from_slice(body).unwrap(), &at);
    }
}

/// Panics unless the value is as the schema says.
pub fn validate(schema: &Value, value: &Value, at: &str) {
    let schema = json!({ "allOf": [schema], "components": document()["components"] });
    let validator = jsonschema::validator_for(&schema).unwrap();
    if let Err(error) = validator.validate(value) {
        panic!("{at}: {error}, at {}", error.instance_path());
    }
}
