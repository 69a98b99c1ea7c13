//! The examples of the document: they are as their schemas say, requests are taken, and answers have the fields of real ones.

use std::collections::BTreeSet;

use serde_json::Value;
use tokio::task::block_in_place;

use crate::admin::Tiny;
use crate::drift::with_reference;
use crate::support::app::{Answer, TestApp, settings};
use crate::support::contract::{document, validate};

#[test]
fn examples_are_as_their_schemas_say() {
    fn walk(value: &Value, at: &str, checked: &mut usize) {
        if let Some(schema) = value.get("schema") {
            let several = value["examples"].as_object().into_iter().flatten();
            let named = several.map(|(name, example)| (name.as_str(), &example["value"]));
            for (name, example) in named.chain(value.get("example").map(|example| ("", example))) {
                validate(schema, example, &format!("{at} {name}"));
                *checked += 1;
            }
        }
        for (key, value) in value.as_object().into_iter().flatten() {
            walk(value, &format!("{at}/{key}"), checked);
        }
        for value in value.as_array().into_iter().flatten() {
            walk(value, at, checked);
        }
    }
    let mut checked = 0;
    walk(document(), "", &mut checked);
    assert!(checked > 60, "{checked}");
}

/// The places of a JSON value at which there is something other than an object or a list.
fn places(value: &Value) -> BTreeSet<String> {
    fn walk(value: &Value, at: &str, places: &mut BTreeSet<String>) {
        match value {
            Value::Object(fields) => {
                fields.iter().for_each(|(name, value)| walk(value, &format!("{at}.{name}"), places));
            }
            Value::Array(items) => items.iter().for_each(|item| walk(item, &format!("{at}[]"), places)),
            _ => _ = places.insert(at.to_owned()),
        }
    }
    let mut places = BTreeSet::new();
    walk(value, "", &mut places);
    places
}

/// The documented examples of an operation's requests, or of its answers.
fn examples(content: &Value) -> impl Iterator<Item = (&String, &Value)> {
    let examples = content["content"]["application/json"]["examples"].as_object().into_iter().flatten();
    examples.map(|(name, example)| (name, &example["value"]))
}

/// Holds an answer to the request called `request` against the example of that name.
fn compare(operation: &Value, request: Option<&str>, answer: &Answer, at: &str) {
    assert_eq!(answer.status, 200, "{at}: {}", answer.text());
    for (name, example) in examples(&operation["responses"]["200"]) {
        if request.is_none_or(|request| request == name) {
            assert_eq!(places(example), places(&answer.json()), "{at}: {name}");
        }
    }
}

/// The path of a route, of the model's first version.
fn filled(route: &str, model: &str) -> String {
    route.replace("{model}", model).replace("{version}", "1")
}

/// Sends the request of an example, and holds the answer against the example of its name.
async fn replay(app: &TestApp, route: &str, model: &str, name: &str) {
    let operation = &document()["paths"][route]["post"];
    let mut body = operation["requestBody"]["content"]["application/json"]["examples"][name]["value"].clone();
    if route == "/decode" {
        // The example's are ids of another vocabulary than the test's.
        body["ids"] = serde_json::json!([5, 6, 7]);
    }
    let at = format!("{route}, {name}");
    compare(operation, Some(name), &app.post(&filled(route, model), body).await, &at);
}

async fn look(app: &TestApp, route: &str, model: &str) {
    let operation = &document()["paths"][route]["get"];
    compare(operation, None, &app.get(&filled(route, model)).await, route);
}

#[tokio::test]
async fn the_examples_of_the_data_routes_are_real() {
    let (app, _) = TestApp::fake_with(&settings(), |manifest| manifest.model = "minilm".into()).await;
    let mut sent = 0;
    for (route, item) in document()["paths"].as_object().unwrap() {
        if route.starts_with("/admin/") || route == "/docs/{file}" {
            continue;
        }
        for (name, _) in examples(&item["post"]["requestBody"]) {
            replay(&app, route, "minilm", name).await;
            sent += 1;
        }
        if item["get"].is_object() {
            look(&app, route, "minilm").await;
            sent += 1;
        }
    }
    assert!(sent > 20, "{sent}");
}

/// In an order in which each finds what it is about.
#[tokio::test(flavor = "multi_thread")]
async fn the_examples_of_the_administrators_routes_are_real() {
    let tiny = block_in_place(|| Tiny::beside(with_reference()));
    let app = tiny.serve().await;
    let model = |rest: &str| format!("/admin/v1/models/{{model}}{rest}");
    look(&app, &model("/drift"), "tiny").await;
    let mut sent = BTreeSet::new();
    for (action, name) in [
        ("/rollout", "a shadow, as a dry run"),
        ("/rollout", "a canary"),
        ("/promote", "the version on trial"),
        ("/rollback", "what serves"),
        ("/verify", "a version"),
        ("/rollout", "at once, into another space"),
        ("/rollback", "to a version"),
        ("/rollout", "on standby"),
        ("/retire", "a version on standby"),
        ("/alias", "a hub id"),
    ] {
        replay(&app, &model(action), "tiny", name).await;
        sent.insert((model(action), name.to_owned()));
        if name == "a canary" {
            look(&app, "/admin/v1/models", "tiny").await;
            look(&app, &model(""), "tiny").await;
        }
        if name == "what serves" {
            look(&app, &model("/rollouts"), "tiny").await;
        }
    }
    let routes =
        document()["paths"].as_object().unwrap().iter().filter(|(route, _)| route.starts_with("/admin/"));
    let documented = routes.flat_map(|(route, item)| {
        examples(&item["post"]["requestBody"]).map(|(name, _)| (route.clone(), name.clone()))
    });
    assert_eq!(sent, documented.collect());
}

/// What is documented of an answer is seen by the tests above.
#[test]
fn an_example_of_an_answer_belongs_to_a_request() {
    for (route, item) in document()["paths"].as_object().unwrap() {
        for (name, _) in examples(&item["post"]["responses"]["200"]) {
            let request = examples(&item["post"]["requestBody"]).any(|(request, _)| request == name);
            assert!(request, "{route}: no request is called `{name}`");
        }
    }
}
