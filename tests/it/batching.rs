//! What the batcher promises, seen from outside.

use reqwest::header::HeaderMap;
use serde_json::json;
use sextant::config::Settings;

use crate::support::app::{Answer, TestApp, settings, until};

/// Asks for the vector of `input` with one more header.
async fn ask(app: &TestApp, input: &str, header: (&'static str, &str)) -> Answer {
    let headers = HeaderMap::from_iter([(header.0.parse().unwrap(), header.1.parse().unwrap())]);
    let body = serde_json::to_vec(&json!({ "model": "tiny", "input": input })).unwrap();
    app.send("POST", "/v1/embeddings", headers, body).await
}

#[tokio::test]
async fn a_deadline_that_passes_is_told_and_its_work_is_not_done() {
    let (app, fake) = TestApp::fake().await;
    fake.hold();
    let held = tokio::spawn({
        let client = crate::support::app::client();
        let url = app.url("/embed");
        async move { client.post(url).body(r#"{"inputs": "a"}"#).send().await.unwrap().status() }
    });
    until("one batch runs", async || fake.waiting() == 1).await;
    let late = ask(&app, "b c d", ("x-request-timeout-ms", "50")).await;
    assert_eq!((late.status, late.json()["error"]["code"].as_str()), (504, Some("deadline_exceeded")));
    fake.release();
    assert_eq!(held.await.unwrap(), 200);
    until("the queue is empty", async || app.metric("sextant_queue_items", &["tiny"]).await == 0.0).await;
    assert_eq!(ask(&app, "d", ("x-request-timeout-ms", "5000")).await.status, 200);
    assert_eq!(fake.rows(), 2, "the late one was not run");
    for wrong in ["0", "-1", "soon", "1.5"] {
        let refused = ask(&app, "a", ("x-request-timeout-ms", wrong)).await;
        assert_eq!(refused.status, 400, "{wrong}");
        assert_eq!(refused.json()["error"]["param"], "x-request-timeout-ms");
    }
}

#[tokio::test]
async fn equal_inputs_in_flight_are_computed_once() {
    let (app, fake) = TestApp::fake().await;
    fake.hold();
    let same = || ask(&app, "a cab", ("x-sextant-class", "interactive"));
    let released = async {
        until("the others have joined the first", async || {
            app.metric("sextant_coalesced_inputs_total", &["tiny"]).await == 3.0
        })
        .await;
        fake.release();
    };
    let (a, b, c, d, ()) = tokio::join!(same(), same(), same(), same(), released);
    for answer in [&a, &b, &c, &d] {
        assert_eq!(answer.status, 200);
        assert_eq!(answer.json()["data"], a.json()["data"]);
    }
    assert_eq!(fake.rows(), 1);
    // Within one request too.
    let body = json!({ "model": "tiny", "input": ["x y", "x y", "z", "x y"] });
    let answer = app.post("/v1/embeddings", body).await.json();
    assert_eq!(answer["data"][0]["embedding"], answer["data"][3]["embedding"]);
    assert_eq!(fake.rows(), 3);
}

#[tokio::test]
async fn the_cache_gives_what_the_engine_gave() {
    let caching = Settings { cache_bytes: Some(1 << 20), ..settings() };
    let (app, fake) = TestApp::fake_with(&caching, |manifest| manifest.matryoshka_dimensions = vec![3]).await;
    let ask = async |input: serde_json::Value| {
        let body = json!({ "model": "tiny", "input": input, "dimensions": 3 });
        app.post("/v1/embeddings", body).await.json()["data"].clone()
    };
    let first = ask(json!(["a", "b"])).await;
    let mixed = ask(json!(["c", "b", "d", "a"])).await;
    assert_eq!((fake.rows(), &mixed[1]["embedding"]), (4, &first[1]["embedding"]));
    assert_eq!(mixed[3]["embedding"], first[0]["embedding"]);
    assert_ne!(mixed[0]["embedding"], mixed[2]["embedding"]);
    assert_eq!(app.metric("sextant_cache_hits_total", &["tiny"]).await, 2.0);
    assert_eq!(app.metric("sextant_cache_misses_total", &["tiny"]).await, 4.0);
}

#[tokio::test]
async fn a_bad_input_fails_alone() {
    let (app, fake) = TestApp::fake().await;
    let tokens = app.post("/tokenize", json!({ "inputs": "q", "add_special_tokens": false })).await.json();
    fake.poison(tokens[0][0]["id"].as_u64().unwrap() as u32);
    fake.hold();
    let queued = async || app.metric("sextant_queue_items", &["tiny"]).await;
    let others = async {
        until("the first runs", async || fake.waiting() == 1).await;
        let released = async {
            until("the others wait beside each other", async || queued().await == 2.0).await;
            fake.release();
        };
        let bulk = ("x-sextant-class", "bulk");
        tokio::join!(ask(&app, "b c", bulk), ask(&app, "c q", bulk), released)
    };
    let first = ask(&app, "a b", ("x-sextant-class", "bulk"));
    let (first, (second, bad, ())) = tokio::join!(first, others);
    assert_eq!(app.metric("sextant_retried_batches_total", &["tiny"]).await, 1.0);
    assert_eq!((first.status, second.status), (200, 200));
    assert_eq!(bad.status, 500, "{}", bad.text());
    assert_eq!(app.metric("sextant_queue_tokens", &["tiny"]).await, 0.0);
}

#[tokio::test]
async fn interactive_requests_pass_bulk_ones() {
    let (app, fake) = TestApp::fake().await;
    fake.hold();
    let long = |word: &str| [word; 20].join(" ");
    let (bulk, other) = (long("a"), long("b"));
    let released = async {
        until("bulk runs and waits, and the short one has come", async || {
            fake.waiting() == 1 && app.metric("sextant_queue_items", &["tiny"]).await >= 2.0
        })
        .await;
        fake.release();
    };
    let later = async {
        until("the first runs", async || fake.waiting() == 1).await;
        let other = ask(&app, &other, ("x-sextant-class", "bulk"));
        let short = async {
            until("the second waits", async || app.metric("sextant_queue_items", &["tiny"]).await >= 1.0)
                .await;
            ask(&app, "c", ("x-sextant-class", "interactive")).await
        };
        tokio::join!(other, short)
    };
    let (first, (second, short), ()) =
        tokio::join!(ask(&app, &bulk, ("x-sextant-class", "bulk")), later, released);
    assert_eq!((first.status, second.status, short.status), (200, 200, 200));
    assert_eq!(fake.longest(), [22, 3, 22]);
    assert_eq!(ask(&app, "a", ("x-sextant-class", "soon")).await.status, 400);
}
