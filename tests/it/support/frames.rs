//! HTTP/2 frames by hand, for clients that do what no library lets one do.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// What a client begins with.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RESET: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GO_AWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

/// Flag of HEADERS and DATA.
pub const END_STREAM: u8 = 1;
/// Flag of HEADERS and CONTINUATION.
pub const END_HEADERS: u8 = 4;

/// Fields of HPACK's static table: GET and POST http://, the path `/`, and the name of the host.
pub const GET: &[u8] = b"\x82\x86\x84\x01\x04test";
pub const POST: &[u8] = b"\x83\x86\x84\x01\x04test";

pub struct Frame {
    pub kind: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The next one.
    pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Self> {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length.try_into().unwrap()];
        stream.read_exact(&mut payload).await?;
        Ok(Self { kind: head[3], stream: u32::from_be_bytes(head[5..].try_into().unwrap()), payload })
    }

    /// The 32 bits at this place.
    pub fn number(&self, place: usize) -> u32 {
        u32::from_be_bytes(self.payload[place..place + 4].try_into().unwrap())
    }
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Fields as HPACK writes them without its tables and without Huffman's code, so that any byte can be sent.
pub fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &str| {
        // Seven bits of a first byte, and the rest in one more.
        let length = match u8::try_from(text.len()).unwrap() {
            short @ 0..127 => vec![short],
            long => vec![127, long - 127],
        };
        [&length, text.as_bytes()].concat()
    };
    fields.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
}

/// A connection on which these frames follow the client's settings.
pub async fn open(address: SocketAddr, frames: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let text = [PREFACE, &frame(SETTINGS, 0, 0, b""), frames].concat();
    stream.write_all(&text).await.unwrap();
    stream
}

/// The next frame of that kind.
pub async fn next(stream: &mut (impl AsyncRead + Unpin), kind: u8) -> Frame {
    loop {
        let frame = Frame::read(stream).await.unwrap_or_else(|error| panic!("no frame {kind}: {error}"));
        if frame.kind == kind {
            return frame;
        }
    }
}

/// The numbers of a client's first streams.
pub fn streams(count: u32) -> impl Iterator<Item = u32> {
    (0..count).map(|index| 2 * index + 1)
}
