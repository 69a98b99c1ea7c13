//! One HTTP/1.1 connection and one exchange at a time on it.
//!
//! hyper's connection without a pool, redirects or layers above it: the generator takes its time from the server's cores.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::HeaderMap;
use hyper::{Request, Response, body::Incoming};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::net::TcpStream;

use super::target::Target;

/// How much of an answer's end and beginning is kept: OpenAI's `usage` stands at one of them.
const KEPT: usize = 256;

/// Why a request got no whole answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Cause {
    /// No connection.
    Connect,
    /// The server closed the connection before the answer was whole.
    Closed,
    /// Not within the timeout.
    Timeout,
    /// The answer is no HTTP.
    Protocol,
}

impl fmt::Display for Cause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Connect => "it cannot be connected to",
            Self::Closed => "the connection was closed",
            Self::Timeout => "the timeout is over",
            Self::Protocol => "what came back is no HTTP",
        })
    }
}

impl From<hyper::Error> for Cause {
    fn from(error: hyper::Error) -> Self {
        if error.is_parse() || error.is_parse_status() || error.is_parse_too_large() {
            Self::Protocol
        } else {
            Self::Closed
        }
    }
}

/// What an answer said.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// Of the inputs, if the server counts them.
    pub(super) tokens: Option<u64>,
    /// Seconds.
    pub(super) retry_after: Option<u64>,
    /// Of the body.
    pub(super) bytes: u64,
}

/// A client of one server, connected when it is first used. Cancelling an exchange costs the connection.
#[derive(Default)]
pub(super) struct Client(Option<SendRequest<Full<Bytes>>>);

impl Client {
    /// Posts `body` and reads the whole answer.
    pub(super) async fn exchange(
        &mut self,
        target: &Target,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Answer, Cause> {
        match tokio::time::timeout(timeout, self.post(target, body)).await {
            Ok(result) => result,
            Err(_) => Err(Cause::Timeout),
        }
    }

    async fn post(&mut self, target: &Target, body: Bytes) -> Result<Answer, Cause> {
        let (response, sender) = self.send(target, target.request(body)).await?;
        let status = response.status().as_u16();
        let number = |headers: &HeaderMap, name| headers.get(name)?.to_str().ok()?.trim().parse().ok();
        let retry_after = number(response.headers(), "retry-after");
        let counted = number(response.headers(), "x-compute-tokens");
        let mut read = Read::default();
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            if let Some(data) = frame?.data_ref() {
                read.take(data);
            }
        }
        self.0 = Some(sender);
        let tokens = counted.or_else(|| read.prompt_tokens());
        Ok(Answer { status, tokens, retry_after, bytes: read.bytes })
    }

    /// The status and whole body of a request: for the few that are looked at.
    pub(super) async fn fetch(
        &mut self,
        target: &Target,
        request: Request<Full<Bytes>>,
    ) -> Result<(u16, Bytes), Cause> {
        let (response, sender) = self.send(target, request).await?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await?.to_bytes();
        self.0 = Some(sender);
        Ok((status, body))
    }

    async fn send(
        &mut self,
        target: &Target,
        mut request: Request<Full<Bytes>>,
    ) -> Result<(Response<Incoming>, SendRequest<Full<Bytes>>), Cause> {
        // Out of `self` until the answer is read: what is left of a broken exchange must not be used again.
        if let Some(mut sender) = self.0.take()
            && sender.ready().await.is_ok()
        {
            match sender.try_send_request(request).await {
                Ok(response) => return Ok((response, sender)),
                // Closed while idle, and nothing sent: the request is the next connection's.
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(error.into_error().into()),
                },
            }
        }
        let mut sender = connect(target).await?;
        let response = sender.send_request(request).await?;
        Ok((response, sender))
    }
}

async fn connect(target: &Target) -> Result<SendRequest<Full<Bytes>>, Cause> {
    let stream = TcpStream::connect((target.host.as_str(), target.port)).await.map_err(|_| Cause::Connect)?;
    stream.set_nodelay(true).map_err(|_| Cause::Connect)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Its failure reaches whoever waits for the answer.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

/// What is kept of a body that goes by.
#[derive(Default)]
struct Read {
    bytes: u64,
    start: Vec<u8>,
    end: Vec<u8>,
}

impl Read {
    fn take(&mut self, data: &[u8]) {
        self.bytes += data.len() as u64;
        let missing = KEPT.saturating_sub(self.start.len()).min(data.len());
        self.start.extend_from_slice(&data[..missing]);
        let last = &data[data.len().saturating_sub(KEPT)..];
        let excess = (self.end.len() + last.len()).saturating_sub(KEPT);
        self.end.drain(..excess);
        self.end.extend_from_slice(last);
    }

    /// The number behind `"prompt_tokens":`.
    fn prompt_tokens(&self) -> Option<u64> {
        let number = |kept: &[u8]| {
            let text = String::from_utf8_lossy(kept);
            let (_, rest) = text.rsplit_once("\"prompt_tokens\":")?;
            let rest = rest.trim_start();
            let digits = rest.find(|c: char| !c.is_ascii_digit())?;
            rest[..digits].parse().ok()
        };
        number(&self.end).or_else(|| number(&self.start))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_count_is_found_at_either_end_of_a_long_body_in_any_pieces() {
        let vector = "A".repeat(3000);
        let end = format!(r#"{{"data":["{vector}"],"usage":{{"prompt_tokens": 17,"total_tokens":17}}}}"#);
        let start = format!(r#"{{"usage":{{"prompt_tokens":5,"total_tokens":5}},"data":["{vector}"]}}"#);
        for (body, expected) in [(end, Some(17)), (start, Some(5)), (vector, None)] {
            for piece in [1, 7, 200, 255, 256, 257, 5000] {
                let mut read = Read::default();
                body.as_bytes().chunks(piece).for_each(|data| read.take(data));
                assert_eq!(read.prompt_tokens(), expected, "pieces of {piece}");
                assert_eq!(read.bytes, body.len() as u64);
            }
        }
    }
}
