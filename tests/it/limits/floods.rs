//! Floods of HTTP/2 frames: each ends its own connection or is borne, another connection is answered, and the server's memory stays bounded.

use std::net::SocketAddr;

use h2::Reason;
use serde_json::json;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;

use super::connect_to;
use crate::command::{Server, imported, path};
use crate::support::app::client;
use crate::support::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, GET, GO_AWAY, HEADERS, PING, POST, RESET, SETTINGS,
    WINDOW_UPDATE, frame, open, streams,
};

/// Bytes by which the server's memory may have grown at its highest, whatever the flood.
const MOST_GROWTH: u64 = 32 << 20;
/// Frames of each flood.
const MANY: u32 = 200_000;
const PRIORITY: u8 = 2;
const UNKNOWN: u8 = 0xfa;
/// The payload of the ping by which a flood asks whether its connection goes on.
const STILL_THERE: &[u8; 8] = b"hither??";
/// Flag of SETTINGS and PING.
const ACK: u8 = 1;

/// A server in a process of its own, so that its memory can be told.
pub(super) struct Target {
    server: Server,
    _directory: TempDir,
    pub(super) address: SocketAddr,
    client: reqwest::Client,
    base: u64,
}

impl Target {
    pub(super) async fn start(more: &[&str]) -> Self {
        let directory = imported();
        let server = Server::start(&path(&directory, "models"), more);
        let address = server.address.parse().unwrap();
        let mut target = Self { server, _directory: directory, address, client: client(), base: 0 };
        target.works().await;
        target.base = target.peak();
        target
    }

    /// Another connection gets its vector.
    pub(super) async fn works(&self) {
        let request = self.client.post(format!("http://{}/v1/embeddings", self.address));
        let body = json!({ "model": "tiny", "input": "the red house" }).to_string();
        let answer = request.header("content-type", "application/json").body(body).send().await.unwrap();
        assert_eq!(answer.status(), 200);
    }

    /// The most bytes of memory that the process has had.
    fn peak(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.server.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }

    /// How much more that is than it was before.
    pub(super) fn growth(&self) -> u64 {
        self.peak() - self.base
    }

    /// Sends these frames over a connection of their own, taking what the server says. The reason for which the server ended the connection,
    /// or none if it goes on.
    async fn flood(&self, frames: &[u8]) -> Option<Reason> {
        let (mut read, mut write) = open(self.address, &[]).await.into_split();
        let ask = [frames, &frame(PING, 0, 0, STILL_THERE)].concat();
        let sending = tokio::spawn(async move {
            // It may have ended.
            let _ended = write.write_all(&ask).await;
            write
        });
        let ended = loop {
            match Frame::read(&mut read).await {
                Ok(frame) if frame.kind == GO_AWAY => break Some(Reason::from(frame.number(4))),
                Ok(frame) if frame.kind == PING && frame.payload == STILL_THERE => break None,
                Ok(_) => {}
                Err(error) => panic!("the connection ended without a reason: {error}"),
            }
        };
        drop(read);
        sending.await.unwrap();
        self.works().await;
        let growth = self.growth();
        assert!(growth < MOST_GROWTH, "{growth} bytes more");
        ended
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_streams_and_headers_end_their_connection_and_no_other() {
    let target = Target::start(&[]).await;
    let cancel = u32::from(Reason::CANCEL).to_be_bytes();
    let (calm, most) = (Some(Reason::ENHANCE_YOUR_CALM), 0x7fff_ffff_u32.to_be_bytes());
    let rapid =
        |number| [frame(HEADERS, END_HEADERS, number, POST), frame(RESET, 0, number, &cancel)].concat();
    let rapid: Vec<u8> = streams(2000).flat_map(rapid).collect();
    // A client that has the server reset its streams, by windows that overflow.
    let wrong =
        |number| [frame(HEADERS, END_HEADERS, number, POST), frame(WINDOW_UPDATE, 0, number, &most)].concat();
    let wrong: Vec<u8> = streams(2000).flat_map(wrong).collect();
    // A head without an end, in parts with and without a byte.
    let begin = frame(HEADERS, 0, 1, GET);
    let empty = [&begin[..], &frame(CONTINUATION, 0, 1, b"").repeat(2000)].concat();
    let header = frame(CONTINUATION, 0, 1, b"\x00\x01a\x01b");
    let headers = [&begin[..], &header.repeat(2000)].concat();
    for (frames, what) in [
        (&rapid, "rapid resets"),
        (&wrong, "resets by the server"),
        (&empty, "empty parts"),
        (&headers, "parts"),
    ] {
        for _ in 0..MANY / 2000 / 4 {
            assert_eq!(target.flood(frames).await, calm, "{what}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_control_frames_and_empty_data_take_no_memory() {
    let target = Target::start(&[]).await;
    let many = |frame: Vec<u8>| frame.repeat(MANY.try_into().unwrap());
    let one = 1u32.to_be_bytes();
    let window = [0, 4, 0, 0, 255, 255];
    for (frames, what) in [
        (frame(SETTINGS, 0, 0, b""), "settings"),
        (frame(SETTINGS, 0, 0, &window), "settings of a window"),
        (frame(PING, 0, 0, b"12345678"), "pings"),
        (frame(PING, ACK, 0, b"12345678"), "answers to no ping"),
        (frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 16]), "priorities"),
        (frame(UNKNOWN, 255, 7, b"unknown"), "frames of no kind"),
        (frame(WINDOW_UPDATE, 0, 0, &one), "windows"),
    ] {
        let ended = target.flood(&many(frames)).await;
        assert!(matches!(ended, None | Some(Reason::ENHANCE_YOUR_CALM)), "{what}: {ended:?}");
    }
    let posted = frame(HEADERS, END_HEADERS, 1, POST);
    for (data, what) in [(&b""[..], "empty data"), (b"x", "data of a byte")] {
        let frames = [&posted[..], &many(frame(DATA, 0, 1, data))].concat();
        assert_eq!(target.flood(&frames).await, Some(Reason::ENHANCE_YOUR_CALM), "{what}");
    }
}

/// An entry of 4,000 bytes in the table of headers, and a byte for each time that it is meant again: 48 MB of headers in 16 KB.
#[tokio::test(flavor = "multi_thread")]
async fn headers_that_unpack_to_a_thousand_times_their_size_take_no_memory() {
    let target = Target::start(&[]).await;
    let value = 4000 - 127;
    let length = [127, u8::try_from(value % 128 + 128).unwrap(), u8::try_from(value / 128).unwrap()];
    let entry = [&[0x40, 1, b'x'], &length[..], &[b'y'; 4000]].concat();
    let bomb = |number| {
        let block = [GET, &entry, &[0xbe; 12_000]].concat();
        frame(HEADERS, END_HEADERS | END_STREAM, number, &block)
    };
    let ended = target.flood(&streams(50).flat_map(bomb).collect::<Vec<u8>>()).await;
    assert!(
        matches!(
            ended,
            None | Some(Reason::ENHANCE_YOUR_CALM | Reason::COMPRESSION_ERROR | Reason::PROTOCOL_ERROR)
        ),
        "{ended:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_break_the_protocol_end_their_connection_and_no_other() {
    let target = Target::start(&[]).await;
    let (mut honest, connection) = h2::client::handshake(connect_to(target.address).await).await.unwrap();
    tokio::spawn(connection);
    let most = 0x7fff_ffff_u32.to_be_bytes();
    let head = |number, flags| frame(HEADERS, END_HEADERS | flags, number, GET);
    for frames in [
        frame(WINDOW_UPDATE, 0, 0, &most).repeat(2),
        frame(WINDOW_UPDATE, 0, 0, &[0; 4]),
        frame(WINDOW_UPDATE, 0, 0, &[0; 3]),
        frame(DATA, 0, 1, b"of a stream that is not open"),
        frame(DATA, 0, 0, b"of no stream"),
        frame(RESET, 0, 1, &[0; 4]),
        frame(CONTINUATION, END_HEADERS, 1, GET),
        head(2, END_STREAM),
        head(0, END_STREAM),
        [frame(HEADERS, 0, 1, GET), head(3, END_STREAM)].concat(),
        frame(SETTINGS, 0, 0, &[0; 5]),
        frame(SETTINGS, ACK, 0, &[0; 6]),
        frame(SETTINGS, 0, 0, &[0, 4, 255, 255, 255, 255]),
        frame(PING, 0, 0, &[0; 7]),
        frame(PING, 0, 1, &[0; 8]),
        frame(HEADERS, END_HEADERS, 1, &[0; 16_385]),
        // An index of no entry.
        frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0xff, 0xff, 0xff, 0x7f]),
    ] {
        let ended = target.flood(&frames).await;
        let is_told = ended.is_some_and(|reason| reason != Reason::NO_ERROR);
        assert!(is_told, "{ended:?}: {:?}", &frames[..frames.len().min(20)]);
        assert_eq!(super::get(&mut honest, "/health").await, Ok(200.try_into().unwrap()));
    }
    // Of a stream that was open: it is reset, or the connection ends.
    let closed = [head(1, END_STREAM), frame(DATA, 0, 1, b"more")].concat();
    assert!(matches!(
        target.flood(&closed).await,
        None | Some(Reason::STREAM_CLOSED | Reason::PROTOCOL_ERROR)
    ));
    // More than a window, without being told that there is more room.
    let body =
        [frame(HEADERS, END_HEADERS, 1, POST), frame(DATA, 0, 1, &[b' '; 16_384]).repeat(2000)].concat();
    assert!(matches!(target.flood(&body).await, None | Some(Reason::FLOW_CONTROL_ERROR)));
}
