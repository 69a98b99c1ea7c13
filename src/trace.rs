//! Traces: one span for a request and one for each stage of its way, exported as OTLP to a collector.
//!
//! The stages have their times anyway, so their spans are made from these when the request is answered. Nothing of the
//! pipeline is wrapped in spans, and without a collector nothing is allocated.

mod context;
mod export;
mod record;
mod resource;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanContext, SpanKind, TraceContextExt as _, Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider, Span};

use crate::metrics::Metrics;
pub use context::{parent, response};
pub use export::ExportError;
use export::Exporting;
pub use record::{Record, during, note};

/// Where spans go, and which.
#[derive(Debug, Clone, PartialEq)]
pub struct TraceConfig {
    /// URL of the collector.
    pub endpoint: String,
    /// How it is spoken to.
    pub protocol: Protocol,
    /// Share of requests, where their caller has not decided; as `OTEL_TRACES_SAMPLER` says if it is not given.
    pub sample: Option<f64>,
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
    /// If the exporter cannot be made, as from a variable `OTEL_*` that has no meaning.
    pub fn start(config: &TraceConfig, metrics: &Metrics) -> Result<Self, ExportError> {
        let resource = resource::resource(|name| std::env::var(name).ok());
        let (queue, exporting) = export::start(config, &resource, metrics.dropped_spans.clone())?;
        let mut provider = SdkTracerProvider::builder().with_span_processor(queue).with_resource(resource);
        if let Some(share) = config.sample {
            let root = Box::new(Sampler::TraceIdRatioBased(share));
            provider = provider.with_sampler(Sampler::ParentBased(root));
        }
        let scope = InstrumentationScope::builder("sextant").with_version(env!("CARGO_PKG_VERSION")).build();
        let tracer = provider.build().tracer_with_scope(scope);
        Ok(Self { tracer, exporting: Mutex::new(Some(exporting)) })
    }

    /// Begins the span of a request, below its caller's where that one sent it.
    pub fn begin(&self, name: String, attributes: Vec<KeyValue>, parent: Option<SpanContext>) -> RequestSpan {
        let builder = SpanBuilder::from_name(name).with_kind(SpanKind::Server).with_attributes(attributes);
        let parent =
            parent.map_or_else(Context::new, |parent| Context::new().with_remote_span_context(parent));
        let (wall, started) = (SystemTime::now(), Instant::now());
        let span = self.tracer.build_with_context(builder.with_start_time(wall), &parent);
        RequestSpan { span, tracer: self.tracer.clone(), clock: Clock { wall, started } }
    }

    /// Exports what was made until now, for `patience` at most, and nothing after it.
    pub async fn flush(&self, patience: Duration) {
        let exporting = self.exporting.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(exporting) = exporting {
            exporting.finish(patience).await;
        }
    }
}

/// The span of a request that is on its way. Dropped without an end, as when a caller hangs up, it ends there.
pub struct RequestSpan {
    span: Span,
    tracer: SdkTracer,
    clock: Clock,
}

impl RequestSpan {
    /// Its trace, itself, and whether it is exported.
    pub fn context(&self) -> &SpanContext {
        self.span.span_context()
    }

    /// Whether it is exported, and so worth to be told of stages.
    pub fn is_recording(&self) -> bool {
        self.span.is_recording()
    }

    /// Sets what only the answer shows.
    pub fn span(&mut self) -> &mut Span {
        &mut self.span
    }

    /// Ends it now, with what its request has recorded.
    pub fn end(mut self, record: Record) {
        for attribute in record.attributes {
            self.span.set_attribute(attribute);
        }
        let parent = Context::new().with_remote_span_context(self.span.span_context().clone());
        for stage in record.stages {
            let started = self.clock.at(stage.started);
            let builder = SpanBuilder::from_name(stage.name).with_kind(SpanKind::Internal);
            let builder = builder.with_start_time(started).with_attributes(stage.attributes);
            self.tracer.build_with_context(builder, &parent).end_with_timestamp(started + stage.took);
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
    fn at(&self, moment: Instant) -> SystemTime {
        self.wall + moment.saturating_duration_since(self.started)
    }
}
