//! The line that each action of an administrator leaves in the log of a real server.

use std::fs;
use std::path::Path;

use reqwest::Method;
use serde_json::{Value, json};

use super::{entry, key, serve};
use crate::command::{imported, path, run};
use crate::support::app::{client, until};

/// The audit lines of a log, without what differs from run to run.
fn audited(log: &Path) -> Vec<Value> {
    let text = fs::read_to_string(log).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["message"] == "audit").collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_action_is_one_line_with_who_what_why_and_what_came_of_it() {
    let directory = imported();
    let (checkpoint, models, keys) =
        (path(&directory, "checkpoint"), path(&directory, "models"), path(&directory, "keys"));
    assert!(run(&["import", &checkpoint, "--models", &models, "--name", "tiny"]).status.success());
    let text = entry("alice", &["admin"], "") + &entry("search", &["embed"], "");
    fs::write(&keys, &text).unwrap();
    let log = directory.path().join("log");
    // At this level nothing else is told: who wants no audit says so.
    let server = serve(&directory, "error");
    let send = async |method: Method, path: &str, name: Option<&str>, body: Value| {
        let mut request =
            client().request(method, format!("http://{}/admin/v1/models{path}", server.address));
        request = request.header("x-request-id", "the-id").header("content-type", "application/json");
        if let Some(name) = name {
            request = request.bearer_auth(key(name));
        }
        request.body(body.to_string()).send().await.unwrap().status().as_u16()
    };
    let change =
        async |action: &str, name, body| send(Method::POST, &format!("/tiny/{action}"), name, body).await;
    let alice = Some("alice");
    assert_eq!(change("verify", alice, json!({ "version": 2 })).await, 200);
    assert_eq!(
        change(
            "rollout",
            alice,
            json!({ "version": 2, "canary_percent": 10, "reason": "try", "dry_run": true })
        )
        .await,
        200
    );
    assert_eq!(change("rollout", alice, json!({ "version": 2, "reason": "twice the speed" })).await, 200);
    assert_eq!(change("promote", alice, json!({ "reason": "good" })).await, 409);
    assert_eq!(change("rollback", alice, json!({ "to": 1, "reason": "worse" })).await, 200);
    assert_eq!(
        change("rollback", alice, json!({ "to": "a text that is none of ours", "reason": "x" })).await,
        400
    );
    assert_eq!(change("rollout", Some("search"), json!({ "version": 2, "reason": "x" })).await, 403);
    assert_eq!(change("rollout", None, json!({ "version": 2, "reason": "x" })).await, 401);
    assert_eq!(send(Method::GET, "", None, Value::Null).await, 401);
    assert_eq!(send(Method::GET, "", alice, Value::Null).await, 200);

    fs::write(&keys, text.clone() + &entry("bob", &["admin"], "")).unwrap();
    until("the keys are read again", async || audited(&log).len() == 10).await;
    fs::write(&keys, "nonsense").unwrap();
    until("the failure is told", async || audited(&log).len() == 11).await;

    let lines = audited(&log);
    let told: Vec<Value> = lines
        .iter()
        .map(|line| json!([line["who"], line["what"], line["version"], line["outcome"], line["status"]]))
        .collect();
    assert_eq!(
        json!(told),
        json!([
            ["alice", "verify", 2, "passed", 200],
            ["alice", "rollout", 2, "done", 200],
            ["alice", "rollout", 2, "done", 200],
            ["alice", "promote", null, "refused", 409],
            ["alice", "rollback", 1, "done", 200],
            ["alice", "rollback", null, "refused", 400],
            ["search", "rollout", null, "denied", 403],
            ["none", "rollout", null, "denied", 401],
            ["none", "read", null, "denied", 401],
            [null, "keys", null, "done", null],
            [null, "keys", null, "failed", null],
        ])
    );
    assert_eq!((&lines[1]["dry_run"], &lines[2]["dry_run"]), (&json!(true), &json!(false)));
    let made = &lines[2];
    assert_eq!(
        (&made["reason"], &made["model"], &made["id"]),
        (&json!("twice the speed"), &json!("tiny"), &json!("the-id"))
    );
    assert!(made["from"].as_str().unwrap().starts_with("127.0.0.1:"), "{made}");
    assert!(made["timestamp"].is_string() && made["error"] == "", "{made}");
    assert!(lines[3]["error"].as_str().unwrap().contains("trial"), "{}", lines[3]);
    assert_eq!((&lines[9]["added"], &lines[9]["removed"]), (&json!("bob"), &json!("")));
    let text = fs::read_to_string(&log).unwrap();
    assert!(!text.contains("none of ours"), "what was malformed may be a text");
    // The failure is told once, however often it is seen.
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    assert_eq!(audited(&log).len(), 11);
    assert_eq!(fs::read_to_string(&log).unwrap().matches("the keys before stay in force").count(), 1);
}
