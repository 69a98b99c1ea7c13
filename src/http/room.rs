//! Room for so many: when it is full, who has been waiting for longest gives way.
//!
//! Refusing the newcomer would let whoever came first with nothing to say keep everybody out.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

/// A number of places.
pub(crate) struct Room {
    places: usize,
    inside: Mutex<Inside>,
}

#[derive(Default)]
struct Inside {
    taken: usize,
    /// Numbers that those who wait get, in the order in which they began.
    next: u64,
    waiting: BTreeMap<u64, CancellationToken>,
}

/// One of the places, until it is dropped or another needs it more.
pub(crate) struct Place {
    room: Arc<Room>,
    lost: CancellationToken,
    /// The number among those who wait.
    waiting: Option<u64>,
}

/// How a place was got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entered {
    /// There was one.
    Free,
    /// Another gave way.
    InPlaceOfAnother,
}

impl Room {
    pub(crate) fn new(places: usize) -> Arc<Self> {
        Arc::new(Self { places, inside: Mutex::default() })
    }

    /// A place for one who waits; none if all are taken by those who do not.
    pub(crate) fn enter(self: &Arc<Self>) -> Option<(Place, Entered)> {
        let entered = self.with(|inside| {
            let entered = if inside.taken < self.places {
                inside.taken += 1;
                Entered::Free
            } else {
                inside.waiting.pop_first()?.1.cancel();
                Entered::InPlaceOfAnother
            };
            let (number, lost) = (inside.next, CancellationToken::new());
            inside.next += 1;
            inside.waiting.insert(number, lost.clone());
            Some((entered, number, lost))
        });
        let (entered, number, lost) = entered?;
        Some((Place { room: Arc::clone(self), lost, waiting: Some(number) }, entered))
    }

    /// Makes the one who has been waiting for longest leave. Whether there was one.
    pub(crate) fn turn_out(&self) -> bool {
        self.with(|inside| {
            let first = inside.waiting.pop_first();
            if let Some((_, lost)) = &first {
                lost.cancel();
                inside.taken -= 1;
            }
            first.is_some()
        })
    }

    fn with<T>(&self, change: impl FnOnce(&mut Inside) -> T) -> T {
        // Nothing in here panics half way.
        change(&mut self.inside.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Place {
    /// Cancelled when another has taken the place.
    pub(crate) fn lost(&self) -> &CancellationToken {
        &self.lost
    }

    /// Waits no longer, and cannot lose its place.
    pub(crate) fn busy(&mut self) {
        if let Some(number) = self.waiting.take() {
            self.room.with(|inside| inside.waiting.remove(&number));
        }
    }

    /// Waits, from now on.
    pub(crate) fn wait(&mut self) {
        if self.waiting.is_none() && !self.lost.is_cancelled() {
            let number = self.room.with(|inside| {
                let number = inside.next;
                inside.next += 1;
                inside.waiting.insert(number, self.lost.clone());
                number
            });
            self.waiting = Some(number);
        }
    }

    /// Waits from now on, however long it has.
    pub(crate) fn wait_anew(&mut self) {
        self.busy();
        self.wait();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.room.with(|inside| {
            if let Some(number) = self.waiting {
                inside.waiting.remove(&number);
            }
            // A place that was lost is another's.
            if !self.lost.is_cancelled() {
                inside.taken -= 1;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_waited_for_longest_gives_way_and_who_is_busy_stays() {
        let room = Room::new(2);
        let (mut first, entered) = room.enter().unwrap();
        assert_eq!(entered, Entered::Free);
        let (mut second, _) = room.enter().unwrap();
        first.busy();
        let (third, entered) = room.enter().unwrap();
        assert_eq!(entered, Entered::InPlaceOfAnother);
        assert!(second.lost().is_cancelled() && !first.lost().is_cancelled());
        // Back among those who wait, behind the third.
        first.wait();
        second.wait_anew();
        let (mut fourth, _) = room.enter().unwrap();
        assert!(third.lost().is_cancelled() && !first.lost().is_cancelled());
        first.busy();
        fourth.busy();
        assert!(room.enter().is_none(), "all are busy");
        drop((second, third));
        assert!(room.enter().is_none(), "their places were lost already");
        drop(fourth);
        assert_eq!(room.enter().unwrap().1, Entered::Free);
    }

    #[test]
    fn who_is_turned_out_leaves_a_free_place() {
        let room = Room::new(1);
        assert!(!room.turn_out());
        let (place, _) = room.enter().unwrap();
        assert!(room.turn_out() && place.lost().is_cancelled());
        drop(place);
        assert_eq!(room.enter().unwrap().1, Entered::Free);
        assert!(!room.turn_out());
    }
}
