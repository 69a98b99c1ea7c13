//! Traces: one span for a request and one for each stage of its way, exported as OTLP to a collector.
//!
//! The stages have their times anyway, so their spans are made from these when the request is answered. Nothing of the
//! pipeline is wrapped in spans, and without a collector nothing is allocated.

mod client;
mod context;
mod export;
mod record;
mod resource;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use axum::http::StatusCode;
use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt as _, Tracer as _,
    TracerProvider as _,
};
use opentelemetry::{Context, InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider, Span};

use crate::metrics::Metrics;
pub use context::{parent, response};
pub use export::ExportError;
use export::Exporting;
use record::Stage;
pub use record::{Record, note};

/// Where spans go, and which.
#[derive(Debug, Clone, PartialEq)]
pub struct TraceConfig {
    /// URL of the collector.
    pub endpoint: String,
    /// Whether that is the route for traces itself, however it looks.
    pub is_route: bool,
    /// How it is spoken to.
    pub protocol: Protocol,
    /// Share of requests, 0 to 1, where their caller has not decided.
    pub sample: f64,
}

/// OTLP over what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// HTTP with protobuf.
    #[default]
    Http,
    /// gRPC.
    Grpc,
}

/// Makes spans and has them exported.
pub struct Tracing {
    tracer: SdkTracer,
    exporting: Mutex<Option<Exporting>>,
}

impl Tracing {
    /// Starts exporting as `config` says. Must be called inside a tokio runtime. The collector is not asked: it may come later.
    ///
    /// # Errors
    /// If the exporter or its HTTP client cannot be made.
    pub fn start(config: &TraceConfig, metrics: &Metrics) -> Result<Self, ExportError> {
        let resource = resource::resource(|name| std::env::var(name).ok());
        let (queue, exporting) = export::start(config, &resource, metrics.dropped_spans.clone())?;
        let root = Box::new(Sampler::TraceIdRatioBased(config.sample));
        let provider = SdkTracerProvider::builder()
            .with_span_processor(queue)
            .with_resource(resource)
            .with_sampler(Sampler::ParentBased(root));
        let scope = InstrumentationScope::builder("sextant").with_version(env!("CARGO_PKG_VERSION")).build();
        let tracer = provider.build().tracer_with_scope(scope);
        Ok(Self { tracer, exporting: Mutex::new(Some(exporting)) })
    }

    /// Begins the span of a request, below its caller's where that one sent it.
    pub fn begin(&self, name: String, parent: Option<SpanContext>) -> RequestSpan {
        let builder = SpanBuilder::from_name(name).with_kind(SpanKind::Server);
        let parent =
            parent.map_or_else(Context::new, |parent| Context::new().with_remote_span_context(parent));
        let (wall, started) = (SystemTime::now(), Instant::now());
        let span = self.tracer.build_with_context(builder.with_start_time(wall), &parent);
        RequestSpan {
            span,
            tracer: self.tracer.clone(),
            clock: Clock { wall, started },
            record: Arc::default(),
            is_answered: false,
        }
    }

    /// Exports what was made until now, for `patience` at most, and nothing after it.
    pub async fn flush(&self, patience: Duration) {
        let exporting = self.exporting.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(exporting) = exporting {
            exporting.finish(patience).await;
        }
    }
}

/// The span of a request that is on its way. It ends when it is dropped, with what was noted until then: a caller that hangs
/// up takes the request's future away, and how far it came is worth to be seen.
pub struct RequestSpan {
    span: Span,
    tracer: SdkTracer,
    clock: Clock,
    record: Arc<Mutex<Record>>,
    is_answered: bool,
}

impl RequestSpan {
    /// Its trace, itself, and whether it is exported.
    pub fn context(&self) -> &SpanContext {
        self.span.span_context()
    }

    /// Whether it is exported, and so worth to be told of anything.
    pub fn is_recording(&self) -> bool {
        self.span.is_recording()
    }

    /// Sets what the head of the request says.
    pub fn asked(&mut self, attributes: Vec<KeyValue>) {
        self.span.set_attributes(attributes);
    }

    /// Runs the request, which notes what there is to tell.
    pub async fn during<F: Future>(&self, request: F) -> F::Output {
        record::during(Arc::clone(&self.record), request).await
    }

    /// Sets what the answer says. A refusal is the caller's mistake, and no error of this server; 424 is what
    /// text-embeddings-inference answers where others have 500.
    pub fn answered(&mut self, status: StatusCode) {
        self.is_answered = true;
        self.span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status.as_u16())));
        if status.is_server_error() || status == StatusCode::FAILED_DEPENDENCY {
            self.failed(status.as_str().to_owned());
        }
    }

    fn failed(&mut self, kind: String) {
        self.span.set_attribute(KeyValue::new("error.type", kind));
        self.span.set_status(Status::error(""));
    }
}

impl Drop for RequestSpan {
    fn drop(&mut self) {
        if !self.is_recording() {
            return;
        }
        if !self.is_answered {
            self.failed("cancelled".to_owned());
        }
        let record = std::mem::take(&mut *self.record.lock().unwrap_or_else(PoisonError::into_inner));
        self.span.set_attributes(record.attributes);
        let parent = Context::new().with_remote_span_context(self.span.span_context().clone());
        for stage in record.stages {
            let (started, ended) = self.clock.span(&stage);
            let builder = SpanBuilder::from_name(stage.name).with_kind(SpanKind::Internal);
            let builder = builder.with_start_time(started).with_attributes(stage.attributes);
            self.tracer.build_with_context(builder, &parent).end_with_timestamp(ended);
        }
        self.span.end_with_timestamp(self.clock.at(Instant::now()));
    }
}

/// Times of day from a clock that does not jump: one request's spans fit together whatever the system's clock does meanwhile.
struct Clock {
    wall: SystemTime,
    started: Instant,
}

impl Clock {
    /// Not before the request.
    fn at(&self, moment: Instant) -> SystemTime {
        self.wall + moment.saturating_duration_since(self.started)
    }

    /// Start and end of a stage.
    fn span(&self, stage: &Stage) -> (SystemTime, SystemTime) {
        (self.at(stage.started), self.at(stage.started + stage.took))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a batch does that was running when an equal row joined it.
    #[test]
    fn a_stage_that_began_before_its_request_lies_within_it() {
        let seconds = Duration::from_secs;
        let before = Instant::now();
        let (wall, started) = (SystemTime::UNIX_EPOCH + seconds(100), before + seconds(10));
        let clock = Clock { wall, started };
        let of = |since: u64, took: u64| {
            let started = before + seconds(since);
            clock.span(&Stage { name: "infer", started, took: seconds(took), attributes: Vec::new() })
        };
        assert_eq!(of(11, 2), (wall + seconds(1), wall + seconds(3)));
        assert_eq!(of(7, 5), (wall, wall + seconds(2)));
        assert_eq!(of(7, 1), (wall, wall));
    }
}
