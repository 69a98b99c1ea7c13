//! Answers in parts: a vector that inputs share has its text in memory once, and the answer refers to it as often as there are inputs.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::vec;

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};

/// Takes JSON as it is written, and texts that are known as references to them.
pub(super) struct Parts<F> {
    /// The text that lies where these bytes do, if it is a known one.
    known: F,
    whole: Vec<Bytes>,
    last: Vec<u8>,
}

impl<F: Fn(&[u8]) -> Option<Bytes>> Parts<F> {
    pub(super) fn new(known: F) -> Self {
        Self { known, whole: Vec::new(), last: Vec::new() }
    }

    /// All that was written, with its length known.
    pub(super) fn into_body(mut self) -> Body {
        self.close();
        Body::new(Sent(self.whole.into_iter()))
    }

    fn close(&mut self) {
        if !self.last.is_empty() {
            self.whole.push(Bytes::copy_from_slice(&self.last));
            self.last.clear();
        }
    }
}

impl<F: Fn(&[u8]) -> Option<Bytes>> io::Write for Parts<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match (self.known)(bytes) {
            Some(text) => {
                self.close();
                self.whole.push(text);
            }
            None => self.last.extend_from_slice(bytes),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The body: the parts that are not sent yet.
struct Sent(vec::IntoIter<Bytes>);

impl HttpBody for Sent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Poll::Ready(self.0.next().map(|part| Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_slice().is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_slice().iter().map(|part| part.len() as u64).sum())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[tokio::test]
    async fn known_texts_are_referred_to_and_all_others_copied() {
        // In memory of its own: equal constants may lie in one place.
        let text = Bytes::from(b"[1.0,2.0]".to_vec());
        let known = text.clone();
        let mut parts =
            Parts::new(move |bytes: &[u8]| (bytes.as_ptr() == known.as_ptr()).then(|| known.clone()));
        for piece in [&b"{\"a\":"[..], &text, b",\"b\"", b":", &text, b"[1.0,2.0]", b"}"] {
            parts.write_all(piece).unwrap();
        }
        parts.close();
        let places: Vec<bool> = parts.whole.iter().map(|part| part.as_ptr() == text.as_ptr()).collect();
        assert_eq!(places, [false, true, false, true, false]);
        let body = parts.into_body();
        let expected = br#"{"a":[1.0,2.0],"b":[1.0,2.0][1.0,2.0]}"#;
        assert_eq!(body.size_hint().exact(), Some(expected.len() as u64));
        assert_eq!(axum::body::to_bytes(body, usize::MAX).await.unwrap()[..], expected[..]);
    }
}
