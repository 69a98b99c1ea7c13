//! How fast sessions are. Others use the machine too, and only ever make a run slower: the best of several runs is the
//! figure, and candidates that are compared take turns, so that a disturbed moment chooses nothing.

use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use crate::engine::{Batch, EngineError, Output, Session};

/// Runs of each candidate, once it is warm.
const RUNS: usize = 5;
/// A comparison ends after the round in which this is over: a large model has one round.
const TIME: Duration = Duration::from_secs(1);
/// Lengths of rows as they come: most are short.
const LENGTHS: [usize; 3] = [16, 48, 128];
/// Lengths of lone rows.
const LONE_LENGTHS: [usize; 3] = [16, 64, 256];

/// The best speed of each of `N` candidates, which take turns. `run` runs one of them once and says how fast it was.
pub(super) fn turns<const N: usize>(
    mut run: impl FnMut(usize) -> Result<f64, EngineError>,
) -> Result<[f64; N], EngineError> {
    let mut best = [0.0_f64; N];
    let mut started = Instant::now();
    // Round 0 is not counted: the first run of each shape allocates.
    for round in 0..=RUNS {
        for (candidate, best) in best.iter_mut().enumerate() {
            let speed = run(candidate)?;
            if round > 0 {
                *best = best.max(speed);
            }
        }
        if round == 0 {
            started = Instant::now();
        } else if started.elapsed() > TIME {
            break;
        }
    }
    Ok(best)
}

/// Runs the batches once on each session, in a thread of its own. Tokens a second of all.
pub(super) fn run_all(sessions: &mut [Session], batches: &[Batch]) -> Result<f64, EngineError> {
    let tokens: usize = batches.iter().flat_map(|batch| &batch.rows).map(|row| row.len()).sum();
    let ready = Barrier::new(sessions.len());
    let run = |session: &mut Session| {
        // Not counted: on a GPU a thread's first run makes handles of CUDA's libraries, which takes longer than a batch.
        let begun = session.run(&Batch { rows: vec![[0].into()], ..Batch::default() });
        ready.wait();
        let started = Instant::now();
        begun?;
        batches.iter().try_for_each(|batch| session.run(batch).map(drop))?;
        Ok((started, Instant::now()))
    };
    let times = thread::scope(|scope| {
        let threads: Vec<_> = sessions.iter_mut().map(|session| scope.spawn(|| run(session))).collect();
        let times = threads.into_iter().map(|thread| thread.join().unwrap_or(Err(EngineError::Stopped)));
        // All are waited for, whatever the first of them says.
        times.collect::<Vec<_>>()
    });
    let times = times.into_iter().collect::<Result<Vec<_>, EngineError>>()?;
    // From the first that began to the last that ended: they may have been woken one after the other.
    let (began, ended) = (times.iter().map(|time| time.0).min(), times.iter().map(|time| time.1).max());
    let (Some(began), Some(ended)) = (began, ended) else { return Err(EngineError::Stopped) };
    Ok((tokens * sessions.len()) as f64 / (ended - began).as_secs_f64())
}

/// How many times as fast the second session runs lone rows as the first: the geometric mean over `rows`, so that short ones count
/// as much as long ones.
pub(super) fn faster(mut sessions: [&mut Session; 2], rows: &[Batch]) -> Result<f64, EngineError> {
    let mut logarithms = 0.0;
    for row in rows {
        let [first, second] = turns(|candidate| {
            let started = Instant::now();
            sessions[candidate].run(row)?;
            Ok(1.0 / started.elapsed().as_secs_f64())
        })?;
        logarithms += (second / first).ln();
    }
    Ok((logarithms / rows.len().max(1) as f64).exp())
}

/// Makes rows of a model's ids. Which ids does not matter to the speed, but that they differ does.
pub(super) struct Rows {
    pub(super) vocabulary: usize,
    pub(super) max_tokens: usize,
}

impl Rows {
    /// One batch for each length, as full as may be.
    pub(super) fn batches(&self, batch_tokens: usize) -> Vec<Batch> {
        let most = self.max_tokens.min(batch_tokens);
        let mut ids = self.ids();
        self.lengths(LENGTHS, most).map(|length| batch(&mut ids, batch_tokens / length, length)).collect()
    }

    /// One row for each length.
    pub(super) fn lone(&self) -> Vec<Batch> {
        let mut ids = self.ids();
        self.lengths(LONE_LENGTHS, self.max_tokens).map(|length| batch(&mut ids, 1, length)).collect()
    }

    /// Those that are not longer than `most`, or that one.
    fn lengths(&self, lengths: [usize; 3], most: usize) -> impl Iterator<Item = usize> {
        let short = (most < lengths[0]).then_some(most.max(1));
        lengths.into_iter().filter(move |length| *length <= most).chain(short)
    }

    fn ids(&self) -> impl Iterator<Item = u32> {
        let vocabulary = self.vocabulary.max(1);
        std::iter::successors(Some(0), move |id| Some((id * 5 + 7919) % vocabulary)).map(|id| id as u32)
    }
}

fn batch(ids: &mut impl Iterator<Item = u32>, rows: usize, length: usize) -> Batch {
    let rows = (0..rows).map(|_| ids.take(length).collect::<Arc<[u32]>>()).collect();
    Batch { rows, output: Output::Pooled, ..Batch::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measured_batches_are_full_and_of_the_models_ids() {
        for batch in (Rows { vocabulary: 50, max_tokens: 64 }).batches(128) {
            let length = batch.rows[0].len();
            assert_eq!(batch.rows.len(), 128 / length);
            assert!(length <= 64 && batch.rows.iter().all(|row| row.iter().all(|&id| id < 50)));
        }
        let lengths =
            |batches: Vec<Batch>| -> Vec<usize> { batches.iter().map(|batch| batch.rows[0].len()).collect() };
        assert_eq!(lengths(Rows { vocabulary: 5, max_tokens: 4 }.batches(128)), [4]);
        assert_eq!(lengths(Rows { vocabulary: 5, max_tokens: 512 }.lone()), [16, 64, 256]);
    }
}
