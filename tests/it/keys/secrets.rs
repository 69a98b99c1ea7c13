//! Texts and keys are in no log, at any level, and on no page that others read.

use std::fs;

use http_body_util::Full;
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};

use super::{entry, key, serve};
use crate::command::{imported, path};
use crate::support::app::client;

/// No other text of the tests has it, and a tokenizer does not take it apart where it is shown.
const TEXT: &str = "quixotic-mauve-zephyr-4711";
/// In the digest's and in base64's alphabet, so that no encoding hides it.
const WRONG_KEY: &str = "sxt_deadbeefdeadbeefdeadbeefdeadbeef";

/// Bodies with the text wherever one may be, and where none may be.
fn bodies(path: &str) -> Vec<(String, bool)> {
    let inputs = match path {
        "/similarity" => json!({ "source_sentence": TEXT, "sentences": [TEXT] }),
        _ => json!([TEXT, TEXT]),
    };
    let whole = json!({ "model": "tiny", "input": [TEXT], "inputs": inputs, "ids": [5], "user": TEXT, "version": 1, "reason": "a test" });
    let with = |field: &str, value: Value| {
        let mut body = whole.clone();
        body[field] = value;
        body.to_string()
    };
    let half = whole.to_string();
    vec![
        (whole.to_string(), true),
        (half[..half.len() - 9].to_owned(), true),
        (with("input", json!({ "a": TEXT })), true),
        (with("inputs", json!([[TEXT, TEXT]])), true),
        (with("input", json!([TEXT, 5])), true),
        (with("input", json!(TEXT.repeat(50_000))), true),
        (with("truncate", json!("error")), true),
        (with("dimensions", json!(3)), true),
        (with("ood", json!(true)), true),
        (format!("{TEXT}{}", "[".repeat(300)), true),
        // In a place that names things: the answer may name it to whoever sent it, and to nobody else.
        (with("model", json!(TEXT)), false),
        (with("prompt_name", json!(TEXT)), false),
        (with("dimensions", json!(TEXT)), false),
        (with("version", json!(TEXT)), false),
        (with(TEXT, json!(TEXT)), false),
    ]
}

/// The same over HTTP/2, whose crate tells other things at its finest.
async fn two(address: &str, keys: &[&str]) {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    for key in keys {
        let request = Request::post(format!("http://{address}/v1/embeddings"))
            .header("content-type", "application/json")
            .header("authorization", format!("Bearer {key}"))
            .header("x-api-key", *key);
        let body = Full::new(Bytes::from(json!({ "model": "tiny", "input": TEXT }).to_string()));
        let status = client.send_request(request.body(body).unwrap()).await.unwrap().status();
        assert!(matches!(status.as_u16(), 200 | 401), "{status}");
    }
    connection.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_a_text_nor_a_key_is_logged_at_the_finest_level_shown_in_metrics_or_answered_to_others() {
    let directory = imported();
    let (keys, log) = (path(&directory, "keys"), path(&directory, "log"));
    fs::write(
        &keys,
        entry("all", &["embed", "admin", "metrics"], "")
            + &entry("poor", &["embed"], "limits = { tokens_per_second = 1 }"),
    )
    .unwrap();
    let server = serve(&directory, "trace");
    let url = format!("http://{}", server.address);
    let secrets = [TEXT, WRONG_KEY, &key("all")[..12], &key("poor")[..12]];
    let (mut answers, mut refusals) = (0, 0);
    for (method, route) in sextant::http::known_routes() {
        let address = format!("{url}{}", route.replace("{model}", "tiny"));
        let bodies = if method == "POST" { bodies(route) } else { vec![(String::new(), true)] };
        for (body, is_private) in bodies {
            for given in [&key("all"), &key("poor"), WRONG_KEY] {
                let request = client()
                    .request(method.parse().unwrap(), &address)
                    .header("content-type", "application/json");
                // The second way is none of this server's, and some proxy's.
                let request = request.bearer_auth(given).header("x-api-key", given).body(body.clone());
                let answer = request.send().await.unwrap();
                let (status, text) = (answer.status(), answer.text().await.unwrap());
                answers += 1;
                if !status.is_success() {
                    refusals += 1;
                    let told: Vec<_> = secrets.iter().filter(|secret| text.contains(**secret)).collect();
                    let told_to_others = told.iter().any(|secret| is_private || ***secret != *TEXT);
                    assert!(!told_to_others, "{method} {route} -> {status} {text}: {told:?}");
                }
            }
        }
    }
    assert!(answers > 500 && refusals > 200, "{answers} answers, {refusals} of them refusals");
    two(&server.address, &[&key("all"), WRONG_KEY]).await;
    // A key in the place of its hash is in the file, and is told nowhere.
    fs::write(&keys, format!("[[keys]]\nname = 'all'\nhash = '{}'\nroles = ['embed']\n", key("all")))
        .unwrap();
    let metrics = async || {
        client()
            .get(format!("{url}/metrics"))
            .bearer_auth(key("all"))
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap()
    };
    crate::support::app::until("it is looked at", async || {
        !metrics().await.contains("reloads_total{outcome=\"failed\"} 0")
    })
    .await;
    let page = metrics().await;
    server.signal("TERM");
    assert_eq!(server.exit_code().await, Some(0));
    let log = fs::read_to_string(log).unwrap();
    let finest = log
        .lines()
        .filter(|line| line.contains(r#""level":"TRACE""#) || line.contains(r#""level":"DEBUG""#))
        .count();
    assert!(finest > 500, "{finest} lines: is the log at its finest?");
    for secret in secrets {
        let told = log.lines().find(|line| line.contains(secret));
        // The rollout log and this one name a model that was asked for, in the path; the text is never there.
        assert!(told.is_none(), "{secret} is in the log: {told:?}");
        assert!(!page.contains(secret), "{secret} is in the metrics");
    }
}
