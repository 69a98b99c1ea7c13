//! The series of what versions run on: which provider has their nodes, how often memory did not suffice, and how much of the GPUs is used.

use std::collections::BTreeMap;

use prometheus::{GaugeVec, IntCounterVec, IntGaugeVec, Opts, Registry};

use super::{Result, counter, gauge, registered};
use crate::engine::device::usage::Reading;

pub(super) struct DeviceFamilies {
    pub(super) nodes: IntGaugeVec,
    pub(super) out_of_memory: IntCounterVec,
}

impl DeviceFamilies {
    pub(super) fn new(registry: &Registry) -> Result<Self> {
        Ok(Self {
            nodes: gauge(
                registry,
                "sextant_engine_nodes",
                "Nodes of a session's graph that each provider of ONNX Runtime has.",
                &["model", "version", "provider"],
            )?,
            out_of_memory: counter(
                registry,
                "sextant_out_of_memory_total",
                "Batches that were split and tried again because memory did not suffice for them.",
                &["model", "version"],
            )?,
        })
    }

    /// Sets what `nodes` says of a version.
    pub(super) fn placed(&self, of: [&str; 2], nodes: &BTreeMap<String, usize>) {
        for (provider, count) in nodes {
            self.nodes.with_label_values(&[of[0], of[1], provider]).set(*count as i64);
        }
    }

    pub(super) fn forget(&self, of: [&str; 2], providers: &[String]) {
        for provider in providers {
            let _ = self.nodes.remove_label_values(&[of[0], of[1], provider]);
        }
        let _ = self.out_of_memory.remove_label_values(&of);
    }
}

/// How much of the GPUs is used. Only where there are some: elsewhere these metrics are not shown.
pub struct GpuMetrics {
    memory_used: IntGaugeVec,
    memory_total: IntGaugeVec,
    utilization: GaugeVec,
}

impl GpuMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self> {
        Ok(Self {
            memory_used: gauge(
                registry,
                "sextant_gpu_memory_used_bytes",
                "Memory of a GPU that is used, by all processes.",
                &["device"],
            )?,
            memory_total: gauge(registry, "sextant_gpu_memory_total_bytes", "Memory of a GPU.", &["device"])?,
            utilization: registered(
                registry,
                GaugeVec::new(
                    Opts::new(
                        "sextant_gpu_utilization_ratio",
                        "Share of the last moments in which a kernel ran on a GPU, 0 to 1.",
                    ),
                    &["device"],
                )?,
            )?,
        })
    }

    /// Shows what was read, and nothing of a GPU that did not answer: what it said before is not so any more.
    pub fn show(&self, readings: &[Reading]) {
        self.memory_used.reset();
        self.memory_total.reset();
        self.utilization.reset();
        for reading in readings {
            let device = reading.gpu.to_string();
            self.memory_used.with_label_values(&[&device]).set(reading.memory_used as i64);
            self.memory_total.with_label_values(&[&device]).set(reading.memory_total as i64);
            if let Some(share) = reading.utilization {
                self.utilization.with_label_values(&[&device]).set(share);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn a_gpu_that_does_not_answer_shows_nothing() {
        let metrics = Metrics::new().unwrap();
        assert!(!metrics.render().unwrap().contains("sextant_gpu_memory_total_bytes"));
        let gpus = metrics.gpus().unwrap();
        let reading = |gpu, utilization| Reading { gpu, memory_used: 5, memory_total: 10, utilization };
        gpus.show(&[reading(0, Some(0.5)), reading(1, None)]);
        let text = metrics.render().unwrap();
        for line in [
            "sextant_gpu_memory_used_bytes{device=\"1\"} 5",
            "sextant_gpu_memory_total_bytes{device=\"0\"} 10",
            "sextant_gpu_utilization_ratio{device=\"0\"} 0.5",
        ] {
            assert!(text.contains(line), "{text}");
        }
        assert!(!text.contains("sextant_gpu_utilization_ratio{device=\"1\"}"), "a part of a GPU");
        gpus.show(&[reading(1, None)]);
        assert!(!metrics.render().unwrap().contains("device=\"0\""));
    }
}
