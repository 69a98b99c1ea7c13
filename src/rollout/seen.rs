//! What was found at the end of a log, and what a later look makes of it.

use thiserror::Error;

use super::document::{Rollout, Unreadable};
use super::roles::State;

/// A document that cannot be read, or contradicts itself. It is never removed: the log goes on above it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the rollout document `{key}` cannot be read: {reason}")]
pub struct Damaged {
    /// Its number, by its name.
    pub number: u64,
    /// Its key in the repository.
    pub key: String,
    /// What is wrong with it.
    pub reason: Unreadable,
}

/// What was found at the end of a log.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// The newest good document: the state.
    pub good: Option<Rollout>,
    /// Damaged documents above it, the newest first.
    pub damaged: Vec<Damaged>,
    /// The highest number, of a good document or a damaged one; 0 if there is none.
    pub last: u64,
    /// Tells the document of that number from another one that is put in its place; none if it was not listed yet.
    pub(super) stamp: Option<String>,
}

/// What a later look at a log found.
#[derive(Debug)]
pub enum Later {
    /// What is known.
    Nothing,
    /// Documents above what is known, or another one in place of the last.
    More(Seen),
    /// The last one is not there any more: it was removed, or an older log was restored. The log as it is now.
    Shorter(Seen),
}

impl Seen {
    /// The end of an empty log.
    pub fn nothing() -> Self {
        Self { good: None, damaged: Vec::new(), last: 0, stamp: None }
    }

    /// The end of a log on which `rollout` was just written.
    pub(super) fn written(rollout: Rollout) -> Self {
        Self { last: rollout.number, good: Some(rollout), ..Self::nothing() }
    }

    /// What the log says of the model.
    pub fn state(&self) -> State {
        match &self.good {
            Some(rollout) => State::Known(rollout.roles()),
            None if self.last == 0 => State::Empty,
            None => State::Lost,
        }
    }

    /// Adds what was written since.
    pub(super) fn extend(&mut self, newer: Self) {
        (self.last, self.stamp) = (newer.last, newer.stamp);
        if newer.good.is_some() {
            (self.good, self.damaged) = (newer.good, newer.damaged);
        } else {
            // The last one may have been damaged later.
            self.damaged.retain(|known| newer.damaged.iter().all(|found| found.number != known.number));
            self.damaged.splice(0..0, newer.damaged);
        }
    }

    /// The log is shorter than it was. If nobody can say now who serves, what is known stays.
    pub(super) fn shrink(&mut self, now: Self) {
        if now.good.is_some() {
            *self = now;
        } else {
            (self.last, self.stamp) = (now.last, now.stamp);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::rollout::{Change, Roles, SCHEMA};

    fn good(number: u64) -> Option<Rollout> {
        Some(Rollout {
            schema: SCHEMA,
            number,
            id: String::new(),
            stable: 1,
            previous: None,
            change: Change::Rollout { version: 1, force: true },
            from: None,
            crossed: None,
            trial_ended_by: None,
            by: String::new(),
            at: String::new(),
            reason: String::new(),
            trial: None,
            standby: Vec::new(),
            aliases: Vec::new(),
            cause: None,
            gate: BTreeMap::new(),
        })
    }

    fn damaged(numbers: &[u64]) -> Vec<Damaged> {
        let reason = Unreadable::Damaged(String::new());
        numbers.iter().map(|&number| Damaged { number, key: String::new(), reason: reason.clone() }).collect()
    }

    #[test]
    fn what_was_seen_grows_as_if_it_had_been_read_at_once() {
        let mut seen = Seen::nothing();
        assert_eq!(seen.state(), State::Empty);
        let end = |good, of: &[u64], last| Seen { good, damaged: damaged(of), last, stamp: None };
        seen.extend(end(None, &[1], 1));
        assert_eq!(seen.state(), State::Lost);
        seen.extend(end(good(2), &[3], 3));
        assert_eq!(seen, end(good(2), &[3], 3));
        seen.extend(end(None, &[5, 4], 5));
        assert_eq!(seen, end(good(2), &[5, 4, 3], 5));
        assert_eq!(
            seen.state(),
            State::Known(Roles { stable: 1, previous: None, trial: None, ..Roles::alone(1) })
        );
        // Damaged once more, in another way.
        seen.extend(end(None, &[5], 5));
        assert_eq!(seen, end(good(2), &[5, 4, 3], 5));
    }

    #[test]
    fn a_log_that_shrinks_is_followed_while_it_says_who_serves() {
        let end = |good, last| Seen { good, damaged: Vec::new(), last, stamp: None };
        let mut seen = end(good(5), 5);
        seen.shrink(end(good(3), 3));
        assert_eq!(seen, end(good(3), 3));
        seen.shrink(Seen::nothing());
        assert_eq!(seen, end(good(3), 0));
    }
}
