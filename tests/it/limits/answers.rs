//! Answers that are taken late, slowly or never: they keep nobody out, are cut off for no progress only, and take no more memory than
//! there is for them.

use std::time::Duration;

use axum::http::{Request, Response};
use bytes::Bytes;
use h2::RecvStream;
use serde_json::json;
use sextant::config::{ConnectionsSettings, Settings};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;

use super::{answer, closed, connect, head, with, works};
use crate::support::app::{TestApp, settings, until};

/// A request of so many inputs for the vector of each token, whose answer has about 5 kB for each of them.
fn tokens(inputs: usize) -> String {
    json!({ "inputs": vec!["a ".repeat(60); inputs] }).to_string()
}

/// What an HTTP/2 client gets that takes no byte of any answer, and what keeps its connection.
async fn deaf(app: &TestApp, path: &str, body: &str) -> (Response<RecvStream>, impl Drop + use<>) {
    let mut builder = h2::client::Builder::new();
    let handshake = builder.initial_window_size(0).handshake::<_, Bytes>(connect(app).await);
    let (sender, connection) = handshake.await.unwrap();
    let mut running = tokio::task::JoinSet::new();
    running.spawn(connection);
    let method = if body.is_empty() { "GET" } else { "POST" };
    let request = Request::builder().method(method).uri(format!("http://test{path}"));
    let request = request.header("content-type", "application/json").body(()).unwrap();
    let (response, mut stream) =
        sender.ready().await.unwrap().send_request(request, body.is_empty()).unwrap();
    if !body.is_empty() {
        stream.send_data(Bytes::copy_from_slice(body.as_bytes()), true).unwrap();
    }
    (response.await.unwrap(), running)
}

#[tokio::test]
async fn who_takes_no_answer_keeps_nobody_out() {
    let few = ConnectionsSettings { max_connections: Some(2), ..ConnectionsSettings::default() };
    let (app, _) = TestApp::fake_with(&with(few), |_| ()).await;
    // Answers of some bytes, as strangers without a key get them.
    let _full = [deaf(&app, "/nowhere", "").await, deaf(&app, "/nowhere", "").await];
    works(&app).await;
    assert_eq!(closed(&app, "gave_way").await, 1.0);
    assert_eq!(closed(&app, "refused").await, 0.0);
}

#[tokio::test]
async fn an_answer_that_is_taken_slowly_comes_whole() {
    let hasty = ConnectionsSettings { idle_timeout: Some("1s".into()), ..ConnectionsSettings::default() };
    let (app, _) = TestApp::fake_with(&with(hasty), |_| ()).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(1 << 16).unwrap();
    let mut stream = socket.connect(app.address).await.unwrap();
    let body = tokens(2048);
    let asked = head(body.len()).replace("/v1/embeddings", "/embed_all") + &body;
    stream.write_all(asked.as_bytes()).await.unwrap();
    let head = answer(&mut stream).await;
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let length: usize = length.parse().unwrap();
    assert!(length > 8 << 20, "more than the system keeps of it: {length}");
    let (mut taken, mut some) = (0, vec![0; 1 << 14]);
    while taken < length {
        // Twice as long, in all, as a connection may be idle.
        tokio::time::sleep(Duration::from_millis(4)).await;
        let Ok(more @ 1..) = stream.read(&mut some).await else { break };
        taken += more;
    }
    assert_eq!(taken, length);
}

#[tokio::test]
async fn answers_that_are_not_taken_leave_room_for_small_ones_and_others_wait() {
    let narrow = ConnectionsSettings { max_held_bytes: Some(200_000), ..ConnectionsSettings::default() };
    let narrow = Settings { max_body_bytes: Some(200_000), ..with(narrow) };
    let (app, _) = TestApp::fake_with(&narrow, |_| ()).await;
    let ask = async || app.post("/embed_all", serde_json::from_str(&tokens(24)).unwrap()).await;
    let length = ask().await.body.len();
    assert!((110_000..200_000).contains(&length), "two of them are too many: {length}");
    let (held, connection) = deaf(&app, "/embed_all", &tokens(24)).await;
    assert_eq!(held.status(), 200);
    let refused = ask().await;
    assert_eq!(refused.status, 429, "{}", refused.text());
    assert!(refused.text().contains("max_held_bytes"), "{}", refused.text());
    assert!(refused.header("retry-after").parse::<u64>().is_ok());
    assert_eq!(app.metric("sextant_rejected_total", &["held_bytes"]).await, 1.0);
    works(&app).await;
    drop((held, connection));
    until("it is given up", async || ask().await.status == 200).await;
}

#[tokio::test]
async fn an_answer_that_is_larger_than_all_the_room_is_given_to_one_at_a_time() {
    let narrow = ConnectionsSettings { max_held_bytes: Some(20_000), ..ConnectionsSettings::default() };
    let narrow = Settings { max_body_bytes: Some(20_000), connections: narrow, ..settings() };
    let (app, _) = TestApp::fake_with(&narrow, |_| ()).await;
    let ask = async || app.post("/embed_all", serde_json::from_str(&tokens(24)).unwrap()).await.status;
    assert_eq!(ask().await, 200);
    let (held, connection) = deaf(&app, "/embed_all", &tokens(24)).await;
    assert_eq!((held.status().as_u16(), ask().await), (200, 429));
    drop((held, connection));
    until("it is given up", async || ask().await == 200).await;
}
