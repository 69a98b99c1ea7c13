//! What is counted of observed vectors. Every count is a whole number, so those of many replicas add up to the last digit, in any
//! order.

use serde::{Deserialize, Serialize};

use super::inputs::InputCounts;
use super::score::Observation;
use super::tail::TAILS;

/// Parts of one in which projections are counted: a sum of 10^10 of them still fits.
pub const PARTS: f64 = (1 << 24) as f64;

/// Counts of observed vectors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Vectors.
    pub samples: u64,
    /// Of them in each of [`TAILS`].
    pub tails: [u64; TAILS.len()],
    /// Sums of their projections, in parts of one ([`PARTS`]); `[components]`.
    pub projections: Vec<i64>,
    /// In each topic; `[bins]`.
    pub bins: Vec<u64>,
    /// Of the inputs behind them.
    pub inputs: InputCounts,
}

impl Counts {
    /// None yet, for a reference of so many components and bins.
    pub fn none(components: usize, bins: usize) -> Self {
        Self {
            samples: 0,
            tails: [0; TAILS.len()],
            projections: vec![0; components],
            bins: vec![0; bins],
            inputs: InputCounts::default(),
        }
    }

    /// Counts one vector.
    pub fn add(&mut self, observation: &Observation) {
        self.samples += 1;
        for (count, is_in) in self.tails.iter_mut().zip(observation.tails) {
            *count += u64::from(is_in);
        }
        for (sum, projection) in self.projections.iter_mut().zip(&observation.projections) {
            *sum += projection;
        }
        if let Some(count) = self.bins.get_mut(observation.bin) {
            *count += 1;
        }
        self.inputs.add(observation.input);
    }

    /// Adds what another replica counted. Both must be of the same reference.
    pub fn merge(&mut self, other: &Self) {
        self.samples += other.samples;
        for (sum, count) in self.tails.iter_mut().zip(other.tails) {
            *sum += count;
        }
        for (sum, other) in self.projections.iter_mut().zip(&other.projections) {
            *sum += other;
        }
        for (sum, other) in self.bins.iter_mut().zip(&other.bins) {
            *sum += other;
        }
        self.inputs.merge(other.inputs);
    }

    /// The sums of the projections.
    pub fn sums(&self) -> impl Iterator<Item = f64> {
        self.projections.iter().map(|parts| *parts as f64 / PARTS)
    }
}
