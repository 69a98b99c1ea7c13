//! Without keys only this machine may administer: by no way to write a host's name does another one count as this machine.

use crate::support::app::TestApp;
use crate::support::frames::{END_HEADERS, END_STREAM, HEADERS, fields, frame, next, open};
use crate::support::wire::exchange;

const HERE: [&str; 5] = ["localhost", "127.0.0.1", "127.0.0.1:8080", "[::1]:8080", "[::ffff:127.0.0.1]"];

/// Status 403 in HPACK's form of Huffman's code, behind the two bytes that say what it is.
const FORBIDDEN: [u8; 3] = [0x68, 0x0c, 0xff];

/// As a name server of another one may have it lead to this machine, or as parsers disagree about it.
const ELSEWHERE: [&str; 17] = [
    "rebound.example",
    "localhost.rebound.example",
    "127.0.0.1.rebound.example",
    "rebound.example#127.0.0.1",
    "rebound.example/127.0.0.1",
    "rebound.example?127.0.0.1",
    "rebound.example:127.0.0.1",
    "rebound.example@127.0.0.1",
    "127.0.0.1@rebound.example",
    "localhost:80@rebound.example",
    "localhost, rebound.example",
    "localhost rebound.example",
    "localhost%2erebound.example",
    "localhost\\.rebound.example",
    "10.0.0.1",
    "0.0.0.0",
    "",
];

#[tokio::test]
async fn another_hosts_name_is_not_this_machine_however_it_is_written() {
    let (app, _) = TestApp::fake().await;
    let ask = async |target: &str, headers: &str| {
        let head = format!("GET {target} HTTP/1.1\r\n{headers}connection: close\r\n\r\n");
        let replies = exchange(app.address, head.as_bytes()).await;
        let [only] = replies.as_slice() else { panic!("{head:?}: {replies:?}") };
        only.status
    };
    // This server follows no repository, which a request is told that gets so far.
    let (path, let_in) = ("/admin/v1/models", 503);
    let refused = |status: u16| [400, 403].contains(&status);
    for here in HERE {
        assert_eq!(ask(path, &format!("host: {here}\r\n")).await, let_in, "{here}");
        assert_eq!(
            ask(&format!("http://{here}{path}"), &format!("host: {here}\r\n")).await,
            let_in,
            "{here}"
        );
        for elsewhere in ELSEWHERE {
            let at = format!("{here} and {elsewhere}");
            // Which of two a proxy reads is not known.
            let twice = [
                format!("host: {here}\r\nhost: {elsewhere}\r\n"),
                format!("host: {elsewhere}\r\nhost: {here}\r\n"),
            ];
            for hosts in twice {
                assert!(refused(ask(path, &hosts).await), "two hosts: {at}");
            }
            let target = format!("http://{here}{path}");
            assert!(refused(ask(&target, &format!("host: {elsewhere}\r\n")).await), "target and host: {at}");
            let target = format!("http://{elsewhere}{path}");
            // What follows a name may be read as another path, where there is something else.
            assert_ne!(ask(&target, &format!("host: {here}\r\n")).await, let_in, "host and target: {at}");
        }
    }
    for elsewhere in ELSEWHERE {
        assert!(refused(ask(path, &format!("host: {elsewhere}\r\n")).await), "{elsewhere}");
    }
    assert!(refused(ask(path, "").await), "without a host");
    assert!(refused(ask(path, "host: \r\nhost: localhost\r\n").await));
}

#[tokio::test]
async fn by_http_2_the_authority_and_the_host_must_both_be_this_machine() {
    let (app, _) = TestApp::fake().await;
    let is_let_in = async |names: &[(&str, &str)]| {
        let first = [(":method", "GET"), (":scheme", "http"), (":path", "/admin/v1/models")];
        let given = [&first, names].concat();
        let head = frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields(&given));
        let mut stream = open(app.address, &head).await;
        next(&mut stream, HEADERS).await.payload[2..5] != FORBIDDEN
    };
    for (names, expected) in [
        (&[(":authority", "localhost")][..], true),
        (&[(":authority", "localhost"), ("host", "127.0.0.1")], true),
        (&[("host", "localhost")], true),
        (&[(":authority", "rebound.example")], false),
        (&[(":authority", "rebound.example"), ("host", "localhost")], false),
        (&[(":authority", "localhost"), ("host", "rebound.example")], false),
        (&[("host", "localhost"), ("host", "rebound.example")], false),
        (&[], false),
    ] {
        assert_eq!(is_let_in(names).await, expected, "{names:?}");
    }
}
