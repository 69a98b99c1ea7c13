//! The three tests of a stream, side by side: the same on a server and over a recorded stream.

use serde::{Deserialize, Serialize};

use super::evidence::{Detector, NEAR, OUTSIDE};
use super::inputs::FEATURES;
use super::reference::Facts;
use super::score::Observation;
use super::shift::Scan;

/// What is asked of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Test {
    /// Does more of it lie outside?
    Outside,
    /// Does more of it lie near to what is known, as if it repeated itself?
    Near,
    /// Has the mix inside moved?
    Shift,
}

impl Test {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Outside, Self::Near, Self::Shift];

    /// As metrics name it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Outside => "outside",
            Self::Near => "near",
            Self::Shift => "shift",
        }
    }
}

/// What a test says now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// Which test.
    pub test: Test,
    /// Logarithm of the evidence, or a z-value.
    pub value: f64,
    /// Beyond this it alarms.
    pub threshold: f64,
    /// Whether it does.
    pub alarm: bool,
    /// Where the change most likely began: seconds since 1970, or a place in a recorded stream.
    pub since: Option<u64>,
}

/// The three tests.
#[derive(Debug, Clone)]
pub struct Detectors {
    outside: Detector,
    near: Detector,
    scan: Scan,
}

impl Detectors {
    /// Each test alarms once in `run_time` vectors of unchanged traffic, or less often.
    pub fn new(facts: &Facts, run_time: f64) -> Self {
        Self {
            outside: Detector::new(&OUTSIDE, facts, run_time),
            near: Detector::new(&NEAR, facts, run_time),
            scan: Scan::new(facts, run_time),
        }
    }

    /// Takes in what was seen of a vector; `mark` is its time, or its place in a recorded stream.
    pub fn observe(&mut self, seen: &Observation, mark: u64) {
        self.outside.observe(&seen.tails, mark);
        self.near.observe(&seen.tails, mark);
        self.scan.observe(&seen.projections, seen.input, mark);
    }

    /// What each test says now.
    pub fn readings(&self) -> [Reading; Test::ALL.len()] {
        Test::ALL.map(|test| self.reading(test))
    }

    /// What a test says now.
    pub fn reading(&self, test: Test) -> Reading {
        let of = |detector: &Detector| (detector.log_evidence(), detector.threshold(), detector.since());
        let (value, threshold, since) = match test {
            Test::Outside => of(&self.outside),
            Test::Near => of(&self.near),
            Test::Shift => (self.scan.z_value(), self.scan.critical(), self.scan.since()),
        };
        Reading { test, value, threshold, alarm: self.is_alarmed(test), since }
    }

    /// Which tests alarm now.
    pub fn alarms(&self) -> [bool; Test::ALL.len()] {
        Test::ALL.map(|test| self.is_alarmed(test))
    }

    fn is_alarmed(&self, test: Test) -> bool {
        match test {
            Test::Outside => self.outside.is_alarmed(),
            Test::Near => self.near.is_alarmed(),
            Test::Shift => self.scan.is_alarmed(),
        }
    }

    /// How far the last inputs lie from the reference's, for each of [`FEATURES`].
    pub fn input_z_values(&self) -> [f64; FEATURES.len()] {
        self.scan.input_z_values()
    }

    /// Begins a test anew.
    pub fn reset(&mut self, test: Test) {
        match test {
            Test::Outside => self.outside.reset(),
            Test::Near => self.near.reset(),
            Test::Shift => self.scan.reset(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drift::fixture::{Traffic, observed, scorer};

    #[test]
    fn a_million_vectors_leave_as_much_behind_as_a_thousand() {
        let (scorer, mut traffic) = (scorer(), Traffic::new(12));
        let seen = observed(&scorer, (0..1_000).map(|_| traffic.usual()));
        let mut detectors = Detectors::new(scorer.facts(), 1e8);
        let mut sizes = Vec::new();
        for (mark, seen) in (1..1_000_000_u64).zip(seen.iter().cycle()) {
            detectors.observe(seen, mark);
            if [1_000, 999_992].contains(&mark) {
                sizes.push(detectors.scan.held());
            }
        }
        assert_eq!(sizes[0], sizes[1]);
        // Beside it there are the counts, a number for each component and topic, and 32 KiB of keys that counted.
        assert!(sizes[0] < 24 * 1024, "{} bytes", sizes[0]);
    }
}
