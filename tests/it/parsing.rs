//! Requests that two parsers may read differently. No byte of a body is answered as a request, and no way to write a path, a name or a
//! key opens what the key is not for.

mod bodies;
mod chunks;
mod heads;
mod http2;
mod keys;
mod local;
mod paths;

use sextant::config::{ConnectionsSettings, Settings};

use crate::support::app::{TestApp, settings};
use crate::support::fake::Fake;
use crate::support::wire::{Reply, exchange};

/// What the body of a good request is.
const BODY: &str = r#"{"model": "tiny", "input": "a"}"#;

/// What an attacker hides: answered, it would be taken by a proxy for the answer to another client's request.
const SMUGGLED: &str = "GET /health HTTP/1.1\r\nhost: test\r\nx-request-id: smuggled\r\n\r\n";

/// What comes last on a connection, so that the server closes it.
const LAST: &str = "GET /health HTTP/1.1\r\nhost: test\r\nx-request-id: last\r\nconnection: close\r\n\r\n";

/// How a connection ends on which a request, `outer`, and [`LAST`] are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// `outer` is refused, by hyper without a name, and nothing behind it is read.
    Refused,
    /// `outer` gets this status, and nothing behind it is read.
    Alone(u16),
    /// `outer` gets this status, and [`LAST`] is answered.
    Both(u16),
}

impl End {
    fn of(replies: &[Reply], case: &str) -> Self {
        match replies {
            [Reply { status: 400..500, id, .. }] if id.is_empty() => Self::Refused,
            [Reply { status, id, .. }] if id == "outer" => Self::Alone(*status),
            [first, last] if first.id == "outer" && (last.status, &*last.id) == (200, "last") => {
                Self::Both(first.status)
            }
            other => panic!("{case:?}: {other:?}"),
        }
    }
}

/// A server that does not wait long for the rest of a body.
async fn hasty() -> (TestApp, Fake) {
    let connections =
        ConnectionsSettings { body_stall_timeout: Some("200ms".into()), ..ConnectionsSettings::default() };
    TestApp::fake_with(&Settings { connections, ..settings() }, |_| ()).await
}

/// The head of `outer`, a request for a vector, without its end and what says how long its body is.
fn outer(headers: &str) -> String {
    format!(
        "POST /v1/embeddings HTTP/1.1\r\nhost: test\r\nx-request-id: outer\r\ncontent-type: application/json\r\n{headers}\r\n"
    )
}

/// Holds the end of each connection against what is expected, and tells all that are otherwise.
async fn all_end(app: &TestApp, cases: impl IntoIterator<Item = (String, End)>) {
    let mut otherwise = Vec::new();
    for (text, expected) in cases {
        let replies = exchange(app.address, (text.clone() + LAST).as_bytes()).await;
        assert!(replies.iter().all(|reply| reply.id != "smuggled"), "{text:?}: {replies:?}");
        let end = End::of(&replies, &text);
        if end != expected {
            otherwise.push(format!("{text:?}: {end:?}, not {expected:?}"));
        }
    }
    assert!(otherwise.is_empty(), "{otherwise:#?}");
}
