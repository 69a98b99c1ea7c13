//! How many sessions with how many threads, and how large a batch: measured on this machine with this graph.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::{
    Batch, EngineError, Output, Pooling, Runtime, Session, SessionError, SessionOptions, load_sessions,
};

/// Sessions, and how much they run at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Topology {
    /// Sessions, each with a copy of the weights.
    pub sessions: NonZeroUsize,
    /// Threads of each session.
    pub threads: NonZeroUsize,
    /// Padded tokens of a batch.
    pub batch_tokens: NonZeroUsize,
}

/// What is fixed by the operator; the rest is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Processors that may be used.
    pub cores: NonZeroUsize,
    /// Sessions.
    pub sessions: Option<NonZeroUsize>,
    /// Threads of each session.
    pub threads: Option<NonZeroUsize>,
    /// Padded tokens of a batch.
    pub batch_tokens: Option<NonZeroUsize>,
}

/// More sessions than this are not made unasked: each holds a copy of the weights.
pub const MOST_SESSIONS: NonZeroUsize = NonZeroUsize::new(8).unwrap();
/// Batches that are tried. Larger ones fall out of a core's cache, smaller ones read the weights too often.
const BATCH_TOKENS: [usize; 5] = [128, 192, 256, 384, 512];
/// With which sessions are compared, before the best batch is known.
const USUAL_BATCH_TOKENS: usize = 256;
/// Lengths of rows as they come: most are short.
const LENGTHS: [usize; 5] = [8, 16, 32, 64, 128];
/// Each candidate runs this long, once it is warm.
const RUN: Duration = Duration::from_millis(200);
/// A candidate must be better by this factor than one that takes less memory or time, or it is not worth it.
const BETTER: f64 = 1.03;

/// Loads sessions of the graph in `path` and says how they should be used. What `wanted` leaves open is measured, which
/// takes a second or two.
///
/// # Errors
/// If the graph cannot be loaded or does not run.
pub fn choose(
    runtime: &Runtime,
    path: &Path,
    pooling: Pooling,
    vocabulary: usize,
    max_tokens: usize,
    wanted: Wanted,
) -> Result<(Vec<Session>, Topology), ChooseError> {
    let load = |sessions: NonZeroUsize| {
        let threads = wanted
            .threads
            .unwrap_or(NonZeroUsize::new(wanted.cores.get() / sessions).unwrap_or(NonZeroUsize::MIN));
        let options = SessionOptions { threads: threads.get() };
        load_sessions(runtime, path, pooling, options, sessions.get()).map(|loaded| (loaded, threads))
    };
    let rows = Rows { vocabulary, max_tokens };
    let (mut loaded, threads) = match wanted.sessions {
        Some(sessions) => load(sessions)?,
        None => best_sessions(wanted.cores, load, &rows)?,
    };
    let batch_tokens = match wanted.batch_tokens {
        Some(batch_tokens) => batch_tokens,
        None => best_batch_tokens(&mut loaded, &rows)?,
    };
    let sessions = NonZeroUsize::new(loaded.len()).unwrap_or(NonZeroUsize::MIN);
    Ok((loaded, Topology { sessions, threads, batch_tokens }))
}

/// Why nothing could be chosen.
#[derive(Debug, thiserror::Error)]
pub enum ChooseError {
    /// A session cannot be loaded.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// A session cannot run.
    #[error("the graph loads and does not run: {0}")]
    Run(#[from] EngineError),
}

/// Tries one session with all threads, then ever more with ever fewer.
fn best_sessions(
    cores: NonZeroUsize,
    load: impl Fn(NonZeroUsize) -> Result<(Vec<Session>, NonZeroUsize), SessionError>,
    rows: &Rows,
) -> Result<(Vec<Session>, NonZeroUsize), ChooseError> {
    let mut best: Option<(f64, Vec<Session>, NonZeroUsize)> = None;
    for count in candidates(cores.get()) {
        let (mut sessions, threads) = load(count)?;
        let speed = measure(&mut sessions, rows, USUAL_BATCH_TOKENS)?;
        tracing::info!(sessions = count, threads, tokens_per_second = speed as u64, "measured");
        if best.as_ref().is_none_or(|(before, ..)| speed > before * BETTER) {
            best = Some((speed, sessions, threads));
        }
    }
    match best {
        Some((_, sessions, threads)) => Ok((sessions, threads)),
        None => Ok(load(NonZeroUsize::MIN)?),
    }
}

/// 1, 2, 4, ... sessions, at most one a core; and one for each core where that is no power of two.
fn candidates(cores: usize) -> Vec<NonZeroUsize> {
    let most = cores.min(MOST_SESSIONS.get());
    let doubled = std::iter::successors(Some(1), |count| Some(count * 2)).take_while(|count| *count < most);
    doubled.chain([most]).filter_map(NonZeroUsize::new).collect()
}

fn best_batch_tokens(sessions: &mut [Session], rows: &Rows) -> Result<NonZeroUsize, ChooseError> {
    let mut best = (0.0, NonZeroUsize::MIN);
    for batch_tokens in BATCH_TOKENS.into_iter().filter_map(NonZeroUsize::new) {
        let speed = measure(sessions, rows, batch_tokens.get())?;
        tracing::info!(batch_tokens, tokens_per_second = speed as u64, "measured");
        if speed > best.0 * BETTER {
            best = (speed, batch_tokens);
        }
    }
    Ok(best.1)
}

/// Tokens a second of all sessions at once.
fn measure(sessions: &mut [Session], rows: &Rows, batch_tokens: usize) -> Result<f64, EngineError> {
    let batches = rows.batches(batch_tokens);
    // The first run of each shape allocates.
    run_all(sessions, &batches, None)?;
    let started = Instant::now();
    let tokens = run_all(sessions, &batches, Some(started + RUN))?;
    Ok(tokens as f64 / started.elapsed().as_secs_f64())
}

/// Runs the batches in turn, on each session in a thread of its own: once, or over and over until `end`. Returns the tokens
/// that were run.
fn run_all(sessions: &mut [Session], batches: &[Batch], end: Option<Instant>) -> Result<usize, EngineError> {
    let run = |session: &mut Session| -> Result<usize, EngineError> {
        let mut tokens = 0;
        loop {
            for batch in batches {
                session.run(batch)?;
                tokens += batch.rows.iter().map(|row| row.len()).sum::<usize>();
                if end.is_some_and(|end| Instant::now() >= end) {
                    return Ok(tokens);
                }
            }
            if end.is_none() {
                return Ok(tokens);
            }
        }
    };
    thread::scope(|scope| {
        let threads: Vec<_> = sessions.iter_mut().map(|session| scope.spawn(|| run(session))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or(Err(EngineError::Stopped))).sum()
    })
}

/// Makes rows of a model's ids. Which ids does not matter to the speed, but that they differ does.
struct Rows {
    vocabulary: usize,
    max_tokens: usize,
}

impl Rows {
    /// One batch for each length, as full as may be.
    fn batches(&self, batch_tokens: usize) -> Vec<Batch> {
        let mut id = 0;
        let mut next = || {
            id = (id * 5 + 7919) % self.vocabulary.max(1);
            id as u32
        };
        let lengths = LENGTHS.into_iter().filter(|length| *length <= self.max_tokens.min(batch_tokens));
        let batch = |length: usize| {
            let rows =
                (0..batch_tokens / length).map(|_| (0..length).map(|_| next()).collect::<Arc<[u32]>>());
            Batch { rows: rows.collect(), output: Output::Pooled }
        };
        let batches: Vec<Batch> = lengths.map(batch).collect();
        if batches.is_empty() {
            vec![Batch { rows: vec![[0].into()], output: Output::Pooled }]
        } else {
            batches
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_double_up_to_a_session_for_each_core() {
        let of = |cores| candidates(cores).into_iter().map(NonZeroUsize::get).collect::<Vec<_>>();
        assert_eq!(of(1), [1]);
        assert_eq!(of(2), [1, 2]);
        assert_eq!(of(6), [1, 2, 4, 6]);
        assert_eq!(of(64), [1, 2, 4, 8]);
    }

    #[test]
    fn measured_batches_are_full_and_of_the_models_ids() {
        for batch in (Rows { vocabulary: 50, max_tokens: 64 }).batches(128) {
            let length = batch.rows[0].len();
            assert_eq!(batch.rows.len(), 128 / length);
            assert!(length <= 64 && batch.rows.iter().all(|row| row.iter().all(|&id| id < 50)));
        }
        assert_eq!((Rows { vocabulary: 5, max_tokens: 4 }).batches(128).len(), 1);
    }
}
