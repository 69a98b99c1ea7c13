//! The tests over a recorded stream: where would each alarm have come?

use serde::Serialize;

use super::counts::Counts;
use super::detectors::{Detectors, Reading, Test};
use super::reference::Facts;
use super::score::Observation;

/// An alarm in a recorded stream. The test that alarmed begins anew behind it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Alarm {
    /// Which test.
    pub test: Test,
    /// How many vectors it had seen, this one included, since the beginning of the stream.
    pub vectors: u64,
    /// The line of this vector.
    pub line: u64,
    /// The evidence, or the z-value.
    pub value: f64,
    /// What it takes to alarm.
    pub threshold: f64,
    /// The line at which the change most likely began.
    pub since_line: Option<u64>,
}

/// What the tests say of a stream.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Replay {
    /// Vectors that counted.
    pub vectors: u64,
    /// In the order in which they came.
    pub alarms: Vec<Alarm>,
    /// At the end of the stream.
    pub readings: [Reading; Test::ALL.len()],
    /// Over the whole stream.
    pub counts: Counts,
}

/// Runs the tests over what was seen of each vector, with its line.
pub fn replay<'a>(
    stream: impl IntoIterator<Item = (u64, &'a Observation)>,
    facts: &Facts,
    components: usize,
    run_time: f64,
) -> Replay {
    let mut detectors = Detectors::new(facts, run_time);
    let mut counts = Counts::none(components, facts.bin_shares.len());
    let mut alarms = Vec::new();
    for (line, seen) in stream {
        detectors.observe(seen, line);
        counts.add(seen);
        for (test, _) in Test::ALL.into_iter().zip(detectors.alarms()).filter(|(_, alarm)| *alarm) {
            let Reading { value, threshold, since, .. } = detectors.reading(test);
            let vectors = counts.samples;
            alarms.push(Alarm { test, vectors, line, value, threshold, since_line: since });
            detectors.reset(test);
        }
    }
    Replay { vectors: counts.samples, alarms, readings: detectors.readings(), counts }
}
