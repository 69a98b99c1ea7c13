//! What a key may use up, through the routes and on a clock that stands still. The arithmetic is tested beside it.

use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use serde_json::{Value, json};
use sextant::config::Settings;
use tower::ServiceExt as _;

use super::{entry, key};
use crate::support::app::{fake_app, settings};

fn router(limits: &str) -> Router {
    let keys =
        entry("a", &["embed", "metrics"], &format!("limits = {{ {limits} }}")) + &entry("b", &["embed"], "");
    let (app, ..) = fake_app(&Settings { keys: Some(keys), ..settings() }, |_| ());
    sextant::http::public(&app, true)
}

/// The status, `retry-after` and the body.
async fn ask(router: &Router, name: &str, path: &str, body: Value) -> (u16, Option<u64>, Value) {
    let request = Request::builder()
        .method(if body.is_null() { "GET" } else { "POST" })
        .uri(path)
        .header("authorization", format!("Bearer {}", key(name)))
        .body(if body.is_null() { Body::empty() } else { Body::from(body.to_string()) });
    let response = router.clone().oneshot(request.unwrap()).await.unwrap();
    let after = response.headers().get("retry-after").map(|value| value.to_str().unwrap().parse().unwrap());
    let (status, body) = (response.status().as_u16(), to_bytes(response.into_body(), 1 << 20).await.unwrap());
    (status, after, serde_json::from_slice(&body).unwrap_or_default())
}

#[tokio::test(start_paused = true)]
async fn too_many_requests_get_429_in_the_dialect_until_the_time_they_are_told() {
    let router = router("requests_per_second = 1, requests_burst = 2");
    let body = json!({ "model": "tiny", "input": "a" });
    for expected in [200, 200, 429] {
        assert_eq!(ask(&router, "a", "/v1/embeddings", body.clone()).await.0, expected);
    }
    let (_, after, refused) = ask(&router, "a", "/v1/embeddings", body.clone()).await;
    let error = &refused["error"];
    assert_eq!(
        (after, &error["type"], &error["code"]),
        (Some(1), &json!("rate_limit_error"), &json!("rate_limit_exceeded"))
    );
    let (status, after, refused) = ask(&router, "a", "/embed", json!({ "inputs": "a" })).await;
    assert_eq!((status, after, &refused["error_type"]), (429, Some(1), &json!("Overloaded")));
    // Neither others nor what is no work is kept waiting.
    assert_eq!(ask(&router, "b", "/v1/embeddings", body.clone()).await.0, 200);
    for path in ["/metrics", "/health", "/livez"] {
        assert_eq!(ask(&router, "a", path, Value::Null).await.0, 200, "{path}");
    }
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(ask(&router, "a", "/v1/embeddings", body.clone()).await.0, 200);
    assert_eq!(ask(&router, "a", "/v1/models", Value::Null).await.0, 429, "a request is a request");
}

#[tokio::test(start_paused = true)]
async fn a_request_with_more_tokens_than_the_burst_gets_in_and_is_paid_for() {
    let router = router("tokens_per_second = 10, tokens_burst = 20");
    let large = json!({ "model": "tiny", "input": vec!["a a a a a a a a"; 20] });
    let (status, _, answer) = ask(&router, "a", "/v1/embeddings", large).await;
    let tokens = answer["usage"]["total_tokens"].as_u64().unwrap();
    assert_eq!((status, tokens), (200, 200), "ten each");
    // 180 are owed, and one must be left: each at a tenth of a second.
    let small = json!({ "model": "tiny", "input": "a" });
    let (status, after, _) = ask(&router, "a", "/v1/embeddings", small.clone()).await;
    assert_eq!((status, after), (429, Some(19)));
    // Not through a side door either.
    assert_eq!(ask(&router, "a", "/tokenize", json!({ "inputs": "a" })).await.0, 429);
    assert_eq!(ask(&router, "b", "/v1/embeddings", small.clone()).await.0, 200);
    tokio::time::advance(Duration::from_secs(19)).await;
    assert_eq!(
        ask(&router, "a", "/tokenize", json!({ "inputs": "a a a a a a a a a a a a a a" })).await.0,
        200
    );
    assert_eq!(ask(&router, "a", "/v1/embeddings", small.clone()).await.0, 429, "tokens are tokens");
}
