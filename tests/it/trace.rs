//! Traces as a collector gets them.

mod collector;
mod logs;
mod stages;
mod trouble;

use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind, status::StatusCode};
use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::json;
use sextant::config::Settings;
use sextant::repository::manifest::Manifest;

use crate::support::app::{Answer, TestApp, client, settings};
use crate::support::certificates::Authority;
use crate::tls::{tls, trusting};
use collector::{Collector, Manner, number, text};

/// In every text, user and key that a test sends: it must be in no byte that a collector gets.
const MARKER: &str = "zyxsecretxyz";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

fn traced(url: &str, protocol: &str, sample: Option<f64>) -> Settings {
    Settings {
        otlp_endpoint: Some(url.to_owned()),
        otlp_protocol: Some(protocol.to_owned()),
        trace_sample: sample,
        ..settings()
    }
}

/// As the requests ask for it.
fn narrow(manifest: &mut Manifest) {
    manifest.matryoshka_dimensions = vec![4];
}

fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    lines.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
}

async fn embed(app: &TestApp, lines: &[(&'static str, &str)]) -> Answer {
    let body = json!({ "model": "tiny", "input": [format!("{MARKER} a"), format!("{MARKER} b")], "user": MARKER, "dimensions": 4 });
    app.send("POST", "/v1/embeddings", headers(lines), body.to_string().into_bytes()).await
}

fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The span of the one request, and the others.
fn request(spans: &[Span]) -> (&Span, Vec<&Span>) {
    let (requests, stages): (Vec<_>, Vec<_>) =
        spans.iter().partition(|span| span.kind == SpanKind::Server as i32);
    assert_eq!(requests.len(), 1, "{spans:#?}");
    (requests[0], stages)
}

#[tokio::test]
async fn a_request_is_a_span_below_its_callers_with_one_for_each_stage() {
    for protocol in ["http", "grpc"] {
        let collector = Collector::start(Manner::Takes).await;
        let settings = traced(&collector.url(), protocol, Some(0.0));
        let (app, _) = TestApp::fake_with(&settings, narrow).await;
        let authority = app.address.to_string();
        let answer = embed(
            &app,
            &[
                ("traceparent", &format!("00-{TRACE}-{CALLER}-01")),
                ("tracestate", "vendor=1"),
                ("x-request-id", "r-1"),
                ("authorization", &format!("Bearer {MARKER}")),
            ],
        )
        .await;
        assert_eq!(answer.status, 200);
        // What was made is sent at the stop.
        assert!(app.stop().await);

        let spans = collector.spans();
        let (span, stages) = request(&spans);
        assert_eq!((hex(&span.trace_id), hex(&span.parent_span_id)), (TRACE.into(), CALLER.into()));
        assert_eq!((span.name.as_str(), span.trace_state.as_str()), ("POST /v1/embeddings", "vendor=1"));
        assert_eq!(answer.header("traceresponse"), format!("00-{TRACE}-{}-01", hex(&span.span_id)));
        assert_eq!(span.status.as_ref().map_or(0, |status| status.code), StatusCode::Unset as i32);
        for (name, expected) in [
            ("http.request.method", "POST"),
            ("http.route", "/v1/embeddings"),
            ("url.scheme", "http"),
            ("network.protocol.version", "1.1"),
            ("server.address", "127.0.0.1"),
            ("gen_ai.operation.name", "embeddings"),
            ("gen_ai.request.model", "tiny"),
            ("gen_ai.response.model", "tiny@1"),
            ("sextant.model", "tiny"),
            ("sextant.space", "0123456789abcdef"),
            ("sextant.request_id", "r-1"),
        ] {
            assert_eq!(text(&span.attributes, name), Some(expected), "{name}");
        }
        let port = authority.rsplit(':').next().unwrap().parse().unwrap();
        let tokens = answer.json()["usage"]["prompt_tokens"].as_i64().unwrap();
        for (name, expected) in [
            ("http.response.status_code", 200),
            ("server.port", port),
            ("sextant.version", 1),
            ("sextant.inputs", 2),
            ("sextant.truncated", 0),
            ("gen_ai.usage.input_tokens", tokens),
            ("gen_ai.embeddings.dimension.count", 4),
        ] {
            assert_eq!(number(&span.attributes, name), Some(expected), "{name}");
        }

        let names: Vec<&str> = stages.iter().map(|stage| stage.name.as_str()).collect();
        assert_eq!(names, ["tokenize", "queue", "infer", "finish"]);
        for stage in &stages {
            assert_eq!((&stage.trace_id, &stage.parent_span_id), (&span.trace_id, &span.span_id));
            assert!(span.start_time_unix_nano <= stage.start_time_unix_nano, "{stage:?}");
            assert!(stage.start_time_unix_nano <= stage.end_time_unix_nano, "{stage:?}");
            assert!(stage.end_time_unix_nano <= span.end_time_unix_nano, "{stage:?}");
        }
        assert_eq!(
            stages[1].end_time_unix_nano, stages[2].start_time_unix_nano,
            "it runs when it has waited"
        );
        let infer = &stages[2].attributes;
        assert_eq!(number(infer, "sextant.batch.rows"), Some(2));
        assert_eq!(number(infer, "sextant.batch.tokens"), Some(tokens));
        assert_eq!(number(infer, "sextant.batches"), Some(1));

        assert_eq!(collector.resource("service.version").as_deref(), Some(env!("CARGO_PKG_VERSION")));
        assert_eq!(collector.resource("service.instance.id").unwrap().len(), 32);
        let bytes = String::from_utf8_lossy(&collector.bytes()).into_owned();
        assert!(bytes.contains("POST /v1/embeddings") && !bytes.contains(MARKER), "{bytes}");
    }
}

#[tokio::test]
async fn the_caller_decides_what_is_traced_and_without_one_the_share() {
    let parent = format!("00-{TRACE}-{CALLER}");
    let (sampled, unsampled) = (format!("{parent}-01"), format!("{parent}-00"));
    for (share, traceparent, is_traced) in [
        (0.0, None, false),
        (0.0, Some(sampled.as_str()), true),
        (1.0, None, true),
        (1.0, Some(unsampled.as_str()), false),
        (1.0, Some("00-garbage"), true),
        (0.0, Some("00-garbage"), false),
    ] {
        let collector = Collector::start(Manner::Takes).await;
        let (app, _) = TestApp::fake_with(&traced(&collector.url(), "http", Some(share)), narrow).await;
        let lines: Vec<_> = traceparent.map(|value| ("traceparent", value)).into_iter().collect();
        let answer = embed(&app, &lines).await;
        assert_eq!(answer.status, 200, "{traceparent:?}");
        assert_eq!(answer.headers.contains_key("traceresponse"), is_traced, "{share} {traceparent:?}");
        // Probes and scrapes are nobody's trace.
        assert_eq!(app.get("/readyz").await.status, 200);
        assert_eq!(client().head(app.url("/readyz")).send().await.unwrap().status(), 200);
        assert_eq!(
            client().request(Method::OPTIONS, app.url("/v1/embeddings")).send().await.unwrap().status(),
            405
        );
        assert!(app.stop().await);
        let spans = collector.spans();
        if !is_traced {
            assert_eq!(spans, [], "{share} {traceparent:?}");
            continue;
        }
        let (span, _) = request(&spans);
        let is_child = traceparent == Some(&*sampled);
        assert_eq!(hex(&span.trace_id) == TRACE, is_child, "{share} {traceparent:?}");
        assert_eq!(span.parent_span_id.is_empty(), !is_child, "{share} {traceparent:?}");
    }
}

#[tokio::test]
async fn what_a_client_chooses_is_bounded() {
    let collector = Collector::start(Manner::Takes).await;
    let (app, _) = TestApp::fake_with(&traced(&collector.url(), "http", None), narrow).await;
    let asked = client().request("BREW".parse().unwrap(), app.url("/v1/embeddings"));
    let asked = asked.header("host", format!("{MARKER}{}:80", "a".repeat(256)));
    let asked = asked.header("traceparent", format!("00-{TRACE}-{CALLER}-01"));
    assert_eq!(asked.send().await.unwrap().status(), 405);
    assert!(app.stop().await);
    let spans = collector.spans();
    let span = request(&spans).0;
    assert_eq!(span.name, "HTTP /v1/embeddings");
    assert_eq!(text(&span.attributes, "http.request.method"), Some("_OTHER"));
    assert_eq!(text(&span.attributes, "server.address"), None);
    assert_eq!(number(&span.attributes, "server.port"), None);
    assert!(!String::from_utf8_lossy(&collector.bytes()).contains(MARKER));
}

#[tokio::test]
async fn a_request_over_tls_says_so() {
    let (directory, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let files = authority.server(2080).write(directory.path(), "server");
    let collector = Collector::start(Manner::Takes).await;
    let settings = Settings { tls: tls(&files), ..traced(&collector.url(), "http", None) };
    let (app, _) = TestApp::fake_with(&settings, narrow).await;
    let asked = trusting(&authority, None).post(format!("https://{}/embed", app.address));
    let asked = asked.header("content-type", "application/json").body(r#"{"inputs": "a"}"#);
    assert_eq!(asked.send().await.unwrap().status(), 200);
    assert!(app.stop().await);
    let spans = collector.spans();
    assert_eq!(text(&request(&spans).0.attributes, "url.scheme"), Some("https"));
}

/// A request that fails shows how far it came, and what it asked for only if that is a name of ours.
#[tokio::test]
async fn refusals_and_failures_are_told_apart() {
    let collector = Collector::start(Manner::Takes).await;
    let (app, fake) = TestApp::fake_with(&traced(&collector.url(), "http", None), narrow).await;
    let post = async |path: &str, body| app.post(path, body).await.status;
    assert_eq!(post("/v1/embeddings", json!({ "model": MARKER, "input": MARKER })).await, 404);
    assert_eq!(post(&format!("/{MARKER}?{MARKER}"), json!({})).await, 404);
    fake.fail(true);
    assert_eq!(post("/v1/embeddings", json!({ "model": "tiny@1", "input": MARKER })).await, 500);
    assert_eq!(post("/embed", json!({ "inputs": MARKER })).await, 424);
    assert!(app.stop().await);

    let spans = collector.spans();
    let of = |status: i64, route: Option<&str>| {
        let is_it = |span: &&Span| {
            number(&span.attributes, "http.response.status_code") == Some(status)
                && text(&span.attributes, "http.route") == route
        };
        spans.iter().find(is_it).unwrap()
    };
    let stages = |span: &Span| {
        let below = spans.iter().filter(|stage| stage.parent_span_id == span.span_id);
        below.map(|stage| stage.name.clone()).collect::<Vec<_>>()
    };
    let is_error =
        |span: &Span| span.status.as_ref().is_some_and(|status| status.code == StatusCode::Error as i32);
    let unknown = of(404, Some("/v1/embeddings"));
    assert!(!is_error(unknown) && stages(unknown).is_empty());
    assert_eq!(text(&unknown.attributes, "gen_ai.request.model"), None);
    assert_eq!(of(404, None).name, "POST");
    for (status, route) in [(500, "/v1/embeddings"), (424, "/embed")] {
        let failed = of(status, Some(route));
        assert!(is_error(failed));
        assert_eq!(text(&failed.attributes, "error.type"), Some(&*status.to_string()));
        assert_eq!(stages(failed), ["tokenize"]);
    }
    assert_eq!(text(&of(500, Some("/v1/embeddings")).attributes, "gen_ai.request.model"), Some("tiny@1"));
    assert!(!String::from_utf8_lossy(&collector.bytes()).contains(MARKER));
}

#[tokio::test]
async fn without_a_collector_nothing_is_traced() {
    let (app, _) = TestApp::fake_with(&settings(), narrow).await;
    let answer = embed(&app, &[("traceparent", &format!("00-{TRACE}-{CALLER}-01"))]).await;
    assert_eq!((answer.status, answer.headers.contains_key("traceresponse")), (200, false));
    for reason in ["queue_full", "export_failed"] {
        assert_eq!(app.metric("sextant_trace_spans_dropped_total", &[reason]).await, 0.0);
    }
}
