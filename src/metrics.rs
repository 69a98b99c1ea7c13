//! What `/metrics` shows: an own registry and typed handles, resolved once and kept.

mod connections;
mod devices;
mod drift;
mod keys;
mod register;
mod spans;
mod trial;
mod version;

use prometheus::{
    GaugeVec, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::drift::score::Scorer;
use crate::repository::manifest::Manifest;
use crate::rollout::Change;
use crate::rollout::guard::Figure;
use connections::ConnectionFamilies;
pub use connections::{Closed, ListenerMetrics};
use devices::DeviceFamilies;
pub use devices::GpuMetrics;
use drift::DriftFamilies;
pub use drift::DriftMetrics;
pub use keys::KeyMetrics;
use register::{counter, gauge, histogram, registered};
pub use spans::DroppedSpans;
use trial::TrialFamilies;
pub use trial::TrialMetrics;
pub use version::VersionMetrics;

/// Seconds, for whole requests: 1 ms to 30 s.
const REQUEST_BUCKETS: &[f64] =
    &[0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0];
/// Seconds, for stages, of which tokenizing takes microseconds.
const STAGE_BUCKETS: &[f64] = &[
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0,
    30.0,
];
/// Rows or tokens of a batch.
const COUNT_BUCKETS: &[f64] =
    &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0, 16384.0];

/// Label of changes that somebody asked for.
const OPERATOR: &str = "operator";

type Result<T> = std::result::Result<T, prometheus::Error>;

/// All metrics of the process.
pub struct Metrics {
    registry: Registry,
    http_requests: IntCounterVec,
    http_duration: HistogramVec,
    embeddings: IntCounterVec,
    tokens: IntCounterVec,
    stages: HistogramVec,
    batch_rows: HistogramVec,
    batch_tokens: HistogramVec,
    queue_items: IntGaugeVec,
    queue_tokens: IntGaugeVec,
    rejected: IntCounterVec,
    coalesced: IntCounterVec,
    cache_hits: IntCounterVec,
    cache_misses: IntCounterVec,
    retried: IntCounterVec,
    truncated: IntCounterVec,
    unknown: IntCounterVec,
    version_info: IntGaugeVec,
    version_role: IntGaugeVec,
    gate_probe_min_cosine: GaugeVec,
    files_changed: IntGaugeVec,
    generation: IntGaugeVec,
    changes: IntCounterVec,
    missing: IntGaugeVec,
    trials: TrialFamilies,
    drift: std::sync::Arc<DriftFamilies>,
    connections: ConnectionFamilies,
    devices: DeviceFamilies,
    /// Of following the rollout logs.
    pub sync_failures: SyncFailures,
    /// Of those who ask.
    pub keys: KeyMetrics,
    /// Of traces that are exported.
    pub dropped_spans: DroppedSpans,
}

/// Failures to follow the rollout logs.
pub struct SyncFailures {
    /// The repository could not be read.
    pub repository: IntCounter,
    /// A version that was rolled out could not be loaded.
    pub load: IntCounter,
    /// A version was not loaded because the memory would not suffice.
    pub memory: IntCounter,
    /// A document could not be read, or one that was followed is not there any more.
    pub document: IntCounter,
}

impl Metrics {
    /// Registers every metric.
    ///
    /// # Errors
    /// If two metrics have one name, which is a mistake in this file.
    pub fn new() -> Result<Self> {
        let registry = Registry::new();
        #[cfg(target_os = "linux")]
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        let of_version = &["model", "version"];
        let sync_failures = counter(
            &registry,
            "sextant_sync_failures_total",
            "What went wrong in following the rollout logs: looks at the repository, loads of versions that were rolled out, memory for a version, \
             documents.",
            &["reason"],
        )?;
        let metrics = Self {
            http_requests: counter(
                &registry,
                "sextant_http_requests_total",
                "Answers by route, method and status.",
                &["route", "method", "status"],
            )?,
            http_duration: histogram(
                &registry,
                "sextant_http_request_duration_seconds",
                "From the request's head to the answer's, by route.",
                REQUEST_BUCKETS,
                &["route"],
            )?,
            embeddings: counter(&registry, "sextant_embeddings_total", "Vectors answered.", of_version)?,
            tokens: counter(
                &registry,
                "sextant_tokens_total",
                "Tokens computed: real ones, and padding beside them.",
                &["model", "version", "kind"],
            )?,
            stages: histogram(
                &registry,
                "sextant_stage_duration_seconds",
                "Time of a request in each stage; its slowest input counts.",
                STAGE_BUCKETS,
                &["model", "version", "stage"],
            )?,
            batch_rows: histogram(
                &registry,
                "sextant_batch_rows",
                "Rows of a batch.",
                COUNT_BUCKETS,
                of_version,
            )?,
            batch_tokens: histogram(
                &registry,
                "sextant_batch_tokens",
                "Real tokens of a batch.",
                COUNT_BUCKETS,
                of_version,
            )?,
            queue_items: gauge(
                &registry,
                "sextant_queue_items",
                "Inputs waiting for a session.",
                of_version,
            )?,
            queue_tokens: gauge(
                &registry,
                "sextant_queue_tokens",
                "Tokens of the inputs waiting.",
                of_version,
            )?,
            rejected: counter(
                &registry,
                "sextant_rejected_total",
                "Requests refused before any work.",
                &["model", "version", "reason"],
            )?,
            coalesced: counter(
                &registry,
                "sextant_coalesced_inputs_total",
                "Inputs that shared the vector of an equal one in flight.",
                of_version,
            )?,
            cache_hits: counter(
                &registry,
                "sextant_cache_hits_total",
                "Inputs whose vector was in the cache.",
                of_version,
            )?,
            cache_misses: counter(
                &registry,
                "sextant_cache_misses_total",
                "Inputs whose vector was looked for in the cache and not there.",
                of_version,
            )?,
            retried: counter(
                &registry,
                "sextant_retried_batches_total",
                "Batches that failed and were tried again in halves.",
                of_version,
            )?,
            truncated: counter(
                &registry,
                "sextant_truncated_inputs_total",
                "Inputs that were cut to the model's longest.",
                of_version,
            )?,
            unknown: counter(
                &registry,
                "sextant_unknown_tokens_total",
                "Tokens that the vocabulary does not know.",
                of_version,
            )?,
            version_info: gauge(
                &registry,
                "sextant_version_info",
                "1 for each loaded version; its facts are the labels.",
                &["model", "version", "space", "precision", "provider", "digest"],
            )?,
            version_role: gauge(
                &registry,
                "sextant_version_role",
                "1 for the role that a version has now.",
                &["model", "version", "role"],
            )?,
            gate_probe_min_cosine: registered(
                &registry,
                GaugeVec::new(
                    Opts::new(
                        "sextant_gate_probe_min_cosine",
                        "Least cosine of a probe's vector to the one that the version came with, when it was loaded.",
                    ),
                    of_version,
                )?,
            )?,
            files_changed: gauge(
                &registry,
                "sextant_files_changed",
                "Files of a loaded version, in the cache and in the repository, that are not as published any more.",
                of_version,
            )?,
            generation: gauge(
                &registry,
                "sextant_rollout_generation",
                "Number of the rollout document that is served.",
                &["model"],
            )?,
            changes: counter(
                &registry,
                "sextant_rollout_changes_total",
                "Changes of roles that this process followed since it started, by action, and by what made them: an operator, or a \
                 figure of the guard.",
                &["model", "action", "cause"],
            )?,
            missing: gauge(
                &registry,
                "sextant_models_missing",
                "1 for each model that should be served and of which no version could be loaded; no series once it is served.",
                &["model"],
            )?,
            trials: TrialFamilies::new(&registry)?,
            drift: DriftFamilies::new(&registry)?,
            keys: KeyMetrics::new(&registry)?,
            connections: ConnectionFamilies::new(&registry)?,
            devices: DeviceFamilies::new(&registry)?,
            sync_failures: SyncFailures {
                repository: sync_failures.with_label_values(&["repository"]),
                load: sync_failures.with_label_values(&["load"]),
                memory: sync_failures.with_label_values(&["memory"]),
                document: sync_failures.with_label_values(&["document"]),
            },
            dropped_spans: DroppedSpans::new(&registry)?,
            registry,
        };
        for reason in ["requests", "held_bytes"] {
            metrics.rejected.with_label_values(&["", "", reason]);
        }
        Ok(metrics)
    }

    /// All metrics in Prometheus' text format.
    ///
    /// # Errors
    /// If a metric cannot be written as text.
    pub fn render(&self) -> Result<String> {
        TextEncoder::new().encode_to_string(&self.drift.uncounted(|| self.registry.gather()))
    }

    /// Makes the route's series, so that they stand at 0 before the first request.
    pub fn prepare_route(&self, route: &str, method: &str) {
        self.http_requests.with_label_values(&[route, method, "200"]);
        self.http_duration.with_label_values(&[route]);
    }

    /// Counts one answer. `route` is the pattern, never the path: a client must not be able to add series.
    pub fn answered(&self, route: &str, method: &str, status: u16, seconds: f64) {
        self.http_requests.with_label_values(&[route, method, &status.to_string()]).inc();
        self.http_duration.with_label_values(&[route]).observe(seconds);
    }

    /// Counts a request that was refused before it was known which model it wanted.
    pub fn shed(&self, reason: &str) {
        self.rejected.with_label_values(&["", "", reason]).inc();
    }

    /// The series of a listener, all at 0.
    pub fn listener(&self, name: &'static str) -> ListenerMetrics {
        self.connections.of(name)
    }

    /// Says which document of a model's rollout log is served.
    pub fn rollout_generation(&self, model: &str, number: u64) {
        self.generation.with_label_values(&[model]).set(number as i64);
    }

    /// Says whether a model that should be served is missing.
    pub fn model_missing(&self, model: &str, is_missing: bool) {
        if is_missing {
            self.missing.with_label_values(&[model]).set(1);
        } else {
            // There is none if it was never missing.
            let _ = self.missing.remove_label_values(&[model]);
        }
    }

    /// Makes the series of a model's changes, so that they stand at 0 before the first.
    pub fn prepare_changes(&self, model: &str) {
        for action in ["begin", "rollout", "trial", "promote", "rollback", "standby", "retire", "alias"] {
            self.changes.with_label_values(&[model, action, OPERATOR]);
        }
        for figure in Figure::ALL {
            self.changes.with_label_values(&[model, "rollback", &figure.to_string()]);
        }
    }

    /// Adds the series of GPUs, of which there are none where there is no GPU.
    ///
    /// # Errors
    /// If they are there already.
    pub fn gpus(&self) -> Result<GpuMetrics> {
        GpuMetrics::new(&self.registry)
    }

    /// Counts a change that is followed.
    pub fn changed(&self, model: &str, change: &Change, cause: Option<Figure>) {
        let cause = cause.map_or_else(|| OPERATOR.to_owned(), |figure| figure.to_string());
        self.changes.with_label_values(&[model, change.action(), &cause]).inc();
    }

    /// The series of a version on trial.
    pub fn trial(&self, manifest: &Manifest) -> TrialMetrics {
        self.trials.of(manifest)
    }

    /// The series of a version that is held against a reference, all at 0.
    pub fn drift(&self, manifest: &Manifest, scorer: &Scorer) -> DriftMetrics {
        self.drift.of(manifest, scorer)
    }

    /// Says from how many vectors a reference is being learned; `None` when it no longer is.
    pub fn learned(&self, manifest: &Manifest, vectors: Option<usize>) {
        self.drift.learned(&manifest.model, &manifest.version.to_string(), vectors);
    }
}
