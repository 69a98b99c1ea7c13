//! HTTP/1.1 by hand: bytes in, and the answers that they got.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// One answer of a connection.
#[derive(Debug, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    /// The `x-request-id` that it was given back with, which says of which request it is; empty if there is none.
    pub id: String,
    pub body: String,
}

/// Sends `bytes` over a connection of their own and reads until the server closes it.
pub async fn exchange(address: SocketAddr, bytes: &[u8]) -> Vec<Reply> {
    let (mut read, mut write) = TcpStream::connect(address).await.unwrap().into_split();
    let mut text = Vec::new();
    let sending = async {
        // The server may have enough before it has read all.
        let _enough = write.write_all(bytes).await;
        write
    };
    // A reset is an end as well. The writing half lives until then: a server takes its end for that of the client.
    let (_write, _end) = tokio::join!(sending, read.read_to_end(&mut text));
    replies(&text)
}

/// The answers in `text`, those of status 100 left out.
fn replies(mut text: &[u8]) -> Vec<Reply> {
    let mut found = Vec::new();
    while !text.is_empty() {
        let end = text.windows(4).position(|window| window == b"\r\n\r\n").expect("a whole head") + 4;
        let (head, rest) = (std::str::from_utf8(&text[..end]).unwrap(), &text[end..]);
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let field = |name: &str| {
            head.lines().filter_map(|line| line.split_once(": ")).find(|(given, _)| *given == name)
        };
        let length = field("content-length").map_or(0, |(_, length)| length.parse().unwrap());
        // A connection that is cut in the middle of a body has no more answers.
        let (body, rest) = rest.split_at_checked(length).unwrap_or((rest, &[]));
        if status != 100 {
            let id = field("x-request-id").map_or("", |(_, id)| id).to_owned();
            found.push(Reply { status, id, body: String::from_utf8_lossy(body).into_owned() });
        }
        text = rest;
    }
    found
}
