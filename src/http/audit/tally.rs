//! How many audit lines a caller gets: some in each period, and then the number of the rest. A caller could fill a disk otherwise: one
//! key that asked for what is refused, again and again, wrote 7,700 lines a second.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tokio::time::Instant;

/// Lines of a caller that are told one by one in each [`PERIOD`]. Changes that were made are not among them: each is told.
pub(super) const TOLD: u64 = 10;
pub(super) const PERIOD: Duration = Duration::from_secs(10);

/// How often each outcome was not told.
pub(super) type Rest = BTreeMap<&'static str, u64>;

/// The tallies of all callers, by the names of their keys, so that their number is the operator's.
#[derive(Default)]
pub(super) struct Tallies(HashMap<String, Tally>);

/// What becomes of a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    Told,
    /// The first that is not told: the rest must be told when the period ends.
    FirstCounted(Instant),
    Counted,
}

/// The lines of one caller in this period.
#[derive(Default)]
struct Tally {
    since: Option<Instant>,
    told: u64,
    rest: Rest,
}

impl Tallies {
    /// Counts a line of `caller`.
    pub(super) fn count(&mut self, caller: &str, outcome: &'static str, now: Instant) -> Line {
        if !self.0.contains_key(caller) {
            // Keys come and go with their file, and so do their tallies.
            self.0.retain(|_, tally| !tally.is_over(now));
        }
        self.0.entry(caller.to_owned()).or_default().count(outcome, now)
    }

    /// What was not told of `caller`. Its period is over.
    pub(super) fn rest(&mut self, caller: &str) -> Rest {
        self.0.remove(caller).map(|tally| tally.rest).unwrap_or_default()
    }

    /// What was not told of all callers.
    pub(super) fn all(&mut self) -> impl Iterator<Item = (String, Rest)> + use<> {
        std::mem::take(&mut self.0).into_iter().map(|(caller, tally)| (caller, tally.rest))
    }
}

impl Tally {
    /// A period with a rest ends when that is told.
    fn is_over(&self, now: Instant) -> bool {
        self.rest.is_empty() && self.since.is_none_or(|since| now >= since + PERIOD)
    }

    fn count(&mut self, outcome: &'static str, now: Instant) -> Line {
        if self.is_over(now) {
            *self = Self { since: Some(now), ..Self::default() };
        }
        if self.told < TOLD {
            self.told += 1;
            return Line::Told;
        }
        let is_first = self.rest.is_empty();
        *self.rest.entry(outcome).or_default() += 1;
        if is_first { Line::FirstCounted(self.since.unwrap_or(now) + PERIOD) } else { Line::Counted }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_lines_of_a_caller_are_told_in_ten_seconds_and_the_rest_is_a_number_for_each_outcome() {
        let (mut tallies, begun) = (Tallies::default(), Instant::now());
        let mut count = |outcome, now| tallies.count("a", outcome, now);
        for _ in 0..TOLD {
            assert_eq!(count("denied", begun), Line::Told);
        }
        // A new period, without a rest.
        let later = begun + PERIOD;
        for _ in 0..TOLD {
            assert_eq!(count("denied", later), Line::Told);
        }
        assert_eq!(count("denied", later), Line::FirstCounted(later + PERIOD));
        assert_eq!(count("refused", later), Line::Counted);
        // The task that tells the rest may come late.
        assert_eq!(count("denied", later + PERIOD * 2), Line::Counted);
        assert_eq!(tallies.count("b", "denied", later), Line::Told, "another caller has lines of its own");
        assert_eq!(tallies.rest("a"), Rest::from([("denied", 2), ("refused", 1)]));
        assert_eq!(tallies.count("a", "denied", later), Line::Told);
        assert_eq!(tallies.rest("a"), Rest::new());
    }

    #[test]
    fn callers_that_have_nothing_to_tell_are_forgotten_and_others_are_not() {
        let (mut tallies, begun) = (Tallies::default(), Instant::now());
        for _ in 0..=TOLD {
            tallies.count("counted", "denied", begun);
        }
        for index in 0..1000 {
            tallies.count(&format!("key-{index}"), "denied", begun + PERIOD * index);
        }
        assert_eq!(tallies.0.len(), 2);
        assert!(
            tallies.all().any(|(caller, rest)| caller == "counted" && rest == Rest::from([("denied", 1)]))
        );
        assert_eq!(tallies.all().count(), 0);
    }
}
