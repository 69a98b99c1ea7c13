//! The bounded queue of spans and the task that empties it. No request waits for either.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use opentelemetry::Context;
use opentelemetry_otlp::tonic_types::transport::ClientTlsConfig;
use opentelemetry_otlp::{
    ExporterBuildError, Protocol as Encoding, SpanExporter, WithExportConfig as _, WithHttpConfig as _,
    WithTonicConfig as _,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanExporter as _, SpanProcessor};
use thiserror::Error;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::client::{Client, Seen};
use super::{Protocol, TraceConfig};
use crate::metrics::DroppedSpans;
use crate::tls;

/// Spans that wait: those of about 1,600 requests, or of a second at that rate.
const WAITING: usize = 8192;
/// Spans that are sent together.
const TOGETHER: usize = 512;
/// For more to come, so that a quiet server does not send each request alone.
const DELAY: Duration = Duration::from_secs(1);
/// For an answer of the collector, every try of a batch included, if no variable says so.
const PATIENCE: Duration = Duration::from_secs(10);
/// Of an error's text, which may be a whole page of some proxy.
const LONGEST_REASON: usize = 300;

/// Why there is no exporter.
#[derive(Debug, Error)]
pub enum ExportError {
    /// Of OTLP.
    #[error("traces cannot be exported to {endpoint}: {source}")]
    Exporter {
        /// The collector.
        endpoint: String,
        /// What is wrong with it, or with a variable of the exporter.
        source: ExporterBuildError,
    },
    /// Of HTTP.
    #[error("traces cannot be exported: {0}")]
    Client(#[from] reqwest::Error),
}

/// The end of the queue where spans go in.
#[derive(Debug)]
pub(super) struct Queue {
    spans: mpsc::Sender<SpanData>,
    dropped: DroppedSpans,
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        match self.spans.try_send(span) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => self.dropped.queue_full.inc(),
            // After the flush, when nobody exports any more.
            Err(TrySendError::Closed(_)) => self.dropped.export_failed.inc(),
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    /// Nothing: [`Exporting::finish`] waits without blocking a thread, which this signature cannot.
    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// The task that exports.
pub(super) struct Exporting {
    task: JoinHandle<()>,
    /// Dropped to have it finish.
    stop: oneshot::Sender<()>,
}

impl Exporting {
    /// Has what waits exported, and gives up after `patience`.
    pub(super) async fn finish(mut self, patience: Duration) {
        drop(self.stop);
        if timeout(patience, &mut self.task).await.is_err() {
            self.task.abort();
            // Until it has counted what it abandons.
            let _cancelled = self.task.await;
        }
    }
}

/// Starts the task for a collector.
pub(super) fn start(
    config: &TraceConfig,
    resource: &Resource,
    dropped: DroppedSpans,
) -> Result<(Queue, Exporting), ExportError> {
    let seen = Arc::default();
    let mut exporter = exporter(config, &seen)?;
    exporter.set_resource(resource);
    let (spans, waiting) = mpsc::channel(WAITING);
    let (stop, stopped) = oneshot::channel();
    let endpoint = config.endpoint.clone();
    let patience = patience(|name| std::env::var(name).ok());
    let task = Task {
        exporter,
        seen,
        endpoint,
        patience,
        waiting,
        gathered: Vec::new(),
        sending: 0,
        dropped: dropped.clone(),
        lost: None,
    };
    let exporting = Exporting { task: tokio::spawn(task.run(stopped)), stop };
    Ok((Queue { spans, dropped }, exporting))
}

/// The exporter: `OTEL_EXPORTER_OTLP_*` say what is not said here, as headers, a timeout.
fn exporter(config: &TraceConfig, seen: &Arc<Mutex<Seen>>) -> Result<SpanExporter, ExportError> {
    tls::install_provider();
    let endpoint = config.endpoint.clone();
    let built = match config.protocol {
        Protocol::Http => {
            let url = if config.is_route { endpoint.clone() } else { traces_url(&endpoint) };
            let client = Client::new(Arc::clone(seen))?;
            let exporter = SpanExporter::builder().with_http().with_http_client(client);
            exporter.with_protocol(Encoding::HttpBinary).with_endpoint(url).build()
        }
        Protocol::Grpc => {
            let exporter = SpanExporter::builder().with_tonic().with_endpoint(&endpoint);
            if endpoint.starts_with("https:") {
                exporter.with_tls_config(ClientTlsConfig::new().with_enabled_roots()).build()
            } else {
                exporter.build()
            }
        }
    };
    built.map_err(|source| ExportError::Exporter { endpoint, source })
}

/// How long the exporter would wait by its own variables, in milliseconds. It reads them itself, and does not hold to them with
/// a client of ours.
fn patience(variable: impl Fn(&str) -> Option<String>) -> Duration {
    let given = |name| variable(name)?.parse().ok().map(Duration::from_millis);
    given("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT")
        .or_else(|| given("OTEL_EXPORTER_OTLP_TIMEOUT"))
        .unwrap_or(PATIENCE)
}

/// The route for traces below a collector's address, or the address if it is that route.
fn traces_url(endpoint: &str) -> String {
    const ROUTE: &str = "/v1/traces";
    let address = endpoint.trim_end_matches('/');
    if address.ends_with(ROUTE) { address.to_owned() } else { format!("{address}{ROUTE}") }
}

struct Task {
    exporter: SpanExporter,
    seen: Arc<Mutex<Seen>>,
    endpoint: String,
    patience: Duration,
    waiting: mpsc::Receiver<SpanData>,
    /// Out of the queue, and next to be sent.
    gathered: Vec<SpanData>,
    /// How many are on their way to the collector.
    sending: usize,
    dropped: DroppedSpans,
    /// Spans lost since the collector does not take them; none while it does.
    lost: Option<usize>,
}

impl Task {
    /// Exports until `stopped`, or until nobody is left to make spans, and then what is left.
    async fn run(mut self, stopped: oneshot::Receiver<()>) {
        let mut stopped = stopped.fuse();
        let mut open = true;
        while open {
            tokio::select! {
                _ = &mut stopped => open = false,
                more = gather(&mut self.waiting, &mut self.gathered) => open = more,
            }
            self.export().await;
        }
        loop {
            let rest = std::iter::from_fn(|| self.waiting.try_recv().ok()).take(TOGETHER);
            self.gathered.extend(rest);
            if self.gathered.is_empty() {
                return;
            }
            self.export().await;
        }
    }

    /// Sends what is gathered. One warning when the collector begins to refuse, and one line when it takes spans again: what is
    /// lost between is counted.
    async fn export(&mut self) {
        let batch = std::mem::take(&mut self.gathered);
        let spans = batch.len();
        if spans == 0 {
            return;
        }
        self.sending = spans;
        let exported = timeout(self.patience, self.exporter.export(batch)).await;
        self.sending = 0;
        let seen = std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner));
        let trouble = match (exported, seen) {
            // The exporter's own reason is "network error", whatever it was.
            (Ok(Err(_)) | Err(_), Seen { failure: Some(reason), .. }) => Some((spans, reason)),
            (Ok(Err(error)), _) => Some((spans, error.to_string())),
            (Err(_), _) => {
                Some((spans, format!("no answer within {}", humantime::format_duration(self.patience))))
            }
            (Ok(Ok(())), Seen { rejected: Some((rejected, reason)), .. }) => {
                Some((rejected.min(spans), format!("{rejected} of {spans} rejected: {reason}")))
            }
            (Ok(Ok(())), _) => None,
        };
        match (trouble, self.lost) {
            (None, None) => {}
            (None, Some(lost)) => {
                tracing::info!(endpoint = self.endpoint, lost, "the collector takes spans again");
                self.lost = None;
            }
            (Some((missed, reason)), lost) => {
                self.dropped.export_failed.inc_by(missed as u64);
                if lost.is_none() {
                    let reason: String = reason.chars().take(LONGEST_REASON).collect();
                    tracing::warn!(
                        endpoint = self.endpoint,
                        reason,
                        "the collector does not take spans: they are dropped, and counted in sextant_trace_spans_dropped_total"
                    );
                }
                self.lost = Some(lost.unwrap_or(0) + missed);
            }
        }
    }
}

impl Drop for Task {
    /// Counts what is abandoned, if it is stopped before all is sent.
    fn drop(&mut self) {
        // From here on the queue's other end counts.
        self.waiting.close();
        let spans = self.sending + self.gathered.len() + self.waiting.len();
        if spans > 0 {
            self.dropped.export_failed.inc_by(spans as u64);
            tracing::warn!(
                spans,
                "spans of the last requests are lost: the collector did not take them in time"
            );
        }
    }
}

/// Waits for a span, and for what comes with it. False when none can come any more.
async fn gather(waiting: &mut mpsc::Receiver<SpanData>, batch: &mut Vec<SpanData>) -> bool {
    if waiting.recv_many(batch, TOGETHER).await == 0 {
        return false;
    }
    let filling = async {
        while batch.len() < TOGETHER {
            if waiting.recv_many(batch, TOGETHER - batch.len()).await == 0 {
                return false;
            }
        }
        true
    };
    timeout(DELAY, filling).await.unwrap_or(true)
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{Tracer as _, TracerProvider as _};
    use opentelemetry_sdk::trace::SdkTracerProvider;

    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn spans_that_find_no_room_are_counted() {
        let dropped = Metrics::new().unwrap().dropped_spans;
        let (spans, mut waiting) = mpsc::channel(2);
        let queue = Queue { spans, dropped: dropped.clone() };
        let tracer = SdkTracerProvider::builder().with_span_processor(queue).build().tracer("");
        for _ in 0..5 {
            drop(tracer.start("span"));
        }
        assert_eq!((dropped.queue_full.get(), dropped.export_failed.get()), (3, 0));
        assert!(waiting.try_recv().is_ok());
        drop(tracer.start("span"));
        assert_eq!(dropped.queue_full.get(), 3, "there is room again");
    }

    /// A collector takes connections and never answers: what it has not taken by the end is counted, and so is what comes later.
    #[tokio::test]
    async fn what_is_abandoned_is_counted() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        for protocol in [Protocol::Http, Protocol::Grpc] {
            let endpoint = format!("http://{}", silent.local_addr().unwrap());
            let config = TraceConfig { endpoint, is_route: false, protocol, sample: 1.0 };
            let dropped = Metrics::new().unwrap().dropped_spans;
            let (queue, exporting) =
                start(&config, &Resource::builder_empty().build(), dropped.clone()).unwrap();
            let tracer = SdkTracerProvider::builder().with_span_processor(queue).build().tracer("");
            for _ in 0..TOGETHER + 1 {
                drop(tracer.start("span"));
            }
            // A full batch is on its way to it, and one waits.
            let _connection = silent.accept().await.unwrap();
            exporting.finish(Duration::from_millis(10)).await;
            let counted = || (dropped.export_failed.get(), dropped.queue_full.get());
            assert_eq!(counted(), (TOGETHER as u64 + 1, 0), "{protocol:?}");
            drop(tracer.start("span"));
            assert_eq!(counted(), (TOGETHER as u64 + 2, 0), "{protocol:?}");
        }
    }

    #[test]
    fn the_timeout_of_traces_goes_over_that_of_all() {
        let of = |given: &'static [(&str, &str)]| {
            let found = |name: &str| given.iter().find(|(known, _)| *known == name);
            patience(|name| found(name).map(|(_, value)| (*value).to_owned())).as_millis()
        };
        assert_eq!(of(&[("OTEL_EXPORTER_OTLP_TIMEOUT", "200")]), 200);
        assert_eq!(
            of(&[("OTEL_EXPORTER_OTLP_TIMEOUT", "200"), ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "300")]),
            300
        );
        assert_eq!(of(&[("OTEL_EXPORTER_OTLP_TIMEOUT", "soon")]), 10_000);
    }

    #[test]
    fn a_collector_is_named_with_or_without_the_route() {
        for (endpoint, expected) in [
            ("http://c:4318", "http://c:4318/v1/traces"),
            ("http://c:4318/", "http://c:4318/v1/traces"),
            ("https://c/otlp", "https://c/otlp/v1/traces"),
            ("https://c/otlp/v1/traces", "https://c/otlp/v1/traces"),
            ("https://c/otlp/v1/traces/", "https://c/otlp/v1/traces"),
        ] {
            assert_eq!(traces_url(endpoint), expected);
        }
    }
}
