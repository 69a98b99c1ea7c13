//! The administrators' routes on a real repository, and the same commands on a server.

use std::fs;

use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::block_in_place;

use crate::command::{imported, path, run};
use crate::support::app::{Answer, TestApp, until};

/// `tiny@1`, which serves, `tiny@2`, the same once more, and `tiny@3` in int8, of another space.
pub struct Tiny(TempDir);

impl Tiny {
    fn new() -> Self {
        Self::beside(imported())
    }

    /// Of a repository with `tiny@1`.
    pub fn beside(first: TempDir) -> Self {
        let tiny = Self(first);
        for precision in ["fp32", "int8"] {
            let (checkpoint, models) = (path(&tiny.0, "checkpoint"), path(&tiny.0, "models"));
            let output = run(&[
                "import",
                &checkpoint,
                "--models",
                &models,
                "--name",
                "tiny",
                "--precision",
                precision,
            ]);
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        tiny
    }

    pub async fn serve(&self) -> TestApp {
        TestApp::repository(&self.0.path().join("models")).await
    }
}

async fn version(app: &TestApp, model: &str) -> String {
    let answer = app.post("/v1/embeddings", json!({ "model": model, "input": "the red house" })).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.header("x-sextant-version").to_owned()
}

async fn change(app: &TestApp, action: &str, body: Value) -> Answer {
    app.post(&format!("/admin/v1/models/tiny/{action}"), body).await
}

fn roles(model: &Value) -> Vec<String> {
    let versions = model["versions"].as_array().unwrap();
    versions.iter().map(|version| version["role"].as_str().unwrap_or("unknown").to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_is_promoted_and_rolled_back_and_each_answer_comes_when_it_is_served() {
    let tiny = Tiny::new();
    let app = tiny.serve().await;
    let shown = async || app.get("/admin/v1/models/tiny").await.json();
    assert_eq!(roles(&shown().await), ["stable", "idle", "idle"]);

    let tried =
        change(&app, "rollout", json!({ "version": 2, "canary_percent": 100, "reason": "try" })).await;
    assert_eq!(tried.status, 200, "{}", tried.text());
    assert_eq!(version(&app, "tiny").await, "tiny@2", "at once");
    let rollout = &tried.json()["rollout"];
    assert_eq!((&rollout["number"], &rollout["by"]), (&json!(2), &json!("loopback")));
    assert!(rollout["gate"]["probe_cosine"].as_f64().unwrap() > 0.999, "{rollout}");
    let shown_now = shown().await;
    assert_eq!(roles(&shown_now), ["stable", "canary", "idle"]);
    assert_eq!(shown_now["trial"], json!({ "version": 2, "canary_percent": 100 }));
    assert_eq!(shown_now["serving"]["versions"][1]["gate"]["passed"], true);
    assert_eq!(shown_now["serving"]["trial"]["seen"]["canary_requests"], 1);

    assert_eq!(change(&app, "promote", json!({ "version": 3, "reason": "x" })).await.status, 409);
    assert_eq!(change(&app, "promote", json!({ "reason": "good" })).await.status, 200);
    assert_eq!(version(&app, "tiny").await, "tiny@2");
    assert_eq!(roles(&shown().await), ["previous", "stable", "idle"]);
    assert_eq!(app.metric("sextant_rollout_generation", &["tiny"]).await, 3.0);

    for (dry_run, expected) in [(true, "tiny@2"), (false, "tiny@1")] {
        let back = change(&app, "rollback", json!({ "reason": "bad after all", "dry_run": dry_run })).await;
        assert_eq!((back.status, &back.json()["written"]), (200, &json!(!dry_run)));
        assert_eq!(back.json()["rollout"]["stable"], 1);
        assert_eq!(version(&app, "tiny").await, expected);
    }
    let history = app.get("/admin/v1/models/tiny/rollouts").await.json();
    let actions: Vec<&str> = history["documents"]
        .as_array()
        .unwrap()
        .iter()
        .map(|document| document["change"]["action"].as_str().unwrap())
        .collect();
    assert_eq!(actions, ["begin", "trial", "promote", "rollback"]);
    assert_eq!(app.get("/admin/v1/models").await.json()["models"][0]["model"], "tiny");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_is_not_written() {
    let tiny = Tiny::new();
    let app = tiny.serve().await;
    let crossing = json!({ "version": 3, "reason": "x" });
    let why = json!({ "version": 2, "reason": " " });
    let canary = json!({ "version": 3, "canary_percent": 5, "force": true, "reason": "x" });
    for (action, body, status, code) in [
        ("rollout", crossing, 409, "space_conflict"),
        ("rollout", canary, 409, "space_conflict"),
        ("rollout", json!({ "version": 1, "reason": "x" }), 409, "state_conflict"),
        ("rollout", json!({ "version": 9, "reason": "x" }), 404, "unknown_version"),
        ("rollout", why, 400, "invalid"),
        ("rollout", json!({ "version": 2 }), 400, "invalid"),
        ("rollout", json!({ "version": 2, "canary_percent": 101, "reason": "x" }), 400, "invalid"),
        ("rollout", json!({ "version": 2, "reason": "x", "canary": 5 }), 400, "invalid"),
        ("promote", json!({ "reason": "x" }), 409, "state_conflict"),
        ("rollback", json!({ "reason": "x" }), 409, "state_conflict"),
        ("rollback", json!({ "of": 2, "reason": "x" }), 409, "state_conflict"),
        ("verify", json!({ "version": 9 }), 404, "unknown_version"),
    ] {
        let answer = change(&app, action, body.clone()).await;
        assert_eq!(
            (answer.status, &answer.json()["error"]["code"]),
            (status, &json!(code)),
            "{action} {body}"
        );
    }
    let elsewhere = app.post("/admin/v1/models/other/rollback", json!({ "reason": "x" })).await;
    assert_eq!(elsewhere.status, 404);

    // A version that does not pass the gate here is not rolled out from here.
    let graph = tiny.0.path().join("models/tiny/versions/2/model.onnx");
    let whole = fs::read(&graph).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    fs::write(&graph, flipped).unwrap();
    let answer = change(&app, "rollout", json!({ "version": 2, "reason": "x" })).await;
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (409, &json!("gate_not_passed")));
    assert_eq!(answer.json()["error"]["details"]["passed"], false);
    let verified = change(&app, "verify", json!({ "version": 2 })).await;
    assert_eq!((verified.status, &verified.json()["passed"]), (200, &json!(false)));
    assert_eq!(
        app.get("/admin/v1/models/tiny/rollouts").await.json()["documents"].as_array().unwrap().len(),
        1
    );
    assert_eq!(version(&app, "tiny").await, "tiny@1");

    fs::write(&graph, whole).unwrap();
    assert_eq!(change(&app, "verify", json!({ "version": 2 })).await.json()["passed"], true);
    let forced = change(&app, "rollout", json!({ "version": 3, "force": true, "reason": "new index" })).await;
    assert!(forced.json()["rollout"]["crossed"]["to"].is_string(), "{}", forced.text());
    // The old index is served for as long as the old version is at hand.
    let old = app.get("/admin/v1/models/tiny").await.json()["versions"][0]["space"].clone();
    let headers =
        HeaderMap::from_iter([("x-sextant-space".parse().unwrap(), old.as_str().unwrap().parse().unwrap())]);
    let body = json!({ "model": "tiny", "input": "a" }).to_string().into_bytes();
    let answer = app.send("POST", "/v1/embeddings", headers, body).await;
    assert_eq!((answer.status, answer.header("x-sextant-version")), (200, "tiny@1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_that_does_not_pass_the_gate_is_taken_back() {
    let tiny = Tiny::new();
    let app = tiny.serve().await;
    let graph = tiny.0.path().join("models/tiny/versions/2/model.onnx");
    let whole = fs::read(&graph).unwrap();
    fs::write(&graph, &whole[1..]).unwrap();
    // By an operator who writes the repository, and checks nothing.
    let models = path(&tiny.0, "models");
    let arguments = ["rollout", "tiny@2", "--canary-percent", "10", "--models", &models, "--reason", "try"];
    assert!(block_in_place(|| run(&arguments)).status.success());
    let newest = async || {
        app.get("/admin/v1/models/tiny/rollouts").await.json()["documents"]
            .as_array()
            .unwrap()
            .last()
            .unwrap()
            .clone()
    };
    until("it is taken back", async || newest().await["change"]["action"] == "rollback").await;
    let document = newest().await;
    assert_eq!((&document["by"], &document["cause"]["figure"]), (&json!("guard"), &json!("gate")));
    assert!(document["cause"]["sentence"].as_str().unwrap().contains("digests"), "{document}");
    assert_eq!(version(&app, "tiny").await, "tiny@1");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_keys_a_request_from_elsewhere_is_refused() {
    let tiny = Tiny::new();
    let app = tiny.serve().await;
    assert_eq!(app.get("/admin/v1/models").await.status, 200);
    for (name, value) in [
        ("x-forwarded-for", "10.0.0.1"),
        ("x-forwarded", "10.0.0.1"),
        ("x-original-forwarded-for", "10.0.0.1"),
        ("x-real-ip", "10.0.0.1"),
        ("x-client-ip", "10.0.0.1"),
        ("x-cluster-client-ip", "10.0.0.1"),
        ("cf-connecting-ip", "10.0.0.1"),
        ("true-client-ip", "10.0.0.1"),
        ("fastly-client-ip", "10.0.0.1"),
        ("x-envoy-external-address", "10.0.0.1"),
        ("x-azure-clientip", "10.0.0.1"),
        ("forwarded", "for=10.0.0.1"),
        ("origin", "http://elsewhere"),
        ("via", "1.1 proxy"),
        ("host", "rebound.example"),
    ] {
        let headers = HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())]);
        let answer = app.send("GET", "/admin/v1/models", headers, Vec::new()).await;
        assert_eq!((answer.status, &answer.json()["error"]["code"]), (403, &json!("forbidden")), "{name}");
    }
}

/// A terminal's view of the same: every command, on a server instead of a repository.
#[tokio::test(flavor = "multi_thread")]
async fn the_commands_do_on_a_server_what_they_do_on_a_repository() {
    let tiny = Tiny::new();
    let app = tiny.serve().await;
    let server = app.url("");
    let sextant = |arguments: &[&str]| {
        let output = block_in_place(|| run(&[arguments, &["--server", &server]].concat()));
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (output.status.code().unwrap(), text)
    };
    let expect = |arguments: &[&str], code: i32, parts: &[&str]| {
        let (status, text) = sextant(arguments);
        assert_eq!(status, code, "{arguments:?}: {text}");
        for part in parts {
            assert!(text.contains(part), "{arguments:?} lacks `{part}`: {text}");
        }
    };
    let why = ["--reason", "a test"];
    let with_reason = |arguments: &[&'static str]| [arguments, &why[..]].concat();
    expect(&["list"], 0, &["tiny@1", "stable", "tiny@3", "idle"]);
    expect(&["verify", "tiny@2"], 0, &["tiny@2 passes the gate", "probe_cosine"]);
    expect(
        &with_reason(&["rollout", "tiny@2", "--canary-percent", "10", "--dry-run"]),
        0,
        &["would be put on trial"],
    );
    expect(
        &with_reason(&["rollout", "tiny@2", "--canary-percent", "10"]),
        0,
        &["tiny@2, which answers 10 % of its requests, is on trial beside tiny@1 (rollout 2)"],
    );
    expect(&["list", "tiny"], 0, &["canary 10 %"]);
    expect(&with_reason(&["promote", "tiny@2"]), 0, &["tiny@2 is the version that serves (rollout 3)"]);
    assert_eq!(version(&app, "tiny").await, "tiny@2");
    expect(&with_reason(&["rollback", "tiny", "--of", "2"]), 0, &["tiny@1 is the version that serves"]);
    expect(&with_reason(&["rollback", "tiny", "--of", "2"]), 1, &["neither stable nor on trial"]);
    expect(&with_reason(&["rollout", "tiny@3"]), 1, &["409", "force the rollout"]);
    expect(&["history", "tiny"], 0, &["try 2, canary 10 %", "promote 2", "rollback of 2", "loopback"]);
    expect(&["list", "other"], 1, &["there is no model `other`"]);

    fs::write(tiny.0.path().join("models/tiny/versions/2/model.onnx"), "no graph").unwrap();
    expect(&["verify", "tiny@2"], 3, &["does not pass the gate"]);
    expect(&with_reason(&["rollout", "tiny@2"]), 3, &["nothing was changed"]);
    assert!(app.stop().await);
    expect(&["list"], 1, &["does not answer"]);
}
