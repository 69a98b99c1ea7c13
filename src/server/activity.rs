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

/// An answer is given to a connection in pieces of this size: it takes a whole one however little its client takes, and what lies here
/// can be seen to lie. So much must be taken within the time for writing: a byte now and then would hold an answer for ever.
const PIECE: usize = 1 << 16;

/// The account of one connection.
pub(super) struct Activity(Mutex<State>);

struct State {
    place: Place,
    /// From their heads to the last of their answers.
    requests: usize,
    /// Those of them that the server has not answered yet: until then it is not the client who keeps anybody waiting.
    owed: usize,
    is_first: bool,
    is_http2: bool,
    /// Since when there is no request.
    quiet: Instant,
    /// Since when a head is coming in.
    head: Option<Instant>,
    /// Since when the other end has taken less than a piece of what waits for it.
    stuck: Option<Instant>,
    /// When a piece of each answer was last taken.
    answers: BTreeMap<u64, Instant>,
    next_answer: u64,
}

impl Activity {
    pub(super) fn new(place: Place) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            place,
            requests: 0,
            owed: 0,
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
        // The end of an answer lies in the connection's own buffers, after its request.
        if state.requests > 0 || state.stuck.is_some() {
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
        state.owed += 1;
        state.is_first = false;
        state.is_http2 = version == Version::HTTP_2;
        state.head = None;
        state.place.busy();
        Exchange { activity: Arc::clone(self), answer: None }
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
}

impl Exchange {
    /// There is an answer, or a piece of it was taken.
    fn progress(&mut self) {
        let mut state = self.activity.state();
        let number = *self.answer.get_or_insert_with(|| {
            state.owed -= 1;
            state.next_answer += 1;
            state.next_answer
        });
        state.answers.insert(number, Instant::now());
        // Who takes an answer stays among the young, and who takes none is soon the oldest: it may not keep others out.
        if state.owed == 0 {
            state.place.wait_anew();
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let mut state = self.activity.state();
        match self.answer {
            Some(number) => {
                state.answers.remove(&number);
            }
            None => state.owed -= 1,
        }
        state.requests -= 1;
        if state.requests == 0 {
            state.quiet = Instant::now();
        }
        if state.owed == 0 {
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
                Some(Ok(frame)) => match frame.into_data() {
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
    /// Where the other end does not keep up: bytes that it must still take to count as one that does.
    behind: Option<usize>,
}

impl<S> Watched<S> {
    pub(super) fn new(stream: S, activity: Arc<Activity>) -> Self {
        Self { stream, activity, behind: None }
    }

    /// Tells whether the other end takes what is written.
    fn wrote(&mut self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match (&polled, &mut self.behind) {
            (Poll::Ready(Ok(taken)), Some(behind)) => {
                *behind = behind.saturating_sub(*taken);
                if *behind == 0 {
                    self.caught_up();
                }
            }
            (Poll::Pending, None) => self.fell_behind(),
            _ => {}
        }
        polled
    }

    /// Tells whether the other end has taken all there was.
    fn flushed(&mut self, polled: Poll<io::Result<()>>) -> Poll<io::Result<()>> {
        match (&polled, self.behind) {
            (Poll::Ready(_), Some(_)) => self.caught_up(),
            (Poll::Pending, None) => self.fell_behind(),
            _ => {}
        }
        polled
    }

    fn fell_behind(&mut self) {
        self.behind = Some(PIECE);
        self.activity.state().stuck = Some(Instant::now());
    }

    fn caught_up(&mut self) {
        self.behind = None;
        let mut state = self.activity.state();
        state.stuck = None;
        if state.requests == 0 {
            state.quiet = Instant::now();
        }
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
        self.flushed(polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_shutdown(context);
        self.flushed(polled)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http_body_util::BodyExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
    use tokio::time::sleep;

    use super::*;
    use crate::http::room::Room;

    fn activity(room: &Arc<Room>) -> (Arc<Activity>, tokio_util::sync::CancellationToken) {
        let (place, _) = room.enter().unwrap();
        let lost = place.lost().clone();
        (Activity::new(place), lost)
    }

    #[tokio::test]
    async fn who_takes_its_answer_stays_and_who_does_not_gives_way() {
        let room = Room::new(3);
        let [(owed, owed_lost), (deaf, deaf_lost), (slow, slow_lost)] = [(); 3].map(|()| activity(&room));
        let unanswered = owed.begin(Version::HTTP_2);
        let mut answers = [&slow, &deaf].map(|activity| {
            let body = Body::from(vec![0; 2 * PIECE]);
            Answer::new(body, activity.begin(Version::HTTP_2))
        });
        let piece = answers[0].frame().await.unwrap().unwrap();
        assert_eq!(piece.into_data().unwrap().len(), PIECE);
        let (_fourth, _) = room.enter().unwrap();
        assert!(deaf_lost.is_cancelled() && !slow_lost.is_cancelled(), "the deaf one was answered later");
        let (_fifth, _) = room.enter().unwrap();
        assert!(slow_lost.is_cancelled() && !owed_lost.is_cancelled(), "an answer is owed");
        // Given up without an answer.
        drop(unanswered);
        assert_eq!(owed.state().owed, 0);
        let (_sixth, _) = room.enter().unwrap();
        let (_seventh, _) = room.enter().unwrap();
        let (_eighth, _) = room.enter().unwrap();
        assert!(owed_lost.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn a_piece_in_time_is_progress_and_a_byte_is_none() {
        let limits = Limits::DEFAULT;
        let nearly = limits.write_timeout - Duration::from_secs(1);
        for (at_once, is_left) in [(1, true), (PIECE, false)] {
            let (activity, _) = activity(&Room::new(1));
            // What follows lies in the connection's buffers after its request.
            drop(Answer::new(Body::empty(), activity.begin(Version::HTTP_11)));
            let (ours, mut theirs) = duplex(at_once);
            let mut ours = Watched::new(ours, Arc::clone(&activity));
            let writing = tokio::spawn(async move {
                ours.write_all(&vec![0; 8 * PIECE]).await.unwrap();
                ours.flush().await.unwrap();
            });
            let mut some = vec![0; at_once];
            // Longer than a connection may be idle.
            for _ in 0..4 {
                sleep(nearly).await;
                theirs.read_exact(&mut some).await.unwrap();
            }
            assert_eq!(activity.overdue(&limits).is_some_and(|why| why == Closed::Write), is_left);
            if is_left {
                writing.abort();
                continue;
            }
            theirs.read_exact(&mut vec![0; 4 * PIECE]).await.unwrap();
            writing.await.unwrap();
            assert!(activity.overdue(&limits).is_none(), "idle from now on only");
            sleep(limits.idle_timeout).await;
            assert!(activity.overdue(&limits).is_some_and(|why| why == Closed::Idle));
        }
    }
}
