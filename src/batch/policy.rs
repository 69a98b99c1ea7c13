//! Which waiting rows run next. A pure function of lengths, ages and limits: the worker owns the queue and the clock.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::engine::Output;

/// How urgent a caller is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Class {
    /// Somebody waits.
    #[default]
    Interactive,
    /// Nobody does: it runs when nothing interactive waits, or when it has waited for [`Limits::patience`].
    Bulk,
}

/// What a batch and the queue may hold.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Longest row times rows. A single row may exceed it.
    pub batch_tokens: usize,
    /// Largest share of `longest * rows` that may be padding, 0 to 1.
    pub padding_share: f64,
    /// Tokens that may wait. A request that finds the queue empty is always taken.
    pub queue_tokens: usize,
    /// Batches that run at once: rows that would fit into one batch are spread over all.
    pub sessions: usize,
    /// Fewer tokens than this are not worth a batch of their own on a second session: below it reading the weights, and on a GPU the start of
    /// each of its operations, takes longer than the arithmetic.
    pub smallest_share: usize,
    /// After this long a bulk row is as urgent as any, so that it is not put off for ever.
    pub patience: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            batch_tokens: 256,
            padding_share: 0.25,
            queue_tokens: 262_144,
            sessions: 1,
            smallest_share: 64,
            patience: Duration::from_secs(2),
        }
    }
}

/// What makes two rows the same: they share one place in a batch.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    /// Token ids, special tokens included.
    pub ids: Arc<[u32]>,
    /// Which vectors.
    pub output: Output,
}

/// One row waiting for a session.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// The row.
    pub key: Key,
    /// How urgent its caller is.
    pub class: Class,
    /// When it came.
    pub since: Instant,
    /// Most padded tokens of its batch: fewer after a batch of it has failed, down to less than its own, when it runs by itself.
    pub within: usize,
}

impl Waiting {
    /// Special tokens included.
    pub fn tokens(&self) -> usize {
        self.key.ids.len()
    }
}

/// Chooses the rows of the next batch, as ascending indices into `waiting`, which is in order of arrival.
///
/// The oldest urgent row is always in it, so nobody starves; the rest are those nearest to it in length while
/// `batch_tokens` and `padding_share` hold, so that short rows do not pay for long ones. Empty only if `waiting` is.
pub fn next_batch(waiting: &[Waiting], limits: &Limits, now: Instant) -> Vec<usize> {
    let urgent = |row: &Waiting| {
        row.class == Class::Interactive || now.saturating_duration_since(row.since) >= limits.patience
    };
    let Some(anchor) = waiting.iter().position(urgent).or((!waiting.is_empty()).then_some(0)) else {
        return Vec::new();
    };
    let oldest = &waiting[anchor];
    let mut chosen = vec![anchor];
    let mut budget = budget(waiting, limits).min(oldest.within);
    let fits = |index: &usize| {
        let row = &waiting[*index];
        *index != anchor && row.key.output == oldest.key.output
    };
    let mut company: Vec<usize> = (0..waiting.len()).filter(fits).collect();
    // Among equals the more urgent goes first, then the older.
    let rank = |&index: &usize| {
        let row = &waiting[index];
        (row.tokens().abs_diff(oldest.tokens()), row.class, index)
    };
    // More rows than this cannot fit, and a queue may hold thousands: only these are sorted.
    let most = budget / oldest.tokens().max(1) * 2 + 1;
    if company.len() > most {
        company.select_nth_unstable_by_key(most, rank);
        company.truncate(most);
    }
    company.sort_unstable_by_key(rank);
    let (mut longest, mut real) = (oldest.tokens(), oldest.tokens());
    for index in company {
        let tokens = waiting[index].tokens();
        let padded = longest.max(tokens) * (chosen.len() + 1);
        let padding = (padded - real - tokens) as f64;
        if padded > budget || padding > limits.padding_share * padded as f64 {
            // One further on is further away in length still: it waits for better company.
            break;
        }
        if padded > waiting[index].within {
            continue;
        }
        (longest, real) = (longest.max(tokens), real + tokens);
        budget = budget.min(waiting[index].within);
        chosen.push(index);
    }
    chosen.sort_unstable();
    chosen
}

/// Tokens for this batch: all it may have, or its session's share if everything waiting would fit into fewer batches than
/// there are sessions.
fn budget(waiting: &[Waiting], limits: &Limits) -> usize {
    let enough = limits.batch_tokens * limits.sessions;
    let mut total = 0;
    for row in waiting {
        total += row.tokens();
        if total >= enough {
            return limits.batch_tokens;
        }
    }
    // Room for the padding that a batch of so many real tokens may have.
    let share = total as f64 / limits.sessions.max(1) as f64 / (1.0 - limits.padding_share).max(0.1);
    (share.ceil() as usize).max(limits.smallest_share).min(limits.batch_tokens)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(tokens: usize, output: Output) -> Key {
        Key { ids: vec![0; tokens].into(), output }
    }

    fn rows(lengths: &[usize]) -> Vec<Waiting> {
        let since = Instant::now();
        let row = |&tokens| Waiting {
            key: key(tokens, Output::Pooled),
            class: Class::Interactive,
            since,
            within: usize::MAX,
        };
        lengths.iter().map(row).collect()
    }

    fn limits(batch_tokens: usize) -> Limits {
        Limits { batch_tokens, ..Limits::default() }
    }

    fn choose(waiting: &[Waiting], limits: &Limits) -> Vec<usize> {
        next_batch(waiting, limits, Instant::now())
    }

    #[test]
    fn the_oldest_runs_with_its_nearest_in_length() {
        assert_eq!(choose(&rows(&[16, 60, 15, 17, 3, 16]), &limits(64)), [0, 2, 5]);
        assert_eq!(choose(&rows(&[100, 4, 4]), &limits(64)), [0], "too long for any company");
        assert!(choose(&[], &limits(64)).is_empty());
    }

    #[test]
    fn short_rows_do_not_pay_for_long_ones() {
        assert_eq!(choose(&rows(&[8, 100, 100]), &limits(400)), [0]);
        assert_eq!(choose(&rows(&[100, 8, 90]), &limits(400)), [0, 2]);
    }

    #[test]
    fn rows_that_want_other_vectors_do_not_mix() {
        let mut waiting = rows(&[8, 8, 8]);
        waiting[1].key.output = Output::Tokens;
        assert_eq!(choose(&waiting, &limits(64)), [0, 2]);
    }

    #[test]
    fn bulk_waits_for_interactive_until_its_patience_is_over() {
        let mut waiting = rows(&[200, 200, 8]);
        (waiting[0].class, waiting[1].class) = (Class::Bulk, Class::Bulk);
        let limits = limits(256);
        assert_eq!(choose(&waiting, &limits), [2]);
        let later = Instant::now() + limits.patience;
        assert_eq!(next_batch(&waiting, &limits, later), [0]);
        assert_eq!(choose(&waiting[..2], &limits), [0], "bulk runs when nothing else waits");
    }

    #[test]
    fn a_row_whose_batches_failed_runs_alone() {
        let mut waiting = rows(&[8, 8, 8]);
        waiting[0].within = 8;
        assert_eq!(choose(&waiting, &limits(64)), [0]);
        waiting.swap(0, 1);
        assert_eq!(choose(&waiting, &limits(64)), [0, 2]);
    }

    #[test]
    fn rows_of_a_batch_that_was_too_large_run_in_smaller_ones() {
        let mut waiting = rows(&[8, 8, 8, 8, 8]);
        waiting[..4].iter_mut().for_each(|row| row.within = 16);
        assert_eq!(choose(&waiting, &limits(64)), [0, 1]);
        // A row that has not failed takes others of its kind along, and those that have failed only as far as they allow.
        waiting.swap(0, 4);
        assert_eq!(choose(&waiting, &limits(64)), [0, 1]);
    }

    #[test]
    fn what_would_fit_into_one_batch_is_spread_over_the_sessions() {
        let two = Limits { sessions: 2, ..limits(256) };
        assert_eq!(choose(&rows(&[50; 4]), &two).len(), 2, "half of it each");
        assert_eq!(choose(&rows(&[10; 4]), &two).len(), 4, "too little to share");
        assert_eq!(choose(&rows(&[50; 40]), &two).len(), 5, "enough for all");
    }

    fn within() -> impl Strategy<Value = usize> {
        prop_oneof![8 => Just(usize::MAX), 2 => 0..2000usize]
    }

    fn waiting() -> impl Strategy<Value = Vec<(usize, bool, bool, usize, u64)>> {
        prop::collection::vec((1..600usize, any::<bool>(), any::<bool>(), within(), 0..5000u64), 1..80)
    }

    proptest! {
        /// Draws a queue, works it off, and checks every batch: no bound is broken, the oldest urgent row is always there,
        /// and each row leaves exactly once.
        #[test]
        fn bounds_hold_and_every_row_leaves_exactly_once(
            drawn in waiting(),
            batch_tokens in 1..2000usize,
            sessions in 1..5usize,
            padding_share in 0.0..1.0f64,
        ) {
            let start = Instant::now();
            let now = start + Duration::from_secs(5);
            let limits = Limits { batch_tokens, sessions, padding_share, ..Limits::default() };
            let mut queue: Vec<(usize, Waiting)> = drawn
                .into_iter()
                .map(|(tokens, bulk, all, within, age)| Waiting {
                    key: key(tokens, if all { Output::Tokens } else { Output::Pooled }),
                    class: if bulk { Class::Bulk } else { Class::Interactive },
                    since: now - Duration::from_millis(age),
                    within,
                })
                .enumerate()
                .collect();
            let mut left = vec![0; queue.len()];
            while !queue.is_empty() {
                let rows: Vec<Waiting> = queue.iter().map(|(_, row)| row.clone()).collect();
                let chosen = next_batch(&rows, &limits, now);
                prop_assert!(!chosen.is_empty());
                prop_assert!(chosen.windows(2).all(|pair| pair[0] < pair[1]));
                let urgent = rows.iter().position(|row| {
                    row.class == Class::Interactive || now - row.since >= limits.patience
                });
                prop_assert!(chosen.contains(&urgent.unwrap_or(0)), "the oldest urgent row");
                let batch: Vec<Waiting> = chosen.iter().map(|&index| rows[index].clone()).collect();
                let longest = batch.iter().map(Waiting::tokens).max().unwrap_or(0);
                let real: usize = batch.iter().map(Waiting::tokens).sum();
                if batch.len() > 1 {
                    let padded = longest * batch.len();
                    prop_assert!(padded <= batch_tokens);
                    prop_assert!((padded - real) as f64 <= padding_share * padded as f64);
                    prop_assert!(batch.iter().all(|row| padded <= row.within && row.key.output == batch[0].key.output));
                }
                for index in chosen.into_iter().rev() {
                    left[queue.remove(index).0] += 1;
                }
            }
            prop_assert!(left.iter().all(|&times| times == 1));
        }
    }
}
