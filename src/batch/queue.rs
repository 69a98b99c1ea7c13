//! The rows that wait and those that run, with everybody who waits for them. No clock, no engine: the worker has those.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Instant;

use tokio::sync::oneshot;

use super::policy::{Class, Limits, Waiting, next_batch};
use super::{BatchError, Finished, Key};

/// Somebody who waits for a row.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) since: Instant,
    /// Closed when the caller has gone.
    pub(super) reply: oneshot::Sender<Result<Finished, BatchError>>,
}

/// A row as it arrives.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) key: Key,
    pub(super) class: Class,
    pub(super) waiter: Waiter,
}

/// The queue of one engine.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// In order of arrival.
    waiting: Vec<Waiting>,
    /// Of rows that wait and of rows that run.
    waiters: HashMap<Key, Vec<Waiter>>,
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Adds a row. Returns false if an equal one is here already, waiting or running: its vector serves both.
    pub(super) fn push(&mut self, row: Row) -> bool {
        let Row { key, class, waiter } = row;
        match self.waiters.entry(key.clone()) {
            Entry::Occupied(mut equal) => {
                equal.get_mut().push(waiter);
                // The more urgent of two callers decides; only one that could be put off needs the search.
                if class == Class::Interactive
                    && let Some(waiting) = self.waiting.iter_mut().find(|waiting| waiting.key == key)
                {
                    waiting.class = Class::Interactive;
                }
                false
            }
            Entry::Vacant(place) => {
                let since = waiter.since;
                place.insert(vec![waiter]);
                self.waiting.push(Waiting { key, class, since, within: usize::MAX });
                true
            }
        }
    }

    /// Forgets rows whose callers have all gone, and returns how many rows and tokens that were.
    pub(super) fn sweep(&mut self) -> (usize, usize) {
        let (mut rows, mut tokens) = (0, 0);
        self.waiting.retain(|row| {
            let waiters = self.waiters.get(&row.key);
            let is_wanted =
                waiters.is_some_and(|waiters| waiters.iter().any(|waiter| !waiter.reply.is_closed()));
            if !is_wanted {
                self.waiters.remove(&row.key);
                rows += 1;
                tokens += row.tokens();
            }
            is_wanted
        });
        (rows, tokens)
    }

    /// Takes the rows of the next batch out of the waiting ones. Their waiters stay until [`Queue::finished`].
    pub(super) fn take(&mut self, limits: &Limits, now: Instant) -> Vec<Key> {
        let mut chosen = next_batch(&self.waiting, limits, now).into_iter().peekable();
        let mut index = 0;
        let is_chosen = |_: &mut Waiting| {
            index += 1;
            chosen.next_if_eq(&(index - 1)).is_some()
        };
        self.waiting.extract_if(.., is_chosen).map(|row| row.key).collect()
    }

    /// Puts the rows of a failed batch back, before all others, to run in batches of `within` padded tokens: they have had their turn,
    /// whatever their class.
    pub(super) fn retry(&mut self, keys: Vec<Key>, since: Instant, within: usize) {
        let row = |key| Waiting { key, class: Class::Interactive, since, within };
        self.waiting.splice(0..0, keys.into_iter().map(row));
    }

    /// Everybody who waits for a row that has run.
    pub(super) fn finished(&mut self, key: &Key) -> Vec<Waiter> {
        self.waiters.remove(key).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Output;

    type Answer = oneshot::Receiver<Result<Finished, BatchError>>;

    fn row(ids: &[u32], class: Class) -> (Row, Answer) {
        let (reply, answer) = oneshot::channel();
        let key = Key { ids: ids.into(), output: Output::Pooled };
        (Row { key, class, waiter: Waiter { since: Instant::now(), reply } }, answer)
    }

    fn take(queue: &mut Queue) -> Vec<Key> {
        queue.take(&Limits::default(), Instant::now())
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
    fn an_interactive_caller_makes_a_shared_row_interactive() {
        let mut queue = Queue::default();
        let (first, _first) = row(&[1; 200], Class::Bulk);
        let (second, _second) = row(&[2; 200], Class::Bulk);
        let (urgent, _urgent) = row(&[2; 200], Class::Interactive);
        queue.push(first);
        queue.push(second);
        queue.push(urgent);
        assert_eq!(take(&mut queue)[0].ids[0], 2);
    }

    #[test]
    fn a_row_is_swept_only_when_all_its_callers_have_gone() {
        let mut queue = Queue::default();
        let (a, first) = row(&[1, 2, 3], Class::Interactive);
        let (b, second) = row(&[1, 2, 3], Class::Interactive);
        let (other, _other) = row(&[4], Class::Interactive);
        queue.push(a);
        queue.push(b);
        queue.push(other);
        drop(first);
        assert_eq!(queue.sweep(), (0, 0));
        drop(second);
        assert_eq!(queue.sweep(), (1, 3));
        assert_eq!(take(&mut queue)[0].ids[..], [4]);
        assert!(queue.is_empty());
    }
}
