//! What was seen of both versions in a window, by caller, and what it says of the canary.

use std::collections::VecDeque;
use std::sync::Arc;

use super::evidence::{Count, Votes};
use super::{Cause, Figure, Outcome, Pair, Rules, Side};
use crate::callers::ByCaller;
use crate::compare::{self, cosine};
use crate::drift::shift::critical;
use crate::drift::sides::{Apart, Sides};
use crate::rollout::gate::Bound;

/// Fewer pairs say nothing of run times, which scatter: they wait for those of the next window.
const PAIRS: u64 = 20;
/// The same of cosines, which hardly do.
const COSINES: u64 = 10;
/// Share of pairs that may be apart: odd texts are, in a good int8 version as well.
const ODD_PAIRS: f64 = 0.01;
/// Share of pairs that may be slow, as the median is held to the bound.
const SLOW_PAIRS: f64 = 0.5;
/// Of a window: run times whose median is told.
const MOST_TIMES: usize = 4096;
/// By so little chance do vectors of both versions lie apart, which are counted from the beginning of the trial and looked at again and
/// again.
const SHIFT_CHANCE: f64 = 1e-6;
/// The same for those of one caller: several must show it.
const SHIFT_CHANCE_OF_EACH: f64 = 1e-4;
/// Windows of a row that are counted together: callers that ask seldom show something only after a while.
const MOST_IN_ROW: usize = 30;

/// Requests that a version answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Answers {
    pub(super) requests: u64,
    pub(super) failed: u64,
    /// Those of them that failed by a vector that is none.
    pub(super) bad_vectors: u64,
}

impl Answers {
    pub(super) fn count(&mut self, outcome: Outcome) {
        self.requests += 1;
        self.failed += u64::from(outcome != Outcome::Answered);
        self.bad_vectors += u64::from(outcome == Outcome::BadVector);
    }

    fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.failed += other.failed;
        self.bad_vectors += other.bad_vectors;
    }
}

/// What one caller saw.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seen {
    canary: Answers,
    stable: Answers,
    /// Pairs that were begun, some of which are not compared yet.
    pub(super) drawn: u64,
    /// Pairs with a cosine, and those below the bound.
    cosines: Count,
    /// Pairs, and those above the bound.
    times: Count,
}

impl Seen {
    fn add(&mut self, other: &Self) {
        self.canary.add(other.canary);
        self.stable.add(other.stable);
        self.drawn += other.drawn;
        self.cosines.add(other.cosines);
        self.times.add(other.times);
    }

    fn of(&self, figure: Figure) -> Count {
        match figure {
            Figure::Errors => Count { hits: self.canary.failed, trials: self.canary.requests },
            Figure::Vectors => Count { hits: self.canary.bad_vectors, trials: self.canary.requests },
            Figure::Cosine => self.cosines,
            Figure::Latency => self.times,
            Figure::Gate | Figure::Shift => Count::default(),
        }
    }

    /// The same of the stable version, where it is held against that.
    fn of_stable(&self, figure: Figure) -> Count {
        match figure {
            Figure::Errors => Count { hits: self.stable.failed, trials: self.stable.requests },
            Figure::Vectors => Count { hits: self.stable.bad_vectors, trials: self.stable.requests },
            Figure::Gate | Figure::Cosine | Figure::Latency | Figure::Shift => Count::default(),
        }
    }
}

/// How far the two versions' vectors lie apart since the trial began, if there is a drift reference and enough was seen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Shift {
    all: Apart,
    /// Callers by whose vectors alone they do.
    callers: u32,
}

impl Shift {
    pub(super) fn of(sides: &Sides) -> Option<Self> {
        Some(Self { all: sides.apart()?, callers: sides.callers_beyond(critical(SHIFT_CHANCE_OF_EACH)) })
    }
}

/// What was seen in a window.
#[derive(Debug, Clone, Default)]
pub(super) struct Window {
    pub(super) callers: ByCaller<Seen>,
    /// Least cosine of the pairs.
    least: Option<f64>,
    /// Run times of the canary in pairs, as multiples of the stable version's.
    slowdowns: Vec<f64>,
    pub(super) shift: Option<Shift>,
}

impl Window {
    /// Counts a request.
    pub(super) fn answered(&mut self, caller: &Arc<str>, side: Side, outcome: Outcome) {
        let seen = self.callers.of(caller);
        match side {
            Side::Stable => seen.stable.count(outcome),
            Side::Canary => seen.canary.count(outcome),
        }
    }

    /// Counts a pair. Its cosine, if both have a vector of one width, and how many times as long the canary's run took.
    pub(super) fn compared(&mut self, caller: &Arc<str>, pair: &Pair, rules: &Rules) -> (Option<f64>, f64) {
        let (stable, ran) = &pair.stable;
        let slowdown = match &pair.candidate {
            (Some(_), took) => took.as_secs_f64() / ran.as_secs_f64().max(1e-6),
            (None, _) => f64::INFINITY,
        };
        let candidate = pair.candidate.0.as_ref().filter(|candidate| candidate.len() == stable.len());
        let found = candidate.map(|candidate| cosine(stable, candidate));
        let seen = self.callers.of(caller);
        seen.times.saw(!Bound::AtMost(rules.max_slowdown).holds(slowdown));
        if let Some(found) = found {
            seen.cosines.saw(!Bound::AtLeast(rules.min_cosine).holds(found));
        }
        self.least = compare::least(self.least.into_iter().chain(found)).map(|(_, least)| least);
        // No window of a shadow is ever closed.
        if self.slowdowns.len() < MOST_TIMES {
            self.slowdowns.push(slowdown);
        }
        (found, slowdown)
    }

    /// Requests that the canary answered.
    pub(super) fn requests(&self) -> u64 {
        self.total(Figure::Errors).trials
    }

    /// Takes the pairs of `other` that were too few to be judged.
    pub(super) fn take_unjudged_pairs(&mut self, other: &Self) {
        let (cosines, times) = (!other.has_enough(Figure::Cosine), !other.has_enough(Figure::Latency));
        self.callers.merge(&other.callers, |seen, before| {
            if cosines {
                seen.cosines.add(before.cosines);
            }
            if times {
                seen.times.add(before.times);
            }
        });
        if cosines {
            self.least = compare::least(self.least.into_iter().chain(other.least)).map(|(_, least)| least);
        }
        if times {
            self.slowdowns.extend(&other.slowdowns);
        }
    }

    /// Adds a window of the same row. Vectors are counted since the trial began: the later one counts.
    fn merge(&mut self, later: &Self) {
        self.callers.merge(&later.callers, Seen::add);
        self.least = compare::least(self.least.into_iter().chain(later.least)).map(|(_, least)| least);
        self.slowdowns.extend(later.slowdowns.iter().take(MOST_TIMES.saturating_sub(self.slowdowns.len())));
        self.shift = later.shift;
    }

    fn total(&self, figure: Figure) -> Count {
        self.callers.values().fold(Count::default(), |mut total, seen| {
            total.add(seen.of(figure));
            total
        })
    }

    /// Whether there is enough of it to be judged.
    fn has_enough(&self, figure: Figure) -> bool {
        let least = match figure {
            Figure::Cosine => COSINES,
            Figure::Latency => PAIRS,
            Figure::Gate | Figure::Errors | Figure::Vectors | Figure::Shift => 0,
        };
        self.total(figure).trials >= least
    }

    fn votes(&self, figure: Figure, rules: &Rules, of: fn(&Seen, Figure) -> Count) -> Votes {
        let least = rules.requests / u64::from(rules.callers.max(1));
        Votes::new(self.callers.values().map(|seen| of(seen, figure)), rules.callers, least.max(1))
    }

    /// Whether something looks wrong, by all callers or by one of them. The stable version's figures are left out: a caller could raise
    /// those to hide what others see.
    pub(super) fn is_in_doubt(&self, figure: Figure, rules: &Rules) -> bool {
        if let Figure::Shift = figure {
            return self
                .shift
                .is_some_and(|shift| shift.callers > 0 || shift.all.z_value() > critical(SHIFT_CHANCE));
        }
        let bound = probability(figure, rules);
        self.total(figure).is_more_than_chance(bound)
            || self.votes(figure, rules, Seen::of).against(bound) > 0
    }

    /// What is wrong, if so many callers show it as the rules ask for, each by itself.
    fn shown_by_callers(&self, figure: Figure, rules: &Rules) -> Option<Cause> {
        let stable = self.votes(figure, rules, Seen::of_stable).median_share(rules.callers);
        let bound = probability(figure, rules).max(stable.unwrap_or(0.0));
        let votes = match figure {
            Figure::Shift => self.shift?.callers,
            _ => self.votes(figure, rules, Seen::of).against(bound),
        };
        (votes >= rules.callers)
            .then(|| self.cause(figure, rules, bound, &format!("{votes} callers show it")))
    }

    /// What is wrong by all that was seen, which `told` says the source of.
    fn cause(&self, figure: Figure, rules: &Rules, probability: f64, told: &str) -> Cause {
        let Count { hits, trials } = self.total(figure);
        let share = self.total(figure).share();
        let (value, bound, sentence) = match figure {
            Figure::Errors => {
                (share, probability, format!("{hits} of {trials} requests failed or were given up"))
            }
            Figure::Vectors => (
                share,
                probability,
                format!("vectors of {hits} of {trials} requests were not finite or zero"),
            ),
            Figure::Cosine => (
                self.least.unwrap_or(f64::NAN),
                rules.min_cosine,
                format!("{hits} of {trials} inputs got another vector than from the stable version"),
            ),
            Figure::Latency => (
                median(&self.slowdowns),
                rules.max_slowdown,
                format!("{hits} of {trials} inputs took more than {} times as long", rules.max_slowdown),
            ),
            Figure::Gate | Figure::Shift => {
                let (canary, stable) =
                    self.shift.map_or((0, 0), |shift| (shift.all.canary, shift.all.stable));
                let z = self.shift.map_or(f64::NAN, |shift| shift.all.z_value());
                let told = format!("its {canary} vectors lie elsewhere than {stable} of the stable version");
                (z, critical(SHIFT_CHANCE), told)
            }
        };
        // Json has no infinity: a run that did not end has no figure.
        let value = Some(value).filter(|value| value.is_finite());
        Cause { figure, value, bound: Some(bound), sentence: format!("{sentence}; {told}") }
    }

    /// The first figure that is wrong by all that was seen: of the server's own probes.
    pub(super) fn shown_by_all(&self, rules: &Rules, told: &str) -> Option<Cause> {
        let is_wrong = |figure: &Figure| self.total(*figure).is_more_than_chance(probability(*figure, rules));
        let figure = Figure::WATCHED.into_iter().find(is_wrong)?;
        Some(self.cause(figure, rules, probability(figure, rules), told))
    }
}

/// How often something may tell against a version that just keeps the rules.
fn probability(figure: Figure, rules: &Rules) -> f64 {
    match figure {
        Figure::Errors => rules.max_error_share,
        Figure::Cosine => ODD_PAIRS,
        Figure::Latency => SLOW_PAIRS,
        // Not one.
        Figure::Vectors | Figure::Gate | Figure::Shift => 0.0,
    }
}

pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// What a row of windows says.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Finding {
    /// Several callers show it: the canary goes.
    Shown(Cause),
    /// Something looks wrong, and too few callers show it: the server's own probes are asked.
    Doubted(Cause),
}

/// Windows in a row that looked wrong, by figure.
#[derive(Debug, Default)]
pub(super) struct Rows([VecDeque<Arc<Window>>; Figure::WATCHED.len()]);

impl Rows {
    /// Takes a closed window. What was found, if a figure looked wrong for long enough.
    pub(super) fn close(&mut self, window: &Arc<Window>, rules: &Rules) -> Option<Finding> {
        let mut doubted = None;
        for (row, figure) in self.0.iter_mut().zip(Figure::WATCHED) {
            if !window.has_enough(figure) {
                continue;
            }
            if !window.is_in_doubt(figure, rules) {
                row.clear();
                continue;
            }
            row.push_back(Arc::clone(window));
            if row.len() > MOST_IN_ROW.max(rules.windows as usize) {
                row.pop_front();
            }
            if row.len() < rules.windows as usize {
                continue;
            }
            let mut merged = Window::default();
            row.iter().for_each(|window| merged.merge(window));
            if let Some(cause) = merged.shown_by_callers(figure, rules) {
                return Some(Finding::Shown(cause));
            }
            let told = format!("fewer than {} callers show it", rules.callers);
            doubted =
                doubted.or_else(|| Some(merged.cause(figure, rules, probability(figure, rules), &told)));
        }
        doubted.map(Finding::Doubted)
    }
}
