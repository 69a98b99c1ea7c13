//! Requests of HTTP/2 that a server before or behind this one could read otherwise, above all when it writes them down as HTTP/1.1.

use super::BODY;
use crate::support::app::TestApp;
use crate::support::frames::{
    DATA, END_HEADERS, END_STREAM, Frame, GO_AWAY, HEADERS, RESET, fields, frame, open,
};

/// What a request that is as it must be begins with.
const GOOD: [(&str, &str); 4] =
    [(":method", "POST"), (":scheme", "http"), (":authority", "test"), (":path", "/v1/embeddings")];

/// Status 200 as HPACK's static table has it.
const OK: u8 = 0x88;

/// Whether a request of these fields and this body gets an answer with status 200.
async fn is_answered(app: &TestApp, given: &[(&str, &str)], body: &str) -> bool {
    let ends = if body.is_empty() { END_STREAM } else { 0 };
    let head = frame(HEADERS, END_HEADERS | ends, 1, &fields(given));
    let body = if body.is_empty() { Vec::new() } else { frame(DATA, END_STREAM, 1, body.as_bytes()) };
    let mut stream = open(app.address, &[head, body].concat()).await;
    loop {
        match Frame::read(&mut stream).await {
            Ok(Frame { kind: HEADERS, payload, .. }) => return payload[0] == OK,
            Ok(Frame { kind: RESET | GO_AWAY, .. }) | Err(_) => return false,
            Ok(_) => {}
        }
    }
}

#[tokio::test]
async fn a_request_that_http_1_would_read_otherwise_gets_no_good_answer() {
    let (app, fake) = TestApp::fake().await;
    let json = ("content-type", "application/json");
    let length = BODY.len().to_string();
    assert!(is_answered(&app, &[&GOOD[..], &[json]].concat(), BODY).await);
    assert!(is_answered(&app, &[&GOOD[..], &[json, ("content-length", &length)]].concat(), BODY).await);
    let computed = fake.rows();
    assert_eq!(computed, 2);
    let (plus, longer, two) = (format!("+{length}"), (BODY.len() + 1).to_string(), format!("{length}, 0"));
    for more in [
        &[("transfer-encoding", "chunked")][..],
        &[("transfer-encoding", "identity")],
        &[("connection", "close")],
        &[("connection", "content-length")],
        &[("keep-alive", "1")],
        &[("proxy-connection", "keep-alive")],
        &[("upgrade", "h2c")],
        &[("te", "gzip")],
        &[("content-length", "0")],
        &[("content-length", "5")],
        &[("content-length", &longer)],
        &[("content-length", &plus)],
        &[("content-length", &two)],
        &[("content-length", "")],
        &[("content-length", &length), ("content-length", "0")],
        &[("content-length", "0"), ("content-length", &length)],
        &[("x", "y\r\ntransfer-encoding: chunked")],
        &[("x", "y\nz")],
        &[("x", "y\rz")],
        &[("x", "y\0z")],
        &[("x\r\ny", "z")],
        &[("x: y", "z")],
        &[("x y", "z")],
        &[("", "y")],
        &[("X", "y")],
        &[("Transfer-Encoding", "chunked")],
        &[(":path", "/health")],
        &[(":method", "GET")],
        &[(":authority", "elsewhere")],
        &[(":x", "y")],
        &[(":status", "200")],
        &[(":protocol", "websocket")],
    ] {
        assert!(!is_answered(&app, &[&GOOD[..], &[json], more].concat(), BODY).await, "{more:?}");
    }
    // A part of the first line with what would be another line, or with none.
    for (name, value) in [
        (":method", "GET /health HTTP/1.1\r\nhost: test\r\n\r\nPOST"),
        (":method", "PO ST"),
        (":method", ""),
        (":method", "CONNECT"),
        (":path", "/v1/embeddings HTTP/1.1\r\nx: y"),
        (":path", "/v1/embeddings\0"),
        (":path", "/v1/embed dings"),
        (":path", "v1/embeddings"),
        (":path", "*"),
        (":path", ""),
        (":scheme", "http://test/health?"),
        (":authority", "test\r\nx: y"),
        (":authority", "test/health?"),
        (":authority", "te st"),
    ] {
        let given = GOOD.map(|(known, good)| if known == name { (known, value) } else { (known, good) });
        assert!(!is_answered(&app, &[&given[..], &[json]].concat(), BODY).await, "{name}: {value:?}");
    }
    for left_out in [":method", ":scheme", ":path"] {
        let given: Vec<_> = GOOD.into_iter().filter(|(name, _)| *name != left_out).chain([json]).collect();
        assert!(!is_answered(&app, &given, BODY).await, "without {left_out}");
    }
    let behind: Vec<_> = [json].into_iter().chain(GOOD).collect();
    assert!(!is_answered(&app, &behind, BODY).await, "the first line behind the headers");
    assert_eq!(fake.rows(), computed);
}
