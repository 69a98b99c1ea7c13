//! The stages of requests that do not go the usual way.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::trace::v1::{Span, status::StatusCode};
use serde_json::json;
use sextant::config::Settings;

use super::collector::{Collector, Manner, number, text};
use super::{narrow, request, traced};
use crate::support::app::{TestApp, client, until};

fn names(stages: &[&Span]) -> Vec<String> {
    stages.iter().map(|stage| stage.name.clone()).collect()
}

fn time(nanoseconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(nanoseconds)
}

#[tokio::test]
async fn a_caller_that_hangs_up_leaves_how_far_its_request_came() {
    let collector = Collector::start(Manner::Takes).await;
    let (app, fake) = TestApp::fake_with(&traced(&collector.url(), "http", None), narrow).await;
    fake.hold();
    let asked = client().post(app.url("/v1/embeddings")).header("content-type", "application/json");
    let asked = tokio::spawn(asked.body(r#"{"model": "tiny", "input": "a"}"#).send());
    until("its batch is held", async || fake.waiting() == 1).await;
    asked.abort();
    collector.wait().await;
    fake.release();
    assert!(app.stop().await);

    let spans = collector.spans();
    let (span, stages) = request(&spans);
    assert_eq!(span.status.as_ref().unwrap().code, StatusCode::Error as i32);
    assert_eq!(text(&span.attributes, "error.type"), Some("cancelled"));
    assert_eq!(number(&span.attributes, "http.response.status_code"), None);
    assert_eq!(text(&span.attributes, "gen_ai.request.model"), Some("tiny"));
    assert_eq!(names(&stages), ["tokenize"]);
}

#[tokio::test]
async fn of_several_batches_the_first_ends_the_wait_and_the_last_the_run() {
    let collector = Collector::start(Manner::Takes).await;
    let (app, fake) = TestApp::fake_with(&traced(&collector.url(), "http", None), narrow).await;
    fake.hold();
    // 64 different rows of 8 tokens are two batches at least.
    let row =
        |number: usize| (0..6).map(move |bit| if number >> bit & 1 == 0 { "a " } else { "b " }).collect();
    let inputs: Vec<String> = (0..64).map(row).collect();
    let asked = client().post(app.url("/v1/embeddings")).header("content-type", "application/json");
    let asked = tokio::spawn(asked.body(json!({ "model": "tiny", "input": inputs }).to_string()).send());
    until("its first batch is held", async || fake.waiting() == 1).await;
    let held = SystemTime::now();
    fake.release();
    assert_eq!(asked.await.unwrap().unwrap().status(), 200);
    assert!(app.stop().await);

    let spans = collector.spans();
    let (_, stages) = request(&spans);
    assert_eq!(names(&stages), ["tokenize", "queue", "infer", "finish"]);
    let (queue, infer) = (stages[1], stages[2]);
    let batches = fake.longest().len();
    assert!(batches > 1);
    assert_eq!(number(&infer.attributes, "sextant.batches"), i64::try_from(batches).ok());
    assert_eq!(number(&infer.attributes, "sextant.batch.rows"), None);
    assert_eq!(number(&infer.attributes, "sextant.batch.tokens"), None);
    assert_eq!(queue.end_time_unix_nano, infer.start_time_unix_nano);
    assert!(time(infer.start_time_unix_nano) <= held, "the first batch ran while it was held");
    assert!(time(infer.end_time_unix_nano) >= held);
}

#[tokio::test]
async fn what_comes_from_the_cache_neither_waits_nor_runs() {
    let collector = Collector::start(Manner::Takes).await;
    let settings = Settings { cache_bytes: Some(1 << 20), ..traced(&collector.url(), "http", None) };
    let (app, _) = TestApp::fake_with(&settings, narrow).await;
    for _ in 0..2 {
        assert_eq!(app.post("/v1/embeddings", json!({ "model": "tiny", "input": "a" })).await.status, 200);
    }
    assert!(app.stop().await);
    let spans = collector.spans();
    let (first, second) = spans.split_at(5);
    assert_eq!(names(&request(first).1), ["tokenize", "queue", "infer", "finish"]);
    assert_eq!(names(&request(second).1), ["tokenize", "finish"]);
}
