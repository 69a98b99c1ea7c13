//! How long a body is, where a request says it in two ways or in one that is not clear.

use super::End::{Alone, Both, Refused};
use super::{BODY, SMUGGLED, all_end, hasty, outer};
use crate::support::app::TestApp;
use crate::support::wire::exchange;

/// A whole chunked body of [`BODY`].
fn chunked() -> String {
    format!("{:x}\r\n{BODY}\r\n0\r\n\r\n", BODY.len())
}

#[tokio::test]
async fn a_body_with_a_length_and_chunks_ends_its_connection() {
    let (app, fake) = TestApp::fake().await;
    let whole = format!("0\r\n\r\n{SMUGGLED}");
    let length = format!("content-length: {}\r\n", whole.len());
    let mut cases = Vec::new();
    // Read by its length, the hidden request is the body; read by its chunks, it is the next request.
    for chunks in [
        "transfer-encoding: chunked\r\n",
        "Transfer-Encoding:chunked\r\n",
        "transfer-encoding: \t chunked \r\n",
        "TRANSFER-ENCODING: CHUNKED\r\n",
        "transfer-encoding: identity\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: gzip, chunked\r\n",
        "transfer-encoding: , chunked\r\n",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
        // A line may end without CR, for this server as for most.
        "x: y\ntransfer-encoding: chunked\r\n",
    ] {
        cases.push((outer(&format!("{length}{chunks}")) + &whole, Alone(400)));
        cases.push((outer(&format!("{chunks}{length}")) + &whole, Alone(400)));
    }
    // Read by its chunks, the hidden request is the body; read by its length, it is the next request.
    let inner = format!("{:x}\r\n{SMUGGLED}\r\n0\r\n\r\n", SMUGGLED.len());
    let short = inner.find("\r\n").unwrap() + 2;
    let both = format!("content-length: {short}\r\ntransfer-encoding: chunked\r\n");
    cases.push((outer(&both) + &inner, Alone(400)));
    let good = chunked();
    let both = format!("transfer-encoding: chunked\r\ncontent-length: {}\r\n", good.len());
    cases.push((outer(&both) + &good, Alone(200)));
    all_end(&app, cases).await;
    assert_eq!(fake.rows(), 1);
}

#[tokio::test]
async fn chunks_that_are_announced_in_an_unclear_way_are_refused() {
    let (app, fake) = TestApp::fake().await;
    let whole = format!("0\r\n\r\n{SMUGGLED}");
    let length = format!("content-length: {}\r\n", whole.len());
    let unclear = [
        "transfer-encoding: xchunked",
        "transfer-encoding: chunkedx",
        "transfer-encoding: identity",
        "transfer-encoding: gzip",
        "transfer-encoding: chunked, identity",
        "transfer-encoding: chunked,",
        "transfer-encoding: chunked;q=1",
        "transfer-encoding: \"chunked\"",
        "transfer-encoding: 'chunked'",
        "transfer-encoding: chun ked",
        "transfer-encoding:",
        "transfer-encoding: chunked\r\ntransfer-encoding: identity",
        "transfer-encoding : chunked",
        "transfer-encoding\t: chunked",
        " transfer-encoding: chunked",
        "transfer-encoding:\r\n chunked",
        "x: y\r\n transfer-encoding: chunked",
        "x: y\r\n\ttransfer-encoding: chunked",
        "x: y\rtransfer-encoding: chunked",
        "transfer-encoding\r\n: chunked",
        "transfer-encoding: chunked\0",
        "transfer-encoding: \x0bchunked",
        "transfer-encoding: \x0cchunked",
        "transfer-encoding\0: chunked",
    ];
    let case = |line: &str, length: &str| (outer(&format!("{length}{line}\r\n")) + &whole, Refused);
    all_end(&app, unclear.iter().flat_map(|line| [case(line, ""), case(line, &length)])).await;
    // Another header's name: the length counts, and the hidden request is the body.
    let others = ["transfer_encoding: chunked", "te: chunked", "x-transfer-encoding: chunked"];
    let case = |line: &str| (outer(&format!("{length}{line}\r\n")) + &whole, Both(400));
    all_end(&app, others.map(case)).await;
    let old = outer("transfer-encoding: chunked\r\n").replace("HTTP/1.1", "HTTP/1.0") + &chunked();
    all_end(&app, [(old, Refused)]).await;
    assert_eq!(fake.rows(), 0);
}

#[tokio::test]
async fn a_length_that_is_no_plain_number_or_two_of_them_is_refused() {
    let (app, fake) = TestApp::fake().await;
    let good = BODY.len();
    let wrong = [
        format!("+{good}"),
        format!("-{good}"),
        format!("{good:#x}"),
        format!("{good}, {good}"),
        format!("{good},{good}"),
        format!("{good}."),
        format!("{good}.0"),
        format!("{good}e0"),
        format!("{good};"),
        format!("\"{good}\""),
        "3 1".to_owned(),
        String::new(),
        "\u{0663}\u{0661}".to_owned(),
        // Of 64 bits and one more, which others would count as this length.
        (u128::from(u64::MAX) + 1 + good as u128).to_string(),
        // What hyper keeps for bodies without a length.
        u64::MAX.to_string(),
        (u64::MAX - 1).to_string(),
        format!("{good}\r\ncontent-length: 0"),
        format!("0\r\ncontent-length: {good}"),
        format!("{good}\r\ncontent-length:"),
        format!("{good}\r\n content-length: 0"),
    ];
    let case = |length: &String| (outer(&format!("content-length: {length}\r\n")) + BODY + SMUGGLED, Refused);
    all_end(&app, wrong.iter().map(case)).await;
    let spaced = outer(&format!("content-length : {good}\r\n")) + BODY;
    all_end(&app, [(spaced, Refused)]).await;
    assert_eq!(fake.rows(), 0);
    let clear = [format!("00{good}"), format!(" \t{good} "), format!("{good}\r\ncontent-length: {good}")];
    let case = |length: &String| (outer(&format!("content-length: {length}\r\n")) + BODY, Both(200));
    all_end(&app, clear.iter().map(case)).await;
    assert_eq!(fake.rows(), clear.len());
}

/// Of a body that is announced as longer than what comes, the next request's bytes are a part.
#[tokio::test]
async fn what_follows_a_body_that_is_too_short_is_a_part_of_it() {
    let (app, fake) = hasty().await;
    let short = outer(&format!("content-length: {}\r\n", BODY.len() + 1000)) + BODY + SMUGGLED;
    let promised = outer("content-length: 1000\r\nexpect: 100-continue\r\n") + SMUGGLED;
    all_end(&app, [(short, Alone(408)), (promised, Alone(408))]).await;
    assert_eq!(fake.rows(), 0);
}

#[tokio::test]
async fn bodies_of_requests_that_have_none_are_passed_over() {
    let (app, _) = TestApp::fake().await;
    let mut cases = Vec::new();
    for (method, path, status) in [
        ("GET", "/health", 200),
        ("DELETE", "/health", 405),
        ("OPTIONS", "/v1/embeddings", 405),
        ("GET", "/nowhere", 404),
    ] {
        let head = format!("{method} {path} HTTP/1.1\r\nhost: test\r\nx-request-id: outer\r\n");
        cases.push((format!("{head}content-length: {}\r\n\r\n{SMUGGLED}", SMUGGLED.len()), Both(status)));
        let chunk = format!("{:x}\r\n{SMUGGLED}\r\n0\r\n\r\n", SMUGGLED.len());
        cases.push((format!("{head}transfer-encoding: chunked\r\n\r\n{chunk}"), Both(status)));
        // An offer to change the protocol is not taken.
        for offer in ["h2c, HTTP/2.0", "websocket", "TLS/1.0"] {
            let offer = format!(
                "connection: upgrade, http2-settings\r\nupgrade: {offer}\r\nhttp2-settings: AAMAAABk\r\n"
            );
            cases.push((
                format!("{head}{offer}content-length: {}\r\n\r\n{SMUGGLED}", SMUGGLED.len()),
                Both(status),
            ));
        }
    }
    all_end(&app, cases).await;
}

/// What is refused before its body is read: the server reads the body to its end, or closes the connection.
#[tokio::test]
async fn a_large_body_that_is_not_read_is_not_answered() {
    let (app, fake) = TestApp::fake().await;
    let body = SMUGGLED.repeat(3000);
    let sized = format!("content-length: {}\r\n", body.len());
    let chunk = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    for (line, more, status) in [
        ("GET /health", "", 200),
        ("POST /nowhere", "", 404),
        ("DELETE /v1/embeddings", "", 405),
        ("POST /embed", "content-encoding: gzip\r\n", 415),
        ("POST /embed", "content-type: text/plain\r\n", 415),
        ("POST /embed", "content-type: application/json\r\n", 422),
        ("POST /admin/v1/models/tiny/rollback", "x-forwarded-for: 10.0.0.1\r\n", 403),
    ] {
        for (length, body) in [(sized.as_str(), &body), ("transfer-encoding: chunked\r\n", &chunk)] {
            let head = format!("{line} HTTP/1.1\r\nhost: test\r\nx-request-id: outer\r\n{more}{length}\r\n");
            let replies = exchange(app.address, (head + body + super::LAST).as_bytes()).await;
            let [first, rest @ ..] = replies.as_slice() else { panic!("{line}: no answer") };
            assert_eq!((first.status, &*first.id), (status, "outer"), "{line} {more} {length}");
            assert!(rest.iter().all(|reply| reply.id == "last"), "{line} {more} {length}: {rest:?}");
        }
    }
    assert_eq!(fake.rows(), 0);
}
