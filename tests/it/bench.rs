//! `sextant bench`: what it counts is what the server did.

mod session;

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;
use sextant::config::Settings;
use tokio::net::TcpListener;

use crate::support::app::{TestApp, settings, until};

/// Runs the command against `server`, with two texts, beside the test's own runtime.
async fn bench(server: &str, arguments: &str) -> Output {
    let directory = tempfile::tempdir().unwrap();
    let input = directory.path().join("texts.txt");
    std::fs::write(&input, "the red house\na cat sleeps\n").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_sextant"));
    command.args(["bench", "--server", server, "--input"]).arg(&input).args(arguments.split_whitespace());
    tokio::task::spawn_blocking(move || {
        let output = command.output().unwrap();
        drop(directory);
        output
    })
    .await
    .unwrap()
}

/// Its JSON; whatever happened, the numbers must add up.
fn figures(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let figures: Value = serde_json::from_slice(&output.stdout).unwrap();
    let requests = |name: &str| figures["requests"][name].as_u64().unwrap();
    let sum = |name: &str| -> u64 {
        figures[name].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum()
    };
    assert_eq!(
        requests("sent"),
        requests("answered") + requests("failed") + requests("abandoned"),
        "{figures}"
    );
    assert_eq!(requests("answered"), sum("statuses"), "{figures}");
    assert_eq!(requests("failed"), sum("failures"), "{figures}");
    let refused = figures["statuses"].get("429").map_or(0, |count| count.as_u64().unwrap());
    assert_eq!(figures["overloaded"]["answers"], refused);
    assert_eq!(figures["interrupted"], false);
    figures
}

fn number(figures: &Value, pointer: &str) -> f64 {
    figures.pointer(pointer).and_then(Value::as_f64).unwrap_or_else(|| panic!("no {pointer} in {figures}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_loop_sends_as_many_requests_as_it_says() {
    let (app, fake) = TestApp::fake().await;
    for (dialect, per_request, rows) in [("openai", 1, 1), ("tei", 3, 3)] {
        let before = fake.rows();
        let figures = figures(
            &bench(
                &app.url(""),
                &format!(
                    "--requests 50 --concurrency 4 --warmup 0s --json --dialect {dialect} --inputs-per-request {per_request}"
                ),
            )
            .await,
        );
        assert_eq!(figures["statuses"], serde_json::json!({ "200": 50 }));
        assert_eq!(number(&figures, "/totals/inputs"), f64::from(50 * rows));
        // One more request looked whether the server answers. The server may compute equal texts in flight once.
        assert!(fake.rows() > before && fake.rows() - before <= 51 * rows as usize);
        // The texts have 3 tokens each, and 2 special ones.
        assert_eq!(number(&figures, "/totals/tokens"), f64::from(50 * rows * 5), "{dialect}");
        assert_eq!(number(&figures, "/totals/answers_without_tokens"), 0.0);
        let latency = |name: &str| number(&figures, &format!("/latency_ms/{name}"));
        assert!(latency("p50") > 0.0 && latency("p50") <= latency("p99") && latency("p99") <= latency("max"));
        let rate = number(&figures, "/per_second/requests") * number(&figures, "/seconds");
        assert!((rate - 50.0).abs() < 1e-6, "{rate}");
        assert_eq!(figures["settings"]["dialect"], dialect);
        assert_eq!(figures["settings"]["concurrency"], 4);
        assert_eq!(figures["settings"]["texts"], 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_loop_keeps_its_rate_and_its_end() {
    let (app, _) = TestApp::fake().await;
    let started = Instant::now();
    let figures =
        figures(&bench(&app.url(""), "--rate 400 --duration 500ms --warmup 100ms --json --class bulk").await);
    assert!(started.elapsed() < Duration::from_secs(20));
    // 200 are due, with a standard deviation of 14.
    let due = number(&figures, "/requests/sent") + number(&figures, "/requests/not_sent");
    assert!((100.0..=300.0).contains(&due), "{due}");
    assert_eq!(number(&figures, "/seconds"), 0.5);
    assert_eq!(figures["settings"]["mode"], "open");
    assert_eq!(figures["settings"]["rate"], 400.0);
    assert_eq!(figures["settings"]["class"], "bulk");
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_counted_apart_with_what_they_advise() {
    let few = Settings { max_requests: Some(1), ..settings() };
    let (app, fake) = TestApp::fake_with(&few, |_| ()).await;
    fake.hold();
    let url = app.url("");
    // Has the only place, until the load is over.
    let held = app.post("/embed", serde_json::json!({ "inputs": "a cat" }));
    let measured = async {
        until("the place is taken", async || fake.waiting() == 1).await;
        let closed = bench(&url, "--requests 20 --concurrency 4 --warmup 0s --json").await;
        let open = bench(&url, "--requests 20 --rate 500 --warmup 0s --json").await;
        fake.release();
        [closed, open]
    };
    let (held, measured) = futures_util::join!(held, measured);
    assert_eq!(held.status, 200);
    for figures in measured.iter().map(figures) {
        assert_eq!(figures["statuses"], serde_json::json!({ "429": 20 }));
        assert_eq!(figures["overloaded"]["with_retry_after"], 20);
        assert!(number(&figures, "/overloaded/retry_after_seconds/min") >= 1.0);
        assert_eq!(figures["latency_ms"], Value::Null, "no vector, no latency");
        assert_eq!(number(&figures, "/per_second/requests"), 0.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_without_an_answer_are_failures_by_cause_and_late_ones_are_not_sent() {
    let (app, fake) = TestApp::fake().await;
    let url = app.url("");
    let first = bench(&url, "--requests 4 --concurrency 2 --warmup 0s --json");
    assert_eq!(figures(&first.await)["requests"]["answered"], 4);
    // The first request, which only looks, is let through; then nothing is.
    let rows = fake.rows();
    let hold = async {
        until("the look is over", async || fake.rows() > rows).await;
        fake.hold();
    };
    let load = bench(&url, "--rate 200 --requests 30 --concurrency 3 --warmup 500ms --timeout 300ms --json");
    let (output, ()) = futures_util::join!(load, hold);
    let figures = figures(&output);
    fake.release();
    assert_eq!(number(&figures, "/requests/sent") + number(&figures, "/requests/not_sent"), 30.0);
    assert!(number(&figures, "/requests/not_sent") > 0.0, "three at once, and each waits: {figures}");
    assert!(number(&figures, "/failures/timeout") >= 1.0, "{figures}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_ends_it_with_what_was_measured() {
    let (app, fake) = TestApp::fake().await;
    let directory = tempfile::tempdir().unwrap();
    let input = directory.path().join("texts.jsonl");
    std::fs::write(&input, "{\"text\": \"the red house\"}\n").unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_sextant"))
        .args(["bench", "--server", &app.url(""), "--warmup", "0s", "--duration", "1h", "--json", "--input"])
        .arg(&input)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    until("requests flow", async || fake.rows() > 20).await;
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    let output = tokio::task::spawn_blocking(|| child.wait_with_output().unwrap()).await.unwrap();
    assert!(output.status.success());
    let figures: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(figures["interrupted"], true);
    assert!(
        number(&figures, "/seconds") < 60.0 && number(&figures, "/requests/answered") > 10.0,
        "{figures}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_measured_is_told_in_one_sentence() {
    let (app, _) = TestApp::fake().await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let nobody = format!("http://{nobody}");
    for (server, arguments, code, expected) in [
        (app.url(""), "--model other", 1, "answers 404 to the first request"),
        (nobody, "", 1, "cannot be connected to"),
        ("https://localhost".to_owned(), "", 2, "without TLS"),
        (app.url(""), "--mode open", 2, "needs --rate"),
        (app.url(""), "--mode closed --rate 5", 2, "open loop"),
        (app.url(""), "--rate=-1", 2, "--rate is `-1`"),
        (app.url(""), "--requests 0", 2, "more than 0"),
        (app.url(""), "--concurrency 0", 2, "at least 1"),
    ] {
        let output = bench(&server, arguments).await;
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments}: {text}");
        assert!(text.contains(expected) && text.starts_with("error: "), "{text}");
        assert!(output.stdout.is_empty());
    }
}
