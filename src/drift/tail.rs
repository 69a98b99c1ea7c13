//! Tails of the reference's scores: how often a vector of unchanged traffic falls into them.

use statrs::distribution::{Beta, ContinuousCDF as _};

/// One end of the distribution of held-out scores.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tail {
    /// As metrics name it.
    pub label: &'static str,
    /// Share of unchanged traffic in it.
    pub share: f64,
    /// At the end of small scores, where traffic lies nearer to the reference's centres than it did.
    pub low: bool,
}

/// Those that are counted: three of what lies outside, and one of what lies too near.
pub const TAILS: [Tail; 4] = [
    Tail { label: "0.01", share: 0.01, low: false },
    Tail { label: "0.05", share: 0.05, low: false },
    Tail { label: "0.20", share: 0.20, low: false },
    Tail { label: "low", share: 0.05, low: true },
];

/// Whether an observation is in each of [`TAILS`].
pub type InTails = [bool; TAILS.len()];

/// So surely is the true share of a tail below [`Tail::bound`].
const CONFIDENCE: f64 = 0.95;

impl Tail {
    /// The share of unchanged traffic in this tail that a calibration on `calibrated` independent scores cannot exclude: the upper end of
    /// the Clopper-Pearson interval.
    pub fn bound(&self, calibrated: usize) -> f64 {
        self.interval(calibrated).1
    }

    /// The interval that the true share lies in with 90 % confidence. The tail begins at one of the scores, and the share beyond the
    /// k-th of n is distributed as Beta(k, n + 1 - k), whatever the scores are.
    pub fn interval(&self, calibrated: usize) -> (f64, f64) {
        let places = calibrated as f64 + 1.0;
        let beyond = (self.share * places).floor().max(1.0);
        let share = Beta::new(beyond, (places - beyond).max(1.0));
        share.map_or((0.0, 1.0), |share| (share.inverse_cdf(1.0 - CONFIDENCE), share.inverse_cdf(CONFIDENCE)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_shrink_to_the_share_as_the_calibration_grows() {
        for tail in TAILS {
            let bounds = [1_000, 5_000, 1_000_000].map(|calibrated| tail.bound(calibrated));
            assert!(bounds[0] > bounds[1] && bounds[1] > bounds[2] && bounds[2] > tail.share, "{bounds:?}");
            assert!(bounds[2] < tail.share * 1.02, "{bounds:?}");
            let (low, high) = tail.interval(5_000);
            assert!(low < tail.share && high == tail.bound(5_000));
        }
        // From R: qbeta(.95, 250, 4751).
        assert!((TAILS[1].bound(5_000) - 0.055_169).abs() < 1e-4, "{}", TAILS[1].bound(5_000));
    }
}
