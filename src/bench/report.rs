//! The figures of a run, for people and as JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::Cause;

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Measured time, without the warm-up.
    pub seconds: f64,
    /// Ended before its time.
    pub interrupted: bool,
    /// What became of the requests that were due in that time.
    pub requests: Requests,
    /// Their answers, by HTTP status.
    pub statuses: BTreeMap<u16, u64>,
    /// Those without an answer, by cause.
    pub failures: BTreeMap<Cause, u64>,
    /// The answers with status 429.
    pub overloaded: Overloaded,
    /// From when a request was due to the last byte of its answer; of those answered with 200. `None` without any.
    pub latency_ms: Option<Quantiles>,
    /// Of answers with 200 that arrived in the measured time.
    pub per_second: Rates,
    /// Of the same.
    pub totals: Totals,
    /// What the generator itself did.
    pub generator: Generator,
}

/// Requests by what became of them: `sent = answered + failed + abandoned`.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Requests {
    /// Put on the wire, or tried to.
    pub sent: u64,
    /// Got a whole answer, whatever its status.
    pub answered: u64,
    /// Got none.
    pub failed: u64,
    /// Were given up when the run was interrupted.
    pub abandoned: u64,
    /// Were due while as many were in flight as may be (open loop).
    pub not_sent: u64,
}

/// Refusals for overload.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Overloaded {
    /// Answers with status 429.
    pub answers: u64,
    /// Of these, with a `Retry-After` in seconds.
    pub with_retry_after: u64,
    /// What those said.
    pub retry_after_seconds: Option<Spread>,
}

/// The range of some numbers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// The smallest.
    pub min: u64,
    /// The mean.
    pub mean: f64,
    /// The largest.
    pub max: u64,
}

/// A distribution of times, in milliseconds, to three digits.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Quantiles {
    pub mean: f64,
    pub p50: f64,
    pub p90: f64,
    pub p95: f64,
    pub p99: f64,
    pub p99_9: f64,
    pub max: f64,
}

/// Per second of the measured time.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Rates {
    /// Goodput: answers with vectors.
    pub requests: f64,
    /// Vectors.
    pub inputs: f64,
    /// Tokens of the inputs, by the server's count. `None` if it gave none.
    pub tokens: Option<f64>,
}

/// What was moved.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Totals {
    /// Answers with vectors.
    pub requests: u64,
    /// Vectors.
    pub inputs: u64,
    /// By the server's count.
    pub tokens: u64,
    /// Answers that did not say how many tokens there were.
    pub answers_without_tokens: u64,
    /// Of bodies.
    pub bytes_sent: u64,
    /// Of bodies.
    pub bytes_received: u64,
}

/// The load generator's own part: it shares the machine with what it measures, perhaps.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Generator {
    /// Processor time of this process over the whole run. `None` where the system does not say it.
    pub processor_seconds: Option<f64>,
    /// The same as a share of one core.
    pub processor_share: Option<f64>,
    /// From when a request was due to when it was sent. Much of it means that the generator could not keep up.
    pub lag_ms: Option<Quantiles>,
}

impl Quantiles {
    /// Of a histogram of microseconds; `None` if it is empty.
    pub(super) fn of(histogram: &Histogram<u64>) -> Option<Self> {
        if histogram.is_empty() {
            return None;
        }
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        Some(Self {
            mean: histogram.mean() / 1e3,
            p50: at(0.5),
            p90: at(0.9),
            p95: at(0.95),
            p99: at(0.99),
            p99_9: at(0.999),
            max: histogram.max() as f64 / 1e3,
        })
    }
}

impl Rates {
    pub(super) fn over(totals: &Totals, seconds: f64) -> Self {
        let rate = |count: u64| if seconds > 0.0 { count as f64 / seconds } else { 0.0 };
        Self {
            requests: rate(totals.requests),
            inputs: rate(totals.inputs),
            tokens: (totals.answers_without_tokens < totals.requests).then(|| rate(totals.tokens)),
        }
    }
}

/// The range of numbers given with how often each was seen.
pub(super) fn spread(counts: &[(u64, u64)]) -> Option<Spread> {
    let values = || counts.iter().map(|(value, _)| *value);
    let count: u64 = counts.iter().map(|(_, count)| count).sum();
    let sum: u64 = counts.iter().map(|(value, count)| value * count).sum();
    Some(Spread { min: values().min()?, mean: sum as f64 / count as f64, max: values().max()? })
}

/// Processor time that this process has used, to 10 ms. `None` where the system does not say it.
pub fn processor_time() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name, field 2, may hold spaces and brackets; user and system time are fields 14 and 15.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    // Linux shows processes 100 ticks a second on every machine, whatever its kernel's own clock.
    Some(Duration::from_millis(ticks * 10))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Requests { sent, answered, failed, abandoned, not_sent } = self.requests;
        write!(f, "requests    {sent} sent in {:.1} s: {answered} answered, {failed} failed", self.seconds)?;
        if abandoned > 0 {
            write!(f, ", {abandoned} abandoned")?;
        }
        if not_sent > 0 {
            write!(f, "; {not_sent} not sent, too many were in flight")?;
        }
        let parts = self.statuses.iter().map(|(status, count)| format!("{count} x {status}"));
        let parts = parts.chain(self.failures.iter().map(|(cause, count)| format!("{count} x {cause}")));
        write!(f, "\noutcomes    {}", parts.collect::<Vec<_>>().join(", "))?;
        if let Some(Spread { min, mean, max }) = self.overloaded.retry_after_seconds {
            let Overloaded { answers, with_retry_after, .. } = self.overloaded;
            write!(f, "\nretry-after {min} to {max} s, mean {mean:.1} ({with_retry_after} of {answers})")?;
        }
        let rates = self.per_second;
        write!(f, "\nper second  {:.1} requests, {:.1} inputs", rates.requests, rates.inputs)?;
        if let Some(tokens) = rates.tokens {
            write!(f, ", {tokens:.0} tokens")?;
        }
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        let (sent, received) = (megabytes(self.totals.bytes_sent), megabytes(self.totals.bytes_received));
        write!(f, "\nbodies      {sent:.2} MB sent, {received:.2} MB received")?;
        if let Some(latency) = &self.latency_ms {
            write!(f, "\nlatency     {latency}")?;
        }
        if let Some(share) = self.generator.processor_share {
            write!(f, "\ngenerator   {:.1} % of a core", share * 100.0)?;
            // A closed loop has none to speak of.
            if let Some(lag) = self.generator.lag_ms.filter(|lag| lag.p99 >= 0.01) {
                write!(f, "; sent {:.2} ms late at p50, {:.2} at p99", lag.p50, lag.p99)?;
            }
        }
        if self.interrupted {
            write!(f, "\ninterrupted: these are the figures up to then")?;
        }
        Ok(())
    }
}

impl fmt::Display for Quantiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mean, p50, p90, p95, p99, p99_9, max } = self;
        write!(
            f,
            "p50 {p50:.2}  p90 {p90:.2}  p95 {p95:.2}  p99 {p99:.2}  p99.9 {p99_9:.2}  max {max:.2}  mean {mean:.2} ms"
        )
    }
}
