//! What a replica knows of the drift of a version, to be read by people and added to that of other replicas.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::counts::Counts;
use super::detectors::Reading;
use super::evidence::{NEAR, OUTSIDE, log_evidence};
use super::inputs::FEATURES;
use super::reference::{Facts, Origin};
use super::shift;

/// Far beyond what anybody counts, and the sums of their projections stay numbers.
const MOST_SAMPLES: u64 = 1 << 36;

/// Why states cannot be added.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MergeError {
    /// They were counted against different references.
    #[error("they are held against different references: {left} and {right}")]
    References {
        /// Of the first.
        left: String,
        /// Of another.
        right: String,
    },
    /// One was given twice.
    #[error("the same state of {0} is there twice: of the same time, with the same counts")]
    Twice(String),
    /// They are of different forms.
    #[error("the counts do not fit the reference {0}")]
    Counts(String),
    /// Together they are more than anybody counts.
    #[error(
        "the states have more than {MOST_SAMPLES} vectors together, which nobody has counted: one of them was edited"
    )]
    TooMany,
    /// There is none.
    #[error("there is nothing to add")]
    Nothing,
}

/// What all counts together say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Statistics {
    /// Logarithm of the evidence that the traffic lies outside.
    pub log_evidence_outside: f64,
    /// Logarithm of the evidence that it lies too near.
    pub log_evidence_near: f64,
    /// Of the mean projections.
    pub t_squared: f64,
    /// The same as a standard normal value.
    pub shift_z: f64,
    /// Of the inputs, for each of [`FEATURES`], in standard errors.
    pub inputs_z: [f64; FEATURES.len()],
}

impl Statistics {
    /// Of these counts.
    pub fn of(counts: &Counts, facts: &Facts) -> Self {
        let t_squared = shift::t_squared(counts.samples, counts.sums(), facts);
        Self {
            log_evidence_outside: log_evidence(counts, facts, &OUTSIDE),
            log_evidence_near: log_evidence(counts, facts, &NEAR),
            t_squared,
            shift_z: shift::z_value(t_squared, counts.projections.len()),
            inputs_z: counts.inputs.z_values(&facts.inputs, facts.design_effect),
        }
    }
}

/// The state of one version, of one replica or of several added up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// As `minilm@1`.
    pub version: String,
    /// First eight digits of the reference's digest.
    pub reference: String,
    /// Where the reference comes from.
    pub origin: Origin,
    /// What is judged with.
    pub facts: Facts,
    /// Replicas that counted.
    pub replicas: u64,
    /// Seconds since 1970 at which the first of them began.
    pub since: u64,
    /// Expected vectors between two false alarms of a test.
    pub expected_run_time: f64,
    /// Since then.
    pub counts: Counts,
    /// Vectors that were not finite or all zeros.
    pub invalid: u64,
    /// Of all counts.
    pub statistics: Statistics,
    /// What the tests of the replica say; none of several added up, because the order of their vectors is not known.
    pub tests: Vec<Reading>,
    /// Texts of the reference near to each topic, where they were kept; `[bins]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub topics: Vec<Vec<String>>,
}

impl State {
    /// The states of replicas added up, to the last digit.
    ///
    /// # Errors
    /// If there is none, or they are held against different references.
    pub fn merge(states: Vec<Self>) -> Result<Self, MergeError> {
        let mut states = states.into_iter();
        let mut sum = states.next().ok_or(MergeError::Nothing)?;
        sum.check()?;
        let mut seen = vec![(sum.since, sum.counts.clone())];
        for state in states {
            state.check()?;
            if state.reference != sum.reference {
                return Err(MergeError::References { left: sum.reference, right: state.reference });
            }
            if state.facts != sum.facts || state.counts.projections.len() != sum.counts.projections.len() {
                return Err(MergeError::Counts(state.reference));
            }
            if sum.counts.samples + state.counts.samples >= MOST_SAMPLES {
                return Err(MergeError::TooMany);
            }
            let counted = (state.since, state.counts.clone());
            // Two replicas that have counted nothing yet are alike.
            if counted.1.samples > 0 && seen.contains(&counted) {
                return Err(MergeError::Twice(state.version));
            }
            seen.push(counted);
            sum.counts.merge(&state.counts);
            sum.invalid = sum.invalid.saturating_add(state.invalid);
            sum.replicas = sum.replicas.saturating_add(state.replicas);
            sum.since = sum.since.min(state.since);
            sum.tests.clear();
        }
        sum.statistics = Statistics::of(&sum.counts, &sum.facts);
        Ok(sum)
    }

    /// Counts that were edited must not be added as if they fitted.
    fn check(&self) -> Result<(), MergeError> {
        let Counts { samples, tails, projections, bins, .. } = &self.counts;
        let fits = bins.len() == self.facts.bin_shares.len()
            && !projections.is_empty()
            && *samples < MOST_SAMPLES
            && tails.iter().all(|tail| tail <= samples)
            && bins.iter().all(|bin| bin <= samples)
            && bins.iter().sum::<u64>() == *samples
            && projections.iter().all(|sum| sum.unsigned_abs() <= samples << 27);
        if fits { Ok(()) } else { Err(MergeError::Counts(self.reference.clone())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drift::fixture::{Traffic, observed, scorer};
    use crate::drift::score::{Observation, Scorer};

    fn state(scorer: &Scorer, seen: &[&Observation]) -> State {
        let facts = scorer.facts().clone();
        let mut counts = Counts::none(scorer.reference().components(), facts.bin_shares.len());
        seen.iter().for_each(|seen| counts.add(seen));
        State {
            version: "m@1".into(),
            reference: scorer.name.clone(),
            origin: scorer.reference().origin.clone(),
            statistics: Statistics::of(&counts, &facts),
            facts,
            replicas: 1,
            since: 100 + counts.samples,
            expected_run_time: 1e8,
            counts,
            invalid: 1,
            tests: Vec::new(),
            topics: Vec::new(),
        }
    }

    #[test]
    fn shards_add_up_to_the_one_stream_to_the_last_digit() {
        let (scorer, mut traffic) = (scorer(), Traffic::new(9));
        let mixed = |index: u32| if index.is_multiple_of(9) { traffic.strange() } else { traffic.usual() };
        let seen = observed(&scorer, (0..20_000).map(mixed));
        let whole = state(&scorer, &seen.iter().collect::<Vec<_>>());
        assert!(whole.statistics.log_evidence_outside > 100.0 && whole.statistics.t_squared > 10.0);
        let mut random = fastrand::Rng::with_seed(1);
        for shards in [1, 8, 64] {
            let mut parts = vec![Vec::new(); shards];
            seen.iter().for_each(|seen| parts[random.usize(..shards)].push(seen));
            let states = parts.iter().map(|part| state(&scorer, part)).collect();
            let merged = State::merge(states).unwrap();
            assert_eq!(merged.counts, whole.counts);
            assert_eq!(merged.statistics, whole.statistics);
            assert_eq!((merged.replicas, merged.invalid), (shards as u64, shards as u64));
        }
    }

    #[test]
    fn states_that_do_not_belong_together_are_not_added() {
        let (scorer, mut traffic) = (scorer(), Traffic::new(9));
        let seen = observed(&scorer, (0..50).map(|_| traffic.usual()));
        let good = state(&scorer, &seen.iter().collect::<Vec<_>>());
        let other = State { reference: "ffffffff".into(), ..good.clone() };
        assert!(matches!(State::merge(vec![good.clone(), other]), Err(MergeError::References { .. })));
        let twice = State::merge(vec![good.clone(), good.clone()]);
        assert_eq!(twice, Err(MergeError::Twice("m@1".into())));
        let mut edited = good.clone();
        edited.counts.samples += 1;
        assert!(matches!(State::merge(vec![good.clone(), edited]), Err(MergeError::Counts(_))));
        let mut huge = good.clone();
        huge.counts.samples = MOST_SAMPLES - 1;
        huge.counts.bins = vec![0; good.counts.bins.len()];
        huge.counts.bins[0] = MOST_SAMPLES - 1;
        huge.counts.projections[0] = ((MOST_SAMPLES - 1) << 27) as i64;
        assert_eq!(State::merge(vec![good.clone(), huge.clone()]), Err(MergeError::TooMany));
        huge.counts.projections[0] += 1;
        assert!(matches!(State::merge(vec![huge]), Err(MergeError::Counts(_))));
        let invalid = State { invalid: u64::MAX, since: good.since + 1, ..good.clone() };
        assert_eq!(State::merge(vec![good, invalid]).unwrap().invalid, u64::MAX);
        assert_eq!(State::merge(Vec::new()), Err(MergeError::Nothing));
    }
}
