//! Collectors that fail, and stops that do not wait.

use std::time::Duration;

use sextant::config::Settings;
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::collector::{Collector, Manner};
use super::{embed, hex, narrow, traced};
use crate::support::app::{TestApp, client, until};

/// A request and its four stages.
const SPANS: f64 = 5.0;

/// The exporter waits for so long, and nobody else may.
const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_collector_in_trouble_disturbs_no_request_and_what_it_misses_is_counted() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for protocol in ["http", "grpc"] {
        for manner in [None, Some(Manner::Refuses), Some(Manner::Babbles)] {
            let collector = Collector::start(manner.unwrap_or(Manner::Takes)).await;
            let url = manner.map_or_else(|| format!("http://{closed}"), |_| collector.url());
            let (app, _) = TestApp::fake_with(&traced(&url, protocol, Some(1.0)), narrow).await;
            assert_eq!(embed(&app, &[]).await.status, 200);
            let dropped = || app.metric("sextant_trace_spans_dropped_total", &["export_failed"]);
            until("the spans are counted", async || dropped().await == SPANS).await;
            collector.manner(Manner::Takes);
            let answer = embed(&app, &[]).await;
            assert_eq!(answer.status, 200, "{protocol} {manner:?}");
            assert_eq!(app.metric("sextant_trace_spans_dropped_total", &["queue_full"]).await, 0.0);
            assert!(app.stop().await, "{protocol} {manner:?}");
            let trace = &answer.header("traceresponse")[3..35];
            let taken = collector.spans().iter().filter(|span| hex(&span.trace_id) == trace).count();
            let expected = if manner.is_some() { SPANS as usize } else { 0 };
            assert_eq!(taken, expected, "{protocol} {manner:?}: it is well again");
        }
    }
}

#[tokio::test]
async fn spans_that_a_collector_does_not_keep_are_counted() {
    let collector = Collector::start(Manner::Rejects).await;
    let (app, _) = TestApp::fake_with(&traced(&collector.url(), "http", None), narrow).await;
    assert_eq!(embed(&app, &[]).await.status, 200);
    let dropped = || app.metric("sextant_trace_spans_dropped_total", &["export_failed"]);
    until("they are counted", async || dropped().await == 3.0).await;
    assert!(app.stop().await);
}

#[tokio::test]
async fn a_collector_that_hangs_holds_up_neither_requests_nor_the_stop() {
    for protocol in ["http", "grpc"] {
        let collector = Collector::start(Manner::Hangs).await;
        let hasty =
            Settings { drain_timeout: Some("500ms".into()), ..traced(&collector.url(), protocol, Some(1.0)) };
        let (app, _) = TestApp::fake_with(&hasty, narrow).await;
        assert_eq!(embed(&app, &[]).await.status, 200);
        collector.wait().await;
        // The exporter waits for its answer from now on.
        let held_up = async {
            assert_eq!(embed(&app, &[]).await.status, 200);
            assert!(app.stop().await, "every request was answered");
        };
        timeout(PATIENCE / 2, held_up).await.unwrap();
    }
}

/// Those of requests that were answered: one that was not takes the whole of the drain timeout.
#[tokio::test]
async fn a_drain_that_runs_out_loses_no_spans() {
    let collector = Collector::start(Manner::Takes).await;
    let hasty =
        Settings { drain_timeout: Some("10ms".into()), ..traced(&collector.url(), "http", Some(1.0)) };
    let (app, fake) = TestApp::fake_with(&hasty, narrow).await;
    let answer = embed(&app, &[]).await;
    fake.hold();
    let hanging = client().post(app.url("/embed")).header("content-type", "application/json");
    let hanging = tokio::spawn(hanging.body(r#"{"inputs": "b"}"#).send());
    until("its batch is held", async || fake.waiting() == 1).await;
    assert!(!app.stop().await);
    hanging.abort();
    let trace = &answer.header("traceresponse")[3..35];
    let taken = collector.spans().iter().filter(|span| hex(&span.trace_id) == trace).count();
    assert_eq!(taken, SPANS as usize);
}
