//! The rows that wait and those that run, with the callers that wait for them. No clock, no engine: the worker has those.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use super::lane::{Lane, Place};
use super::policy::{Class, Limits};
use super::{BatchError, Finished, Key};
use crate::account::{Caller, Reservation};

/// A request that waits for a row.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) since: Instant,
    /// Closed when the request was given up.
    pub(super) reply: oneshot::Sender<Result<Finished, BatchError>>,
}

/// A row as it arrives.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) key: Key,
    pub(super) caller: Caller,
    pub(super) class: Class,
    pub(super) waiter: Waiter,
    /// Of its request: its tokens are given back when it waits no longer.
    pub(super) room: Arc<Reservation>,
}

/// A row that waits or runs.
#[derive(Debug)]
struct Wanted {
    waiters: Vec<Waiter>,
    /// Where it waits; none while it runs, and before it is tried again.
    place: Option<(Class, Place)>,
    /// As long as it waits.
    room: Option<Arc<Reservation>>,
}

/// Rows of a batch that failed.
#[derive(Debug)]
struct Retry {
    keys: Vec<Key>,
    /// Most padded tokens of a batch of them.
    within: usize,
}

/// The queue of one engine. A step costs the logarithm of the rows that wait, so that callers with many rows do not slow the others down.
#[derive(Debug, Default)]
pub(super) struct Queue {
    interactive: Lane,
    bulk: Lane,
    /// Before all others.
    retries: VecDeque<Retry>,
    rows: HashMap<Key, Wanted>,
    /// Tokens that bulk rows may run although interactive ones wait.
    bulk_credit: f64,
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.interactive.is_empty() && self.bulk.is_empty() && self.retries.is_empty()
    }

    /// Adds a row. Returns false if an equal one is here already, waiting or running: its vector serves both. An equal row that waits moves
    /// forward if the new caller's turn is sooner, so that a row is not late because another caller has asked for it before.
    pub(super) fn push(&mut self, row: Row) -> bool {
        let Row { key, caller, class, waiter, room } = row;
        match self.rows.entry(key.clone()) {
            Entry::Occupied(mut equal) => {
                let wanted = equal.get_mut();
                wanted.waiters.push(waiter);
                room.release(key.ids.len());
                if let Some((before, place)) = wanted.place {
                    let lane = if before == Class::Bulk { &mut self.bulk } else { &mut self.interactive };
                    if class < before || (class == before && lane.is_sooner(&caller, place)) {
                        lane.remove(place);
                        let lane = if class == Class::Bulk { &mut self.bulk } else { &mut self.interactive };
                        wanted.place = Some((class, lane.push(key, &caller)));
                    }
                }
                false
            }
            Entry::Vacant(vacant) => {
                let lane = if class == Class::Bulk { &mut self.bulk } else { &mut self.interactive };
                let place = Some((class, lane.push(key, &caller)));
                vacant.insert(Wanted { waiters: vec![waiter], place, room: Some(room) });
                true
            }
        }
    }

    /// Forgets the requests for these rows that were given up. How many rows, with how many tokens, no longer wait because of that.
    pub(super) fn give_up(&mut self, keys: &[Key]) -> (usize, usize) {
        let (mut rows, mut tokens) = (0, 0);
        for key in keys {
            let Entry::Occupied(mut wanted) = self.rows.entry(key.clone()) else { continue };
            wanted.get_mut().waiters.retain(|waiter| !waiter.reply.is_closed());
            if !wanted.get().waiters.is_empty() {
                continue;
            }
            // One that runs or is to be tried again is dropped after that.
            if let Some((class, place)) = wanted.get().place {
                let lane = if class == Class::Bulk { &mut self.bulk } else { &mut self.interactive };
                lane.remove(place);
                wanted.remove();
                rows += 1;
                tokens += key.ids.len();
            }
        }
        (rows, tokens)
    }

    /// Takes the rows of the next batch out of the waiting ones. Their waiters stay until [`Queue::finished`]. Those of a failed batch come
    /// first. Bulk rows run when no other waits, and beside others for their share.
    pub(super) fn take(&mut self, limits: &Limits) -> Vec<Key> {
        if let Some(keys) = self.take_retry() {
            return keys;
        }
        let is_bulk = match (self.interactive.is_empty(), self.bulk.next_tokens()) {
            (_, None) => {
                self.bulk_credit = 0.0;
                false
            }
            (true, Some(_)) => true,
            (false, Some(tokens)) => self.bulk_credit >= tokens.max(limits.batch_tokens) as f64,
        };
        let contended = !self.interactive.is_empty() && !self.bulk.is_empty();
        let lane = if is_bulk { &mut self.bulk } else { &mut self.interactive };
        let keys = lane.take(limits);
        if contended {
            let tokens: usize = keys.iter().map(|key| key.ids.len()).sum();
            let share = limits.bulk_share;
            self.bulk_credit += tokens as f64 * if is_bulk { -1.0 } else { share / (1.0 - share) };
        }
        for key in &keys {
            if let Some(wanted) = self.rows.get_mut(key) {
                wanted.place = None;
                if let Some(room) = wanted.room.take() {
                    room.release(key.ids.len());
                }
            }
        }
        keys
    }

    /// As many rows of a failed batch as may run together; none if nothing failed.
    fn take_retry(&mut self) -> Option<Vec<Key>> {
        let retry = self.retries.front_mut()?;
        let (mut longest, mut count) = (0, 0);
        for key in &retry.keys {
            longest = longest.max(key.ids.len());
            if count > 0 && longest * (count + 1) > retry.within {
                break;
            }
            count += 1;
        }
        let keys = retry.keys.drain(..count).collect();
        if retry.keys.is_empty() {
            self.retries.pop_front();
        }
        Some(keys)
    }

    /// Puts the rows of a failed batch back, before all others, to run in batches of `within` padded tokens: they have had their turn,
    /// whatever their class.
    pub(super) fn retry(&mut self, keys: Vec<Key>, within: usize) {
        self.retries.push_front(Retry { keys, within });
    }

    /// Whether a request still waits for the row. One that none waits for is forgotten.
    pub(super) fn is_wanted(&mut self, key: &Key) -> bool {
        let is_wanted = |wanted: &Wanted| wanted.waiters.iter().any(|waiter| !waiter.reply.is_closed());
        let known = self.rows.get(key).is_some_and(is_wanted);
        if !known {
            self.rows.remove(key);
        }
        known
    }

    /// The requests that wait for a row that has run.
    pub(super) fn finished(&mut self, key: &Key) -> Vec<Waiter> {
        self.rows.remove(key).map(|wanted| wanted.waiters).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::Account;
    use crate::engine::Output;

    type Answer = oneshot::Receiver<Result<Finished, BatchError>>;

    fn row_of(caller: &str, ids: &[u32], class: Class) -> (Row, Answer) {
        let (reply, answer) = oneshot::channel();
        let key = Key { ids: ids.into(), output: Output::Pooled };
        let room = Arc::new(Account::new(1 << 20).reserve(&caller.into(), ids.len()).unwrap());
        (
            Row { key, caller: caller.into(), class, waiter: Waiter { since: Instant::now(), reply }, room },
            answer,
        )
    }

    fn row(ids: &[u32], class: Class) -> (Row, Answer) {
        row_of("one", ids, class)
    }

    fn take(queue: &mut Queue) -> Vec<Key> {
        queue.take(&Limits::default())
    }

    #[test]
    fn equal_rows_share_a_place_while_they_wait_and_while_they_run() {
        let mut queue = Queue::default();
        let (a, _a) = row(&[1, 2], Class::Interactive);
        let (b, _b) = row(&[1, 2], Class::Interactive);
        let (c, _c) = row(&[1, 2], Class::Interactive);
        assert!(queue.push(a) && !queue.push(b));
        let batch = take(&mut queue);
        assert_eq!(batch.len(), 1);
        assert!(!queue.push(c), "it runs");
        assert!(queue.is_empty());
        assert_eq!(queue.finished(&batch[0]).len(), 3);
        let (again, _again) = row(&[1, 2], Class::Interactive);
        assert!(queue.push(again), "it has run");
    }

    #[test]
    fn an_interactive_request_makes_a_shared_row_interactive() {
        let mut queue = Queue::default();
        let (first, _first) = row(&[1; 200], Class::Bulk);
        let (second, _second) = row(&[2; 200], Class::Bulk);
        let (urgent, _urgent) = row(&[2; 200], Class::Interactive);
        queue.push(first);
        queue.push(second);
        queue.push(urgent);
        assert_eq!(take(&mut queue)[0].ids[0], 2);
        assert_eq!(take(&mut queue)[0].ids[0], 1);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_row_that_another_caller_has_asked_for_before_is_not_late() {
        let mut queue = Queue::default();
        let mut answers = Vec::new();
        for id in 0..100 {
            let (row, answer) = row_of("greedy", &[id; 200], Class::Interactive);
            queue.push(row);
            answers.push(answer);
        }
        take(&mut queue);
        let (wanted, _wanted) = row_of("honest", &[99; 200], Class::Interactive);
        assert!(!queue.push(wanted));
        assert_eq!(take(&mut queue)[0].ids[0], 99);
    }

    #[test]
    fn a_row_is_given_up_only_when_no_request_waits_for_it() {
        let mut queue = Queue::default();
        let (a, first) = row(&[1, 2, 3], Class::Interactive);
        let (b, second) = row(&[1, 2, 3], Class::Interactive);
        let (other, _other) = row(&[4], Class::Interactive);
        let key = a.key.clone();
        queue.push(a);
        queue.push(b);
        queue.push(other);
        drop(first);
        assert_eq!(queue.give_up(std::slice::from_ref(&key)), (0, 0));
        drop(second);
        assert_eq!(queue.give_up(&[key]), (1, 3));
        assert_eq!(take(&mut queue)[0].ids[..], [4]);
        assert!(queue.is_empty());
    }

    /// Tokens of each class that run while rows of both wait.
    fn tokens_run(share: f64) -> (usize, usize) {
        let mut queue = Queue::default();
        let mut answers = Vec::new();
        for id in 0..4000 {
            let class = if id % 2 == 0 { Class::Bulk } else { Class::Interactive };
            let (row, answer) = row(&[id; 16], class);
            queue.push(row);
            answers.push(answer);
        }
        let limits = Limits { bulk_share: share, ..Limits::default() };
        let (mut interactive, mut bulk) = (0, 0);
        while interactive < 2000 * 16 - limits.batch_tokens {
            for key in queue.take(&limits) {
                *(if key.ids[0] % 2 == 0 { &mut bulk } else { &mut interactive }) += key.ids.len();
            }
        }
        (interactive, bulk)
    }

    #[test]
    fn bulk_rows_get_their_share_beside_interactive_ones_and_all_that_is_left() {
        assert_eq!(tokens_run(0.0).1, 0);
        let (interactive, bulk) = tokens_run(0.05);
        let share = bulk as f64 / (interactive + bulk) as f64;
        assert!((0.04..=0.05).contains(&share), "{share}");
        let mut queue = Queue::default();
        let (alone, _alone) = row(&[1; 16], Class::Bulk);
        queue.push(alone);
        assert_eq!(take(&mut queue).len(), 1, "no other row waits");
    }

    #[test]
    fn rows_of_a_failed_batch_run_first_and_in_smaller_batches() {
        let mut queue = Queue::default();
        let mut answers = Vec::new();
        for id in 0..5 {
            let (row, answer) = row(&[id; 8], Class::Interactive);
            queue.push(row);
            answers.push(answer);
        }
        let failed = take(&mut queue);
        assert_eq!(failed.len(), 5);
        let (late, _late) = row(&[9; 8], Class::Interactive);
        queue.push(late);
        queue.retry(failed, 20);
        let sizes: Vec<usize> =
            std::iter::from_fn(|| Some(take(&mut queue).len()).filter(|size| *size > 0)).collect();
        assert_eq!(sizes, [2, 2, 1, 1]);
    }
}
