//! Two versions on the same traffic: what moved with it cancels out, and what is left is the model's.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use super::counts::Counts;
use super::score::{Observation, Scorer};
use super::shift::{two_samples, z_value};

/// Fewer vectors of a side say nothing.
const LEAST_VECTORS: u64 = 200;
/// Index of the tail whose shares are compared.
const TAIL: usize = 1;

/// What is seen of a stable version and of a canary since the trial began. Only of requests that chance gave to one or the other:
/// whoever has a key is always the same one's, and two groups of people may well ask for different things.
#[derive(Debug, Default)]
pub struct Sides(Mutex<Option<Both>>);

#[derive(Debug)]
struct Both {
    /// Of the reference: what was counted against another one cannot be compared.
    reference: String,
    design_effect: f64,
    stable: Counts,
    canary: Counts,
}

/// How far the two lie apart.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Apart {
    /// Vectors of the stable version.
    pub stable: u64,
    /// Vectors of the canary.
    pub canary: u64,
    /// Of the means of the projections, as a z-value.
    pub shift_z: f64,
    /// Of the shares of vectors that lie outside, as a z-value.
    pub outside_z: f64,
}

impl Apart {
    /// The larger of the two.
    pub fn z_value(&self) -> f64 {
        self.shift_z.max(self.outside_z.abs())
    }
}

impl Sides {
    /// Counts what was seen of a vector.
    pub fn add(&self, is_canary: bool, seen: &Observation, scorer: &Scorer) {
        let mut both = self.lock();
        let both = match &mut *both {
            Some(both) if both.reference == scorer.name => both,
            other => {
                let none = Counts::none(seen.projections.len(), scorer.facts().bin_shares.len());
                other.insert(Both {
                    reference: scorer.name.clone(),
                    design_effect: scorer.facts().design_effect,
                    stable: none.clone(),
                    canary: none,
                })
            }
        };
        if is_canary { &mut both.canary } else { &mut both.stable }.add(seen);
    }

    /// How far they lie apart, if enough was seen of both.
    pub fn apart(&self) -> Option<Apart> {
        let both = self.lock();
        let Both { design_effect, stable, canary, .. } = both.as_ref()?;
        if stable.samples.min(canary.samples) < LEAST_VECTORS {
            return None;
        }
        let t_squared =
            two_samples((canary.samples, canary.sums()), (stable.samples, stable.sums()), *design_effect);
        let (n, m) = (canary.samples as f64, stable.samples as f64);
        let (left, right) = (canary.tails[TAIL] as f64, stable.tails[TAIL] as f64);
        let common = (left + right + 1.0) / (n + m + 2.0);
        let error = (common * (1.0 - common) * (1.0 / n + 1.0 / m) * design_effect).sqrt();
        Some(Apart {
            stable: stable.samples,
            canary: canary.samples,
            shift_z: z_value(t_squared, canary.projections.len()),
            outside_z: (left / n - right / m) / error,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Option<Both>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drift::fixture::{Traffic, observed, scorer};
    use crate::drift::shift::critical;

    fn apart(canary: impl Fn(Vec<f32>) -> Vec<f32>, drifts: bool, seed: u64) -> Apart {
        let (scorer, mut traffic, sides) = (scorer(), Traffic::new(seed), Sides::default());
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..3_000 {
            let vector = if drifts && random.u8(..4) == 0 { traffic.strange() } else { traffic.usual() };
            let is_canary = random.u8(..10) == 0;
            let vector = if is_canary { canary(vector) } else { vector };
            sides.add(is_canary, &observed(&scorer, [vector])[0], &scorer);
        }
        sides.apart().unwrap()
    }

    #[test]
    fn drift_of_the_traffic_cancels_and_that_of_a_version_does_not() {
        let bound = critical(1e-6);
        for seed in 0..5 {
            for drifts in [false, true] {
                let same = apart(|vector| vector, drifts, seed);
                assert!(same.z_value() < bound && same.canary > 200, "{same:?}");
            }
        }
        let shifted = |mut vector: Vec<f32>| {
            vector.iter_mut().step_by(2).for_each(|value| *value += 0.7);
            vector
        };
        assert!(apart(shifted, true, 1).shift_z > bound);
        assert_eq!(Sides::default().apart(), None);
    }
}
