//! The command: its logs beside its traces, and the variables that OpenTelemetry has for everybody.

use std::fs::{self, File};
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::collector::{Collector, Manner, text};
use super::{CALLER, TRACE, request};
use crate::command::{Server, imported, path, sextant};
use crate::support::app::{client, until};

async fn embed(server: &Server, flags: &str) {
    let answer = client()
        .post(format!("http://{}/v1/embeddings", server.address))
        .header("traceparent", format!("00-{TRACE}-{CALLER}-{flags}"))
        .header("content-type", "application/json")
        .body(json!({ "model": "tiny", "input": "a" }).to_string());
    assert_eq!(answer.send().await.unwrap().status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_standard_variables_count_and_the_lines_of_a_request_have_its_trace() {
    let directory = imported();
    let collector = Collector::start(Manner::Takes).await;
    let logs = directory.path().join("logs");
    let mut command = sextant(&["serve", "--models", &path(&directory, "models"), "--drain-delay", "0s"]);
    command
        .args(["--log-format", "json", "--log", "sextant=debug"])
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url())
        .env("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=seven")
        .env("OTEL_SERVICE_NAME", "search")
        .env("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
        .env("OTEL_TRACES_SAMPLER", "parentbased_always_off");
    let server = Server::start_telling(command, Stdio::from(File::create(&logs).unwrap()));
    embed(&server, "01").await;
    embed(&server, "00").await;
    let untraced = client().get(format!("http://{}/v1/models", server.address));
    assert_eq!(untraced.send().await.unwrap().status(), 200);
    server.signal("TERM");
    assert_eq!(server.exit_code().await, Some(0));

    let spans = collector.spans();
    assert_eq!(text(&request(&spans).0.attributes, "http.route"), Some("/v1/embeddings"));
    assert_eq!(collector.headers()[0]["x-tenant"], "seven");
    assert_eq!(collector.resource("service.name").as_deref(), Some("search"));
    assert_eq!(collector.resource("deployment.environment.name").as_deref(), Some("test"));
    let logs = fs::read_to_string(&logs).unwrap();
    let lines = logs.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let answered: Vec<Value> = lines.filter(|line| line["message"] == "answered").collect();
    // Whether it is exported or not: the caller has the trace.
    let traces: Vec<&Value> = answered.iter().map(|line| &line["span"]["trace_id"]).collect();
    assert_eq!(traces, [&json!(TRACE), &json!(TRACE), &Value::Null], "{logs}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_refuses_is_one_warning() {
    let directory = imported();
    let collector = Collector::start(Manner::Refuses).await;
    let logs = directory.path().join("logs");
    let mut command = sextant(&["serve", "--models", &path(&directory, "models"), "--drain-delay", "0s"]);
    command.args(["--otlp-endpoint", &collector.url()]);
    let server = Server::start_telling(command, Stdio::from(File::create(&logs).unwrap()));
    for asked in 1..4 {
        embed(&server, "01").await;
        until("the batch is refused", async || collector.headers().len() == asked).await;
    }
    server.signal("TERM");
    assert_eq!(server.exit_code().await, Some(0));
    let logs = fs::read_to_string(&logs).unwrap();
    let warnings: Vec<&str> = logs.lines().filter(|line| line.contains(" WARN ")).collect();
    assert_eq!(warnings.len(), 1, "{logs}");
    assert!(
        warnings[0].contains("the collector does not take spans") && warnings[0].contains("400"),
        "{logs}"
    );
    assert!(warnings[0].len() < 1000, "not the whole answer: {logs}");
}

/// Of many reasons why there is no answer the operator needs the one.
#[tokio::test(flavor = "multi_thread")]
async fn why_a_collector_cannot_be_reached_is_said() {
    let directory = imported();
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let logs = directory.path().join("logs");
    let mut command = sextant(&["serve", "--models", &path(&directory, "models"), "--drain-delay", "0s"]);
    command.args(["--otlp-endpoint", &format!("http://{closed}")]);
    let server = Server::start_telling(command, Stdio::from(File::create(&logs).unwrap()));
    embed(&server, "01").await;
    let warned = || fs::read_to_string(&logs).unwrap().contains("the collector does not take spans");
    until("it is said", async || warned()).await;
    server.signal("TERM");
    assert_eq!(server.exit_code().await, Some(0));
    let logs = fs::read_to_string(&logs).unwrap();
    assert!(logs.contains("Connection refused"), "{logs}");
}
