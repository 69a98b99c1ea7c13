//! Request lines and headers that are none, or that can be read in two ways.

use super::LAST;
use crate::support::app::TestApp;
use crate::support::wire::exchange;

/// Sends each on a connection of its own, and holds that it and what follows get no vector, no health and no other good answer.
async fn none_is_answered_well(heads: &[String]) {
    let (app, _) = TestApp::fake().await;
    for head in heads {
        let replies = exchange(app.address, (head.clone() + LAST).as_bytes()).await;
        let [only] = replies.as_slice() else { panic!("{head:?}: {replies:?}") };
        assert!((400..500).contains(&only.status), "{head:?}: {only:?}");
    }
    let good = "GET /health HTTP/1.1\r\nhost: test\r\n\r\n";
    let replies = exchange(app.address, (good.to_owned() + LAST).as_bytes()).await;
    assert_eq!(replies.iter().map(|reply| reply.status).collect::<Vec<_>>(), [200, 200]);
}

#[tokio::test]
async fn what_is_no_request_line_is_refused_and_ends_the_connection() {
    let lines = [
        "GET /health",
        "GET /health HTTP/0.9",
        "GET /health HTTP/1.2",
        "GET /health HTTP/2.0",
        "GET /health HTTP/3",
        "GET /health HTTP/1.1 x",
        "GET /health http/1.1",
        "GET /health HTTP/1.1\r",
        "GET  /health HTTP/1.1",
        "GET /health  HTTP/1.1",
        "GET\t/health HTTP/1.1",
        "GET /health\tHTTP/1.1",
        "GET\x0b/health HTTP/1.1",
        " GET /health HTTP/1.1",
        "\tGET /health HTTP/1.1",
        "GET /health /metrics HTTP/1.1",
        "GET /he alth HTTP/1.1",
        "GET /health\0 HTTP/1.1",
        "GET /health\x7f HTTP/1.1",
        "GET \\health HTTP/1.1",
        "GET :// HTTP/1.1",
        "GET",
        "G\0T /health HTTP/1.1",
        "(GET) /health HTTP/1.1",
        "GET: /health HTTP/1.1",
        "/health HTTP/1.1",
        "HTTP/1.1 200 OK",
        "PRI * HTTP/2.0\r\n\r\nXX",
    ];
    none_is_answered_well(&lines.map(|line| format!("{line}\r\nhost: test\r\n\r\n"))).await;
}

#[tokio::test]
async fn what_is_no_header_is_refused_and_ends_the_connection() {
    let lines = [
        "x : y",
        "x\t: y",
        "x y: z",
        ": y",
        "x",
        "x\0: y",
        "\x01: y",
        "x\x0b: y",
        "(x): y",
        "x[]: y",
        "x/y: z",
        "x\u{e9}: y",
        "x: a\0b",
        "x: a\rb",
        "x: a\x0bb",
        "x: a\x7fb",
        "x: y\r\n z",
        "x: y\r\n\tz",
        "x: y\r\n z: w",
        "\r\n x: y",
    ];
    let first = |line: &str| format!("GET /health HTTP/1.1\r\n{line}\r\nhost: test\r\n\r\n");
    let second = |line: &str| format!("GET /health HTTP/1.1\r\nhost: test\r\n{line}\r\n\r\n");
    // An empty line ends a head, wherever it is: what follows the last of these is another request.
    let (_, folded) = lines.split_last().unwrap();
    let heads: Vec<String> = folded.iter().flat_map(|line| [first(line), second(line)]).collect();
    none_is_answered_well(&heads).await;
}

/// CONNECT would make the server a way to other addresses.
#[tokio::test]
async fn no_way_to_another_address_is_opened() {
    let (app, _) = TestApp::fake().await;
    for line in [
        "CONNECT 127.0.0.1:80 HTTP/1.1",
        "CONNECT localhost:22 HTTP/1.1",
        "CONNECT /health HTTP/1.1",
        "CONNECT http://127.0.0.1/ HTTP/1.1",
        "CONNECT * HTTP/1.1",
        "TRACE /health HTTP/1.1",
        "GET health HTTP/1.1",
        "GET localhost:80 HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "GET http://elsewhere.example/nowhere HTTP/1.1",
        "GET ftp://elsewhere.example/nowhere HTTP/1.1",
    ] {
        let head = format!("{line}\r\nhost: test\r\nconnection: close\r\n\r\n");
        let replies = exchange(app.address, head.as_bytes()).await;
        let [only] = replies.as_slice() else { panic!("{line}: {replies:?}") };
        assert!((400..500).contains(&only.status), "{line}: {only:?}");
    }
}
