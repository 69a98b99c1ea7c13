//! Callers that leave, and servers that stop.

use std::time::Duration;

use serde_json::json;
use sextant::config::Settings;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::command::{failure, sextant};
use crate::support::app::{TestApp, client, settings, until};
use crate::support::load::Load;

const BODY: &str = r#"{"model": "tiny", "input": "a b c"}"#;

fn request(body: &str) -> String {
    format!(
        "POST /v1/embeddings HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test]
async fn two_hundred_clients_that_hang_up_leave_no_work_behind() {
    let (app, fake) = TestApp::fake().await;
    fake.hold();
    let mut clients = Vec::new();
    for index in 0..200 {
        let mut stream = TcpStream::connect(app.address).await.unwrap();
        let body = json!({ "model": "tiny", "input": format!("a {index}") }).to_string();
        stream.write_all(request(&body).as_bytes()).await.unwrap();
        clients.push(stream);
    }
    let queued = async || app.metric("sextant_queue_items", &["tiny"]).await;
    until("all are queued but the batch that runs", async || fake.waiting() == 1 && queued().await >= 100.0)
        .await;
    drop(clients);
    // The queue is swept when a batch is chosen, and until the held one is through none is. Only this test's own connection is left.
    let connections = async || app.metric("sextant_connections", &["public"]).await;
    until("the server has seen that they are gone", async || connections().await == 1.0).await;
    fake.release();
    until("the queue is empty", async || queued().await == 0.0 && fake.waiting() == 0).await;
    let after = fake.rows();
    assert!(after <= 100, "{after} rows were computed: one batch was running, nobody waited for the others");
    let answer = app.post("/v1/embeddings", json!({ "model": "tiny", "input": "a" })).await;
    assert_eq!(answer.status, 200);
    assert_eq!(fake.rows(), after + 1);
    assert_eq!(app.metric("sextant_queue_tokens", &["tiny"]).await, 0.0);
}

#[tokio::test]
async fn half_a_request_is_no_work() {
    let (app, fake) = TestApp::fake().await;
    let mut stream = TcpStream::connect(app.address).await.unwrap();
    let text = request(BODY);
    stream.write_all(&text.as_bytes()[..text.len() - 5]).await.unwrap();
    drop(stream);
    assert_eq!(app.post("/v1/embeddings", json!({ "model": "tiny", "input": "a" })).await.status, 200);
    assert_eq!(fake.rows(), 1);
}

#[tokio::test]
async fn a_stop_under_load_loses_no_request() {
    let stopping = Settings { drain_delay: Some("200ms".into()), ..settings() };
    let (app, _) = TestApp::fake_with(&stopping, |_| ()).await;
    let body = |index| json!({ "model": "tiny", "input": format!("a b {index}") });
    let load = Load::start(&app.url("/v1/embeddings"), 32, body);
    until("requests flow", async || load.answered() > 200).await;
    load.expect_a_stop();
    assert!(app.stop().await, "every request was answered in time");
    load.all_answered().await;
}

#[tokio::test]
async fn a_stopping_server_is_unready_and_still_answers() {
    let stopping = Settings { drain_delay: Some("10s".into()), ..settings() };
    let (app, fake) = TestApp::fake_with(&stopping, |_| ()).await;
    assert_eq!(app.get("/readyz").await.json()["models"], json!(["tiny@1"]));
    assert_eq!(app.get("/health").await.status, 200);
    fake.hold();
    let url = app.url("");
    let in_flight = tokio::spawn({
        let url = format!("{url}/v1/embeddings");
        async move {
            let request = client().post(url).header("content-type", "application/json").body(BODY);
            request.send().await.unwrap().status()
        }
    });
    until("it runs", async || fake.waiting() == 1).await;
    let stopped = tokio::spawn(app.stop());
    let status =
        async |path: &str| client().get(format!("{url}{path}")).send().await.unwrap().status().as_u16();
    until("it is unready", async || status("/readyz").await == 503).await;
    assert_eq!(status("/health").await, 503);
    assert_eq!(status("/v1/models").await, 200);
    fake.release();
    assert_eq!(in_flight.await.unwrap(), 200);
    stopped.abort();
}

#[tokio::test]
async fn a_request_that_outlasts_the_drain_timeout_is_told_by_the_result() {
    let hasty = Settings { drain_timeout: Some("50ms".into()), ..settings() };
    let (app, fake) = TestApp::fake_with(&hasty, |_| ()).await;
    fake.hold();
    let mut stream = TcpStream::connect(app.address).await.unwrap();
    stream.write_all(request(BODY).as_bytes()).await.unwrap();
    until("it runs", async || fake.waiting() == 1).await;
    assert!(!app.stop().await);
}

#[tokio::test]
async fn a_connection_that_is_only_half_way_in_is_answered() {
    let (app, fake) = TestApp::fake().await;
    fake.hold();
    // Sent at the very moment of the stop: the kernel has accepted it, the server has not read it.
    let mut stream = TcpStream::connect(app.address).await.unwrap();
    stream.write_all(request(BODY).as_bytes()).await.unwrap();
    let stopped = tokio::spawn(app.stop());
    tokio::time::sleep(Duration::from_millis(20)).await;
    fake.release();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    assert!(stopped.await.unwrap());
}

#[tokio::test]
async fn livez_fails_when_the_engine_does_not_answer_and_not_when_it_is_idle() {
    let hasty = Settings { liveness_deadline: Some("2s".into()), ..settings() };
    let (app, fake) = TestApp::fake_with(&hasty, |_| ()).await;
    assert_eq!(app.get("/livez").await.status, 200);
    fake.hold();
    until("the held engine is noticed", async || app.get("/livez").await.status == 503).await;
    assert!(app.get("/livez").await.text().contains("tiny@1"));
    fake.release();
    until("it is alive again", async || app.get("/livez").await.status == 200).await;
    fake.fail(true);
    until("an engine that fails is not alive", async || app.get("/livez").await.status == 503).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_for_containers_asks_the_server_that_its_settings_start() {
    let apart = Settings {
        admin_listen: Some("127.0.0.1:0".into()),
        liveness_deadline: Some("2s".into()),
        ..settings()
    };
    let (app, fake) = TestApp::fake_with(&apart, |_| ()).await;
    let (data, admin) = (app.address.to_string(), app.admin.unwrap());
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, format!("listen = '{data}'\nadmin_listen = '0.0.0.0:{}'\n", admin.port())).unwrap();
    let health = async |listen: Option<&str>| {
        let mut command = sextant(&["health"]);
        match listen {
            Some(address) => command.env("SEXTANT_LISTEN", address),
            None => command.env("SEXTANT_CONFIG", file.path()),
        };
        // What lies outside is asked through a proxy, this machine never.
        command.env("http_proxy", "http://127.0.0.1:9");
        tokio::task::spawn_blocking(move || failure(&mut command)).await.unwrap()
    };
    assert_eq!(health(None).await, (0, String::new()));
    let (code, text) = health(Some(&data)).await;
    assert!(code == 1 && text.contains("(404 Not Found)"), "{text}");
    let (code, text) = health(Some("127.0.0.1:9")).await;
    assert!(
        code == 1 && text.contains("http://127.0.0.1:9/livez does not answer: Connection refused"),
        "{text}"
    );
    let (code, text) = health(Some("8080")).await;
    assert!(code == 2 && text.contains("`listen` is `8080`"), "{text}");
    fake.hold();
    until("the held engine is noticed", async || health(None).await.0 == 1).await;
    let (_, text) = health(None).await;
    assert!(text.contains("no answer within 2s from: tiny@1"), "{text}");
    fake.release();
}

#[tokio::test]
async fn many_probes_cost_one_inference() {
    let (app, fake) = TestApp::fake().await;
    let probes = (0..50).map(|_| app.get("/livez"));
    let statuses: Vec<u16> =
        futures_util::future::join_all(probes).await.into_iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [200; 50]);
    assert_eq!(fake.rows(), 1);
}

#[tokio::test]
async fn every_series_is_there_before_the_first_request() {
    let (app, _) = TestApp::fake().await;
    for (name, labels) in [
        ("sextant_http_requests_total", &["/v1/embeddings", "POST", "200"][..]),
        ("sextant_http_request_duration_seconds_count", &["/embed\""]),
        ("sextant_embeddings_total", &["tiny", "1"]),
        ("sextant_tokens_total", &["padding"]),
        ("sextant_stage_duration_seconds_count", &["infer"]),
        ("sextant_batch_rows_count", &["tiny"]),
        ("sextant_queue_tokens", &["tiny"]),
        ("sextant_rejected_total", &["overloaded"]),
        ("sextant_truncated_inputs_total", &["tiny"]),
        ("sextant_unknown_tokens_total", &["tiny"]),
    ] {
        assert_eq!(app.metric(name, labels).await, 0.0, "{name}");
    }
    assert_eq!(app.metric("sextant_version_info", &["0123456789abcdef", "fp32"]).await, 1.0);
    assert_eq!(app.metric("sextant_version_role", &["stable"]).await, 1.0);
    assert!(app.metric("process_resident_memory_bytes", &[]).await > 0.0);
    app.post("/v1/embeddings", json!({ "model": "tiny", "input": ["a", "b", "é"] })).await;
    assert_eq!(app.metric("sextant_embeddings_total", &["tiny"]).await, 3.0);
    app.get("/no/such/path").await;
    assert_eq!(app.metric("sextant_http_requests_total", &["unmatched", "404"]).await, 1.0);
}

#[tokio::test]
async fn with_a_listener_of_their_own_metrics_and_health_are_only_there() {
    let apart = Settings { admin_listen: Some("127.0.0.1:0".into()), ..settings() };
    let (app, _) = TestApp::fake_with(&apart, |_| ()).await;
    let admin = app.admin.unwrap();
    for (path, public, private) in [
        ("/metrics", 404, 200),
        ("/livez", 404, 200),
        ("/readyz", 404, 200),
        ("/health", 200, 404),
        ("/info", 200, 404),
    ] {
        let status = async |url: String| client().get(url).send().await.unwrap().status().as_u16();
        assert_eq!(status(app.url(path)).await, public, "{path}");
        assert_eq!(status(format!("http://{admin}{path}")).await, private, "{path}");
    }
    assert!(app.stop().await);
}
