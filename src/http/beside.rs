//! Room for the answers beside those with vectors: lists, logs of rollouts, pages of metrics. A client that does not take them must not make
//! the server hold ever more. The account is their own, so that an operator gets an answer while vectors have all the other room.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody as _};
use axum::response::{IntoResponse as _, Response};
use tokio::time::Instant;

use super::App;
use super::body::{Outgoing, SMALL};
use super::error::{ApiError, Kind};
use crate::account::{Account, Caller, Reservation};

/// Bytes of all these answers that are not taken yet, the first 16 KiB of each left out: a hundred rollout logs of a thousand documents.
const MOST: usize = 32 << 20;
/// With so many different pages of metrics not taken yet, further scrapes share the last one. With fewer each scrape gets a page of its own
/// moment: Prometheus takes its page at once.
const PAGES: usize = 4;
/// A page that is shared is not older than this.
const FRESH: Duration = Duration::from_secs(1);

/// Beside an answer whose bytes are there anyway, or have their room already.
#[derive(Clone, Copy)]
pub(super) struct Unheld;

/// The room.
pub(super) struct Beside {
    room: Arc<Account>,
    pages: Mutex<Pages>,
}

/// Pages of metrics that are not taken yet, the newest last.
#[derive(Default)]
struct Pages {
    alive: Vec<Weak<Page>>,
    /// When the newest was made.
    made: Option<Instant>,
}

struct Page {
    text: String,
    _room: Option<Reservation>,
}

/// One client's part in a page.
struct Shared(Arc<Page>);

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        self.0.text.as_bytes()
    }
}

impl Default for Beside {
    fn default() -> Self {
        Self::new(MOST)
    }
}

impl Beside {
    fn new(most: usize) -> Self {
        Self { room: Account::new(most), pages: Mutex::default() }
    }

    /// Room for the bytes beyond the first ones.
    fn take(&self, bytes: usize) -> Option<Reservation> {
        self.room.reserve(&Caller::from(""), bytes.saturating_sub(SMALL))
    }

    /// The answer, which holds its room until the last of it is taken, and whether there was room.
    fn hold(&self, response: Response) -> (Response, bool) {
        let length = response.body().size_hint().exact().and_then(|length| usize::try_from(length).ok());
        let length = length.unwrap_or(usize::MAX);
        if length <= SMALL || response.extensions().get::<Unheld>().is_some() {
            return (response, true);
        }
        match self.take(length) {
            Some(room) => (response.map(|body| Body::new(Outgoing::new(body, Arc::new(room)))), true),
            None => (response, false),
        }
    }

    /// A page of metrics: a new one, or one that other scrapes have not taken yet, if there are many of those or no room.
    ///
    /// # Errors
    /// That of `render`.
    pub(super) fn page(&self, render: impl FnOnce() -> Result<String, ApiError>) -> Result<Bytes, ApiError> {
        // Held while a page is rendered, so that scrapes that come together do not each render one.
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        pages.alive.retain(|page| page.strong_count() > 0);
        let newest = pages.alive.last().and_then(Weak::upgrade);
        let is_fresh = pages.made.is_some_and(|made| made.elapsed() < FRESH);
        if let Some(page) = newest.as_ref().filter(|_| pages.alive.len() >= PAGES && is_fresh) {
            return Ok(Bytes::from_owner(Shared(Arc::clone(page))));
        }
        let text = render()?;
        let page = match (self.take(text.len()), newest) {
            (None, Some(newest)) => newest,
            // Without room there is one such page at most, and operators are never without metrics.
            (room, _) => {
                let page = Arc::new(Page { text, _room: room });
                pages.alive.push(Arc::downgrade(&page));
                pages.made = Some(Instant::now());
                page
            }
        };
        Ok(Bytes::from_owner(Shared(page)))
    }
}

impl App {
    /// Holds room for an answer to a request that needed no place. Where there is none, a read is refused; what was changed is told.
    pub(super) fn hold_beside(&self, response: Response, is_read: bool, is_admin: bool) -> Response {
        let (response, has_room) = self.0.beside.hold(response);
        if has_room || !is_read || !response.status().is_success() {
            return response;
        }
        self.0.metrics.shed("held_bytes");
        let message = format!("other answers that are not taken yet have {MOST} bytes already: ask later");
        let refused = if is_admin {
            ApiError::new(Kind::Unavailable, message)
        } else {
            ApiError::overloaded(message, self.0.embedder.retry_after())
        };
        refused.into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(bytes: usize) -> Response {
        vec![b'a'; bytes].into_response()
    }

    fn has_room(beside: &Beside, bytes: usize) -> bool {
        beside.hold(answer(bytes)).1
    }

    #[test]
    fn answers_that_are_not_taken_leave_room_for_small_ones_only() {
        let beside = Beside::new(100_000);
        let held = beside.hold(answer(SMALL + 60_000));
        assert!(held.1 && !has_room(&beside, SMALL + 60_000));
        assert!(has_room(&beside, SMALL) && has_room(&beside, SMALL + 40_000));
        let mut known = answer(SMALL + 60_000);
        known.extensions_mut().insert(Unheld);
        assert!(beside.hold(known).1, "its bytes are there anyway");
        drop(held);
        assert!(has_room(&beside, SMALL + 200_000), "one that is larger than all the room has all of it");
    }

    #[tokio::test]
    async fn the_room_of_an_answer_is_held_by_its_bytes() {
        let beside = Beside::new(100_000);
        let (held, _) = beside.hold(answer(SMALL + 60_000));
        let bytes = axum::body::to_bytes(held.into_body(), usize::MAX).await.unwrap();
        let piece = bytes.slice(..10);
        drop(bytes);
        assert!(!has_room(&beside, SMALL + 60_000), "a piece keeps all of them");
        drop(piece);
        assert!(has_room(&beside, SMALL + 60_000));
    }

    /// Bytes of a page that are counted.
    const COUNTED: usize = 1000;

    /// A page with the number of its rendering.
    fn scrape(beside: &Beside, rendered: &mut u8) -> Bytes {
        let render = || {
            *rendered += 1;
            Ok(char::from(*rendered).to_string().repeat(SMALL + COUNTED))
        };
        beside.page(render).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn scrapes_that_are_not_taken_share_a_page_and_one_that_is_taken_gets_a_new_one() {
        let (beside, mut rendered) = (Beside::new(1 << 20), 0);
        for _ in 0..100 {
            scrape(&beside, &mut rendered);
        }
        assert_eq!(rendered, 100, "each was taken");
        rendered = 0;
        let mut untaken: Vec<Bytes> = (0..1000).map(|_| scrape(&beside, &mut rendered)).collect();
        assert_eq!(usize::from(rendered), PAGES);
        tokio::time::advance(FRESH).await;
        untaken.extend((0..1000).map(|_| scrape(&beside, &mut rendered)));
        assert_eq!(usize::from(rendered), PAGES + 1, "one for each second");
        drop(untaken);
        assert_eq!(beside.room.held(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn without_room_there_is_the_last_page_or_one_without_room() {
        let (beside, mut rendered) = (Beside::new(COUNTED), 0);
        let first = scrape(&beside, &mut rendered);
        for _ in 0..100 {
            tokio::time::advance(FRESH).await;
            assert_eq!(scrape(&beside, &mut rendered)[0], first[0]);
        }
        drop(first);
        let all = beside.take(SMALL + COUNTED).unwrap();
        let pages: Vec<Bytes> = (0..10).map(|_| scrape(&beside, &mut rendered)).collect();
        assert!(pages.iter().all(|page| page[0] == pages[0][0]), "one page for all");
        drop(all);
    }
}
