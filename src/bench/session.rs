//! The bare sessions of a version in a loop, without a server: what this machine can do with it at most.
//!
//! Rows are tokenized, sorted by length and cut into batches before the clock starts; several batch sizes are tried, and the
//! fastest is kept. There is no queue and no HTTP. The vectors are thrown away: a speed found here says nothing of whether
//! they are right.

mod batches;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::report::processor_time;
use crate::engine::{Batch, EngineError, Session, Vector};
use batches::choose;
pub use batches::{Batches, Chosen, Hardware};

/// Token ids of a text, special tokens included.
pub type Row = Arc<[u32]>;

/// Seconds that one pass over a sample takes, roughly: every candidate runs passes, and so does what is measured.
const PASS_SECONDS: f64 = 2.0;
/// A speed is not believed that was found in less time: a few rows are passed over again and again.
const LEAST_SECONDS: f64 = 0.2;

/// What the loop gave.
#[derive(Debug, Clone, Copy)]
pub struct Measured {
    /// Real tokens that were run.
    pub tokens: usize,
    /// How long it took.
    pub seconds: f64,
    /// Processors that this process kept busy meanwhile; `None` where the system does not say it. On a CPU well below the
    /// threads of all sessions, others used the machine, and no ratio holds: the scheduler gives a server, which has more
    /// threads, more of what is left.
    pub processors: Option<f64>,
}

impl Measured {
    /// Real tokens per second.
    pub fn tokens_per_second(&self) -> f64 {
        self.tokens as f64 / self.seconds
    }
}

/// Sessions that are alike, each to be run by a thread of its own.
pub struct SessionLoop(Vec<Session>);

impl SessionLoop {
    /// Takes the sessions that share the work; at least one.
    pub fn new(sessions: Vec<Session>) -> Self {
        Self(sessions)
    }

    /// How many sessions share the work.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// As many of `rows`, of which there is at least one, drawn at random, as the sessions run in about two seconds.
    ///
    /// # Errors
    /// If a session cannot run them.
    pub fn sample(&mut self, mut rows: Vec<Row>, hardware: Hardware) -> Result<Vec<Row>, EngineError> {
        fastrand::Rng::with_seed(1).shuffle(&mut rows);
        let batches = hardware.usual().cut(&rows, self.is_packed());
        // Not counted: memory is allocated, and a GPU loads its kernels.
        self.run(&batches, 4 * self.0.len())?;
        let mut count = self.0.len();
        let found = loop {
            let found = self.run(&batches, count)?;
            if found.seconds >= LEAST_SECONDS {
                break found;
            }
            count = count.saturating_mul(2);
        };
        let wanted = found.tokens_per_second() * PASS_SECONDS;
        let mut tokens = 0.0;
        let enough = rows.iter().position(|row| {
            tokens += row.len() as f64;
            tokens >= wanted
        });
        rows.truncate(enough.map_or(rows.len(), |last| last + 1));
        Ok(rows)
    }

    /// Tries all batch sizes on `rows`, which are in random order and at least one, and keeps the fastest. `progress` is called
    /// before each try.
    ///
    /// # Errors
    /// If no size can be run.
    pub fn choose(
        &mut self,
        rows: &[Row],
        hardware: Hardware,
        mut progress: impl FnMut(Batches),
    ) -> Result<Chosen, EngineError> {
        choose(hardware.candidates(), rows, self.is_packed(), |candidate, batches| {
            progress(candidate);
            self.speed_of(batches)
        })
    }

    /// Runs whole passes over the chosen batches that take about `time`.
    ///
    /// # Errors
    /// If a session fails.
    pub fn measure(&mut self, chosen: &Chosen, time: Duration) -> Result<Measured, EngineError> {
        let batches = &chosen.cut;
        self.warm_up(batches)?;
        let passes = time.as_secs_f64() * chosen.tokens_per_second / tokens(batches) as f64;
        self.run(batches, batches.len().saturating_mul(passes.round().max(1.0) as usize))
    }

    /// The median time of a run of one row alone on one session, in milliseconds, over about `time`.
    ///
    /// # Errors
    /// If the session fails.
    pub fn latency(&mut self, row: &Row, time: Duration) -> Result<f64, EngineError> {
        for _ in 0..5 {
            self.alone(row)?;
        }
        let mut times = Vec::new();
        let end = Instant::now() + time;
        while times.is_empty() || Instant::now() < end {
            let started = Instant::now();
            self.alone(row)?;
            times.push(started.elapsed().as_secs_f64() * 1e3);
        }
        Ok(median(&times))
    }

    /// The vector of a row run by itself on one session, not normalised.
    ///
    /// # Errors
    /// If the session fails.
    pub fn alone(&mut self, row: &Row) -> Result<Vector, EngineError> {
        let session = self.0.first_mut().ok_or(EngineError::Stopped)?;
        let batch = Batch { rows: vec![Arc::clone(row)], lone: true, ..Batch::default() };
        session.run(&batch)?.pop().ok_or(EngineError::Stopped)
    }

    fn is_packed(&self) -> bool {
        self.0.iter().all(Session::is_packed)
    }

    /// Grows the sessions' memory to what the batches need.
    fn warm_up(&mut self, batches: &[Batch]) -> Result<(), EngineError> {
        self.run(batches, batches.len().div_ceil(8)).map(drop)
    }

    fn speed_of(&mut self, batches: &[Batch]) -> Result<f64, EngineError> {
        self.warm_up(batches)?;
        let once = self.run(batches, batches.len())?;
        if once.seconds >= LEAST_SECONDS {
            return Ok(once.tokens_per_second());
        }
        let passes = (LEAST_SECONDS / once.seconds).ceil() as usize;
        Ok(self.run(batches, batches.len().saturating_mul(passes))?.tokens_per_second())
    }

    /// Runs `count` batches on all sessions, again from the first after the last.
    fn run(&mut self, batches: &[Batch], count: usize) -> Result<Measured, EngineError> {
        let next = AtomicUsize::new(0);
        let work = |session: &mut Session| {
            let mut tokens = 0;
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= count {
                    return Ok(tokens);
                }
                let batch = &batches[index % batches.len()];
                if let Err(error) = session.run(batch) {
                    // The others need not go on.
                    next.store(count, Ordering::Relaxed);
                    return Err(error);
                }
                tokens += batch.rows.iter().map(|row| row.len()).sum::<usize>();
            }
        };
        let (started, before) = (Instant::now(), processor_time());
        let tokens = thread::scope(|scope| {
            let threads: Vec<_> = self.0.iter_mut().map(|session| scope.spawn(|| work(session))).collect();
            let ran = threads.into_iter().map(|thread| thread.join().unwrap_or(Err(EngineError::Stopped)));
            ran.sum::<Result<usize, EngineError>>()
        })?;
        let seconds = started.elapsed().as_secs_f64();
        let used = processor_time().zip(before).map(|(after, before)| (after - before).as_secs_f64());
        Ok(Measured { tokens, seconds, processors: used.map(|used| used / seconds) })
    }
}

fn tokens(batches: &[Batch]) -> usize {
    batches.iter().flat_map(|batch| &batch.rows).map(|row| row.len()).sum()
}

/// The middle of the sorted values, or of the two in the middle; NaN of nothing.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => sorted[length / 2],
        length => f64::midpoint(sorted[length / 2 - 1], sorted[length / 2]),
    }
}
