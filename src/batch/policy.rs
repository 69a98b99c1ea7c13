//! Which waiting rows run next. A pure function of lengths and limits: the worker owns the queue and the clock.

use crate::engine::Output;

/// What a batch and the queue may hold.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Longest row times rows. A single row may exceed it.
    pub batch_tokens: usize,
    /// Tokens that may wait. A request that finds the queue empty is always taken.
    pub queue_tokens: usize,
}

/// One row waiting for a session, as the policy sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waiting {
    pub(super) tokens: usize,
    pub(super) output: Output,
}

/// Chooses the rows of the next batch, as ascending indices into `waiting`, which is in order of arrival.
///
/// The oldest row is always in it, so nobody starves; the rest are those nearest to it in length, so that short rows do
/// not pay for long ones. Empty only if `waiting` is.
pub(super) fn next_batch(waiting: &[Waiting], limits: &Limits) -> Vec<usize> {
    let Some(oldest) = waiting.first() else { return Vec::new() };
    let mut nearest: Vec<usize> =
        (1..waiting.len()).filter(|&i| waiting[i].output == oldest.output).collect();
    // Stable: among equals the older goes first.
    nearest.sort_by_key(|&index| waiting[index].tokens.abs_diff(oldest.tokens));
    let mut chosen = vec![0];
    let mut longest = oldest.tokens;
    for index in nearest {
        let with = longest.max(waiting[index].tokens);
        if with * (chosen.len() + 1) > limits.batch_tokens {
            // A shorter row further on could still fit, but is further away in length: it waits for better company.
            break;
        }
        longest = with;
        chosen.push(index);
    }
    chosen.sort_unstable();
    chosen
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rows(lengths: &[usize]) -> Vec<Waiting> {
        lengths.iter().map(|&tokens| Waiting { tokens, output: Output::Pooled }).collect()
    }

    const LIMITS: Limits = Limits { batch_tokens: 64, queue_tokens: 0 };

    #[test]
    fn the_oldest_runs_with_its_nearest_in_length() {
        assert_eq!(next_batch(&rows(&[16, 60, 15, 17, 3, 16]), &LIMITS), [0, 2, 5]);
        assert_eq!(next_batch(&rows(&[100, 4, 4]), &LIMITS), [0], "too long for any company");
        assert!(next_batch(&[], &LIMITS).is_empty());
    }

    #[test]
    fn rows_that_want_other_vectors_do_not_mix() {
        let mut waiting = rows(&[8, 8, 8]);
        waiting[1].output = Output::Tokens;
        assert_eq!(next_batch(&waiting, &LIMITS), [0, 2]);
    }

    proptest! {
        #[test]
        fn bounds_hold_and_the_oldest_is_always_there(
            lengths in prop::collection::vec(1..600usize, 1..80),
            batch_tokens in 1..2000usize,
        ) {
            let waiting = rows(&lengths);
            let chosen = next_batch(&waiting, &Limits { batch_tokens, queue_tokens: 0 });
            prop_assert_eq!(chosen[0], 0);
            prop_assert!(chosen.windows(2).all(|pair| pair[0] < pair[1]), "each once");
            let longest = chosen.iter().map(|&index| lengths[index]).max().unwrap_or(0);
            prop_assert!(chosen.len() == 1 || longest * chosen.len() <= batch_tokens);
        }
    }
}
