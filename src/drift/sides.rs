//! Two versions on the same traffic: what moved with it cancels out, and what is left is the model's.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::Serialize;

use super::counts::Counts;
use super::sampling::Sampler;
use super::score::{Observation, Scorer};
use super::shift::z_value;
use crate::callers::ByCaller;

/// Fewer vectors of a side say nothing.
const LEAST_VECTORS: u64 = 200;
/// Index of the tail whose shares are compared.
const TAIL: usize = 1;
/// Vectors of both sides that are compared a second, at most.
const PER_SECOND: u32 = 200;
/// The same of one caller, so that one that sends much leaves half of them to the others.
const PER_SECOND_OF_EACH: u32 = 100;

/// What is seen of a stable version and of a canary since the trial began. Only of texts in requests that chance gave to one or the
/// other: a request with a `user` always goes to the same one, and two groups of people may well ask for different things.
pub struct Sides {
    /// One for both. Each version's own would draw them by different rules: at the busy hour the stable version's alone is full, and
    /// the canary's sample would hold more of that hour.
    sampler: Sampler,
    /// The second in which each caller counted last, and how often it did in that.
    drawn: Mutex<ByCaller<(u64, u32)>>,
    started: Instant,
    both: Mutex<Option<Both>>,
}

/// Where a vector counts while a canary runs.
#[derive(Debug, Clone)]
pub struct Assigned {
    /// What both versions are compared by.
    pub sides: Arc<Sides>,
    /// Whether the canary made it.
    pub is_canary: bool,
    /// Who asked for it.
    pub caller: Arc<str>,
}

#[derive(Debug)]
struct Both {
    /// Of the reference: what was counted against another one cannot be compared.
    reference: String,
    design_effect: f64,
    all: Sample,
    /// Of each caller: one alone can bring about a difference between all vectors.
    callers: ByCaller<Option<Sample>>,
}

/// Vectors of both versions.
#[derive(Debug)]
struct Sample {
    stable: Side,
    canary: Side,
}

#[derive(Debug)]
struct Side {
    counts: Counts,
    /// Sums of the squares of the projections; `[components]`.
    squares: Vec<f64>,
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

impl Default for Sides {
    fn default() -> Self {
        Self {
            sampler: Sampler::new(PER_SECOND),
            drawn: Mutex::default(),
            started: Instant::now(),
            both: Mutex::default(),
        }
    }
}

impl std::fmt::Debug for Sides {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Sides").field("apart", &self.apart()).finish()
    }
}

impl Side {
    fn new(components: usize, bins: usize) -> Self {
        Self { counts: Counts::none(components, bins), squares: vec![0.0; components] }
    }

    fn add(&mut self, seen: &Observation) {
        self.counts.add(seen);
        for (sum, projection) in self.squares.iter_mut().zip(seen.numbers()) {
            *sum += projection * projection;
        }
    }

    /// Variance of each projection about this side's own mean.
    fn variances(&self) -> impl Iterator<Item = f64> {
        let count = self.counts.samples as f64;
        self.squares
            .iter()
            .zip(self.counts.sums())
            .map(move |(squares, sum)| squares / count - (sum / count).powi(2))
    }
}

impl Sample {
    fn new(components: usize, bins: usize) -> Self {
        Self { stable: Side::new(components, bins), canary: Side::new(components, bins) }
    }

    fn add(&mut self, is_canary: bool, seen: &Observation) {
        if is_canary { &mut self.canary } else { &mut self.stable }.add(seen);
    }

    /// How far they lie apart, if enough was seen of both.
    fn apart(&self, design_effect: f64) -> Option<Apart> {
        let Self { stable, canary } = self;
        let (n, m) = (canary.counts.samples as f64, stable.counts.samples as f64);
        if stable.counts.samples.min(canary.counts.samples) < LEAST_VECTORS {
            return None;
        }
        // Traffic that has drifted spreads wider than the reference's, whose variance is 1, and both means scatter by as much.
        let pooled =
            canary.variances().zip(stable.variances()).map(|(left, right)| (n * left + m * right) / (n + m));
        let means = canary.counts.sums().zip(stable.counts.sums()).map(|(left, right)| left / n - right / m);
        let distance: f64 =
            means.zip(pooled).map(|(difference, variance)| difference.powi(2) / variance.max(1.0)).sum();
        let t_squared = n * m / (n + m) * distance / design_effect;
        let (left, right) = (canary.counts.tails[TAIL] as f64, stable.counts.tails[TAIL] as f64);
        let common = (left + right + 1.0) / (n + m + 2.0);
        let error = (common * (1.0 - common) * (1.0 / n + 1.0 / m) * design_effect).sqrt();
        Some(Apart {
            stable: stable.counts.samples,
            canary: canary.counts.samples,
            shift_z: z_value(t_squared, canary.squares.len()),
            outside_z: (left / n - right / m) / error,
        })
    }
}

impl Sides {
    /// Whether a request of `caller` is compared, whichever of the two answers it.
    pub fn wants(&self, caller: &Arc<str>) -> bool {
        self.has_room(caller, self.started.elapsed().as_secs()) && self.sampler.wants(None)
    }

    /// Whether `caller` has had less than its most in a second after the start.
    fn has_room(&self, caller: &Arc<str>, second: u64) -> bool {
        let mut drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, count) = drawn.of(caller);
        if *last != second {
            (*last, *count) = (second, 0);
        }
        let has_room = *count < PER_SECOND_OF_EACH;
        *count += u32::from(has_room);
        has_room
    }

    /// Counts what was seen of a vector that `caller` asked for.
    pub fn add(&self, caller: &Arc<str>, is_canary: bool, seen: &Observation, scorer: &Scorer) {
        let mut both = self.lock();
        let none = || Sample::new(seen.projections.len(), scorer.facts().bin_shares.len());
        let both = match &mut *both {
            Some(both) if both.reference == scorer.name => both,
            other => other.insert(Both {
                reference: scorer.name.clone(),
                design_effect: scorer.facts().design_effect,
                all: none(),
                callers: ByCaller::default(),
            }),
        };
        both.all.add(is_canary, seen);
        both.callers.of(caller).get_or_insert_with(none).add(is_canary, seen);
    }

    /// How far they lie apart, if enough was seen of both.
    pub fn apart(&self) -> Option<Apart> {
        let both = self.lock();
        let both = both.as_ref()?;
        both.all.apart(both.design_effect)
    }

    /// Callers by whose vectors alone they lie further apart than `z_value`.
    pub fn callers_beyond(&self, z_value: f64) -> u32 {
        let both = self.lock();
        let Some(Both { design_effect, callers, .. }) = both.as_ref() else { return 0 };
        let apart = callers.values().flatten().filter_map(|sample| sample.apart(*design_effect));
        apart.filter(|apart| apart.z_value() > z_value).count() as u32
    }

    fn lock(&self) -> MutexGuard<'_, Option<Both>> {
        self.both.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drift::fixture::{Traffic, observed, scorer};
    use crate::drift::shift::critical;

    fn caller() -> Arc<str> {
        "a".into()
    }

    fn apart(canary: impl Fn(Vec<f32>) -> Vec<f32>, drifts: bool, seed: u64) -> Apart {
        let (scorer, mut traffic, sides) = (scorer(), Traffic::new(seed), Sides::default());
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..3_000 {
            let vector = if drifts && random.u8(..4) == 0 { traffic.strange() } else { traffic.usual() };
            let is_canary = random.u8(..10) == 0;
            let vector = if is_canary { canary(vector) } else { vector };
            sides.add(&caller(), is_canary, &observed(&scorer, [vector])[0], &scorer);
        }
        sides.apart().unwrap()
    }

    #[test]
    fn traffic_that_spreads_wider_is_no_fault_of_the_canary() {
        let scorer = scorer();
        let reference = scorer.reference();
        for seed in 0..5 {
            let (mut traffic, sides) = (Traffic::new(seed), Sides::default());
            let mut random = fastrand::Rng::with_seed(seed);
            for _ in 0..4_000 {
                // Along the first direction, either way: three times the variance there, and no other mean.
                let along = &reference.projection[..reference.dimensions()];
                let norm: f32 = along.iter().map(|value| value * value).sum();
                let by = if random.bool() { 2.0 } else { -2.0 } / norm;
                let mut usual = traffic.usual();
                crate::engine::pooling::normalise(&mut usual);
                let vector = usual.iter().zip(along).map(|(value, along)| value + by * along).collect();
                sides.add(&caller(), random.bool(), &observed(&scorer, [vector])[0], &scorer);
            }
            let apart = sides.apart().unwrap();
            assert!(apart.z_value() < 4.0, "{apart:?}");
        }
    }

    #[test]
    fn a_canary_that_gives_strange_vectors_lies_outside() {
        let (scorer, mut traffic, sides) = (scorer(), Traffic::new(3), Sides::default());
        for index in 0..2_000 {
            let is_canary = index % 2 == 0;
            let is_strange = is_canary && index % 10 == 0;
            let vector = if is_strange { traffic.strange() } else { traffic.usual() };
            sides.add(&caller(), is_canary, &observed(&scorer, [vector])[0], &scorer);
        }
        let apart = sides.apart().unwrap();
        assert!(apart.outside_z > critical(1e-6) && apart.outside_z > apart.shift_z, "{apart:?}");
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

    #[test]
    fn a_caller_that_asks_strange_things_of_the_canary_alone_is_one_caller() {
        let (scorer, mut traffic, sides) = (scorer(), Traffic::new(3), Sides::default());
        for index in 0..8_000 {
            let (is_canary, caller) = (index % 2 == 0, index / 2 % 4);
            let vector = if is_canary && caller == 0 { traffic.strange() } else { traffic.usual() };
            let name: Arc<str> = format!("caller {caller}").into();
            sides.add(&name, is_canary, &observed(&scorer, [vector])[0], &scorer);
        }
        assert!(sides.apart().unwrap().z_value() > critical(1e-6), "by all vectors it is a shift");
        assert_eq!(sides.callers_beyond(critical(1e-4)), 1);
    }

    #[test]
    fn a_caller_has_half_of_the_vectors_of_a_second_at_most() {
        let sides = Sides::default();
        let drawn =
            |caller: &str, second| (0..1_000).filter(|_| sides.has_room(&caller.into(), second)).count();
        assert_eq!((drawn("a", 0), drawn("b", 0), drawn("a", 0), drawn("a", 1)), (100, 100, 0, 100));
    }
}
