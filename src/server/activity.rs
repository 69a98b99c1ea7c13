//! What a connection does, and how long it has been doing nothing: told by its stream and its requests, asked by its task.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes, HttpBody};
use axum::http::Version;
use hyper::body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::connection::Limits;
use crate::http::room::Place;
use crate::metrics::Closed;

/// An answer is given to an HTTP/2 connection in pieces of this size: it takes a whole one however little its client takes, and what
/// lies here can be seen to lie.
const PIECE: usize = 1 << 16;

/// The account of one connection.
pub(super) struct Activity(Mutex<State>);

struct State {
    place: Place,
    /// From their heads to the last of their answers.
    requests: usize,
    is_first: bool,
    is_http2: bool,
    /// Since when there is no request.
    quiet: Instant,
    /// Since when a head is coming in.
    head: Option<Instant>,
    /// Since when the other end takes nothing.
    stuck: Option<Instant>,
    /// When something of each answer was last taken.
    answers: BTreeMap<u64, Instant>,
    next_answer: u64,
}

impl Activity {
    pub(super) fn new(place: Place) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            place,
            requests: 0,
            is_first: true,
            is_http2: false,
            quiet: Instant::now(),
            head: None,
            stuck: None,
            answers: BTreeMap::new(),
            next_answer: 0,
        })))
    }

    /// Why the connection should end now.
    pub(super) fn overdue(&self, limits: &Limits) -> Option<Closed> {
        let state = self.state();
        let now = Instant::now();
        let since_answer = state.answers.values().min();
        if [state.stuck.as_ref(), since_answer]
            .into_iter()
            .flatten()
            .any(|&since| now >= since + limits.write_timeout)
        {
            return Some(Closed::Write);
        }
        // Of HTTP/2 any frame would look like a head, a ping too.
        let head = if state.is_first { Some(state.quiet) } else { state.head.filter(|_| !state.is_http2) };
        if state.requests > 0 {
            None
        } else if head.is_some_and(|since| now >= since + limits.head_timeout) {
            Some(Closed::Head)
        } else {
            (now >= state.quiet + limits.idle_timeout).then_some(Closed::Idle)
        }
    }

    /// A request begins; it lasts as long as what comes back.
    pub(super) fn begin(self: &Arc<Self>, version: Version) -> Exchange {
        let mut state = self.state();
        state.requests += 1;
        state.is_first = false;
        state.is_http2 = version == Version::HTTP_2;
        state.head = None;
        state.place.busy();
        Exchange { activity: Arc::clone(self), answer: None, in_pieces: state.is_http2 }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request, until its answer is handed over or it is given up.
pub(super) struct Exchange {
    activity: Arc<Activity>,
    answer: Option<u64>,
    in_pieces: bool,
}

impl Exchange {
    /// Something of the answer was taken.
    fn progress(&mut self) {
        let mut state = self.activity.state();
        let number = *self.answer.get_or_insert_with(|| {
            state.next_answer += 1;
            state.next_answer
        });
        state.answers.insert(number, Instant::now());
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let mut state = self.activity.state();
        if let Some(number) = self.answer {
            state.answers.remove(&number);
        }
        state.requests -= 1;
        if state.requests == 0 {
            state.quiet = Instant::now();
            state.place.wait();
        }
    }
}

/// The body of an answer, watched.
pub(super) struct Answer {
    body: Body,
    exchange: Exchange,
    /// What is left of a piece of `body`.
    rest: Bytes,
}

impl Answer {
    pub(super) fn new(body: Body, mut exchange: Exchange) -> Self {
        exchange.progress();
        Self { body, exchange, rest: Bytes::new() }
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) if self.exchange.in_pieces => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                other => return Poll::Ready(other),
            }
        }
        self.exchange.progress();
        let piece = PIECE.min(self.rest.len());
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(piece)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (mut hint, rest) = (self.body.size_hint(), self.rest.len() as u64);
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(hint.lower() + rest);
        hint
    }
}

/// A stream that tells what goes through it.
pub(super) struct Watched<S> {
    stream: S,
    activity: Arc<Activity>,
    is_stuck: bool,
}

impl<S> Watched<S> {
    pub(super) fn new(stream: S, activity: Arc<Activity>) -> Self {
        Self { stream, activity, is_stuck: false }
    }

    /// Tells whether the other end took something.
    fn wrote<T>(&mut self, polled: Poll<T>) -> Poll<T> {
        // Only a change needs the lock.
        if polled.is_pending() != self.is_stuck {
            self.is_stuck = polled.is_pending();
            self.activity.state().stuck = self.is_stuck.then(Instant::now);
        }
        polled
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            let mut state = self.activity.state();
            if state.requests == 0 {
                state.head.get_or_insert_with(Instant::now);
            }
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, data);
        self.wrote(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, data);
        self.wrote(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(context);
        self.wrote(polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_shutdown(context);
        self.wrote(polled)
    }
}
