//! What a client can make grow, and how far: connections, heads, bodies, streams, answers that it does not take, names.

mod answers;
mod floods;
mod idle;
mod streams;

use std::net::SocketAddr;
use std::time::Duration;

use axum::http::{Request, StatusCode};
use bytes::Bytes;
use h2::Reason;
use h2::client::SendRequest;
use reqwest::header::HeaderMap;
use serde_json::json;
use sextant::config::{ConnectionsSettings, Settings};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::app::{TestApp, settings, until};

const GET: &[u8] = b"GET /health HTTP/1.1\r\nhost: test\r\n\r\n";

fn with(connections: ConnectionsSettings) -> Settings {
    Settings { connections, ..settings() }
}

/// Of a body that is announced and does not come.
fn head(length: usize) -> String {
    format!(
        "POST /v1/embeddings HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    )
}

async fn connect(app: &TestApp) -> TcpStream {
    connect_to(app.address).await
}

async fn connect_to(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.unwrap()
}

async fn open(app: &TestApp, text: &str) -> TcpStream {
    let mut stream = connect(app).await;
    stream.write_all(text.as_bytes()).await.unwrap();
    stream
}

/// All that comes until the server closes.
async fn rest(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    // A reset is an end as well.
    let _ = stream.read_to_end(&mut text).await;
    String::from_utf8(text).unwrap()
}

/// One answer's head.
async fn answer(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        text.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(text).unwrap()
}

async fn closed(app: &TestApp, reason: &str) -> f64 {
    let reason = format!("reason=\"{reason}\"");
    app.metric("sextant_connections_closed_total", &["listener=\"public\"", &reason]).await
}

async fn works(app: &TestApp) {
    let answer = app.post("/v1/embeddings", json!({ "model": "tiny", "input": "a" })).await;
    assert_eq!(answer.status, 200, "the next request: {}", answer.text());
}

#[tokio::test]
async fn who_brings_no_request_and_who_brings_one_slowly_is_left() {
    let hasty = ConnectionsSettings { head_timeout: Some("1s".into()), ..ConnectionsSettings::default() };
    let (app, _) = TestApp::fake_with(&with(hasty), |_| ()).await;
    let mut silent = connect(&app).await;
    assert_eq!(rest(&mut silent).await, "");
    let mut slow = connect(&app).await;
    slow.write_all(GET).await.unwrap();
    assert!(answer(&mut slow).await.starts_with("HTTP/1.1 200"));
    // Longer than a head may take: it is between two requests, and that is another limit.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    slow.write_all(GET).await.unwrap();
    assert!(answer(&mut slow).await.starts_with("HTTP/1.1 200"));
    let (mut read, mut write) = slow.into_split();
    let drip = tokio::spawn(async move {
        for byte in GET.iter().cycle() {
            if write.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let mut text = Vec::new();
    let _ = read.read_to_end(&mut text).await;
    assert!(text.is_empty(), "the third head took too long");
    drip.abort();
    assert_eq!(closed(&app, "head").await, 2.0);
    works(&app).await;
}

#[tokio::test]
async fn a_connection_without_requests_is_kept_for_a_while_and_then_left() {
    let hasty = ConnectionsSettings { idle_timeout: Some("1s".into()), ..ConnectionsSettings::default() };
    let (app, fake) = TestApp::fake_with(&with(hasty), |_| ()).await;
    let mut idle = connect(&app).await;
    idle.write_all(GET).await.unwrap();
    assert!(rest(&mut idle).await.starts_with("HTTP/1.1 200"), "and then the end");
    let (mut sender, connection) = h2::client::handshake(connect(&app).await).await.unwrap();
    let connection = tokio::spawn(connection);
    assert_eq!(get(&mut sender, "/health").await, Ok(StatusCode::OK));
    connection.await.unwrap().unwrap();
    assert_eq!(closed(&app, "idle").await, 2.0);
    // A request that takes longer is no idleness.
    fake.hold();
    let body = r#"{"model": "tiny", "input": "a"}"#;
    let mut busy = open(&app, &(head(body.len()) + body)).await;
    until("it runs", async || fake.waiting() == 1).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    fake.release();
    assert!(rest(&mut busy).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_body_that_stands_still_and_one_that_drips_are_refused() {
    for (stall, whole, expected) in [("200ms", "1m", "body_stall_timeout"), ("1m", "400ms", "body_timeout")] {
        let hasty = ConnectionsSettings {
            body_stall_timeout: Some(stall.into()),
            body_timeout: Some(whole.into()),
            ..ConnectionsSettings::default()
        };
        let (app, _) = TestApp::fake_with(&with(hasty), |_| ()).await;
        let stream = open(&app, &head(1000)).await;
        let (mut read, mut write) = stream.into_split();
        let drip = tokio::spawn(async move {
            // Never longer than the first limit allows, where it is the second's turn.
            while expected == "body_timeout" && write.write_all(b" ").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            write
        });
        let mut text = Vec::new();
        let _ = read.read_to_end(&mut text).await;
        let text = String::from_utf8(text).unwrap();
        assert!(text.starts_with("HTTP/1.1 408") && text.contains(expected), "{expected}: {text}");
        drip.abort();
        works(&app).await;
    }
}

#[tokio::test]
async fn a_head_has_a_limit_in_bytes_and_in_headers() {
    let narrow = ConnectionsSettings {
        max_header_bytes: Some(8192),
        max_headers: Some(20),
        ..ConnectionsSettings::default()
    };
    let (app, _) = TestApp::fake_with(&with(narrow), |_| ()).await;
    let large = format!("a: {}\r\n", "b".repeat(9000));
    let many: String = (0..21).map(|index| format!("a{index}: b\r\n")).collect();
    for (headers, status) in [(large, "431"), (many, "431"), ("a: b\r\n".repeat(5), "200")] {
        let text = format!("GET /health HTTP/1.1\r\nhost: test\r\nconnection: close\r\n{headers}\r\n");
        let answered = rest(&mut open(&app, &text).await).await;
        assert!(answered.starts_with(&format!("HTTP/1.1 {status}")), "{answered}");
    }
    let (mut sender, connection) = h2::client::handshake(connect(&app).await).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("http://test/health").header("a", "b".repeat(9000)).body(()).unwrap();
    let (response, _) = sender.send_request(request, true).unwrap();
    assert_eq!(response.await.unwrap().status(), 431);
    assert_eq!(get(&mut sender, "/health").await, Ok(StatusCode::OK));
}

#[tokio::test]
async fn a_client_that_does_not_take_its_answers_is_left() {
    let hasty = ConnectionsSettings { write_timeout: Some("300ms".into()), ..ConnectionsSettings::default() };
    let (app, _) = TestApp::fake_with(&with(hasty), |_| ()).await;
    // More answers than the system keeps for it.
    let mut greedy = connect(&app).await;
    let asked = b"GET /openapi.yaml HTTP/1.1\r\nhost: test\r\n\r\n".repeat(2000);
    assert!(greedy.write_all(&asked).await.is_ok() || closed(&app, "write").await > 0.0);
    until("the first is left", async || closed(&app, "write").await == 1.0).await;
    // By HTTP/2 the client says that it takes nothing, and the connection itself is free.
    let mut builder = h2::client::Builder::new();
    let handshake = builder.initial_window_size(0).handshake::<_, Bytes>(connect(&app).await);
    let (mut sender, connection) = handshake.await.unwrap();
    let connection = tokio::spawn(connection);
    let request = Request::get("http://test/openapi.yaml").body(()).unwrap();
    let (response, _) = sender.send_request(request, true).unwrap();
    let response = response.await.unwrap();
    until("the second is left", async || closed(&app, "write").await == 2.0).await;
    assert_eq!(response.status(), 200);
    drop(response);
    // However the end looks to it, it is one.
    let _ = connection.await.unwrap();
    works(&app).await;
}

#[tokio::test]
async fn a_full_server_leaves_who_waits_and_keeps_who_has_a_request() {
    let few = ConnectionsSettings { max_connections: Some(2), ..ConnectionsSettings::default() };
    let (app, fake) = TestApp::fake_with(&with(few), |_| ()).await;
    let (mut first, _second) = (connect(&app).await, connect(&app).await);
    // One more than there is room for.
    works(&app).await;
    assert_eq!(rest(&mut first).await, "", "it was there first, with nothing to say");
    fake.hold();
    let body = r#"{"model": "tiny", "input": "a"}"#;
    let text = head(body.len()) + body;
    let mut busy = [open(&app, &text).await, open(&app, &text).await];
    until("both are in", async || fake.waiting() == 1).await;
    until("nobody gets in", async || {
        let mut third = connect(&app).await;
        // It may still be the turn of one of those who waited.
        let asked = tokio::time::timeout(Duration::from_millis(200), rest(&mut third));
        asked.await.is_ok_and(|answer| answer.is_empty())
    })
    .await;
    fake.release();
    for stream in &mut busy {
        assert!(answer(stream).await.starts_with("HTTP/1.1 200"));
    }
    works(&app).await;
    assert!(closed(&app, "refused").await >= 1.0);
    assert!(closed(&app, "gave_way").await >= 1.0);
}

#[tokio::test]
async fn large_bodies_take_room_from_each_other_and_not_from_small_ones() {
    let narrow = ConnectionsSettings { max_held_bytes: Some(200_000), ..ConnectionsSettings::default() };
    let narrow = Settings { max_body_bytes: Some(200_000), ..with(narrow) };
    let (app, _) = TestApp::fake_with(&narrow, |_| ()).await;
    let mut holder = open(&app, &head(190_000)).await;
    holder.write_all(&vec![b' '; 150_000]).await.unwrap();
    let large = format!(r#"{{"model": "tiny", "input": "{}"}}"#, "a ".repeat(50_000)).into_bytes();
    let ask = async || app.send("POST", "/v1/embeddings", HeaderMap::new(), large.clone()).await;
    until("there is no room", async || ask().await.status == 429).await;
    let refused = ask().await;
    assert!(refused.text().contains("max_held_bytes"), "{}", refused.text());
    assert!(refused.header("retry-after").parse::<u64>().is_ok());
    assert!(app.metric("sextant_rejected_total", &["held_bytes"]).await >= 2.0);
    works(&app).await;
    drop(holder);
    until("there is room again", async || ask().await.status == 200).await;
}

#[tokio::test]
async fn slow_bodies_give_way() {
    let few = Settings { max_requests: Some(2), ..settings() };
    let (app, _) = TestApp::fake_with(&few, |_| ()).await;
    let mut slow = Vec::new();
    let head = head(100).replace("\r\n\r\n", "\r\nexpect: 100-continue\r\n\r\n");
    for _ in 0..3 {
        let mut stream = open(&app, &head).await;
        // Said when the body is waited for, so that they wait in this order.
        assert!(answer(&mut stream).await.starts_with("HTTP/1.1 100"));
        slow.push(stream);
    }
    let first = rest(&mut slow[0]).await;
    assert!(first.starts_with("HTTP/1.1 408") && first.contains("the slowest"), "{first}");
    works(&app).await;
}

#[tokio::test]
async fn a_body_that_is_packed_is_refused() {
    let (app, fake) = TestApp::fake().await;
    for encoding in ["gzip", "zstd", "br", "deflate", "identity, gzip"] {
        let headers =
            HeaderMap::from_iter([("content-encoding".parse().unwrap(), encoding.parse().unwrap())]);
        for path in ["/v1/embeddings", "/embed"] {
            let answer = app.send("POST", path, headers.clone(), vec![31, 139, 8, 0]).await;
            assert_eq!((answer.status, answer.header("accept-encoding")), (415, "identity"));
            assert!(answer.text().contains("content-encoding"));
        }
    }
    let plain = HeaderMap::from_iter([("content-encoding".parse().unwrap(), "Identity".parse().unwrap())]);
    let body = br#"{"model": "tiny", "input": "a"}"#.to_vec();
    assert_eq!(app.send("POST", "/v1/embeddings", plain, body).await.status, 200);
    assert_eq!(fake.rows(), 1);
}

#[tokio::test]
async fn a_request_keeps_a_plain_name_and_gets_another_for_one_that_is_not() {
    let (app, _) = TestApp::fake().await;
    let ask = async |names: &[&str]| {
        let name = |name: &&str| ("x-request-id".parse().unwrap(), name.parse().unwrap());
        let mut headers = HeaderMap::new();
        for (key, value) in names.iter().map(name) {
            let _: bool = headers.append::<reqwest::header::HeaderName>(key, value);
        }
        app.send("GET", "/health", headers, Vec::new()).await.header("x-request-id").to_owned()
    };
    for name in ["a", "3fa85f64-5717-4562-b3fc-2c963f66afa6", "service/7:retry=1+a_b@c.d", &"x".repeat(128)] {
        assert_eq!(ask(&[name]).await, name);
    }
    for names in
        [&[""][..], &["a b"], &["a\tstatus=500"], &["a\"b"], &["a,b"], &[&"x".repeat(129)], &["a", "b"]]
    {
        let given = ask(names).await;
        assert!(given.len() == 36 && given.split('-').count() == 5, "{names:?}: {given}");
    }
}

#[tokio::test]
async fn what_is_sent_back_is_short_and_makes_no_series() {
    let (app, _) = TestApp::fake().await;
    let lines = async || app.get("/metrics").await.text().lines().count();
    let long = "m".repeat(1_000_000);
    // Each status of a route is one series, and is there after the first answer.
    for (method, path, body) in [
        ("POST", "/v1/embeddings", json!({ "model": long, "input": "a" })),
        ("POST", "/v1/embeddings", json!({ "model": "tiny", "input": "a", "user": long })),
        ("POST", "/v1/embeddings", json!({ "model": "tiny", "input": "a", "input_type": long })),
        ("POST", "/embed", json!({ "inputs": "a", "prompt_name": long })),
    ] {
        let answer = app.send(method, path, HeaderMap::new(), body.to_string().into_bytes()).await;
        assert!(answer.body.len() < 10_000, "{} bytes", answer.body.len());
    }
    app.send("PURGE", "/v1/embeddings", HeaderMap::new(), Vec::new()).await;
    app.get(&format!("/{}", "p".repeat(10_000))).await;
    app.get("/v1/models/none").await;
    app.get("/metrics").await;
    let before = lines().await;
    for index in 0..200 {
        let path = format!("/v1/models/m{index}");
        assert_eq!(app.get(&path).await.status, 404);
        assert_eq!(app.get(&format!("/path/{index}")).await.status, 404);
        let method = format!("METHOD{index}");
        assert_eq!(app.send(&method, "/v1/embeddings", HeaderMap::new(), Vec::new()).await.status, 405);
        let body = json!({ "model": format!("m{index}"), "input": "a" });
        assert_eq!(app.post("/v1/embeddings", body).await.status, 404);
        let body = json!({ "model": "tiny", "input": "a", "user": format!("u{index}") });
        assert_eq!(app.post("/v1/embeddings", body).await.status, 200);
    }
    assert_eq!(lines().await, before);
}

/// The status of a GET by HTTP/2, or why there is none.
async fn get(sender: &mut SendRequest<Bytes>, path: &str) -> Result<StatusCode, Option<Reason>> {
    let reason = |error: h2::Error| error.reason();
    let mut ready = sender.clone().ready().await.map_err(reason)?;
    let request = Request::get(format!("http://test{path}")).body(()).unwrap();
    let (response, _) = ready.send_request(request, true).map_err(reason)?;
    Ok(response.await.map_err(reason)?.status())
}
