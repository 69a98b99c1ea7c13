//! Has the mix inside moved? Hotelling's T-squared on the whitened projections, whose mean is zero while nothing has changed.

use std::collections::VecDeque;

use statrs::distribution::{ContinuousCDF as _, Normal};

use super::counts::PARTS;
use super::inputs::{FEATURES, InputCounts, InputFacts};
use super::reference::Facts;

/// `T2 = (n N / (n + N)) |mean z|^2 / D`, for `samples` vectors with the `sums` of their projections against the N of the reference.
/// Chi-squared with as many degrees of freedom as there are components while nothing has changed. 0 for no samples.
pub fn t_squared(samples: u64, sums: impl IntoIterator<Item = f64>, facts: &Facts) -> f64 {
    if samples == 0 {
        return 0.0;
    }
    let (n, fitted) = (samples as f64, facts.fitted as f64);
    let distance: f64 = sums.into_iter().map(|sum| (sum / n).powi(2)).sum();
    n * fitted / (n + fitted) * distance / facts.design_effect
}

/// A T-squared of so many degrees of freedom as a standard normal value (Wilson and Hilferty 1931).
pub fn z_value(t_squared: f64, components: usize) -> f64 {
    let ninth = 2.0 / (9.0 * components.max(1) as f64);
    ((t_squared / components.max(1) as f64).cbrt() - (1.0 - ninth)) / ninth.sqrt()
}

/// The z-value that chance exceeds with `probability`.
pub fn critical(probability: f64) -> f64 {
    Normal::standard().inverse_cdf(1.0 - probability.clamp(1e-15, 0.5))
}

/// Independent vectors of a block, the shortest window: as many times more where neighbours resemble each other, or the mean of a
/// window would be that of a session or two, which is far from normal.
const BLOCK: f64 = 16.0;
/// Blocks of the longest window.
const BLOCKS: usize = 32;
/// Windows: 16, 32, ... 512 independent vectors.
const WINDOWS: usize = BLOCKS.ilog2() as usize + 1;

/// Sums over the vectors of a block.
#[derive(Debug, Clone)]
struct Block {
    /// Mark of the first vector.
    since: u64,
    vectors: usize,
    projections: Vec<i64>,
    inputs: InputCounts,
}

/// Looks for a shift in the last 16, 32, ... 512 independent vectors.
#[derive(Debug, Clone)]
pub struct Scan {
    facts: Facts,
    /// Vectors of a block.
    block: usize,
    blocks: VecDeque<Block>,
    open: Option<Block>,
    /// Largest of the windows at the last look, and where that window begins.
    largest: (f64, Option<u64>),
    critical: f64,
    /// Looks for which an alarm still stands: until all that alarmed has left the windows.
    standing: usize,
    /// Where the window begins that began the alarm which stands.
    began: Option<u64>,
}

impl Scan {
    /// Alarms once in `run_time` vectors of unchanged traffic, or less often: the windows of all looks share that rate.
    pub fn new(facts: &Facts, run_time: f64) -> Self {
        let block = (BLOCK * facts.design_effect).ceil();
        let critical = critical(block / (WINDOWS as f64 * run_time.max(1.0)));
        let blocks = VecDeque::with_capacity(BLOCKS);
        Self {
            facts: facts.clone(),
            block: block as usize,
            blocks,
            open: None,
            largest: (0.0, None),
            critical,
            standing: 0,
            began: None,
        }
    }

    /// Takes in a vector's projections and its input's facts; `mark` is its time, or its place in a recorded stream.
    pub fn observe(&mut self, projections: &[i64], input: InputFacts, mark: u64) {
        let block = self.open.get_or_insert_with(|| Block {
            since: mark,
            vectors: 0,
            projections: vec![0; projections.len()],
            inputs: InputCounts::default(),
        });
        block.vectors += 1;
        for (sum, projection) in block.projections.iter_mut().zip(projections) {
            *sum += projection;
        }
        block.inputs.add(input);
        if block.vectors == self.block
            && let Some(block) = self.open.take()
        {
            if self.blocks.len() == BLOCKS {
                self.blocks.pop_front();
            }
            self.blocks.push_back(block);
            self.look();
        }
    }

    fn look(&mut self) {
        let Some(last) = self.blocks.back() else { return };
        let mut sums = vec![0_i64; last.projections.len()];
        self.largest = (f64::NEG_INFINITY, None);
        for (index, block) in self.blocks.iter().rev().enumerate() {
            for (sum, projection) in sums.iter_mut().zip(&block.projections) {
                *sum += projection;
            }
            let blocks = index + 1;
            if blocks.is_power_of_two() {
                let samples = (blocks * self.block) as u64;
                let numbers = sums.iter().map(|sum| *sum as f64 / PARTS);
                let z = z_value(t_squared(samples, numbers, &self.facts), sums.len());
                if z > self.largest.0 {
                    self.largest = (z, Some(block.since));
                }
            }
        }
        if self.largest.0 > self.critical {
            (self.standing, self.began) = (BLOCKS, self.began.or(self.largest.1));
        } else {
            self.standing = self.standing.saturating_sub(1);
            self.began = self.began.filter(|_| self.standing > 0);
        }
    }

    /// The largest shift of any window at the last look, as a z-value; 0 before the first.
    pub fn z_value(&self) -> f64 {
        self.largest.0
    }

    /// The z-value beyond which it alarms.
    pub fn critical(&self) -> f64 {
        self.critical
    }

    /// Whether a window was beyond it, in the last 512 independent vectors.
    pub fn is_alarmed(&self) -> bool {
        self.standing > 0
    }

    /// Where the change most likely began: of an alarm that stands as it was when it began, else the window of the largest shift.
    pub fn since(&self) -> Option<u64> {
        self.began.or(self.largest.1)
    }

    /// How far the last 512 inputs lie from the reference's, in standard errors, for each of [`FEATURES`].
    pub fn input_z_values(&self) -> [f64; FEATURES.len()] {
        let mut inputs = InputCounts::default();
        self.blocks.iter().for_each(|block| inputs.merge(block.inputs));
        inputs.z_values(&self.facts.inputs, self.facts.design_effect)
    }

    /// Bytes that are held, but for the facts of the reference.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        let of_block = |block: &Block| size_of::<Block>() + size_of_val(block.projections.as_slice());
        self.blocks.iter().chain(&self.open).map(of_block).sum()
    }

    /// Forgets everything.
    pub fn reset(&mut self) {
        self.blocks.clear();
        (self.open, self.largest, self.standing, self.began) = (None, (0.0, None), 0, None);
    }
}

#[cfg(test)]
mod tests {
    use statrs::distribution::ChiSquared;

    use super::*;
    use crate::drift::fixture::{Traffic, observed, scorer};

    #[test]
    fn t_squared_has_its_closed_form_and_its_distribution() {
        let facts = Facts { fitted: 300, design_effect: 2.0, ..scorer().facts().clone() };
        // n = 100 vectors with mean (3, 4) / 10: 100 * 300 / 400 * 0.25 / 2.
        assert!((t_squared(100, [30.0, 40.0], &facts) - 9.375).abs() < 1e-12);
        assert_eq!(t_squared(0, [0.0], &facts), 0.0);
        for probability in [0.5, 0.99, 0.9999] {
            let quantile = ChiSquared::new(32.0).unwrap().inverse_cdf(probability);
            let z = z_value(quantile, 32);
            assert!((z - critical(1.0 - probability)).abs() < 0.03, "{z}");
        }
    }

    #[test]
    fn unchanged_traffic_alarms_no_more_than_promised_and_a_topic_that_grows_is_found() {
        let scorer = scorer();
        let mut traffic = Traffic::new(2);
        let usual = observed(&scorer, (0..60_000).map(|_| traffic.usual()));
        let mut scan = Scan::new(scorer.facts(), 1_000.0);
        let mut alarms = 0;
        for (mark, seen) in (0..).zip(&usual) {
            scan.observe(&seen.projections, seen.input, mark);
            if scan.is_alarmed() {
                alarms += 1;
                scan.reset();
            }
        }
        assert!((1..60).contains(&alarms), "{alarms} in 60,000 vectors");

        let mut scan = Scan::new(scorer.facts(), 1e8);
        let grown: Vec<_> = (0..1_000)
            .map(|index| if index % 3 == 0 { traffic.of_topic(4) } else { traffic.usual() })
            .collect();
        let (quiet, changed) =
            (observed(&scorer, (0..640).map(|_| traffic.usual())), observed(&scorer, grown));
        for (mark, seen) in (0..).zip(&quiet) {
            scan.observe(&seen.projections, seen.input, mark);
        }
        assert!(!scan.is_alarmed(), "{}", scan.z_value());
        let found = (640..).zip(&changed).find(|(mark, seen)| {
            scan.observe(&seen.projections, seen.input, *mark);
            scan.is_alarmed()
        });
        let (mark, _) = found.unwrap();
        assert!(mark < 640 + 512, "{mark}");
        assert!(scan.since().is_some_and(|since| since + 600 > mark), "{:?} {mark}", scan.since());
        assert!(scan.input_z_values()[0].abs() < 1.0);
    }
}
