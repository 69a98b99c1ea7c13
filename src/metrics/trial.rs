//! The series of trials: a version beside the stable one, and what comparing the two found.

use prometheus::{Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, Opts, Registry};

use super::{Result, STAGE_BUCKETS, counter, histogram, registered};
use crate::repository::manifest::Manifest;

/// Cosines: most of what is interesting lies just below 1.
const COSINE_BUCKETS: &[f64] = &[0.5, 0.8, 0.9, 0.95, 0.97, 0.98, 0.985, 0.99, 0.995, 0.999, 0.9999, 1.0];

pub(super) struct TrialFamilies {
    cosine: HistogramVec,
    seconds: HistogramVec,
    length_ratio: GaugeVec,
    overlap: GaugeVec,
    failed: IntCounterVec,
}

/// The series of one version on trial.
#[derive(Clone)]
pub struct TrialMetrics {
    /// Cosine of its vector to the stable version's for the same input.
    pub cosine: Histogram,
    /// Run times of the stable version in pairs.
    pub stable_seconds: Histogram,
    /// Run times of the version on trial in pairs.
    pub candidate_seconds: Histogram,
    /// Length of its last vector as a multiple of the stable version's.
    pub length_ratio: Gauge,
    /// Share of neighbours that stay.
    pub overlap: Gauge,
    /// Inputs that it could not run, or not in time.
    pub failed: IntCounter,
}

impl TrialFamilies {
    pub(super) fn new(registry: &Registry) -> Result<Self> {
        let of_version = &["model", "version"];
        let gauge =
            |name: &str, help: &str| registered(registry, GaugeVec::new(Opts::new(name, help), of_version)?);
        Ok(Self {
            cosine: histogram(
                registry,
                "sextant_shadow_cosine",
                "Cosine between the vectors that the stable version and the one on trial give for the same input.",
                COSINE_BUCKETS,
                of_version,
            )?,
            seconds: histogram(
                registry,
                "sextant_shadow_seconds",
                "Run time of the same input on the stable version and on the one on trial, without queues.",
                STAGE_BUCKETS,
                &["model", "version", "side"],
            )?,
            length_ratio: gauge(
                "sextant_shadow_length_ratio",
                "Length of the last compared vector of the version on trial as a multiple of the stable version's, before \
                 either is normalised.",
            )?,
            overlap: gauge(
                "sextant_shadow_neighbour_overlap",
                "Share of the 10 nearest of the last 64 compared inputs that stay when the query is embedded by the version on \
                 trial.",
            )?,
            failed: counter(
                registry,
                "sextant_shadow_failures_total",
                "Compared inputs that the version on trial could not run, or not in 10 s.",
                of_version,
            )?,
        })
    }

    pub(super) fn of(&self, manifest: &Manifest) -> TrialMetrics {
        let (model, version) = (manifest.model.as_str(), manifest.version.to_string());
        let of = [model, version.as_str()];
        let seconds = |side| self.seconds.with_label_values(&[model, &version, side]);
        TrialMetrics {
            cosine: self.cosine.with_label_values(&of),
            stable_seconds: seconds("stable"),
            candidate_seconds: seconds("trial"),
            length_ratio: self.length_ratio.with_label_values(&of),
            overlap: self.overlap.with_label_values(&of),
            failed: self.failed.with_label_values(&of),
        }
    }

    /// Removes the series of a version that is unloaded, if it has any: an error says that it has none.
    pub(super) fn forget(&self, model: &str, version: &str) {
        let of = [model, version];
        let _ = self.cosine.remove_label_values(&of);
        for side in ["stable", "trial"] {
            let _ = self.seconds.remove_label_values(&[model, version, side]);
        }
        for gauges in [&self.length_ratio, &self.overlap] {
            let _ = gauges.remove_label_values(&of);
        }
        let _ = self.failed.remove_label_values(&of);
    }
}
