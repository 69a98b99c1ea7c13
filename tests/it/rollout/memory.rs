//! A version is not loaded where the process would be killed for it.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use crate::command::{Server, imported, path, run, sextant};
use crate::support::app::client;

/// Bytes that the process has of what `prlimit --data` limits.
fn data(server: &Server) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmData:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
}

fn limit(server: &Server, data: &str) {
    let id = server.child.id().to_string();
    let limited = Command::new("prlimit").args(["--pid", &id, &format!("--data={data}:")]).status();
    assert!(limited.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_for_which_the_memory_does_not_suffice_is_refused_and_the_server_lives() {
    let directory = imported();
    let (checkpoint, models) = (path(&directory, "checkpoint"), path(&directory, "models"));
    assert!(run(&["import", &checkpoint, "--models", &models, "--name", "tiny"]).status.success());
    let server = Server::start_command(sextant(&["serve", "--models", &models, "--drain-delay", "0s"]));
    let url = |path: &str| format!("http://{}{path}", server.address);
    let post = async |path: &str, body: Value| {
        let request = client().post(url(path)).header("content-type", "application/json");
        let answer = request.body(body.to_string()).send().await.unwrap();
        let status = answer.status().as_u16();
        (status, serde_json::from_str::<Value>(&answer.text().await.unwrap()).unwrap())
    };
    let version = async || {
        let request = client().post(url("/v1/embeddings")).header("content-type", "application/json");
        let answer = request.body(r#"{"model": "tiny", "input": "a"}"#).send().await.unwrap();
        (answer.status().as_u16(), answer.headers()["x-sextant-version"].to_str().unwrap().to_owned())
    };
    // Less than any version is taken to need, and enough for the server itself.
    limit(&server, &(data(&server) + (90 << 20)).to_string());
    for (action, body) in [
        ("rollout", json!({ "version": 2, "reason": "x" })),
        ("rollout", json!({ "version": 2, "reason": "x", "force": true })),
        ("verify", json!({ "version": 2 })),
    ] {
        let (status, answer) = post(&format!("/admin/v1/models/tiny/{action}"), body).await;
        let message = answer["error"]["message"].as_str().unwrap();
        assert_eq!((status, &answer["error"]["code"]), (409, &json!("state_conflict")), "{message}");
        for part in ["no memory", " MB are left", "--sessions", "raise the memory limit by"] {
            assert!(message.contains(part), "{part}: {message}");
        }
    }
    assert_eq!(version().await, (200, "tiny@1".to_owned()));
    let page = client().get(url("/metrics")).send().await.unwrap().text().await.unwrap();
    assert!(page.contains("sextant_sync_failures_total{reason=\"memory\"} 3"), "{page}");

    limit(&server, "unlimited");
    let (status, answer) =
        post("/admin/v1/models/tiny/rollout", json!({ "version": 2, "reason": "x" })).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(version().await, (200, "tiny@2".to_owned()));
}
