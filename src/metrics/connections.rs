//! The series of listeners: who is connected, whom the server left and why, and the certificate that is shown.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use super::{Result, counter, gauge};

/// Why the server ended a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// The first request or the rest of a head did not come in time.
    Head,
    /// No request for too long.
    Idle,
    /// The client takes nothing of its answer.
    Write,
    /// The TLS handshake failed or took too long.
    Handshake,
    /// All places were taken, and this one had been without a request for longest.
    GaveWay,
    /// All places were taken, and all had requests.
    Refused,
}

const REASONS: [(Closed, &str); 6] = [
    (Closed::Head, "head"),
    (Closed::Idle, "idle"),
    (Closed::Write, "write"),
    (Closed::Handshake, "handshake"),
    (Closed::GaveWay, "gave_way"),
    (Closed::Refused, "refused"),
];

pub(super) struct ConnectionFamilies {
    open: IntGaugeVec,
    closed: IntCounterVec,
    expiry: IntGaugeVec,
    reloads: IntCounterVec,
}

/// The series of one listener.
pub struct ListenerMetrics {
    /// Connections that are open.
    pub open: IntGauge,
    closed: [(Closed, IntCounter); REASONS.len()],
    name: &'static str,
    expiry: IntGaugeVec,
    loaded: IntCounter,
    refused: IntCounter,
}

impl ConnectionFamilies {
    pub(super) fn new(registry: &Registry) -> Result<Self> {
        Ok(Self {
            open: gauge(registry, "sextant_connections", "Connections that are open.", &["listener"])?,
            closed: counter(
                registry,
                "sextant_connections_closed_total",
                "Connections that the server ended, by why: a head that did not come, no request, an answer that is not taken, a TLS \
                 handshake that failed, or no place.",
                &["listener", "reason"],
            )?,
            expiry: gauge(
                registry,
                "sextant_tls_certificate_expiry_timestamp_seconds",
                "When the first of the certificates that a listener shows expires, in seconds since 1970.",
                &["listener"],
            )?,
            reloads: counter(
                registry,
                "sextant_tls_reloads_total",
                "Changes of a listener's certificate, by whether it could be used.",
                &["listener", "outcome"],
            )?,
        })
    }

    pub(super) fn of(&self, name: &'static str) -> ListenerMetrics {
        let reload = |outcome| self.reloads.with_label_values(&[name, outcome]);
        ListenerMetrics {
            open: self.open.with_label_values(&[name]),
            closed: REASONS.map(|(reason, label)| (reason, self.closed.with_label_values(&[name, label]))),
            name,
            expiry: self.expiry.clone(),
            loaded: reload("loaded"),
            refused: reload("refused"),
        }
    }
}

impl ListenerMetrics {
    /// Counts a connection that the server ended.
    pub fn closed(&self, why: Closed) {
        for (_, counter) in self.closed.iter().filter(|(reason, _)| *reason == why) {
            counter.inc();
        }
    }

    /// Says when the certificate expires. A listener without one has no such series: 0 would be long ago.
    pub fn certificate_expires(&self, timestamp: i64) {
        self.expiry.with_label_values(&[self.name]).set(timestamp);
    }

    /// Counts a certificate that took the place of the last one.
    pub fn certificate_loaded(&self, expires: i64) {
        self.loaded.inc();
        self.certificate_expires(expires);
    }

    /// Counts a certificate that cannot be used.
    pub fn certificate_refused(&self) {
        self.refused.inc();
    }
}
