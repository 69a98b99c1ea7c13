//! What is seen of a canary on this server, as requests are answered and pairs are compared.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::window::{Answers, Finding, Rows, Shift, Window, median};
use super::{Cause, Probed, Rules};
use crate::compare::{self, cross_overlap};
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
    /// The other one's; no vector if it could not be run, or not in time. One of another width is not compared.
    pub candidate: (Option<Vec<f32>>, Duration),
}

/// Pairs that the overlap of neighbours is measured among.
const KEPT_PAIRS: usize = 64;
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
    rows: Rows,
    doubt: Doubt,
    kept: VecDeque<(Vec<f32>, Vec<f32>)>,
    total: Total,
}

/// What looks wrong and too few callers show.
#[derive(Debug, Default)]
struct Doubt {
    /// The last one.
    cause: Option<Cause>,
    /// Whether the probes are to be run because of it.
    is_open: bool,
    /// Until so many windows are closed the probes are not run again.
    settled_until: u64,
}

/// Since the trial began.
#[derive(Debug, Default)]
struct Total {
    windows: u64,
    canary: Answers,
    stable: Answers,
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
    /// What looked wrong last, and was shown neither by enough callers nor, so far, by the server's own probes.
    pub doubt: Option<Cause>,
    /// Why it gets no requests any more.
    pub cause: Option<Cause>,
}

impl Watch {
    /// Begins to watch at `now`.
    pub fn new(rules: Rules, now: Instant) -> Self {
        let open = Open {
            since: now,
            next_pair: now,
            window: Window::default(),
            rows: Rows::default(),
            doubt: Doubt::default(),
            kept: VecDeque::new(),
            total: Total::default(),
        };
        Self { sides: Arc::default(), rules, open: Mutex::new(open), tripped: OnceLock::new() }
    }

    /// Counts a request of `caller`.
    pub fn answered(&self, caller: &Arc<str>, side: Side, outcome: Outcome) {
        let mut open = self.open();
        open.window.answered(caller, side, outcome);
        match side {
            Side::Stable => open.total.stable.count(outcome),
            Side::Canary => open.total.canary.count(outcome),
        }
    }

    /// Whether it is time for another pair of a request of `caller` that the canary answers. A caller that has had more than its even
    /// share of the window's pairs waits for twice as long, so that one that sends much leaves pairs to the others.
    pub fn wants_pair(&self, caller: &Arc<str>, now: Instant) -> bool {
        let mut open = self.open();
        let interval = Duration::from_secs_f64(1.0 / self.rules.pairs_per_second);
        let own = open.window.callers.of(caller).drawn;
        let all: u64 = open.window.callers.values().map(|seen| seen.drawn).sum();
        let has_its_share = own * open.window.callers.len() as u64 > all;
        let wants = now >= open.next_pair + if has_its_share { interval } else { Duration::ZERO };
        if wants {
            open.next_pair = now + interval;
            open.window.callers.of(caller).drawn += 1;
        }
        wants
    }

    /// Counts a pair of an input of `caller`; its cosine, if both have a vector of one width.
    pub fn compared(&self, caller: &Arc<str>, pair: Pair) -> Option<f64> {
        let mut open = self.open();
        let (found, slowdown) = open.window.compared(caller, &pair, &self.rules);
        open.total.pairs += 1;
        open.total.slowdowns.push_back(slowdown);
        open.total.least_cosine =
            compare::least(open.total.least_cosine.into_iter().chain(found)).map(|(_, least)| least);
        if let (Some(_), Some(candidate)) = (found, pair.candidate.0) {
            open.kept.push_back((pair.stable.0, candidate));
        }
        if open.kept.len() > KEPT_PAIRS {
            open.kept.pop_front();
        }
        if open.total.slowdowns.len() > KEPT_PAIRS {
            open.total.slowdowns.pop_front();
        }
        found
    }

    /// Closes the window if it is old enough at `now` and has enough requests. Once enough callers show a breach that lasts on, the
    /// canary gets no requests; where fewer do, see [`Watch::is_in_doubt`].
    pub fn look(&self, now: Instant) -> Option<&Cause> {
        let mut open = self.open();
        let age = now.saturating_duration_since(open.since);
        if age >= self.rules.window && open.window.requests() >= self.rules.requests {
            let mut window = std::mem::take(&mut open.window);
            window.shift = Shift::of(&self.sides);
            (open.since, open.total.windows) = (now, open.total.windows + 1);
            open.window.take_unjudged_pairs(&window);
            match open.rows.close(&Arc::new(window), &self.rules) {
                // One that tripped before stays.
                Some(Finding::Shown(cause)) => drop(self.tripped.set(cause)),
                Some(Finding::Doubted(cause)) => {
                    open.doubt.is_open |= open.total.windows >= open.doubt.settled_until;
                    open.doubt.cause = Some(cause);
                }
                None => {}
            }
        }
        self.tripped()
    }

    /// Whether the server's own probes are to be run: a breach lasts on, and too few callers show it. Until [`Watch::probed`] says
    /// what they showed.
    pub fn is_in_doubt(&self) -> bool {
        self.open().doubt.is_open && self.tripped().is_none()
    }

    /// Begins to count what `texts` probe texts show.
    pub fn probing(&self, texts: usize) -> Probed {
        Probed::new(texts as u64, self.rules)
    }

    /// Takes what the probes showed. If that is a breach as well, the canary gets no requests any more; if not, they are not run again
    /// before as many windows as a breach has to last.
    pub fn probed(&self, probed: &Probed) {
        let mut open = self.open();
        let windows = open.total.windows;
        let Doubt { cause, is_open, settled_until } = &mut open.doubt;
        (*is_open, *settled_until) = (false, windows + u64::from(self.rules.windows));
        let Some(doubted) = cause else { return };
        match probed.cause(doubted.figure) {
            Some(cause) => drop(self.tripped.set(cause)),
            None => tracing::warn!(
                "a canary stays: {}: {}, and the server's own probes do not",
                doubted.figure,
                doubted.sentence
            ),
        }
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
            doubt: open.doubt.cause.clone(),
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
