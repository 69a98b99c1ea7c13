//! The state of drift as a page that a person can read: what moved, since when, and which topics.

use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use super::detectors::{Reading, Test};
use super::inputs::FEATURES;
use super::state::State;
use super::tail::TAILS;

/// Topics that are shown: those that moved most.
const TOPICS: usize = 8;
/// Characters of an example that are shown.
const EXAMPLE: usize = 60;

/// Writes the page of a state.
pub struct Report<'a>(pub &'a State);

/// A topic whose share of the traffic has changed.
struct Topic<'a> {
    bin: usize,
    expected: f64,
    found: f64,
    z: f64,
    examples: &'a [String],
}

impl Report<'_> {
    /// The topics, those that moved most first.
    fn topics(&self) -> Vec<Topic<'_>> {
        let State { counts, facts, topics, .. } = self.0;
        let samples = counts.samples as f64;
        let mut moved: Vec<_> = counts
            .bins
            .iter()
            .zip(&facts.bin_shares)
            .enumerate()
            .map(|(bin, (count, expected))| {
                let found = *count as f64 / samples.max(1.0);
                let spread = facts.design_effect
                    * (1.0 / samples.max(1.0) + 1.0 / (facts.fitted + facts.calibrated) as f64);
                let error = (expected.max(1e-6) * (1.0 - expected) * spread).sqrt();
                let examples = topics.get(bin).map_or(&[] as &[String], Vec::as_slice);
                Topic { bin, expected: *expected, found, z: (found - expected) / error, examples }
            })
            .collect();
        moved.sort_by(|left, right| right.z.abs().total_cmp(&left.z.abs()));
        moved.truncate(TOPICS);
        moved
    }
}

/// What a test asks, in words.
fn question(test: Test) -> &'static str {
    match test {
        Test::Outside => "more lies outside",
        Test::Near => "more lies too near",
        Test::Shift => "the mix has moved",
    }
}

/// Seconds since 1970 as a person reads them: RFC 3339, UTC.
pub(super) fn time(seconds: u64) -> String {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds)).to_string()
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, page: &mut fmt::Formatter<'_>) -> fmt::Result {
        let State { version, reference, origin, facts, replicas, since, counts, invalid, .. } = self.0;
        writeln!(
            page,
            "{version} against reference {reference}: {} of {}, {} vectors, design effect {:.2}",
            origin.source,
            origin.created,
            facts.fitted + facts.calibrated,
            facts.design_effect
        )?;
        let of = if *replicas == 1 { String::new() } else { format!(" of {replicas} replicas") };
        writeln!(page, "{} vectors{of} since {}; {invalid} that are none\n", counts.samples, time(*since))?;

        let alarms: Vec<&Reading> = self.0.tests.iter().filter(|reading| reading.alarm).collect();
        match (self.0.tests.is_empty(), alarms.is_empty()) {
            (true, _) => writeln!(page, "Added up, without the order of the vectors:")?,
            (false, true) => writeln!(page, "No alarm.")?,
            (false, false) => writeln!(page, "ALARM")?,
        }
        for Reading { test, value, threshold, alarm, since } in &self.0.tests {
            let says = if *alarm { "ALARM" } else { "quiet" };
            let since =
                since.filter(|_| *alarm).map_or_else(String::new, |since| format!("  since {}", time(since)));
            let (name, question) = (test.label(), question(*test));
            writeln!(page, "  {says}  {name:8} {question:18} {value:9.2}, alarm at {threshold:.2}{since}")?;
        }
        let all = &self.0.statistics;
        writeln!(
            page,
            "  over all vectors: log evidence outside {:.2}, near {:.2}; T-squared {:.1}, shift {:.2} standard errors\n",
            all.log_evidence_outside, all.log_evidence_near, all.t_squared, all.shift_z
        )?;

        let samples = counts.samples.max(1) as f64;
        writeln!(page, "Share of vectors in each tail of the reference's scores, now and before:")?;
        for (tail, count) in TAILS.iter().zip(counts.tails) {
            writeln!(page, "  {:8} {:7.4}   {:.4}", tail.label, count as f64 / samples, tail.share)?;
        }
        writeln!(page, "\nInputs, in standard errors from the reference's:")?;
        for (feature, z) in FEATURES.iter().zip(all.inputs_z) {
            writeln!(page, "  {feature:10} {z:+.1}")?;
        }
        writeln!(page, "\nTopics that moved most, share now and before, in standard errors:")?;
        for Topic { bin, expected, found, z, examples } in self.topics() {
            write!(page, "  {bin:3}  {found:7.4}   {expected:.4}   {z:+.1}")?;
            for example in examples {
                let shown: String = example.chars().filter(|c| !c.is_control()).take(EXAMPLE).collect();
                write!(page, "\n         {shown}")?;
            }
            writeln!(page)?;
        }
        Ok(())
    }
}
