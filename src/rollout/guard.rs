//! The guard: the rule that takes a canary back by itself.
//!
//! While a canary runs, time is cut into windows. In each the canary is held against its stable version: the share of its requests
//! that fail, vectors that are none, and pairs, inputs that both versions ran one after the other, by their cosines and their run
//! times. What is found must be more than chance, in several windows in a row. Times are compared in pairs because those of requests
//! tell of the two queues, which hold different shares of the traffic, and not of the versions. Where there is a drift reference, all
//! vectors of both versions are compared as well: what moves with the traffic cancels out.

mod watch;

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use statrs::distribution::{Binomial, DiscreteCDF as _};

use super::gate::Bound;
use crate::compare;
use crate::drift::shift::critical;
use crate::drift::sides::Apart;

pub use watch::{Outcome, Pair, Side, Summary, Watch};

/// What a canary must keep.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rules {
    /// Shortest window. It is open until it has [`Rules::requests`].
    pub window: Duration,
    /// Windows in a row with the same breach.
    pub windows: u32,
    /// Requests that the canary answers in a window.
    pub requests: u64,
    /// Share of its requests that may fail, if the stable version's do not fail more often.
    pub max_error_share: f64,
    /// Least cosine of its vector to the stable version's for the same input, but for one pair in a hundred.
    pub min_cosine: f64,
    /// So many times as long as the stable version's may its runs be, by the median of pairs.
    pub max_slowdown: f64,
    /// Pairs a second, at most.
    pub pairs_per_second: f64,
}

impl Rules {
    /// What holds where nothing else is said.
    pub const DEFAULT: Self = Self {
        window: Duration::from_secs(10),
        windows: 3,
        requests: 30,
        max_error_share: 0.02,
        // The gate's bound for a claim to the stable version's space.
        min_cosine: super::gate::Bounds::DEFAULT.min_claim_cosine,
        // Fp32 after int8 takes twice as long.
        max_slowdown: 3.0,
        pairs_per_second: 2.0,
    };
}

/// So rarely may chance alone look like a breach in one window of a version that just keeps its bound: one that keeps it well does
/// not come near, and it takes several windows in a row.
const CHANCE: f64 = 1e-2;
/// Fewer pairs say nothing: they wait for those of the next window.
const PAIRS: usize = 20;
/// Share of pairs that may be apart: odd texts are, in a good int8 version as well.
const ODD_PAIRS: f64 = 0.01;

/// The same for vectors of both versions, which are counted from the beginning of the trial and looked at again and again.
const SHIFT_CHANCE: f64 = 1e-6;

/// What the guard looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Figure {
    /// A check of the gate, before it answered anybody.
    Gate,
    /// Share of requests that failed.
    Errors,
    /// Vectors that are not finite or zero.
    Vectors,
    /// Least cosine of the pairs.
    Cosine,
    /// Median of the pairs' run times, as a multiple of the stable version's.
    Latency,
    /// Of the vectors of both versions on the same traffic, in standard errors.
    Shift,
}

impl Figure {
    /// All there are.
    pub const ALL: [Self; 6] =
        [Self::Gate, Self::Errors, Self::Vectors, Self::Cosine, Self::Latency, Self::Shift];

    /// Whether pairs are needed to judge it.
    fn is_of_pairs(self) -> bool {
        matches!(self, Self::Cosine | Self::Latency)
    }

    /// Those that windows are held against.
    const WATCHED: [Self; 5] = [Self::Vectors, Self::Errors, Self::Cosine, Self::Latency, Self::Shift];
}

impl fmt::Display for Figure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Gate => "gate",
            Self::Errors => "errors",
            Self::Vectors => "vectors",
            Self::Cosine => "cosine",
            Self::Latency => "latency",
            Self::Shift => "shift",
        })
    }
}

/// Why a canary was taken back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cause {
    /// What was out of bounds.
    pub figure: Figure,
    /// What was measured in the last window; none for a check of the gate that has no figure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// What it must keep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound: Option<f64>,
    /// For a person.
    pub sentence: String,
}

/// Requests that a version answered in a window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Answers {
    requests: u64,
    failed: u64,
    /// Those of them that failed by a vector that is none.
    bad_vectors: u64,
}

impl Answers {
    /// So many as a share of the requests.
    fn share(self, of: u64) -> f64 {
        if self.requests == 0 { 0.0 } else { of as f64 / self.requests as f64 }
    }
}

/// What was seen in a window.
#[derive(Debug, Clone, Default, PartialEq)]
struct Window {
    canary: Answers,
    stable: Answers,
    /// Cosines of the pairs.
    cosines: Vec<f64>,
    /// Run times of the canary in pairs, as multiples of the stable version's.
    slowdowns: Vec<f64>,
    /// How far the two versions' vectors lie apart since the trial began, if there is a drift reference and enough was seen.
    apart: Option<Apart>,
}

impl Window {
    fn has_pairs(&self) -> bool {
        self.slowdowns.len() >= PAIRS
    }

    /// What `figure` was, if it breaks the rules and is more than chance.
    fn breach(&self, figure: Figure, rules: &Rules) -> Option<Cause> {
        let (value, bound, sentence) = match figure {
            Figure::Gate => return None,
            Figure::Errors => {
                let Answers { requests, failed, .. } = self.canary;
                let bound = rules.max_error_share.max(self.stable.share(self.stable.failed));
                let told = format!("{failed} of {requests} requests failed or were given up");
                more_than_chance(failed, requests, bound).then(|| (self.canary.share(failed), bound, told))
            }
            Figure::Vectors => {
                let Answers { requests, bad_vectors, .. } = self.canary;
                // Not one, unless the stable version gives some as well.
                let bound = self.stable.share(self.stable.bad_vectors);
                let told = format!("vectors of {bad_vectors} of {requests} requests were not finite or zero");
                more_than_chance(bad_vectors, requests, bound)
                    .then(|| (self.canary.share(bad_vectors), bound, told))
            }
            Figure::Cosine => {
                let (apart, pairs) = (
                    count(&self.cosines, |cosine| !Bound::AtLeast(rules.min_cosine).holds(*cosine)),
                    self.cosines.len(),
                );
                let least = compare::least(self.cosines.iter().copied()).map_or(f64::NAN, |(_, least)| least);
                let told =
                    format!("{apart} of {pairs} inputs got another vector than from the stable version");
                more_than_chance(apart, pairs as u64, ODD_PAIRS).then_some((least, rules.min_cosine, told))
            }
            Figure::Latency => {
                let slow =
                    count(&self.slowdowns, |slowdown| !Bound::AtMost(rules.max_slowdown).holds(*slowdown));
                let pairs = self.slowdowns.len();
                let told =
                    format!("{slow} of {pairs} inputs took more than {} times as long", rules.max_slowdown);
                more_than_chance(slow, pairs as u64, 0.5)
                    .then(|| (median(&self.slowdowns), rules.max_slowdown, told))
            }
            Figure::Shift => {
                let apart = self.apart?;
                let (z, bound) = (apart.z_value(), critical(SHIFT_CHANCE));
                let Apart { canary, stable, .. } = apart;
                let told = format!("its {canary} vectors lie elsewhere than {stable} of the stable version");
                (z > bound).then_some((z, bound, told))
            }
        }?;
        // Json has no infinity: a run that did not end has no figure.
        Some(Cause {
            figure,
            value: Some(value).filter(|value| value.is_finite()),
            bound: Some(bound),
            sentence,
        })
    }
}

fn count(values: &[f64], is: impl Fn(&f64) -> bool) -> u64 {
    values.iter().filter(|value| is(value)).count() as u64
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Whether `hits` or more of `trials` would come by chance less often than [`CHANCE`], if each did with `probability`.
fn more_than_chance(hits: u64, trials: u64, probability: f64) -> bool {
    let Some(fewer) = hits.checked_sub(1) else { return false };
    Binomial::new(probability.clamp(0.0, 1.0), trials).is_ok_and(|chance| chance.sf(fewer) < CHANCE)
}

/// Breaches in a row, by figure.
#[derive(Debug, Default)]
struct Streaks([u32; Figure::WATCHED.len()]);

impl Streaks {
    /// Takes a closed window; the cause, if a figure was out of bounds for long enough.
    fn close(&mut self, window: &Window, rules: &Rules) -> Option<Cause> {
        let mut found = None;
        let judged = |figure: Figure| !figure.is_of_pairs() || window.has_pairs();
        for (streak, figure) in self.0.iter_mut().zip(Figure::WATCHED).filter(|(_, figure)| judged(*figure)) {
            let breach = window.breach(figure, rules);
            *streak = if breach.is_some() { *streak + 1 } else { 0 };
            if *streak >= rules.windows {
                found = found.or(breach);
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules::DEFAULT;

    fn answers(requests: u64, failed: u64) -> Answers {
        Answers { requests, failed, bad_vectors: 0 }
    }

    fn window() -> Window {
        let (canary, stable) = (answers(100, 0), answers(900, 3));
        let apart = Some(Apart { stable: 9_000, canary: 1_000, shift_z: 3.9, outside_z: -3.9 });
        Window { canary, stable, cosines: vec![0.9999; 20], slowdowns: vec![0.5; 20], apart }
    }

    fn found(window: &Window) -> Vec<Figure> {
        Figure::WATCHED.into_iter().filter(|figure| window.breach(*figure, &RULES).is_some()).collect()
    }

    #[test]
    fn a_good_window_breaches_nothing_and_chance_is_no_breach() {
        assert!(found(&window()).is_empty());
        assert!(found(&Window::default()).is_empty());
        let mut odd = window();
        (odd.canary, odd.cosines[3], odd.slowdowns[0]) = (answers(100, 5), 0.9, 40.0);
        assert!(found(&odd).is_empty(), "{odd:?}");
        odd.slowdowns[..14].fill(3.5);
        assert!(found(&odd).is_empty(), "14 of 20 can be noise");
        // The stable version fails as often: whatever it is, it is not the canary.
        let both = Window { canary: answers(100, 30), stable: answers(900, 270), ..window() };
        assert!(found(&both).is_empty());
        let bad = |answers| Answers { bad_vectors: 1, ..answers };
        let both = Window { canary: bad(answers(100, 1)), stable: bad(answers(900, 1)), ..window() };
        assert!(found(&both).is_empty());
    }

    #[test]
    fn each_fault_is_found_by_its_own_figure() {
        let errors = Window { canary: answers(100, 30), ..window() };
        let vectors = Window { canary: Answers { bad_vectors: 1, ..answers(100, 1) }, ..window() };
        let cosines = Window { cosines: vec![0.98; 3], ..window() };
        let not_a_number = Window { cosines: vec![f64::NAN; 3], ..window() };
        let slow = Window { slowdowns: vec![5.0; 14], ..window() };
        let elsewhere = |shift_z, outside_z| Some(Apart { stable: 9_000, canary: 1_000, shift_z, outside_z });
        let shifted = Window { apart: elsewhere(9.0, 1.0), ..window() };
        let collapsed = Window { apart: elsewhere(0.0, -7.0), ..window() };
        let hangs = Window { slowdowns: vec![f64::INFINITY; 14], ..window() };
        for (window, figure, value) in [
            (errors, Figure::Errors, Some(0.3)),
            (vectors, Figure::Vectors, Some(0.01)),
            (cosines, Figure::Cosine, Some(0.98)),
            (not_a_number, Figure::Cosine, None),
            (slow, Figure::Latency, Some(5.0)),
            (hangs, Figure::Latency, None),
            (shifted, Figure::Shift, Some(9.0)),
            (collapsed, Figure::Shift, Some(7.0)),
        ] {
            assert_eq!(found(&window), [figure], "{window:?}");
            assert_eq!(window.breach(figure, &RULES).unwrap().value, value);
        }
    }

    #[test]
    fn only_a_breach_in_every_window_of_a_row_is_a_cause() {
        let bad = Window { canary: answers(100, 30), ..window() };
        let other = Window { canary: Answers { bad_vectors: 2, ..answers(100, 2) }, ..window() };
        let mut streaks = Streaks::default();
        for (window, expected) in [
            (&bad, None),
            (&bad, None),
            (&window(), None),
            (&bad, None),
            (&other, None),
            (&bad, None),
            (&bad, None),
            (&bad, Some(Figure::Errors)),
        ] {
            assert_eq!(streaks.close(window, &RULES).map(|cause| cause.figure), expected);
        }
    }
}
