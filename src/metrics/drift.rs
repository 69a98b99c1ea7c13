//! The series of drift: counters that add up over replicas, and what one replica makes of its own.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::{
    Counter, CounterVec, Gauge, GaugeVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use super::{Result, counter, gauge, registered};
use crate::drift::detectors::{Reading, Test};
use crate::drift::inputs::FEATURES;
use crate::drift::score::{Observation, Scorer};
use crate::drift::tail::TAILS;
use crate::repository::manifest::Manifest;

/// Added to a projection so that its sum only grows: no projection is below its negative.
pub const PROJECTION_OFFSET: f64 = 8.0;

/// Labels of every series.
const OF_REFERENCE: &[&str] = &["model", "version", "ref"];
/// Facts of a reference that a fleet's statistics are computed with.
const FACTS: [&str; 3] = ["fitted", "calibrated", "design_effect"];

pub(super) struct DriftFamilies {
    /// Held while vectors are counted, and while metrics are written: sums without all of their vectors would look like a shift.
    whole: Mutex<()>,
    samples: IntCounterVec,
    tails: IntCounterVec,
    projections: CounterVec,
    bins: IntCounterVec,
    invalid: IntCounterVec,
    dropped: IntCounterVec,
    seconds: CounterVec,
    evidence: GaugeVec,
    shift: GaugeVec,
    alarm: IntGaugeVec,
    alarms: IntCounterVec,
    inputs: GaugeVec,
    truncated: IntCounterVec,
    unknown: IntCounterVec,
    tokens: IntCounterVec,
    sampling: GaugeVec,
    tail_bounds: GaugeVec,
    bin_shares: GaugeVec,
    facts: GaugeVec,
    info: IntGaugeVec,
    learned: IntGaugeVec,
}

/// The series of one version held against one reference. They are removed when it is dropped.
pub struct DriftMetrics {
    families: Arc<DriftFamilies>,
    /// Values of [`OF_REFERENCE`].
    labels: [String; 3],
    /// Those of the reference's information.
    info: [String; 5],
    samples: IntCounter,
    tails: Vec<IntCounter>,
    projections: Vec<Counter>,
    bins: Vec<IntCounter>,
    /// Vectors that are none.
    pub invalid: IntCounter,
    /// Drawn vectors that there was no room for.
    pub dropped: IntCounter,
    /// Time spent.
    pub seconds: Counter,
    evidence: [Gauge; 2],
    shift: Gauge,
    alarm: Vec<IntGauge>,
    alarms: Vec<IntCounter>,
    inputs: Vec<Gauge>,
    truncated: IntCounter,
    unknown: IntCounter,
    tokens: IntCounter,
    /// Share of the requests that may count.
    pub sampling: Gauge,
}

impl DriftFamilies {
    pub(super) fn new(registry: &Registry) -> Result<Arc<Self>> {
        let labels = |more: &[&'static str]| [OF_REFERENCE, more].concat();
        let counts =
            |name: &str, help: &str, more: &[&'static str]| counter(registry, name, help, &labels(more));
        let sums = |name: &str, help: &str, more: &[&'static str]| {
            registered(registry, CounterVec::new(Opts::new(name, help), &labels(more))?)
        };
        let numbers = |name: &str, help: &str, more: &[&'static str]| {
            registered(registry, GaugeVec::new(Opts::new(name, help), &labels(more))?)
        };
        Ok(Arc::new(Self {
            whole: Mutex::new(()),
            samples: counts("sextant_drift_samples_total", "Vectors that counted.", &[])?,
            tails: counts(
                "sextant_drift_tail_total",
                "Vectors in a tail of the reference's scores.",
                &["tail"],
            )?,
            projections: sums(
                "sextant_drift_projection_sum_total",
                "Sum of a whitened projection, 8 added to each so that the sum only grows.",
                &["c"],
            )?,
            bins: counts("sextant_drift_bin_total", "Vectors by topic.", &["bin"])?,
            invalid: counts(
                "sextant_drift_invalid_total",
                "Vectors that were not finite or all zeros.",
                &[],
            )?,
            dropped: counts("sextant_drift_dropped_total", "Drawn vectors that there was no room for.", &[])?,
            seconds: sums("sextant_drift_seconds_total", "Time spent on observing vectors.", &[])?,
            evidence: numbers(
                "sextant_drift_log_evidence",
                "Logarithm of this replica's evidence that the traffic has moved outside, or nearer.",
                &["test"],
            )?,
            shift: numbers("sextant_drift_shift_z", "Largest shift of this replica's last windows.", &[])?,
            alarm: gauge(
                registry,
                "sextant_drift_alarm",
                "1 while a test of this replica alarms.",
                &labels(&["test"]),
            )?,
            alarms: counts(
                "sextant_drift_alarms_total",
                "Alarms of this replica's tests, each counted when it began.",
                &["test"],
            )?,
            inputs: numbers(
                "sextant_drift_input_z",
                "How far this replica's last inputs lie from the reference's, in standard errors.",
                &["feature"],
            )?,
            truncated: counts("sextant_drift_truncated_total", "Inputs behind them that were cut.", &[])?,
            unknown: counts("sextant_drift_unknown_total", "Inputs behind them with an unknown token.", &[])?,
            tokens: counts("sextant_drift_tokens_total", "Tokens of the inputs behind them.", &[])?,
            sampling: numbers("sextant_drift_sampling_share", "Share of the requests that may count.", &[])?,
            tail_bounds: numbers(
                "sextant_drift_tail_bound",
                "Upper bound of the share of unchanged traffic in a tail.",
                &["tail"],
            )?,
            bin_shares: numbers("sextant_drift_bin_share", "Share of a topic in the reference.", &["bin"])?,
            facts: numbers(
                "sextant_drift_reference_fact",
                "Vectors that the reference was fitted on and calibrated on, and its design effect.",
                &["fact"],
            )?,
            info: gauge(
                registry,
                "sextant_drift_reference_info",
                "1 for the reference that a version is held against.",
                &labels(&["space", "created"]),
            )?,
            learned: gauge(
                registry,
                "sextant_drift_learned_vectors",
                "Vectors that a reference is being learned from.",
                &["model", "version"],
            )?,
        }))
    }

    /// The series of a version held against a reference, all at 0.
    pub(super) fn of(self: &Arc<Self>, manifest: &Manifest, scorer: &Scorer) -> DriftMetrics {
        let labels = [manifest.model.clone(), manifest.version.to_string(), scorer.name.clone()];
        let [model, version, name] = labels.each_ref().map(String::as_str);
        let of = [model, version, name];
        fn with<'a>([model, version, name]: [&'a str; 3], more: &'a str) -> [&'a str; 4] {
            [model, version, name, more]
        }
        let (facts, origin) = (scorer.facts(), &scorer.reference().origin);
        for (tail, bound) in TAILS.iter().zip(facts.tail_bounds) {
            self.tail_bounds.with_label_values(&with(of, tail.label)).set(bound);
        }
        for (bin, share) in facts.bin_shares.iter().enumerate() {
            self.bin_shares.with_label_values(&with(of, &bin.to_string())).set(*share);
        }
        let numbers = [facts.fitted as f64, facts.calibrated as f64, facts.design_effect];
        for (fact, number) in FACTS.iter().zip(numbers) {
            self.facts.with_label_values(&with(of, fact)).set(number);
        }
        let info = [model, version, name, &origin.space.0, &origin.created].map(str::to_owned);
        self.info.with_label_values(&info.each_ref().map(String::as_str)).set(1);
        let numbered = |count: usize| (0..count).map(|number| number.to_string());
        let components = numbered(scorer.reference().components());
        let bins = numbered(facts.bin_shares.len());
        DriftMetrics {
            samples: self.samples.with_label_values(&of),
            tails: TAILS.iter().map(|tail| self.tails.with_label_values(&with(of, tail.label))).collect(),
            projections: components.map(|c| self.projections.with_label_values(&with(of, &c))).collect(),
            bins: bins.map(|bin| self.bins.with_label_values(&with(of, &bin))).collect(),
            invalid: self.invalid.with_label_values(&of),
            dropped: self.dropped.with_label_values(&of),
            seconds: self.seconds.with_label_values(&of),
            evidence: [Test::Outside, Test::Near]
                .map(|test| self.evidence.with_label_values(&with(of, test.label()))),
            shift: self.shift.with_label_values(&of),
            alarm: Test::ALL
                .iter()
                .map(|test| self.alarm.with_label_values(&with(of, test.label())))
                .collect(),
            alarms: Test::ALL
                .iter()
                .map(|test| self.alarms.with_label_values(&with(of, test.label())))
                .collect(),
            inputs: FEATURES
                .iter()
                .map(|feature| self.inputs.with_label_values(&with(of, feature)))
                .collect(),
            truncated: self.truncated.with_label_values(&of),
            unknown: self.unknown.with_label_values(&of),
            tokens: self.tokens.with_label_values(&of),
            sampling: self.sampling.with_label_values(&of),
            families: Arc::clone(self),
            info,
            labels,
        }
    }

    /// Does something while no vector is counted.
    pub(super) fn uncounted<T>(&self, work: impl FnOnce() -> T) -> T {
        let _whole = self.whole.lock().unwrap_or_else(PoisonError::into_inner);
        work()
    }

    /// Says from how many vectors a reference is being learned; `None` when it no longer is.
    pub(super) fn learned(&self, model: &str, version: &str, vectors: Option<usize>) {
        let labels = [model, version];
        match vectors {
            Some(vectors) => self.learned.with_label_values(&labels).set(vectors as i64),
            // An error says that there is none, which is what is wanted.
            None => drop(self.learned.remove_label_values(&labels)),
        }
    }
}

impl DriftMetrics {
    /// While this is held, nobody sees the counters.
    pub fn whole(&self) -> MutexGuard<'_, ()> {
        self.families.whole.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a vector.
    pub fn observed(&self, seen: &Observation) {
        self.samples.inc();
        for (counter, _) in self.tails.iter().zip(seen.tails).filter(|(_, is_in)| *is_in) {
            counter.inc();
        }
        for (sum, projection) in self.projections.iter().zip(seen.numbers()) {
            sum.inc_by(projection + PROJECTION_OFFSET);
        }
        if let Some(counter) = self.bins.get(seen.bin) {
            counter.inc();
        }
        self.truncated.inc_by(u64::from(seen.input.truncated));
        self.unknown.inc_by(u64::from(seen.input.unknown));
        self.tokens.inc_by(seen.input.tokens as u64);
    }

    /// Counts an alarm that begins.
    pub fn alarmed(&self, test: Test) {
        if let Some(counter) = self.alarms.get(test as usize) {
            counter.inc();
        }
    }

    /// Says what the tests say.
    pub fn tested(&self, readings: &[Reading; Test::ALL.len()], inputs: &[f64; FEATURES.len()]) {
        for (reading, alarm) in readings.iter().zip(&self.alarm) {
            alarm.set(i64::from(reading.alarm));
            match reading.test {
                Test::Outside => self.evidence[0].set(reading.value),
                Test::Near => self.evidence[1].set(reading.value),
                Test::Shift => self.shift.set(reading.value),
            }
        }
        for (gauge, z) in self.inputs.iter().zip(inputs) {
            gauge.set(*z);
        }
    }
}

impl Drop for DriftMetrics {
    fn drop(&mut self) {
        let of = self.labels.each_ref().map(String::as_str);
        let [model, version, name] = of;
        let families = &self.families;
        // Errors say that a series is not there, which is what is wanted.
        let forget = |more: &str| {
            let with = [model, version, name, more];
            let _ = families.tails.remove_label_values(&with);
            let _ = families.projections.remove_label_values(&with);
            let _ = families.bins.remove_label_values(&with);
            let _ = families.evidence.remove_label_values(&with);
            let _ = families.alarm.remove_label_values(&with);
            let _ = families.alarms.remove_label_values(&with);
            let _ = families.inputs.remove_label_values(&with);
            let _ = families.tail_bounds.remove_label_values(&with);
            let _ = families.bin_shares.remove_label_values(&with);
            let _ = families.facts.remove_label_values(&with);
        };
        (0..self.projections.len().max(self.bins.len())).for_each(|number| forget(&number.to_string()));
        TAILS.iter().for_each(|tail| forget(tail.label));
        Test::ALL.iter().for_each(|test| forget(test.label()));
        FEATURES.iter().chain(&FACTS).for_each(|label| forget(label));
        for counters in [
            &families.samples,
            &families.invalid,
            &families.dropped,
            &families.truncated,
            &families.unknown,
            &families.tokens,
        ] {
            let _ = counters.remove_label_values(&of);
        }
        let _ = families.seconds.remove_label_values(&of);
        let _ = families.shift.remove_label_values(&of);
        let _ = families.sampling.remove_label_values(&of);
        let _ = families.info.remove_label_values(&self.info.each_ref().map(String::as_str));
    }
}
