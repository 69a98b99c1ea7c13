//! The runtime alone: sessions on threads, batches ready.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use sextant::bench::report::processor_time;
use sextant::engine::{
    Batch, EngineError, Output, Pooling, Runtime, Session, SessionOptions, graph_path, load_sessions,
};

use crate::Result;
use crate::statistics::median;
use crate::texts::{Text, TextSet};

/// How rows sorted by length are cut into batches.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Batches {
    Rows(usize),
    /// Padding not counted on a packed graph.
    Tokens(usize),
}

/// Tried, and the fastest taken.
const CANDIDATES: [Batches; 8] = [
    Batches::Rows(4),
    Batches::Rows(8),
    Batches::Rows(16),
    Batches::Rows(32),
    Batches::Tokens(128),
    Batches::Tokens(256),
    Batches::Tokens(512),
    Batches::Tokens(1024),
];

impl fmt::Display for Batches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rows(rows) => write!(f, "{rows} rows"),
            Self::Tokens(tokens) => write!(f, "{tokens} tokens"),
        }
    }
}

impl Batches {
    /// At least one row each. Shuffled, so that both threads have long and short ones all the time.
    fn cut(self, texts: &[Text]) -> Vec<Batch> {
        let mut rows: Vec<_> = texts.iter().map(|text| text.ids.clone()).collect();
        rows.sort_by_key(|row| row.len());
        let mut batches: Vec<Batch> = Vec::new();
        let mut tokens = 0;
        for row in rows {
            tokens += row.len();
            let fits = match self {
                Self::Rows(most) => batches.last().is_some_and(|batch| batch.rows.len() < most),
                Self::Tokens(most) => !batches.is_empty() && tokens <= most,
            };
            if !fits {
                tokens = row.len();
                batches.push(Batch { rows: Vec::new(), output: Output::Pooled, ..Batch::default() });
            }
            if let Some(batch) = batches.last_mut() {
                batch.rows.push(row);
            }
        }
        fastrand::Rng::with_seed(1).shuffle(&mut batches);
        batches
    }
}

/// Sessions and the batches that suit them best.
pub(crate) struct Raw {
    sessions: Vec<Session>,
    chosen: Batches,
    batches: Vec<Batch>,
    /// Tokens per second when it was chosen.
    speed: f64,
}

/// What the raw loop gave.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measured {
    /// Real tokens.
    pub(crate) tokens_per_second: f64,
    /// Processor time that its threads got, of what they could use. Well below 1, others used the machine, and no ratio
    /// holds: the scheduler gives the server, which has more threads, more of what is left.
    pub(crate) got: f64,
}

impl Raw {
    /// As many sessions of one thread as there are cores.
    pub(crate) fn load(runtime: &Runtime, directory: &Path, pooling: Pooling, cores: usize) -> Result<Self> {
        let options = SessionOptions { threads: 1, spin: false };
        Self::load_sessions(runtime, directory, pooling, cores, options)
    }

    /// One session of as many threads.
    pub(crate) fn load_one(
        runtime: &Runtime,
        directory: &Path,
        pooling: Pooling,
        threads: usize,
        spin: bool,
    ) -> Result<Self> {
        Self::load_sessions(runtime, directory, pooling, 1, SessionOptions { threads, spin })
    }

    fn load_sessions(
        runtime: &Runtime,
        directory: &Path,
        pooling: Pooling,
        count: usize,
        options: SessionOptions,
    ) -> Result<Self> {
        let sessions = load_sessions(runtime, &graph_path(directory), pooling, options, count)?;
        Ok(Self { sessions, chosen: Batches::Rows(1), batches: Vec::new(), speed: 0.0 })
    }

    /// Tries all batch sizes and keeps the fastest; only those of rows where `budgets` are not to be tried. The speed.
    ///
    /// Twice: all on half of the texts, then the three best on all of them, so that a disturbed moment does not choose.
    pub(crate) fn choose_batches(&mut self, set: &TextSet, budgets: bool) -> Result<f64> {
        let texts = set.for_raw();
        let half = &texts[..texts.len() / 2];
        let mut tried = Vec::new();
        for candidate in CANDIDATES {
            if budgets || matches!(candidate, Batches::Rows(_)) {
                tried.push((self.speed_of(&candidate.cut(half))?, candidate));
            }
        }
        tried.sort_by(|left, right| right.0.total_cmp(&left.0));
        self.speed = 0.0;
        for (_, candidate) in tried.into_iter().take(3) {
            let batches = candidate.cut(texts);
            let speed = self.speed_of(&batches)?;
            if speed > self.speed {
                (self.speed, self.chosen, self.batches) = (speed, candidate, batches);
            }
        }
        Ok(self.speed)
    }

    fn speed_of(&mut self, batches: &[Batch]) -> Result<f64> {
        // Grows the arenas.
        self.pass(&batches[..batches.len().div_ceil(8)], 1)?;
        self.pass(batches, 1)
    }

    pub(crate) fn batches(&self) -> Batches {
        self.chosen
    }

    /// Real tokens per second over whole passes that take about `time`.
    pub(crate) fn measure(&mut self, time: Duration) -> Result<Measured> {
        let batches = std::mem::take(&mut self.batches);
        let tokens: usize = batches.iter().flat_map(|batch| &batch.rows).map(|row| row.len()).sum();
        let passes = (time.as_secs_f64() * self.speed / tokens as f64).round().max(1.0) as usize;
        self.pass(&batches[..batches.len().div_ceil(8)], 1)?;
        let (started, before) = (Instant::now(), processor_time());
        let speed = self.pass(&batches, passes);
        let wanted = started.elapsed().as_secs_f64() * self.sessions.len() as f64;
        let used = processor_time().zip(before).map(|(after, before)| (after - before).as_secs_f64());
        self.batches = batches;
        Ok(Measured { tokens_per_second: speed?, got: used.map_or(1.0, |used| used / wanted) })
    }

    /// Runs all batches `passes` times on all sessions. Real tokens per second.
    fn pass(&mut self, batches: &[Batch], passes: usize) -> Result<f64> {
        let next = AtomicUsize::new(0);
        let started = Instant::now();
        let tokens = thread::scope(|scope| {
            let workers: Vec<_> = self
                .sessions
                .iter_mut()
                .map(|session| {
                    scope.spawn(|| {
                        let mut tokens = 0;
                        loop {
                            let index = next.fetch_add(1, Ordering::Relaxed);
                            if index >= batches.len() * passes {
                                return Ok::<usize, EngineError>(tokens);
                            }
                            let batch = &batches[index % batches.len()];
                            session.run(batch)?;
                            tokens += batch.rows.iter().map(|row| row.len()).sum::<usize>();
                        }
                    })
                })
                .collect();
            let mut sum = 0;
            for worker in workers {
                sum += worker.join().map_err(|_| "a session's thread panicked")??;
            }
            Ok::<_, Box<dyn std::error::Error>>(sum)
        })?;
        Ok(tokens as f64 / started.elapsed().as_secs_f64())
    }

    /// The median time of a run of one row alone, in milliseconds, over about `time`.
    pub(crate) fn latency(&mut self, ids: &Arc<[u32]>, time: Duration) -> Result<f64> {
        for _ in 0..5 {
            self.alone(ids)?;
        }
        let mut times = Vec::new();
        let end = Instant::now() + time;
        while times.is_empty() || Instant::now() < end {
            let started = Instant::now();
            self.alone(ids)?;
            times.push(started.elapsed().as_secs_f64() * 1e3);
        }
        Ok(median(&times))
    }

    /// Each text's vector, run by itself, not normalised.
    pub(crate) fn vectors(&mut self, texts: &[Text]) -> Result<Vec<Vec<f32>>> {
        texts.iter().map(|text| self.alone(&text.ids)).collect()
    }

    fn alone(&mut self, ids: &Arc<[u32]>) -> Result<Vec<f32>> {
        let Some(session) = self.sessions.first_mut() else { return Err("no session".into()) };
        let batch =
            Batch { rows: vec![Arc::clone(ids)], output: Output::Pooled, lone: true, ..Batch::default() };
        Ok(session.run(&batch)?.pop().ok_or("no vector")?)
    }
}
