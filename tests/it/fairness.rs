//! Callers beside each other: none can fill the queue or the room for answers, or go before the others.

use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use sextant::config::{ConnectionsSettings, Settings};

use crate::keys::{bearer, entry, key};
use crate::support::app::{Answer, TestApp, settings, until};

/// A server with the keys `greedy` and `honest`, and one for [`is_refused`].
fn two_keys() -> Settings {
    let keys = entry("greedy", &["embed"], "")
        + &entry("honest", &["embed"], "")
        + &entry("prometheus", &["metrics"], "");
    Settings { keys: Some(keys), ..settings() }
}

/// Whether a request was refused for this reason, by the metrics.
async fn is_refused(app: &TestApp, reason: &str) -> bool {
    let page = app.send("GET", "/metrics", bearer(&key("prometheus")), Vec::new()).await;
    page.text().lines().any(|line| {
        line.starts_with("sextant_rejected_total") && line.contains(reason) && !line.ends_with(" 0")
    })
}

async fn ask(app: &TestApp, who: &str, path: &str, body: &Value) -> Answer {
    app.send("POST", path, bearer(&key(who)), body.to_string().into_bytes()).await
}

/// A text of about four tokens that no other text equals.
fn text(number: usize) -> String {
    format!(
        "cat {}",
        "abcdefghijklmnopqrstuvwxyz"
            .chars()
            .cycle()
            .skip(number % 26)
            .take(1 + number / 26)
            .collect::<String>()
    )
}

#[tokio::test]
async fn equal_inputs_are_computed_once_and_answered_each() {
    let (app, fake) = TestApp::fake().await;
    let body = json!({ "model": "tiny", "input": vec!["a cat"; 500] });
    let answer = app.post("/v1/embeddings", body).await.json();
    assert_eq!(fake.rows(), 1);
    let data = answer["data"].as_array().unwrap();
    assert_eq!(data.len(), 500);
    assert!(data.iter().all(|entry| entry["embedding"] == data[0]["embedding"]));
    let one = app.post("/v1/embeddings", json!({ "model": "tiny", "input": "a cat" })).await.json();
    assert_eq!(one["data"][0]["embedding"], data[0]["embedding"]);
    assert_eq!(
        answer["usage"]["total_tokens"].as_u64().unwrap(),
        500 * one["usage"]["total_tokens"].as_u64().unwrap()
    );
}

#[tokio::test]
async fn a_caller_that_fills_the_queue_is_refused_and_another_is_not() {
    let narrow = Settings { max_queue_tokens: Some(200), ..two_keys() };
    let (app, fake) = TestApp::fake_with(&narrow, |_| ()).await;
    fake.hold();
    let many: Vec<_> = (0..100).map(|number| json!({ "model": "tiny", "input": text(number) })).collect();
    let greedy =
        futures_util::future::join_all(many.iter().map(|body| ask(&app, "greedy", "/v1/embeddings", body)));
    let honest = async {
        until("the greedy caller is refused", async || is_refused(&app, "overloaded").await).await;
        let body = json!({ "model": "tiny", "input": "the house" });
        let honest = ask(&app, "honest", "/v1/embeddings", &body);
        let release = async {
            until("the honest caller's row waits", async || fake.waiting() > 0).await;
            fake.release();
        };
        tokio::join!(honest, release).0
    };
    let (greedy, honest) = tokio::join!(greedy, honest);
    assert_eq!(honest.status, 200, "{}", honest.text());
    let refused: Vec<_> = greedy.iter().filter(|answer| answer.status == 429).collect();
    assert!(!refused.is_empty() && refused.len() < 100);
    assert!(refused.iter().all(|answer| answer.headers.contains_key("retry-after")));
}

#[tokio::test]
async fn an_answer_for_which_there_is_no_room_is_refused_before_it_is_computed() {
    let connections = ConnectionsSettings { max_held_bytes: Some(100_000), ..ConnectionsSettings::default() };
    let (app, fake) =
        TestApp::fake_with(&Settings { connections, max_body_bytes: Some(100_000), ..two_keys() }, |_| ())
            .await;
    fake.hold();
    // Of 8 numbers, 15 bytes each as they are written: 24 KB that are not free of charge.
    let texts = |from: usize| (from..from + 330).map(text).collect::<Vec<_>>();
    let body = |from| json!({ "model": "tiny", "input": texts(from) });
    let bodies: Vec<_> = (0..8).map(|part| body(330 * part)).collect();
    let greedy =
        futures_util::future::join_all(bodies.iter().map(|body| ask(&app, "greedy", "/v1/embeddings", body)));
    let honest = async {
        until("the greedy caller is refused", async || is_refused(&app, "held_bytes").await).await;
        let honest = body(0);
        let honest = ask(&app, "honest", "/v1/embeddings", &honest);
        let release = async {
            until("batches wait", async || fake.waiting() > 0).await;
            fake.release();
        };
        tokio::join!(honest, release).0
    };
    let (greedy, honest) = tokio::join!(greedy, honest);
    assert_eq!(honest.status, 200, "{}", honest.text());
    let refused: Vec<_> = greedy.iter().filter(|answer| answer.status == 429).collect();
    assert!(!refused.is_empty() && refused.len() < 8);
    assert!(refused.iter().all(|answer| answer.text().contains("max_held_bytes")), "{}", refused[0].text());
    // All is given back.
    let answers =
        futures_util::future::join_all((0..2).map(|_| ask(&app, "greedy", "/v1/embeddings", &bodies[0])))
            .await;
    assert!(answers.iter().all(|answer| answer.status == 200));
}

#[tokio::test]
async fn tokenizing_is_charged_before_it_is_done_and_when_the_request_fails() {
    let limits = "[keys.limits]\ntokens_per_second = 1\ntokens_burst = 1000";
    let keys = entry("slow", &["embed"], limits);
    let (app, _fake) = TestApp::fake_with(&Settings { keys: Some(keys), ..settings() }, |_| ()).await;
    let word = "x".repeat(200_000);
    // One token in the end.
    let embedded = ask(&app, "slow", "/v1/embeddings", &json!({ "model": "tiny", "input": word })).await;
    assert_eq!(embedded.status, 200, "{}", embedded.text());
    // Fails at its last input.
    let failing = json!({ "model": "tiny", "input": [word, "a ".repeat(2000)], "truncate": "error" });
    let failed =
        app.send("POST", "/v1/embeddings", bearer(&key("slow")), failing.to_string().into_bytes()).await;
    assert_eq!(failed.status, 400, "{}", failed.text());
    let tokenized = ask(&app, "slow", "/tokenize", &json!({ "model": "tiny", "inputs": word })).await;
    assert_eq!(tokenized.status, 429, "200,000 bytes are charged as 780 tokens: {}", tokenized.text());
}

#[tokio::test]
async fn an_address_is_a_caller_where_there_are_no_keys() {
    let narrow = Settings { max_queue_tokens: Some(100), ..settings() };
    let (app, fake) = TestApp::fake_with(&narrow, |_| ()).await;
    fake.hold();
    let many: Vec<_> = (0..60).map(|number| json!({ "model": "tiny", "input": text(number) })).collect();
    let all = futures_util::future::join_all(
        many.iter()
            .map(|body| app.send("POST", "/v1/embeddings", HeaderMap::new(), body.to_string().into_bytes())),
    );
    let release = async {
        until("one is refused", async || app.metric("sextant_rejected_total", &["overloaded"]).await > 0.0)
            .await;
        fake.release();
    };
    let (answers, ()) = tokio::join!(all, release);
    assert!(
        answers.iter().any(|answer| answer.status == 200)
            && answers.iter().any(|answer| answer.status == 429)
    );
}
