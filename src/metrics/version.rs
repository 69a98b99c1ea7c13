//! The series of a loaded version.

use std::collections::BTreeMap;

use prometheus::{Gauge, Histogram, IntCounter, IntGauge};

use super::Metrics;
use crate::engine::Device;
use crate::repository::manifest::Manifest;
use crate::rollout::Role;

/// Roles with which a version is loaded.
const SERVING: [Role; 5] = [Role::Stable, Role::Canary, Role::Shadow, Role::Previous, Role::Standby];

/// The series of one version.
#[derive(Clone)]
pub struct VersionMetrics {
    /// Labels of `sextant_version_info`, model and version first.
    info: [String; 6],
    /// Labels of `sextant_engine_nodes`.
    providers: Vec<String>,
    /// One for each of [`SERVING`].
    roles: [IntGauge; SERVING.len()],
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
    /// Batches tried again in halves.
    pub retried: IntCounter,
    /// Batches split because memory did not suffice.
    pub out_of_memory: IntCounter,
    /// Inputs cut short.
    pub truncated: IntCounter,
    /// Unknown tokens.
    pub unknown: IntCounter,
    /// Least cosine of a probe's vector, found by the gate.
    pub gate_probe_min_cosine: Gauge,
    /// Files that are not as published any more.
    pub files_changed: IntGauge,
}

impl VersionMetrics {
    /// Says which role the version has now, if any.
    pub fn role(&self, role: Option<Role>) {
        for (gauge, of) in self.roles.iter().zip(SERVING) {
            gauge.set(i64::from(role == Some(of)));
        }
    }
}

impl Metrics {
    /// The series of a version whose sessions run on `device`, where the providers have so many `nodes`; all others at 0.
    pub fn version(
        &self,
        manifest: &Manifest,
        device: Device,
        nodes: &BTreeMap<String, usize>,
    ) -> VersionMetrics {
        let model = manifest.model.as_str();
        let version = manifest.version.to_string();
        let of = [model, version.as_str()];
        let precision = manifest.precision.to_string();
        let digest = manifest.graph_digest().unwrap_or_default();
        let info = [
            model,
            &version,
            &manifest.space.0,
            &precision,
            device.provider(),
            &digest[..digest.len().min(16)],
        ];
        self.version_info.with_label_values(&info).set(1);
        self.devices.placed(of, nodes);
        let role = |role: Role| self.version_role.with_label_values(&[model, &version, &role.to_string()]);
        let tokens = |kind| self.tokens.with_label_values(&[model, &version, kind]);
        let stage = |stage| self.stages.with_label_values(&[model, &version, stage]);
        VersionMetrics {
            info: info.map(str::to_owned),
            providers: nodes.keys().cloned().collect(),
            roles: SERVING.map(role),
            embeddings: self.embeddings.with_label_values(&of),
            real_tokens: tokens("real"),
            padding_tokens: tokens("padding"),
            tokenize: stage("tokenize"),
            queue: stage("queue"),
            infer: stage("infer"),
            finish: stage("finish"),
            batch_rows: self.batch_rows.with_label_values(&of),
            batch_tokens: self.batch_tokens.with_label_values(&of),
            queue_items: self.queue_items.with_label_values(&of),
            queue_tokens: self.queue_tokens.with_label_values(&of),
            overloaded: self.rejected.with_label_values(&[model, &version, "overloaded"]),
            coalesced: self.coalesced.with_label_values(&of),
            cache_hits: self.cache_hits.with_label_values(&of),
            cache_misses: self.cache_misses.with_label_values(&of),
            retried: self.retried.with_label_values(&of),
            out_of_memory: self.devices.out_of_memory.with_label_values(&of),
            truncated: self.truncated.with_label_values(&of),
            unknown: self.unknown.with_label_values(&of),
            gate_probe_min_cosine: self.gate_probe_min_cosine.with_label_values(&of),
            files_changed: self.files_changed.with_label_values(&of),
        }
    }

    /// Removes the series of a version that is unloaded.
    pub fn forget(&self, version: &VersionMetrics) {
        let [model, number, ..] = version.info.each_ref().map(String::as_str);
        let of = [model, number];
        // An error says that a series is not there, which is what is wanted.
        let _ = self.version_info.remove_label_values(&version.info.each_ref().map(String::as_str));
        for role in SERVING {
            let _ = self.version_role.remove_label_values(&[model, number, &role.to_string()]);
        }
        for kind in ["real", "padding"] {
            let _ = self.tokens.remove_label_values(&[model, number, kind]);
        }
        for stage in ["tokenize", "queue", "infer", "finish"] {
            let _ = self.stages.remove_label_values(&[model, number, stage]);
        }
        let _ = self.rejected.remove_label_values(&[model, number, "overloaded"]);
        for histograms in [&self.batch_rows, &self.batch_tokens] {
            let _ = histograms.remove_label_values(&of);
        }
        for gauges in [&self.queue_items, &self.queue_tokens, &self.files_changed] {
            let _ = gauges.remove_label_values(&of);
        }
        let _ = self.gate_probe_min_cosine.remove_label_values(&of);
        self.devices.forget(of, &version.providers);
        self.trials.forget(model, number);
        self.drift.learned(model, number, None);
        for counters in [
            &self.embeddings,
            &self.coalesced,
            &self.cache_hits,
            &self.cache_misses,
            &self.retried,
            &self.truncated,
            &self.unknown,
        ] {
            let _ = counters.remove_label_values(&of);
        }
    }
}
