//! What became of spans that no collector got.

use prometheus::{IntCounter, Registry};

use super::{Result, counter};

/// Spans that were dropped, by reason.
#[derive(Debug, Clone)]
pub struct DroppedSpans {
    /// The queue before the exporter was full: the collector is slow, or there are more spans than it takes.
    pub queue_full: IntCounter,
    /// The collector was away, or refused them.
    pub export_failed: IntCounter,
}

impl DroppedSpans {
    pub(super) fn new(registry: &Registry) -> Result<Self> {
        let family = counter(
            registry,
            "sextant_trace_spans_dropped_total",
            "Spans that were dropped: no room in the queue, or the collector did not take them.",
            &["reason"],
        )?;
        Ok(Self {
            queue_full: family.with_label_values(&["queue_full"]),
            export_failed: family.with_label_values(&["export_failed"]),
        })
    }
}
