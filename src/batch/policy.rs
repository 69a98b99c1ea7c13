//! Which of the waiting rows run together. Pure functions of lengths and limits: the lanes say whose turn it is.

use std::sync::Arc;

use crate::engine::Output;

/// How urgent a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Class {
    /// A user waits for the answer.
    #[default]
    Interactive,
    /// Indexing and the like: runs when nothing interactive waits, and for [`Limits::bulk_share`] beside it.
    Bulk,
}

/// What a batch and the queue may hold.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Longest row times rows. A single row may exceed it.
    pub batch_tokens: usize,
    /// Largest share of `longest * rows` that may be padding, 0 to 1.
    pub padding_share: f64,
    /// Tokens of admitted requests that wait, shared between callers: see [`crate::account`].
    pub queue_tokens: usize,
    /// Batches that run at once: rows that would fit into one batch are spread over all.
    pub sessions: usize,
    /// Fewer tokens than this are not worth a batch of their own on a second session: below it reading the weights, and on a GPU the start of
    /// each of its operations, takes longer than the arithmetic.
    pub smallest_share: usize,
    /// Of the tokens that run while interactive rows wait: this share is of bulk rows, 0 to 0.5, so that they move.
    pub bulk_share: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            batch_tokens: 256,
            padding_share: 0.25,
            queue_tokens: 262_144,
            sessions: 1,
            smallest_share: 64,
            bulk_share: 0.05,
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

/// Chooses the rows of the next batch from rows of these lengths, as ascending indices.
///
/// The first row is always in it; the rest are those nearest to it in length while `budget`, longest row times rows, and `padding_share` hold,
/// so that short rows do not pay for long ones. Empty only if `lengths` is.
pub fn next_batch(lengths: &[usize], budget: usize, padding_share: f64) -> Vec<usize> {
    let Some(&first) = lengths.first() else { return Vec::new() };
    let mut chosen = vec![0];
    let mut company: Vec<usize> = (1..lengths.len()).collect();
    // Among equals the one whose turn is sooner goes first.
    let rank = |&index: &usize| (lengths[index].abs_diff(first), index);
    // More rows than this cannot fit: only these are sorted.
    let most = budget / first.max(1) * 2 + 1;
    if company.len() > most {
        company.select_nth_unstable_by_key(most, rank);
        company.truncate(most);
    }
    company.sort_unstable_by_key(rank);
    let (mut longest, mut real) = (first, first);
    for index in company {
        let tokens = lengths[index];
        let padded = longest.max(tokens) * (chosen.len() + 1);
        let padding = (padded - real - tokens) as f64;
        if padded > budget || padding > padding_share * padded as f64 {
            // One further on is further away in length still: it waits for better company.
            break;
        }
        (longest, real) = (longest.max(tokens), real + tokens);
        chosen.push(index);
    }
    chosen.sort_unstable();
    chosen
}

/// Padded tokens of the next batch at most: all that a batch may have, or a session's share if the `waiting` tokens would fit into fewer batches
/// than there are sessions.
pub fn batch_budget(waiting: usize, limits: &Limits) -> usize {
    if waiting >= limits.batch_tokens * limits.sessions {
        return limits.batch_tokens;
    }
    // Room for the padding that a batch of so many real tokens may have.
    let share = waiting as f64 / limits.sessions.max(1) as f64 / (1.0 - limits.padding_share).max(0.1);
    (share.ceil() as usize).max(limits.smallest_share).min(limits.batch_tokens)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn choose(lengths: &[usize], batch_tokens: usize) -> Vec<usize> {
        let limits = Limits { batch_tokens, ..Limits::default() };
        next_batch(lengths, batch_budget(lengths.iter().sum(), &limits), limits.padding_share)
    }

    #[test]
    fn the_first_runs_with_its_nearest_in_length() {
        assert_eq!(choose(&[16, 60, 15, 17, 3, 16], 64), [0, 2, 5]);
        assert_eq!(choose(&[100, 4, 4], 64), [0], "too long for any company");
        assert!(choose(&[], 64).is_empty());
    }

    #[test]
    fn short_rows_do_not_pay_for_long_ones() {
        assert_eq!(choose(&[8, 100, 100], 400), [0]);
        assert_eq!(choose(&[100, 8, 90], 400), [0, 2]);
    }

    #[test]
    fn what_would_fit_into_one_batch_is_spread_over_the_sessions() {
        let limits = Limits { sessions: 2, ..Limits::default() };
        let count = |lengths: &[usize]| {
            next_batch(lengths, batch_budget(lengths.iter().sum(), &limits), limits.padding_share).len()
        };
        assert_eq!(count(&[50; 4]), 2, "half of it each");
        assert_eq!(count(&[10; 4]), 4, "too little to share");
        assert_eq!(count(&[50; 40]), 5, "enough for all");
    }

    proptest! {
        /// Works a queue off, and checks every batch: no bound is broken, the first row is always there, and each row leaves exactly once.
        #[test]
        fn bounds_hold_and_every_row_leaves_exactly_once(
            drawn in prop::collection::vec(1..600usize, 1..80),
            batch_tokens in 1..2000usize,
            sessions in 1..5usize,
            padding_share in 0.0..1.0f64,
        ) {
            let limits = Limits { batch_tokens, sessions, padding_share, ..Limits::default() };
            let mut rows: Vec<(usize, usize)> = drawn.into_iter().enumerate().collect();
            let mut left = vec![0; rows.len()];
            while !rows.is_empty() {
                let lengths: Vec<usize> = rows.iter().map(|(_, tokens)| *tokens).collect();
                let chosen = next_batch(&lengths, batch_budget(lengths.iter().sum(), &limits), padding_share);
                prop_assert_eq!(chosen[0], 0);
                prop_assert!(chosen.windows(2).all(|pair| pair[0] < pair[1]));
                let longest = chosen.iter().map(|&index| lengths[index]).max().unwrap_or(0);
                let real: usize = chosen.iter().map(|&index| lengths[index]).sum();
                if chosen.len() > 1 {
                    let padded = longest * chosen.len();
                    prop_assert!(padded <= batch_tokens);
                    prop_assert!((padded - real) as f64 <= padding_share * padded as f64);
                }
                for index in chosen.into_iter().rev() {
                    left[rows.remove(index).0] += 1;
                }
            }
            prop_assert!(left.iter().all(|&times| times == 1));
        }
    }
}
