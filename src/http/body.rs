//! Bodies: how slowly they may come in, how much of them and of the answers is held, and who gets a place among the requests that are
//! answered.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use hyper::body::{Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::App;
use super::access::Caller;
use super::error::{ApiError, Kind};
use super::room::{Place, Room};
use crate::account::{self, Account, Reservation};
use crate::config::HttpConfig;
use crate::embed::{AnswerRoom, EmbedError};

/// Of each body and each answer so many bytes are not counted among those that are held: large ones take room from each other, and not
/// from a client with a sentence.
pub(super) const SMALL: usize = 1 << 14;

/// Limits of the bodies of all requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all bodies that are being read or answered, and of all answers that are not taken yet, the first 16 KiB of each left
    /// out.
    pub max_held_bytes: usize,
    /// How long a body may stand still.
    pub stall_timeout: Duration,
    /// For the whole of a body: one byte a second does not stand still either.
    pub timeout: Duration,
}

impl Limits {
    /// For 32 MB over a line of 5 Mbit/s, and eight of them at once.
    pub const DEFAULT: Self = Self {
        max_held_bytes: 256 << 20,
        stall_timeout: Duration::from_secs(10),
        timeout: Duration::from_secs(60),
    };
}

/// What bodies share.
pub(super) struct Intake {
    /// Bodies that are coming in. A slow one gives way to a new one: it must not keep the others out.
    coming: Arc<Room>,
    /// Requests that are being answered.
    places: Arc<Semaphore>,
    /// Bytes.
    held: Arc<Account>,
}

impl Intake {
    pub(super) fn new(config: &HttpConfig) -> Self {
        let semaphore = |permits: usize| Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)));
        Self {
            coming: Room::new(config.max_requests),
            places: semaphore(config.max_requests),
            held: Account::new(config.bodies.max_held_bytes),
        }
    }

    /// Where the bytes of an answer are reserved that has `value_bytes` for each value of a vector.
    pub(super) fn answer_room(&self, value_bytes: usize) -> AnswerRoom {
        AnswerRoom { account: Arc::clone(&self.held), value_bytes, free_bytes: SMALL }
    }
}

/// What is reserved for an answer, put beside it by the handler that knew its size before it was made.
#[derive(Debug, Clone)]
pub(super) struct Reserved(pub(super) Arc<Reservation>);

/// What a request holds until it is answered.
#[derive(Default)]
struct Held {
    bytes: Option<Reservation>,
    place: Option<OwnedSemaphorePermit>,
}

/// Why a body was not read to its end. It is found again in the chain of the framework's errors.
#[derive(Debug)]
pub(super) struct Unread(ApiError);

impl Unread {
    /// The refusal behind a framework's error, if it is one.
    pub(super) fn behind(error: &(dyn Error + 'static)) -> Option<ApiError> {
        let mut chain = std::iter::successors(Some(error), |&error| error.source());
        chain.find_map(|error| error.downcast_ref::<Self>()).map(|Self(refused)| refused.clone())
    }
}

impl fmt::Display for Unread {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0.message)
    }
}

impl Error for Unread {}

/// Holds a request to the limits of its body. What a client may ask for without work, by GET, needs no place, and a rollback must get
/// through a server that is full.
pub(super) async fn receive(State(app): State<App>, request: Request, next: Next) -> Response {
    let (is_read, is_admin) = (request.method() != Method::POST, request.uri().path().starts_with("/admin/"));
    let needs_place = !is_read && !is_admin;
    if needs_place && app.0.intake.places.available_permits() == 0 {
        return app.shed().into_response();
    }
    let (parts, body) = request.into_parts();
    if !body.is_end_stream() && parts.headers.get_all(header::CONTENT_ENCODING).iter().any(is_encoded) {
        let message = "the body has a content-encoding: this server takes bodies as they are (identity)";
        let mut refused = ApiError::new(Kind::UnsupportedMediaType, message).into_response();
        refused.headers_mut().insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        return refused;
    }
    let caller = parts.extensions.get::<Caller>().map_or_else(account::Caller::default, Caller::id);
    let held = Arc::new(Mutex::new(Held::default()));
    let body =
        Incoming::new(body, app.clone(), account::Caller::clone(&caller), needs_place, Arc::clone(&held));
    let response = next.run(Request::from_parts(parts, Body::new(body))).await;
    drop(held);
    // Metrics and what an administrator asks for must get through, however many vectors wait to be taken.
    if needs_place { app.hold(response, &caller) } else { app.hold_beside(response, is_read, is_admin) }
}

fn is_encoded(encoding: &HeaderValue) -> bool {
    !encoding.as_bytes().eq_ignore_ascii_case(b"identity")
}

impl App {
    /// Refuses a request that finds no place.
    fn shed(&self) -> ApiError {
        self.0.metrics.shed("requests");
        let message = format!("{} requests are being answered already", self.0.config.max_requests);
        ApiError::overloaded(message, self.0.embedder.retry_after())
    }

    /// Holds room for an answer until the last of it is taken: what was reserved for it, as far as it needs that.
    fn hold(&self, mut response: Response, caller: &account::Caller) -> Response {
        let length = response.body().size_hint().exact().and_then(|length| usize::try_from(length).ok());
        let more = length.unwrap_or(self.0.config.bodies.max_held_bytes).saturating_sub(SMALL);
        let room = response.extensions_mut().remove::<Reserved>().map(|Reserved(room)| room);
        if let Some(room) = &room {
            room.shrink_to(more);
        }
        if more == 0 {
            return response;
        }
        match room.or_else(|| self.room_for(caller, more).map(Arc::new)) {
            Some(room) => response.map(|body| Body::new(Outgoing::new(body, room))),
            None => self.no_room(more).into_response(),
        }
    }

    /// Room for an answer of so many bytes, before it is made.
    ///
    /// # Errors
    /// 429 if the caller may not hold them now.
    pub(super) fn reserve(&self, caller: &Caller, bytes: usize) -> Result<Reservation, ApiError> {
        let more = bytes.saturating_sub(SMALL);
        self.room_for(&caller.id(), more).ok_or_else(|| self.no_room(more))
    }

    /// Room for so many bytes, if the caller may hold them.
    fn room_for(&self, caller: &account::Caller, bytes: usize) -> Option<Reservation> {
        self.0.intake.held.reserve(caller, bytes)
    }

    /// Refuses an answer of so many bytes.
    pub(super) fn no_room(&self, bytes: usize) -> ApiError {
        self.not_held(EmbedError::NoRoom { bytes }.to_string())
    }

    /// Refuses bytes for which there is no room.
    fn not_held(&self, message: String) -> ApiError {
        self.0.metrics.shed("held_bytes");
        ApiError::overloaded(message, self.0.embedder.retry_after())
    }
}

/// A body on its way in.
struct Incoming {
    body: Body,
    app: App,
    caller: account::Caller,
    needs_place: bool,
    held: Arc<Mutex<Held>>,
    received: usize,
    /// From the first time that there was nothing to read: most bodies come whole.
    waiting: Option<Waiting>,
}

struct Waiting {
    /// A place among the bodies that are coming, with what tells that it is lost; an administrator's body needs none.
    place: Option<(Place, Pin<Box<WaitForCancellationFutureOwned>>)>,
    /// When the whole must be there.
    end: Instant,
    alarm: Pin<Box<Sleep>>,
}

impl Incoming {
    fn new(body: Body, app: App, caller: account::Caller, needs_place: bool, held: Arc<Mutex<Held>>) -> Self {
        Self { body, app, caller, needs_place, held, received: 0, waiting: None }
    }

    /// Counts what came, and asks for room for it.
    fn take(&mut self, bytes: usize) -> Result<(), ApiError> {
        let limits = &self.app.0.config.bodies;
        let before = self.received.max(SMALL);
        self.received += bytes;
        let more = self.received.saturating_sub(before);
        if more > 0 {
            let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            let is_held = match &held.bytes {
                Some(bytes) => bytes.grow(more),
                None => {
                    held.bytes = self.app.room_for(&self.caller, more);
                    held.bytes.is_some()
                }
            };
            if !is_held {
                let message = format!(
                    "other requests and answers that are not taken yet have {} bytes already (max_held_bytes): send this one later, or in parts",
                    limits.max_held_bytes
                );
                return Err(self.app.not_held(message));
            }
        }
        if let Some(waiting) = &mut self.waiting {
            waiting.alarm.as_mut().reset(waiting.end.min(Instant::now() + limits.stall_timeout));
        }
        Ok(())
    }

    /// The body is whole: its request is the next to be answered.
    fn finish(&mut self) -> Result<(), ApiError> {
        self.waiting = None;
        if self.needs_place {
            let Ok(place) = Arc::clone(&self.app.0.intake.places).try_acquire_owned() else {
                return Err(self.app.shed());
            };
            self.needs_place = false;
            self.held.lock().unwrap_or_else(PoisonError::into_inner).place = Some(place);
        }
        Ok(())
    }

    /// Waits for more. Ready when there is no more waiting.
    fn poll_patience(&mut self, context: &mut Context<'_>) -> Poll<ApiError> {
        let limits = &self.app.0.config.bodies;
        let waiting = self.waiting.get_or_insert_with(|| {
            let now = Instant::now();
            let place = self.needs_place.then(|| self.app.0.intake.coming.enter()).flatten();
            let place = place.map(|(place, _)| {
                let lost = Box::pin(place.lost().clone().cancelled_owned());
                (place, lost)
            });
            let alarm = Box::pin(sleep_until(now + limits.stall_timeout.min(limits.timeout)));
            Waiting { place, end: now + limits.timeout, alarm }
        });
        if let Some((_, lost)) = &mut waiting.place
            && lost.as_mut().poll(context).is_ready()
        {
            let message =
                "more requests are coming in than there are places for, and this one's body was the slowest";
            return Poll::Ready(ApiError::new(Kind::BodyTimeout, message));
        }
        ready!(waiting.alarm.as_mut().poll(context));
        let time = |time| humantime::format_duration(time);
        let message = if Instant::now() >= waiting.end {
            format!("the body was not whole after {} (body_timeout)", time(limits.timeout))
        } else {
            format!("nothing of the body came for {} (body_stall_timeout)", time(limits.stall_timeout))
        };
        Poll::Ready(ApiError::new(Kind::BodyTimeout, message))
    }
}

impl HttpBody for Incoming {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let refused = |error: ApiError| Poll::Ready(Some(Err(axum::Error::new(Unread(error)))));
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => match self.take(frame.data_ref().map_or(0, Bytes::len)) {
                Ok(()) => Poll::Ready(Some(Ok(frame))),
                Err(error) => refused(error),
            },
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error))),
            Poll::Ready(None) => match self.finish() {
                Ok(()) => Poll::Ready(None),
                Err(error) => refused(error),
            },
            Poll::Pending => match self.poll_patience(context) {
                Poll::Ready(error) => refused(error),
                Poll::Pending => Poll::Pending,
            },
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of a large answer, with the room that it takes.
pub(super) struct Outgoing {
    body: Body,
    room: Arc<Reservation>,
}

impl Outgoing {
    pub(super) fn new(body: Body, room: Arc<Reservation>) -> Self {
        Self { body, room }
    }
}

/// A part of it. The room is held by the bytes, not by the body: whoever cuts them into pieces has all of them in memory until the
/// last piece is gone.
struct Roomed {
    bytes: Bytes,
    _room: Arc<Reservation>,
}

impl AsRef<[u8]> for Roomed {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl HttpBody for Outgoing {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        let roomed = |bytes| Bytes::from_owner(Roomed { bytes, _room: Arc::clone(&self.room) });
        polled.map_ok(|frame| frame.map_data(roomed))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
