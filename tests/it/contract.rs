//! The routes and `openapi.yaml` are the same. What they answer is held against it in every test, by `TestApp`.

mod examples;
mod refusals;

use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::app::TestApp;
use crate::support::contract::document;

#[test]
fn the_document_has_every_route_and_no_other() {
    let served: BTreeSet<(String, String)> = sextant::http::known_routes()
        .into_iter()
        .map(|(method, path)| (method.to_lowercase(), path.to_owned()))
        .collect();
    let documented = document()["paths"].as_object().unwrap().iter().flat_map(|(path, item)| {
        let methods = item.as_object().unwrap().keys();
        methods.map(move |method| (method.clone(), path.clone()))
    });
    assert_eq!(documented.collect::<BTreeSet<_>>(), served);
}

#[tokio::test]
async fn the_document_is_served_as_it_is() {
    let (app, _) = TestApp::fake().await;
    assert_eq!(app.get("/openapi.yaml").await.text(), include_str!("../../openapi.yaml"));
    assert_eq!(document()["info"]["version"], env!("CARGO_PKG_VERSION"));
}

/// A field of a request that is not documented, or documented and not read, is a difference too: each documented one is
/// sent with a value of a type that it cannot have, which only a field that is read refuses.
#[tokio::test]
async fn the_fields_of_the_document_are_those_that_are_read() {
    let (app, _) = TestApp::fake().await;
    let mut checked = 0;
    for (path, item) in document()["paths"].as_object().unwrap() {
        // These need a repository; their fields are held against the document beside the code that reads them.
        if path.starts_with("/admin/") {
            continue;
        }
        let Some(schema) =
            item["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"].as_str()
        else {
            continue;
        };
        let schema = document().pointer(schema.trim_start_matches('#')).unwrap();
        for field in schema["properties"].as_object().unwrap().keys() {
            // `/embed_all` reads these two and does nothing with them.
            let mut body: Value = serde_json::json!({
                "model": "tiny", "input": "a", "inputs": "a", "ids": [5]
            });
            if path == "/similarity" {
                body["inputs"] = serde_json::json!({ "source_sentence": "a", "sentences": ["b"] });
            }
            if path.ends_with("/infer") {
                body["inputs"] =
                    serde_json::json!([{ "name": "text", "shape": [1], "datatype": "BYTES", "data": ["a"] }]);
            }
            let path = path.replace("{model}", "tiny").replace("{version}", "1");
            assert_eq!(app.post(&path, body.clone()).await.status, 200, "{path}");
            body[field] = serde_json::json!([["no such type"]]);
            let status = app.post(&path, body).await.status;
            assert!(matches!(status, 400 | 422), "{path} does not read `{field}`: {status}");
            checked += 1;
        }
    }
    assert!(checked > 25, "{checked}");
}
