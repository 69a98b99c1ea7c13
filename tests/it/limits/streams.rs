//! HTTP/2 clients that do what no library lets one do: their frames are written by hand.

use h2::Reason;
use sextant::config::ConnectionsSettings;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{connect, get, with, works};
use crate::support::app::{TestApp, until};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const GO_AWAY: u8 = 7;
const END_HEADERS: u8 = 4;
/// POST http://test/, whose body is to come: three fields of HPACK's static table, and the name of the host.
const POST: &[u8] = b"\x83\x86\x84\x01\x04test";
/// SETTINGS_MAX_CONCURRENT_STREAMS.
const MAX_STREAMS: u16 = 3;

struct Frame {
    stream: u32,
    payload: Vec<u8>,
}

impl Frame {
    /// The 32 bits at this place.
    fn number(&self, place: usize) -> u32 {
        u32::from_be_bytes(self.payload[place..place + 4].try_into().unwrap())
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A connection on which these frames follow the client's settings.
async fn open(app: &TestApp, frames: &[Vec<u8>]) -> TcpStream {
    let mut stream = connect(app).await;
    let text = [PREFACE, &frame(SETTINGS, 0, 0, b""), &frames.concat()].concat();
    stream.write_all(&text).await.unwrap();
    stream
}

/// The next frame of that kind.
async fn next(stream: &mut TcpStream, kind: u8) -> Frame {
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.unwrap_or_else(|error| panic!("no frame {kind}: {error}"));
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length.try_into().unwrap()];
        stream.read_exact(&mut payload).await.unwrap();
        if head[3] == kind {
            let stream = u32::from_be_bytes(head[5..].try_into().unwrap());
            return Frame { stream, payload };
        }
    }
}

/// The numbers of a client's first streams.
fn streams(count: u32) -> impl Iterator<Item = u32> {
    (0..count).map(|index| 2 * index + 1)
}

#[tokio::test]
async fn requests_that_are_taken_back_at_once_end_their_connection_and_no_other() {
    let (app, fake) = TestApp::fake().await;
    let (mut honest, connection) = h2::client::handshake(connect(&app).await).await.unwrap();
    tokio::spawn(connection);
    assert_eq!(get(&mut honest, "/health").await, Ok(200.try_into().unwrap()));
    let cancel = u32::from(Reason::CANCEL).to_be_bytes();
    let taken_back = |number| [frame(HEADERS, END_HEADERS, number, POST), frame(RESET, 0, number, &cancel)];
    let rapid: Vec<Vec<u8>> = streams(1000).flat_map(taken_back).collect();
    let mut rapid = open(&app, &rapid).await;
    let told = next(&mut rapid, GO_AWAY).await;
    assert_eq!(Reason::from(told.number(4)), Reason::ENHANCE_YOUR_CALM);
    assert_eq!(get(&mut honest, "/health").await, Ok(200.try_into().unwrap()));
    assert_eq!(fake.rows(), 0);
    until("it is gone", async || {
        // The honest one, and the one that asks.
        app.metric("sextant_connections", &["listener=\"public\""]).await == 2.0
    })
    .await;
    works(&app).await;
}

#[tokio::test]
async fn a_connection_has_no_more_streams_than_the_server_says() {
    let few = ConnectionsSettings { max_streams: Some(3), ..ConnectionsSettings::default() };
    let (app, _) = TestApp::fake_with(&with(few), |_| ()).await;
    let posts: Vec<Vec<u8>> = streams(4).map(|number| frame(HEADERS, END_HEADERS, number, POST)).collect();
    let mut greedy = open(&app, &posts).await;
    let settings = next(&mut greedy, SETTINGS).await;
    let mut said = settings.payload.chunks(6).filter(|pair| pair[..2] == MAX_STREAMS.to_be_bytes());
    assert_eq!(said.next().unwrap()[2..], 3u32.to_be_bytes());
    let refused = next(&mut greedy, RESET).await;
    assert_eq!((refused.stream, Reason::from(refused.number(0))), (7, Reason::REFUSED_STREAM));
    works(&app).await;
}
