//! The line that each action of an administrator leaves in the log of a real server.

use std::fs;
use std::path::Path;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

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
    // Of a method that a route does not have.
    assert_eq!(send(Method::POST, "", alice, Value::Null).await, 405);
    assert_eq!(send(Method::POST, "/tiny", alice, Value::Null).await, 405);
    assert_eq!(send(Method::DELETE, "/tiny/verify", alice, Value::Null).await, 405);
    assert_eq!(send(Method::HEAD, "/tiny/verify", alice, Value::Null).await, 405);

    fs::write(&keys, text.clone() + &entry("bob", &["admin"], "")).unwrap();
    until("the keys are read again", async || audited(&log).len() == 13).await;
    fs::write(&keys, "nonsense").unwrap();
    until("the failure is told", async || audited(&log).len() == 14).await;

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
            ["alice", "none", null, "refused", 405],
            ["alice", "none", null, "refused", 405],
            ["alice", "verify", null, "refused", 405],
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
    assert_eq!((&lines[12]["added"], &lines[12]["removed"]), (&json!("bob"), &json!("")));
    let text = fs::read_to_string(&log).unwrap();
    assert!(!text.contains("none of ours"), "what was malformed may be a text");
    // The failure is told once, however often it is seen.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(audited(&log).len(), 14);
    assert_eq!(fs::read_to_string(&log).unwrap().matches("the keys before stay in force").count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_caller_can_fill_the_audit_log_and_no_line_of_it_goes_uncounted() {
    let directory = imported();
    let keys = entry("search", &["embed"], "") + &entry("alice", &["admin"], "");
    fs::write(path(&directory, "keys"), keys).unwrap();
    let server = serve(&directory, "error");
    let client = client();
    let ask = async |name: &str, action: &str, body: Value| {
        let url = format!("http://{}/admin/v1/models/tiny/{action}", server.address);
        let request = client.post(url).bearer_auth(key(name)).header("content-type", "application/json");
        request.body(body.to_string()).send().await.unwrap().status().as_u16()
    };
    for _ in 0..300 {
        assert_eq!(ask("nobody", "rollback", json!({})).await, 401);
    }
    for _ in 0..40 {
        assert_eq!(ask("search", "rollback", json!({})).await, 403);
        assert_eq!(
            ask("alice", "rollout", json!({ "version": 7, "reason": "x", "dry_run": true })).await,
            404
        );
    }
    // What changes something is told, however much else its caller has asked for.
    for name in ["one", "two", "three"] {
        assert_eq!(ask("alice", "alias", json!({ "name": name, "reason": "x" })).await, 200);
    }
    let log = directory.path().join("log");
    let of =
        |who: &str| -> Vec<Value> { audited(&log).into_iter().filter(|line| line["who"] == who).collect() };
    assert_eq!(
        of("alice").iter().filter(|line| line["what"] == "alias" && line["outcome"] == "done").count(),
        3
    );
    let counted = |who: &str| -> u64 { of(who).iter().map(|line| line["count"].as_u64().unwrap_or(1)).sum() };
    until("all are counted", async || {
        counted("none") == 300 && counted("search") == 40 && counted("alice") == 43
    })
    .await;
    for (who, outcome) in [("none", "denied"), ("search", "denied"), ("alice", "refused")] {
        let lines = of(who);
        let (rest, told): (Vec<_>, Vec<_>) =
            lines.iter().filter(|line| line["what"] != "alias").partition(|line| line["count"].is_u64());
        assert!(rest.iter().all(|line| line["what"] == "more" && line["outcome"] == outcome), "{rest:?}");
        // Asking took several periods on a slow machine, and each begins anew.
        assert!(!rest.is_empty() && told.len() < 40, "{who}: {} lines", told.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_that_were_left_out_are_counted_before_the_server_stops() {
    let directory = imported();
    fs::write(path(&directory, "keys"), entry("search", &["embed"], "")).unwrap();
    let server = serve(&directory, "error");
    let client = client();
    for _ in 0..30 {
        let url = format!("http://{}/admin/v1/models", server.address);
        assert_eq!(client.get(url).bearer_auth(key("search")).send().await.unwrap().status(), 403);
    }
    server.signal("TERM");
    assert_eq!(server.exit_code().await, Some(0));
    let lines = audited(&directory.path().join("log"));
    assert_eq!(lines.iter().map(|line| line["count"].as_u64().unwrap_or(1)).sum::<u64>(), 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_administrator_did_not_wait_for_is_told_before_the_server_stops() {
    let directory = imported();
    fs::write(path(&directory, "keys"), entry("alice", &["admin"], "")).unwrap();
    let server = serve(&directory, "error");
    let body = r#"{"version": 1}"#;
    let asked = format!(
        "POST /admin/v1/models/tiny/verify HTTP/1.1\r\nhost: test\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n",
        key("alice"),
        body.len()
    );
    let mut stream = TcpStream::connect(&server.address).await.unwrap();
    stream.write_all(asked.as_bytes()).await.unwrap();
    // Asked for by the work itself, so that it has begun: a request that nobody has begun with is lost with its connection.
    let mut go_on = [0; "HTTP/1.1 100 Continue\r\n\r\n".len()];
    stream.read_exact(&mut go_on).await.unwrap();
    assert!(go_on.starts_with(b"HTTP/1.1 100 "), "{}", String::from_utf8_lossy(&go_on));
    stream.write_all(body.as_bytes()).await.unwrap();
    // The model is loaded once more for it, which takes longer than to stop.
    drop(stream);
    server.signal("TERM");
    assert_eq!(server.exit_code().await, Some(0));
    let lines = audited(&directory.path().join("log"));
    assert_eq!(lines.len(), 1);
    assert_eq!((&lines[0]["what"], &lines[0]["outcome"]), (&json!("verify"), &json!("passed")));
}
