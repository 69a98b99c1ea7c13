//! What is seen of a canary on this server, as requests are answered and pairs are compared.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::{Cause, Rules, Streaks, Window, median};
use crate::compare::{self, cosine, cross_overlap};
use crate::drift::sides::{Apart, Sides};

/// Which of the two versions answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The stable one.
    Stable,
    /// The one on trial.
    Canary,
}

/// How a request ended. What was the caller's own mistake is not told to the guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// With vectors.
    Answered,
    /// With an error of the server, or not before its caller gave up.
    Failed,
    /// It failed because a vector was not finite, or one was zero.
    BadVector,
}

/// One input that both versions ran.
#[derive(Debug, Clone)]
pub struct Pair {
    /// The stable version's vector and run time.
    pub stable: (Vec<f32>, Duration),
    /// The other one's; no vector if it could not be run, or not in time.
    pub candidate: (Option<Vec<f32>>, Duration),
}

/// Pairs that the overlap of neighbours is measured among.
const KEPT_PAIRS: usize = 64;
/// Pairs of a window.
const MOST_PAIRS: usize = 4096;
/// Neighbours of each.
const NEIGHBOURS: usize = 10;

/// A canary or a shadow under watch. The lock is taken only while one runs.
#[derive(Debug)]
pub struct Watch {
    /// Vectors of both versions, held against the drift reference.
    pub sides: Arc<Sides>,
    rules: Rules,
    open: Mutex<Open>,
    tripped: OnceLock<Cause>,
}

#[derive(Debug)]
struct Open {
    since: Instant,
    next_pair: Instant,
    window: Window,
    streaks: Streaks,
    kept: VecDeque<(Vec<f32>, Vec<f32>)>,
    total: Total,
}

/// Since the trial began.
#[derive(Debug, Default)]
struct Total {
    windows: u64,
    canary: super::Answers,
    stable: super::Answers,
    pairs: u64,
    least_cosine: Option<f64>,
    /// Of the last [`KEPT_PAIRS`].
    slowdowns: VecDeque<f64>,
}

/// What was seen on this server since the trial began.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// Windows that were closed.
    pub windows: u64,
    /// Requests that the version on trial answered, and those of them that failed.
    pub canary_requests: u64,
    /// See `canary_requests`.
    pub canary_failures: u64,
    /// The same of the stable version.
    pub stable_requests: u64,
    /// See `stable_requests`.
    pub stable_failures: u64,
    /// Inputs that both versions ran.
    pub pairs: u64,
    /// Least cosine of their vectors.
    pub least_cosine: Option<f64>,
    /// Share of the 10 nearest of the last 64 inputs that stay when the query is the other version's vector.
    pub neighbour_overlap: Option<f64>,
    /// Median of the last 64 run times, as multiples of the stable version's.
    pub slowdown: Option<f64>,
    /// How far the vectors of the two versions lie apart, if there is a drift reference and enough was seen.
    pub apart: Option<Apart>,
    /// Why it gets no requests any more.
    pub cause: Option<Cause>,
}

impl Watch {
    /// Begins to watch.
    pub fn new(rules: Rules) -> Self {
        let now = Instant::now();
        let open = Open {
            since: now,
            next_pair: now,
            window: Window::default(),
            streaks: Streaks::default(),
            kept: VecDeque::new(),
            total: Total::default(),
        };
        Self { sides: Arc::default(), rules, open: Mutex::new(open), tripped: OnceLock::new() }
    }

    /// Counts a request.
    pub fn answered(&self, side: Side, outcome: Outcome) {
        let mut open = self.open();
        let Open { window, total, .. } = &mut *open;
        let (window_answers, total_answers) = match side {
            Side::Stable => (&mut window.stable, &mut total.stable),
            Side::Canary => (&mut window.canary, &mut total.canary),
        };
        for answers in [window_answers, total_answers] {
            answers.requests += 1;
            answers.failed += u64::from(outcome != Outcome::Answered);
            answers.bad_vectors += u64::from(outcome == Outcome::BadVector);
        }
    }

    /// Whether it is time for another pair of a request that the canary answers.
    pub fn wants_pair(&self) -> bool {
        let (mut open, now) = (self.open(), Instant::now());
        let wants = now >= open.next_pair;
        if wants {
            open.next_pair = now + Duration::from_secs_f64(1.0 / self.rules.pairs_per_second);
        }
        wants
    }

    /// Counts a pair; its cosine, if both have a vector of one width.
    pub fn compared(&self, pair: Pair) -> Option<f64> {
        let (stable, ran) = pair.stable;
        let slowdown = match &pair.candidate {
            (Some(_), candidate) => candidate.as_secs_f64() / ran.as_secs_f64().max(1e-6),
            (None, _) => f64::INFINITY,
        };
        let candidate = pair.candidate.0.filter(|candidate| candidate.len() == stable.len());
        let found = candidate.as_ref().map(|candidate| cosine(&stable, candidate));
        let mut open = self.open();
        open.total.pairs += 1;
        // No window of a shadow is ever closed.
        if open.window.slowdowns.len() < MOST_PAIRS {
            open.window.slowdowns.push(slowdown);
            open.window.cosines.extend(found);
        }
        open.total.slowdowns.push_back(slowdown);
        open.total.least_cosine =
            compare::least(open.total.least_cosine.into_iter().chain(found)).map(|(_, least)| least);
        open.kept.extend(candidate.map(|candidate| (stable, candidate)));
        if open.kept.len() > KEPT_PAIRS {
            open.kept.pop_front();
        }
        if open.total.slowdowns.len() > KEPT_PAIRS {
            open.total.slowdowns.pop_front();
        }
        found
    }

    /// Closes the window if it is old enough and has enough requests. From a breach that lasts on, the canary gets no requests.
    pub fn look(&self) -> Option<&Cause> {
        let mut open = self.open();
        if open.since.elapsed() >= self.rules.window && open.window.canary.requests >= self.rules.requests {
            let mut window = std::mem::take(&mut open.window);
            window.apart = self.sides.apart();
            (open.since, open.total.windows) = (Instant::now(), open.total.windows + 1);
            let cause = open.streaks.close(&window, &self.rules);
            if !window.has_pairs() {
                open.window.cosines = std::mem::take(&mut window.cosines);
                open.window.slowdowns = std::mem::take(&mut window.slowdowns);
            }
            if let Some(cause) = cause {
                // One that tripped before stays.
                let _ = self.tripped.set(cause);
            }
        }
        self.tripped()
    }

    /// Why the canary is out of the traffic of this server, if it is.
    pub fn tripped(&self) -> Option<&Cause> {
        self.tripped.get()
    }

    /// What was seen so far.
    pub fn summary(&self) -> Summary {
        let overlap = self.overlap();
        let open = self.open();
        let Total { windows, canary, stable, pairs, least_cosine, slowdowns } = &open.total;
        let slowdowns: Vec<f64> = slowdowns.iter().copied().collect();
        Summary {
            windows: *windows,
            canary_requests: canary.requests,
            canary_failures: canary.failed,
            stable_requests: stable.requests,
            stable_failures: stable.failed,
            pairs: *pairs,
            least_cosine: *least_cosine,
            neighbour_overlap: overlap,
            slowdown: Some(median(&slowdowns)).filter(|slowdown| slowdown.is_finite()),
            apart: self.sides.apart(),
            cause: self.tripped().cloned(),
        }
    }

    /// Share of nearest neighbours that stay, among the last pairs.
    pub fn overlap(&self) -> Option<f64> {
        let (stable, candidate): (Vec<_>, Vec<_>) = self.open().kept.iter().cloned().unzip();
        (stable.len() > NEIGHBOURS).then(|| cross_overlap(&stable, &candidate, NEIGHBOURS))
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
