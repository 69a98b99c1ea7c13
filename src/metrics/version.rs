//! The series of a loaded version.

use prometheus::{Gauge, Histogram, IntCounter, IntGauge};

use crate::rollout::Role;

/// Roles with which a version is loaded.
pub(super) const SERVING: [Role; 4] = [Role::Stable, Role::Canary, Role::Shadow, Role::Previous];

/// The series of one version.
#[derive(Clone)]
pub struct VersionMetrics {
    /// Labels of `sextant_version_info`, model and version first.
    pub(super) info: [String; 6],
    /// One for each of [`SERVING`].
    pub(super) roles: [IntGauge; SERVING.len()],
    /// Vectors answered.
    pub embeddings: IntCounter,
    /// Tokens computed that are text.
    pub real_tokens: IntCounter,
    /// Places computed that are padding.
    pub padding_tokens: IntCounter,
    /// Seconds to tokenize a request.
    pub tokenize: Histogram,
    /// Seconds a request waited for a session.
    pub queue: Histogram,
    /// Seconds a request's batch ran.
    pub infer: Histogram,
    /// Seconds to cut and normalise a request's vectors.
    pub finish: Histogram,
    /// Rows of a batch.
    pub batch_rows: Histogram,
    /// Real tokens of a batch.
    pub batch_tokens: Histogram,
    /// Inputs waiting.
    pub queue_items: IntGauge,
    /// Tokens waiting.
    pub queue_tokens: IntGauge,
    /// Requests refused because too much was waiting.
    pub overloaded: IntCounter,
    /// Inputs that shared an equal one's place.
    pub coalesced: IntCounter,
    /// Inputs found in the cache.
    pub cache_hits: IntCounter,
    /// Inputs not found there.
    pub cache_misses: IntCounter,
    /// Batches tried again row by row.
    pub retried: IntCounter,
    /// Inputs cut short.
    pub truncated: IntCounter,
    /// Unknown tokens.
    pub unknown: IntCounter,
    /// Least cosine of a probe's vector, found by the gate.
    pub gate_probe_min_cosine: Gauge,
}

impl VersionMetrics {
    /// Says which role the version has now, if any.
    pub fn role(&self, role: Option<Role>) {
        for (gauge, of) in self.roles.iter().zip(SERVING) {
            gauge.set(i64::from(role == Some(of)));
        }
    }
}
