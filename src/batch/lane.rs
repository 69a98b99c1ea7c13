//! The rows of one class that wait, in fair order between their callers.
//!
//! Start-time fair queueing (Goyal, Vin and Cheng, 1996), in tokens: a row's tag is where its caller's previous row ended, or the lane's clock if
//! the caller has been idle. The row with the smallest tag is next. A caller with thousands of rows has tags far ahead of the clock, and a
//! caller that comes later is before all of them but the first. Deficit round robin gives the same shares; here the rows stay in one order,
//! from which a batch of like lengths can be picked, and each step costs the logarithm of the rows that wait.
//!
//! The clock follows the tags of the rows that run, and goes on with the tokens that run, divided by the callers that wait: otherwise callers that
//! are always new would keep it still, and go before a caller that has been there for longer.

use std::collections::{BTreeMap, HashMap};

use super::Key;
use super::policy::{Limits, batch_budget, next_batch};
use crate::account::Caller;

/// Rows that a batch is picked from, at most: enough of them have like lengths, and looking at them takes microseconds.
const WINDOW_ROWS: usize = 1024;

/// Batches' tokens that a batch is picked from. A row may go so far before its turn, and no farther: that bounds what a caller gets beyond its
/// share.
const WINDOW_BATCHES: usize = 16;

/// Callers that are remembered, at least, before those without effect are forgotten.
const FEW_CALLERS: usize = 1024;

/// Where a row stands in its lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// Tokens on the lane's clock.
    tag: u64,
    /// Rows of the same tag are in order of arrival.
    arrival: u64,
}

/// The waiting rows of one class.
#[derive(Debug)]
pub(super) struct Lane {
    rows: BTreeMap<Place, (Key, Caller)>,
    /// No row that arrives has a smaller tag.
    clock: u64,
    callers: HashMap<Caller, Turns>,
    /// Callers that have rows here.
    waiting: u64,
    /// Callers at which those without effect are forgotten.
    forget_at: usize,
    arrivals: u64,
    tokens: usize,
}

/// What is known of a caller.
#[derive(Debug, Default)]
struct Turns {
    /// Where its last row ends on the clock.
    end: u64,
    /// Rows that wait.
    rows: usize,
}

impl Default for Lane {
    fn default() -> Self {
        Self {
            rows: BTreeMap::new(),
            clock: 0,
            callers: HashMap::new(),
            waiting: 0,
            forget_at: FEW_CALLERS,
            arrivals: 0,
            tokens: 0,
        }
    }
}

impl Lane {
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Tokens of the row that is next.
    pub(super) fn next_tokens(&self) -> Option<usize> {
        self.rows.first_key_value().map(|(_, (key, _))| key.ids.len())
    }

    pub(super) fn push(&mut self, key: Key, caller: &Caller) -> Place {
        if self.callers.len() >= self.forget_at {
            self.callers.retain(|_, turns| turns.rows > 0 || turns.end > self.clock);
            self.forget_at = FEW_CALLERS.max(self.callers.len() * 2);
        }
        let tokens = key.ids.len();
        let turns = self.callers.entry(Caller::clone(caller)).or_default();
        let tag = self.clock.max(turns.end);
        turns.end = tag + tokens as u64;
        turns.rows += 1;
        self.waiting += u64::from(turns.rows == 1);
        let place = Place { tag, arrival: self.arrivals };
        self.arrivals += 1;
        self.tokens += tokens;
        self.rows.insert(place, (key, Caller::clone(caller)));
        place
    }

    /// Whether a row of `caller` would go before the one at `place`.
    pub(super) fn is_sooner(&self, caller: &Caller, place: Place) -> bool {
        self.callers.get(caller).map_or(0, |turns| turns.end).max(self.clock) < place.tag
    }

    /// Takes out the row at `place`. What its caller was charged for it stays: it could otherwise come to the front by leaving.
    pub(super) fn remove(&mut self, place: Place) -> Option<Key> {
        let (key, caller) = self.rows.remove(&place)?;
        self.tokens -= key.ids.len();
        if let Some(turns) = self.callers.get_mut(&caller) {
            turns.rows -= 1;
            self.waiting -= u64::from(turns.rows == 0);
        }
        Some(key)
    }

    /// Takes out the rows of the next batch: the first one, and those of the window that are nearest to it in length.
    pub(super) fn take(&mut self, limits: &Limits) -> Vec<Key> {
        let Some((first, (key, _))) = self.rows.first_key_value() else { return Vec::new() };
        self.clock = self.clock.max(first.tag);
        let output = key.output;
        let most = WINDOW_BATCHES * limits.batch_tokens;
        let mut seen = 0;
        let window = self.rows.iter().take(WINDOW_ROWS).take_while(|(_, (key, _))| {
            let is_within = seen < most;
            seen += key.ids.len();
            is_within
        });
        let (places, lengths): (Vec<Place>, Vec<usize>) = window
            .filter(|(_, (key, _))| key.output == output)
            .map(|(place, (key, _))| (*place, key.ids.len()))
            .unzip();
        let chosen = next_batch(&lengths, batch_budget(self.tokens, limits), limits.padding_share);
        let waiting = self.waiting;
        let keys: Vec<Key> = chosen.into_iter().filter_map(|index| self.remove(places[index])).collect();
        let tokens: usize = keys.iter().map(|key| key.ids.len()).sum();
        // One more than wait: a caller that comes now goes before the next row of one that was alone.
        self.clock += tokens as u64 / (waiting + 1);
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Output;

    fn key(id: u32, tokens: usize) -> Key {
        Key { ids: vec![id; tokens].into(), output: Output::Pooled }
    }

    fn limits(batch_tokens: usize) -> Limits {
        Limits { batch_tokens, ..Limits::default() }
    }

    fn ids(batch: &[Key]) -> Vec<u32> {
        batch.iter().map(|key| key.ids[0]).collect()
    }

    #[test]
    fn a_caller_that_comes_later_goes_before_the_many_rows_of_another() {
        let mut lane = Lane::default();
        let (greedy, honest) = (Caller::from("greedy"), Caller::from("honest"));
        for id in 0..1000 {
            lane.push(key(id, 16), &greedy);
        }
        assert_eq!(ids(&lane.take(&limits(32))), [0, 1]);
        lane.push(key(5000, 16), &honest);
        assert_eq!(ids(&lane.take(&limits(32)))[0], 5000);
    }

    #[test]
    fn two_callers_that_always_have_rows_get_the_same_tokens() {
        let mut lane = Lane::default();
        let (long, short) = (Caller::from("long"), Caller::from("short"));
        for id in 0..400 {
            lane.push(key(id, 100), &long);
        }
        for id in 1000..5000 {
            lane.push(key(id, 10), &short);
        }
        let (mut of_long, mut of_short) = (0_usize, 0_usize);
        for _ in 0..200 {
            for key in lane.take(&limits(100)) {
                *(if key.ids[0] < 1000 { &mut of_long } else { &mut of_short }) += key.ids.len();
            }
        }
        let window = WINDOW_BATCHES * 100;
        assert!(of_long.abs_diff(of_short) <= window, "{of_long} and {of_short} tokens");
    }

    #[test]
    fn a_caller_gains_nothing_by_leaving_and_coming_back() {
        let mut lane = Lane::default();
        let (restless, other) = (Caller::from("restless"), Caller::from("other"));
        for id in 0..10 {
            let place = lane.push(key(id, 50), &restless);
            lane.remove(place);
        }
        lane.push(key(10, 50), &restless);
        lane.push(key(11, 50), &other);
        assert_eq!(ids(&lane.take(&limits(50))), [11]);
    }

    #[test]
    fn callers_that_are_always_new_do_not_keep_out_one_that_was_there_before() {
        let mut lane = Lane::default();
        for id in 0..20 {
            lane.push(key(id, 10), &Caller::from("old"));
        }
        let old = |lane: &Lane| lane.callers.get("old").map_or(0, |turns| turns.rows);
        let mut batches = 0;
        while old(&lane) > 0 {
            // Four new callers wait at all times.
            for id in lane.rows.len() - old(&lane)..4 {
                lane.push(key(1000, 10), &Caller::from(format!("new {batches} {id}")));
            }
            lane.take(&limits(20));
            batches += 1;
        }
        // A fifth of the tokens would be 50 batches.
        assert!(batches <= 75, "{batches}");
    }

    #[test]
    fn callers_without_rows_are_forgotten() {
        let mut lane = Lane::default();
        for id in 0..100_000 {
            lane.push(key(id, 8), &Caller::from(format!("caller {id}")));
            lane.take(&limits(8));
        }
        assert!(lane.callers.len() <= FEW_CALLERS);
    }
}
