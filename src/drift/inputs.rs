//! How the inputs themselves look: their length, whether they were cut, whether the vocabulary knows them. Needs no vector, and
//! often says why the vectors moved.

use serde::{Deserialize, Serialize};

use super::counts::PARTS;

/// What there is to know of one input.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct InputFacts {
    /// Tokens, special tokens included; 0 if nothing is known of it.
    pub tokens: usize,
    /// Some were cut off.
    pub truncated: bool,
    /// Some are unknown to the vocabulary.
    pub unknown: bool,
}

/// Features of inputs, as metrics name them.
pub const FEATURES: [&str; 3] = ["tokens", "truncated", "unknown"];

/// Sums over inputs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputCounts {
    /// Inputs.
    pub inputs: u64,
    /// Sum of the natural logarithms of their tokens, in parts of one ([`PARTS`]).
    pub log_tokens: u64,
    /// Sum of the squares of those, in parts of one.
    pub log_tokens_squared: u64,
    /// Inputs that were cut.
    pub truncated: u64,
    /// Inputs with an unknown token.
    pub unknown: u64,
}

impl InputCounts {
    /// Counts one input, if it is known: of a recorded vector it is not.
    pub fn add(&mut self, facts: InputFacts) {
        if facts.tokens == 0 {
            return;
        }
        let log = (facts.tokens as f64).ln();
        self.inputs += 1;
        self.log_tokens += (log * PARTS) as u64;
        self.log_tokens_squared += (log * log * PARTS) as u64;
        self.truncated += u64::from(facts.truncated);
        self.unknown += u64::from(facts.unknown);
    }

    /// Adds others. A file may hold any number: one that nobody counts must not wrap into one that somebody does.
    pub fn merge(&mut self, other: Self) {
        let Self { inputs, log_tokens, log_tokens_squared, truncated, unknown } = other;
        self.inputs = self.inputs.saturating_add(inputs);
        self.log_tokens = self.log_tokens.saturating_add(log_tokens);
        self.log_tokens_squared = self.log_tokens_squared.saturating_add(log_tokens_squared);
        self.truncated = self.truncated.saturating_add(truncated);
        self.unknown = self.unknown.saturating_add(unknown);
    }

    /// Mean and variance of the logarithm of the tokens; the geometric mean of an input's tokens is the exponential of the first.
    pub fn log_tokens(&self) -> (f64, f64) {
        let count = self.inputs.max(1) as f64;
        let mean = self.log_tokens as f64 / PARTS / count;
        (mean, (self.log_tokens_squared as f64 / PARTS / count - mean * mean).max(0.0))
    }

    /// How far these inputs lie from those of the `reference`, in standard errors, for each of [`FEATURES`]. Inputs that resemble
    /// their neighbours tell less: `design_effect` of them tell as much as one.
    pub fn z_values(&self, reference: &Self, design_effect: f64) -> [f64; FEATURES.len()] {
        if self.inputs == 0 || reference.inputs == 0 {
            return [0.0; FEATURES.len()];
        }
        let (here, there) = (self.inputs as f64, reference.inputs as f64);
        let spread = design_effect * (1.0 / here + 1.0 / there);
        let (mean, _) = self.log_tokens();
        let (expected, variance) = reference.log_tokens();
        let of_share = |of: fn(&Self) -> u64| {
            // Half an input more, so that a feature that the reference never saw has a variance.
            let expected = (of(reference) as f64 + 0.5) / (there + 1.0);
            (of(self) as f64 / here - expected) / (expected * (1.0 - expected) * spread).sqrt()
        };
        [
            // Inputs of one length only would make every other one infinitely far.
            (mean - expected) / (variance.max(1e-4) * spread).sqrt(),
            of_share(|counts| counts.truncated),
            of_share(|counts| counts.unknown),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs(count: usize, tokens: impl Fn(usize) -> usize, unknown_every: usize) -> InputCounts {
        let mut counts = InputCounts::default();
        for index in 0..count {
            let unknown = index % unknown_every == 0;
            counts.add(InputFacts { tokens: tokens(index), truncated: false, unknown });
        }
        counts
    }

    #[test]
    fn inputs_as_before_are_near_and_changed_ones_are_far_by_their_own_feature() {
        let reference = inputs(4_000, |index| 8 + index % 9, 50);
        let same = inputs(512, |index| 8 + index % 9, 50).z_values(&reference, 1.0);
        assert!(same.iter().all(|z| z.abs() < 1.0), "{same:?}");
        let [tokens, truncated, unknown] = inputs(512, |index| 16 + index % 9, 5).z_values(&reference, 1.0);
        assert!(tokens > 10.0 && unknown > 10.0 && truncated.abs() < 2.0, "{tokens} {truncated} {unknown}");
        let correlated = inputs(512, |index| 16 + index % 9, 50).z_values(&reference, 4.0)[0];
        assert!((correlated - tokens / 2.0).abs() < 1e-9);
        assert_eq!(InputCounts::default().z_values(&reference, 1.0), [0.0; 3]);
    }
}
