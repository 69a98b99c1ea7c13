//! How many sessions with how many threads, spinning or not, how large a batch, and whether a lone request gets a session of
//! its own: measured on this machine with this graph.

pub(crate) mod gpu;
mod measure;

use std::num::NonZeroUsize;
use std::path::Path;

use super::{Backend, EngineError, Form, Pooling, Session, SessionError, SessionOptions, load_sessions};
use measure::Rows;

/// Sessions, and how much they run at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Topology {
    /// Sessions, each with a copy of the weights.
    pub sessions: NonZeroUsize,
    /// Of each session.
    pub threads: NonZeroUsize,
    /// Whether these spin.
    pub spin: bool,
    /// Padded tokens of a batch.
    pub batch_tokens: NonZeroUsize,
    /// Threads of the session for lone batches; 0 if there is none.
    pub lone_threads: usize,
    /// Whether these spin.
    pub lone_spin: bool,
    /// How a packed graph is given to the runtime.
    pub form: Form,
}

impl Topology {
    /// Asks for the same on `cores`, with nothing left to measure.
    pub fn wanted(&self, cores: NonZeroUsize) -> Wanted {
        Wanted {
            cores,
            sessions: Some(self.sessions),
            threads: Some(self.threads),
            spin: Some(self.spin),
            batch_tokens: Some(self.batch_tokens),
            lone_threads: Some(self.lone_threads),
            lone_spin: Some(self.lone_spin),
            form: Some(self.form),
        }
    }
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
    /// Whether these spin.
    pub spin: Option<bool>,
    /// Padded tokens of a batch.
    pub batch_tokens: Option<NonZeroUsize>,
    /// Threads of the session for lone batches, 0 for none.
    pub lone_threads: Option<usize>,
    /// Whether these spin.
    pub lone_spin: Option<bool>,
    /// How a packed graph is given to the runtime, on a GPU.
    pub form: Option<Form>,
}

impl Wanted {
    /// All of it measured.
    pub fn measured(cores: NonZeroUsize) -> Self {
        Self {
            cores,
            sessions: None,
            threads: None,
            spin: None,
            batch_tokens: None,
            lone_threads: None,
            lone_spin: None,
            form: None,
        }
    }

    /// One session with all threads, and nothing to measure but the form on a GPU: for whoever looks at a version and does not serve it.
    pub fn one_session(cores: NonZeroUsize) -> Self {
        Self {
            sessions: Some(NonZeroUsize::MIN),
            spin: Some(false),
            batch_tokens: Some(BATCH_TOKENS_PER_THREAD),
            lone_threads: Some(0),
            ..Self::measured(cores)
        }
    }
}

/// Sessions as they should be used.
pub struct Chosen {
    /// Those that share the work.
    pub sessions: Vec<Session>,
    /// For a batch while nothing else runs or waits.
    pub lone: Option<Session>,
    /// What was chosen.
    pub topology: Topology,
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

/// More sessions than this are not made unasked: each holds a copy of the weights.
pub const MOST_SESSIONS: NonZeroUsize = NonZeroUsize::new(8).unwrap();
/// Padded tokens of a batch for each thread of its session, unless half of it is clearly better. Smaller batches read the
/// weights too often, and with each the threads of requests take turns with the sessions. Larger ones are no faster, and
/// whoever comes after one waits longer.
const BATCH_TOKENS_PER_THREAD: NonZeroUsize = NonZeroUsize::new(256).unwrap();
/// A candidate must be better by this factor than one that takes less memory or time, or it is not worth it.
const BETTER: f64 = 1.03;
/// So much better must the smaller batch be.
const SMALLER_BETTER: f64 = 1.06;
/// A session for lone batches is one more copy of the weights: it must answer this much faster.
const LONE_BETTER: f64 = 1.2;

/// Loads sessions of the graph in `path` and says how they should be used. What `wanted` leaves open is measured, which
/// takes some seconds.
///
/// # Errors
/// If the graph cannot be loaded or does not run.
pub fn choose(
    backend: &Backend,
    path: &Path,
    pooling: Pooling,
    vocabulary: usize,
    max_tokens: usize,
    wanted: Wanted,
) -> Result<Chosen, ChooseError> {
    let search = Search { backend, path, pooling, rows: Rows { vocabulary, max_tokens }, wanted };
    if backend.devices.are_gpus() {
        return search.on_gpus();
    }
    let mut shared = match wanted.sessions {
        Some(sessions) => search.load(sessions, search.threads(sessions), wanted.spin.unwrap_or(false))?,
        None => search.best_sessions()?,
    };
    let batch_tokens = match wanted.batch_tokens {
        Some(batch_tokens) => batch_tokens,
        None => search.best_batch_tokens(&mut shared)?,
    };
    let lone = search.best_lone(&mut shared)?;
    let topology = Topology {
        sessions: NonZeroUsize::new(shared.sessions.len()).unwrap_or(NonZeroUsize::MIN),
        threads: shared.threads,
        spin: shared.spin,
        batch_tokens,
        lone_threads: lone.as_ref().map_or(0, |lone| lone.threads.get()),
        lone_spin: lone.as_ref().is_some_and(|lone| lone.spin),
        form: Form::File,
    };
    let lone = lone.and_then(|lone| lone.sessions.into_iter().next());
    Ok(Chosen { sessions: shared.sessions, lone, topology })
}

/// Sessions that are alike.
struct Loaded {
    sessions: Vec<Session>,
    threads: NonZeroUsize,
    spin: bool,
}

struct Search<'a> {
    backend: &'a Backend,
    path: &'a Path,
    pooling: Pooling,
    rows: Rows,
    wanted: Wanted,
}

impl Search<'_> {
    fn threads(&self, sessions: NonZeroUsize) -> NonZeroUsize {
        let share = NonZeroUsize::new(self.wanted.cores.get() / sessions).unwrap_or(NonZeroUsize::MIN);
        self.wanted.threads.unwrap_or(share)
    }

    fn load(&self, count: NonZeroUsize, threads: NonZeroUsize, spin: bool) -> Result<Loaded, SessionError> {
        let max_tokens = self.rows.max_tokens;
        let options = SessionOptions { max_tokens, ..SessionOptions::cpu(threads.get(), spin) };
        let sessions = load_sessions(self.backend, self.path, self.pooling, options, count.get())?;
        Ok(Loaded { sessions, threads, spin })
    }

    /// Tries one session with all threads, then ever more with ever fewer; last, whether the best ones should spin.
    fn best_sessions(&self) -> Result<Loaded, ChooseError> {
        let load = |count, spin| self.load(count, self.threads(count), spin);
        let mut best = load(NonZeroUsize::MIN, false)?;
        for count in candidates(self.wanted.cores.get()) {
            best = self.better(best, load(count, false)?)?;
        }
        if best.threads > NonZeroUsize::MIN {
            let count = NonZeroUsize::new(best.sessions.len()).unwrap_or(NonZeroUsize::MIN);
            best = self.better(best, load(count, true)?)?;
        }
        Ok(best)
    }

    /// The first, unless the second is clearly faster.
    fn better(&self, mut first: Loaded, mut second: Loaded) -> Result<Loaded, ChooseError> {
        let batches =
            [&first, &second].map(|loaded| self.rows.batches(usual_batch_tokens(loaded.threads).get()));
        let speeds: [f64; 2] = measure::turns(|candidate| {
            let loaded = if candidate == 0 { &mut first } else { &mut second };
            measure::run_all(&mut loaded.sessions, &batches[candidate])
        })?;
        for (loaded, speed) in [&first, &second].into_iter().zip(speeds) {
            let Loaded { sessions, threads, spin } = loaded;
            let count = sessions.len();
            tracing::info!(sessions = count, threads, spin, tokens_per_second = speed as u64, "measured");
        }
        Ok(if speeds[1] > speeds[0] * BETTER { second } else { first })
    }

    fn best_batch_tokens(&self, shared: &mut Loaded) -> Result<NonZeroUsize, ChooseError> {
        let usual = usual_batch_tokens(shared.threads);
        let smaller = NonZeroUsize::new(usual.get() / 2).unwrap_or(usual);
        let tried = [usual, smaller];
        let batches = tried.map(|batch_tokens| self.rows.batches(batch_tokens.get()));
        let speeds: [f64; 2] =
            measure::turns(|candidate| measure::run_all(&mut shared.sessions, &batches[candidate]))?;
        for (batch_tokens, speed) in tried.into_iter().zip(speeds) {
            tracing::info!(batch_tokens, tokens_per_second = speed as u64, "measured");
        }
        Ok(if speeds[1] > speeds[0] * SMALLER_BETTER { smaller } else { usual })
    }

    /// A session of more threads than the shared ones have, if a lone row is done much faster on it.
    fn best_lone(&self, shared: &mut Loaded) -> Result<Option<Loaded>, ChooseError> {
        let asked = match self.wanted.lone_threads {
            Some(asked) => NonZeroUsize::new(asked),
            None => Some(self.wanted.cores).filter(|cores| *cores > shared.threads),
        };
        let Some(threads) = asked else { return Ok(None) };
        if let (Some(_), Some(spin)) = (self.wanted.lone_threads, self.wanted.lone_spin) {
            return Ok(Some(self.load(NonZeroUsize::MIN, threads, spin)?));
        }
        let rows = self.rows.lone();
        let Some(narrow) = shared.sessions.first_mut() else { return Ok(None) };
        let mut best: Option<(f64, Loaded)> = None;
        for spin in [false, true] {
            let mut loaded = self.load(NonZeroUsize::MIN, threads, spin)?;
            let Some(session) = loaded.sessions.first_mut() else { continue };
            let faster = measure::faster([&mut *narrow, session], &rows)?;
            tracing::info!(lone_threads = threads, spin, faster = format!("{faster:.2}"), "measured");
            if best.as_ref().is_none_or(|(before, _)| faster > before * BETTER) {
                best = Some((faster, loaded));
            }
        }
        let is_asked = self.wanted.lone_threads.is_some();
        Ok(best.filter(|(faster, _)| is_asked || *faster > LONE_BETTER).map(|(_, lone)| lone))
    }
}

fn usual_batch_tokens(threads: NonZeroUsize) -> NonZeroUsize {
    threads.saturating_mul(BATCH_TOKENS_PER_THREAD)
}

/// 2, 4, ... sessions, at most one a core; and one for each core where that is no power of two.
fn candidates(cores: usize) -> Vec<NonZeroUsize> {
    let most = cores.min(MOST_SESSIONS.get());
    let doubled = std::iter::successors(Some(2), |count| Some(count * 2)).take_while(|count| *count < most);
    doubled.chain((most > 1).then_some(most)).filter_map(NonZeroUsize::new).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_double_up_to_a_session_for_each_core() {
        let of = |cores| candidates(cores).into_iter().map(NonZeroUsize::get).collect::<Vec<_>>();
        assert!(of(1).is_empty());
        assert_eq!(of(2), [2]);
        assert_eq!(of(6), [2, 4, 6]);
        assert_eq!(of(64), [2, 4, 8]);
    }
}
