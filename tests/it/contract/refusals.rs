//! The documented refusals are those that the server gives, word for word.

use std::collections::BTreeSet;

use reqwest::header::HeaderName;
use serde_json::{Value, json};
use sextant::config::Settings;
use tokio::task::block_in_place;

use crate::command::imported;
use crate::keys::{bearer, entry, key};
use crate::support::app::{TestApp, settings, until};
use crate::support::contract::{document, route};

/// A request that is refused.
struct Refused<'a> {
    /// The documented answer.
    name: &'a str,
    method: &'a str,
    path: &'a str,
    header: Option<(&'a str, &'a str)>,
    /// The name of its key.
    key: Option<&'a str>,
    body: Value,
}

fn refused<'a>(name: &'a str, path: &'a str, body: Value) -> Refused<'a> {
    Refused { name, method: "POST", path, header: None, key: None, body }
}

impl<'a> Refused<'a> {
    fn with(self, name: &'a str, value: &'a str) -> Self {
        Self { header: Some((name, value)), ..self }
    }

    fn by(self, method: &'a str) -> Self {
        Self { method, ..self }
    }

    fn with_key(self, name: &'a str) -> Self {
        Self { key: Some(name), ..self }
    }

    /// Sends it, and holds the answer against the documented one, in which `changes` are made first.
    async fn check(self, app: &TestApp, changes: &[(&str, &str)]) -> String {
        let Self { name, method, path, header, key: key_name, body } = self;
        let mut headers = key_name.map(|name| bearer(&key(name))).unwrap_or_default();
        if let Some((name, value)) = header {
            headers.insert(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let answer = app.send(method, path, headers, body).await;
        let example =
            document()["components"]["responses"][name]["content"]["application/json"]["example"].to_string();
        let example = changes.iter().fold(example, |text, (from, to)| text.replace(from, to));
        let example: Value = serde_json::from_str(&example).unwrap();
        assert_eq!(answer.json(), example, "{name}: {method} {path}");
        // A wrong method is documented with the right one.
        let methods = document()["paths"][route(path)].as_object().unwrap();
        let operation = methods.get(&method.to_lowercase()).or_else(|| methods.values().next()).unwrap();
        let documented = &operation["responses"][answer.status.to_string()]["$ref"];
        assert_eq!(documented, &json!(format!("#/components/responses/{name}")), "{method} {path}");
        name.to_owned()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_refusals_are_real() {
    let mut seen = BTreeSet::new();
    seen.extend(of_the_data_routes().await);
    seen.extend(of_a_busy_server().await);
    seen.extend(of_the_administrators_routes().await);
    seen.extend(of_a_server_with_keys().await);
    let responses = document()["components"]["responses"].as_object().unwrap().iter();
    let documented =
        responses.filter(|(_, response)| response["content"]["application/json"]["example"].is_object());
    assert_eq!(seen, documented.map(|(name, _)| name.clone()).collect());
}

async fn of_the_data_routes() -> Vec<String> {
    let hasty = Settings { liveness_deadline: Some("200ms".into()), ..settings() };
    let (app, fake) = TestApp::fake_with(&hasty, |manifest| manifest.model = "minilm".into()).await;
    let (openai, tei, infer) = ("/v1/embeddings", "/embed", "/v2/models/minilm/infer");
    let (text, inputs) = (json!({ "model": "minilm", "input": "a" }), json!({ "inputs": "a" }));
    let tensor = json!({ "inputs": [{ "name": "text", "shape": [1], "datatype": "BYTES", "data": ["a"] }] });
    let of = |count: usize, data: Vec<&str>| {
        let mut body = tensor.clone();
        (body["inputs"][0]["shape"], body["inputs"][0]["data"]) = (json!([count]), json!(data));
        body
    };
    let (plain, other) = (("content-type", "text/plain"), ("x-sextant-space", "fedcba9876543210"));
    let mut seen = Vec::new();
    for request in [
        refused("OpenAiBad", openai, json!({ "model": "minilm", "input": "" })),
        refused("OpenAiUnknown", openai, json!({ "model": "other", "input": "a" })),
        refused("OpenAiWrongMethod", openai, Value::Null).by("GET"),
        refused("OpenAiConflict", openai, text.clone()).with(other.0, other.1),
        refused("OpenAiTooLarge", openai, json!({ "model": "minilm", "input": vec!["a"; 2049] })),
        refused("OpenAiNotJson", openai, text.clone()).with(plain.0, plain.1),
        refused("TeiBad", tei, json!({ "inputs": "" })),
        refused("TeiUnknown", tei, json!({ "inputs": "a", "model": "other" })),
        refused("TeiWrongMethod", tei, Value::Null).by("GET"),
        refused("TeiConflict", tei, inputs.clone()).with(other.0, other.1),
        refused("TeiTooLarge", tei, json!({ "inputs": vec!["a"; 2049] })),
        refused("TeiNotJson", tei, inputs.clone()).with(plain.0, plain.1),
        refused("TeiInvalid", tei, json!({ "inputs": 1 })),
        refused("TeiOtherTask", "/rerank", json!({ "query": "a", "texts": ["b"] })),
        refused("InferBad", infer, of(2, vec!["a"])),
        refused("InferUnknown", "/v2/models/other/infer", tensor.clone()),
        refused("InferWrongMethod", infer, Value::Null).by("GET"),
        refused("InferConflict", infer, tensor.clone()).with(other.0, other.1),
        refused("InferTooLarge", infer, of(2049, vec!["a"; 2049])),
        refused("InferNotJson", infer, tensor.clone()).with(plain.0, plain.1),
    ] {
        seen.push(request.check(&app, &[]).await);
    }
    fake.give_nan(true);
    for request in [
        refused("OpenAiFailed", openai, text.clone()),
        refused("TeiFailed", tei, inputs.clone()),
        refused("InferFailed", infer, tensor.clone()),
    ] {
        seen.push(request.check(&app, &[]).await);
    }
    fake.give_nan(false);
    fake.hold();
    // A batch that was just answered counts for half a second.
    until("the held engine is noticed", async || app.get("/livez").await.status == 503).await;
    for request in [
        refused("OpenAiTooLate", openai, text).with("x-request-timeout-ms", "1"),
        refused("TeiTooLate", tei, inputs).with("x-request-timeout-ms", "1"),
        refused("InferTooLate", infer, tensor).with("x-request-timeout-ms", "1"),
        refused("TeiUnavailable", "/livez", Value::Null).by("GET"),
        refused("InferUnavailable", "/v2/health/live", Value::Null).by("GET"),
    ] {
        seen.push(request.check(&app, &[]).await);
    }
    seen
}

async fn of_a_busy_server() -> Vec<String> {
    let few = Settings { max_requests: Some(1), ..settings() };
    let (app, fake) = TestApp::fake_with(&few, |_| ()).await;
    fake.hold();
    let others = async {
        until("the only place is taken", async || fake.waiting() == 1).await;
        let (openai, tei) = (json!({ "model": "tiny", "input": "b" }), json!({ "inputs": "b" }));
        let tensor =
            json!({ "inputs": [{ "name": "text", "shape": [1], "datatype": "BYTES", "data": ["b"] }] });
        let changes = [("4096", "1")];
        let seen = vec![
            refused("OpenAiOverloaded", "/v1/embeddings", openai).check(&app, &changes).await,
            refused("TeiOverloaded", "/embed", tei).check(&app, &changes).await,
            refused("InferOverloaded", "/v2/models/tiny/infer", tensor).check(&app, &changes).await,
        ];
        fake.release();
        seen
    };
    tokio::join!(app.post("/embed", json!({ "inputs": "a" })), others).1
}

async fn of_the_administrators_routes() -> Vec<String> {
    let (list, rollback) = ("/admin/v1/models", "/admin/v1/models/tiny/rollback");
    let why = json!({ "reason": "x" });
    let mut seen = Vec::new();

    let small = Settings { max_body_bytes: Some(1000), ..settings() };
    let (without, _) = TestApp::fake_with(&small, |_| ()).await;
    for request in [
        refused("AdminNotAllowed", list, Value::Null).by("GET").with("via", "1.1 proxy"),
        refused("AdminWrongMethod", list, Value::Null).by("DELETE"),
        refused("AdminUnavailable", list, Value::Null).by("GET"),
        refused("AdminTooLarge", rollback, json!({ "reason": "x".repeat(1000) })),
        refused("AdminNotJson", rollback, why.clone()).with("content-type", "text/plain"),
    ] {
        seen.push(request.check(&without, &[]).await);
    }

    let directory = block_in_place(imported);
    let app = TestApp::repository(&directory.path().join("models")).await;
    for request in [
        refused("AdminBad", rollback, json!({ "reason": " " })),
        refused("AdminUnknown", "/admin/v1/models/other/rollback", why.clone()),
        refused("AdminConflict", rollback, why.clone()),
    ] {
        seen.push(request.check(&app, &[("minilm", "tiny")]).await);
    }
    seen
}

async fn of_a_server_with_keys() -> Vec<String> {
    let keys = entry("reader", &["embed"], "models = ['minilm']") + &entry("watcher", &["metrics"], "");
    let (app, _) = TestApp::fake_with(&Settings { keys: Some(keys), ..settings() }, |_| ()).await;
    let (openai, infer) = ("/v1/embeddings", "/v2/models/other/infer");
    let mut seen = Vec::new();
    for request in [
        refused("OpenAiNoKey", openai, Value::Null),
        refused("OpenAiNotAllowed", openai, json!({ "model": "other", "input": "a" })).with_key("reader"),
        refused("TeiNoKey", "/metrics", Value::Null).by("GET"),
        refused("TeiNotAllowed", "/embed", Value::Null).with_key("watcher"),
        refused("InferNoKey", infer, Value::Null),
        refused("InferNotAllowed", infer, Value::Null).with_key("reader"),
        refused("AdminNoKey", "/admin/v1/models", Value::Null).by("GET"),
    ] {
        seen.push(request.check(&app, &[]).await);
    }
    seen
}
