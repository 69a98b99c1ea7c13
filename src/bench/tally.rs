//! What came of the requests so far.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::Progress;
use super::client::{Answer, Cause};
use super::report::{
    Generator, Overloaded, Quantiles, Rates, Report, Requests, Totals, processor_time, spread,
};

/// Counts two things that differ at the edges of the measured time. What became of a request, and how long it took, is
/// counted for those *due* in it, however long they took, or the slow ones at its end would be missing. Rates are counted
/// from answers that *arrived* in it, or what was sent before its end and answered after would make the server look faster.
pub(super) struct Tally {
    started: Instant,
    from: Instant,
    until: Instant,
    /// Of measured requests.
    limit: u64,
    inputs_per_request: u64,
    /// The warm-up's too: the number of the next request.
    begun: u64,
    /// The warm-up's too.
    answers: u64,
    sent: u64,
    not_sent: u64,
    last: Option<Instant>,
    /// Microseconds.
    latency: Histogram<u64>,
    /// Microseconds from due to sent.
    lag: Histogram<u64>,
    statuses: BTreeMap<u16, u64>,
    failures: BTreeMap<Cause, u64>,
    retry_after: Vec<(u64, u64)>,
    totals: Totals,
    processor: Option<Duration>,
}

/// Longer is not waited for; a histogram to there takes 230 kB.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Of microseconds, to three digits.
fn histogram() -> Histogram<u64> {
    #[expect(clippy::expect_used, reason = "fails for an empty range, or more than five digits")]
    Histogram::new_with_max(LONGEST.as_micros() as u64, 3).expect("a day of microseconds to three digits")
}

fn record(histogram: &mut Histogram<u64>, time: Duration) {
    histogram.saturating_record(time.as_micros() as u64);
}

impl Tally {
    /// Measures from `from` on, for `duration` or `limit` requests, whichever ends first.
    pub(super) fn new(from: Instant, duration: Duration, limit: u64, inputs_per_request: u64) -> Self {
        Self {
            started: Instant::now(),
            from,
            until: from + duration,
            limit,
            inputs_per_request,
            begun: 0,
            answers: 0,
            sent: 0,
            not_sent: 0,
            last: None,
            latency: histogram(),
            lag: histogram(),
            statuses: BTreeMap::new(),
            failures: BTreeMap::new(),
            retry_after: Vec::new(),
            totals: Totals::default(),
            processor: processor_time(),
        }
    }

    /// The number of a request due at `due`, counted from 0; `None` if the load is over.
    pub(super) fn begin(&mut self, due: Instant) -> Option<u64> {
        if !self.takes(due) {
            return None;
        }
        self.sent += u64::from(due >= self.from);
        self.begun += 1;
        Some(self.begun - 1)
    }

    /// A request due at `due` had no place. Whether the load goes on.
    pub(super) fn miss(&mut self, due: Instant) -> bool {
        let takes = self.takes(due);
        self.not_sent += u64::from(takes && due >= self.from);
        takes
    }

    fn takes(&self, due: Instant) -> bool {
        due < self.until && (due < self.from || self.sent + self.not_sent < self.limit)
    }

    /// Sends no more.
    pub(super) fn stop(&mut self, now: Instant) {
        self.until = self.until.min(now);
    }

    pub(super) fn end(
        &mut self,
        due: Instant,
        sent: Instant,
        done: Instant,
        bytes: u64,
        result: Result<Answer, Cause>,
    ) {
        self.answers += u64::from(result.is_ok());
        let ok = result.ok().filter(|answer| answer.status == 200);
        if let Some(answer) = ok
            && (self.from..=self.until).contains(&done)
        {
            self.totals.requests += 1;
            self.totals.inputs += self.inputs_per_request;
            self.totals.tokens += answer.tokens.unwrap_or(0);
            self.totals.answers_without_tokens += u64::from(answer.tokens.is_none());
            self.totals.bytes_sent += bytes;
            self.totals.bytes_received += answer.bytes;
        }
        if due < self.from {
            return;
        }
        self.last = self.last.max(Some(done));
        record(&mut self.lag, sent.saturating_duration_since(due));
        match result {
            Ok(answer) => {
                *self.statuses.entry(answer.status).or_default() += 1;
                if answer.status == 200 {
                    record(&mut self.latency, done.saturating_duration_since(due));
                }
                if let Some(seconds) = answer.retry_after.filter(|_| answer.status == 429) {
                    match self.retry_after.iter_mut().find(|(seen, _)| *seen == seconds) {
                        Some((_, count)) => *count += 1,
                        None => self.retry_after.push((seconds, 1)),
                    }
                }
            }
            Err(cause) => *self.failures.entry(cause).or_default() += 1,
        }
    }

    pub(super) fn progress(&self, start: Instant, now: Instant) -> Progress {
        let share = |done: f64, of: f64| if of > 0.0 { done / of } else { 1.0 };
        let time = share((now - start).as_secs_f64(), (self.until - start).as_secs_f64());
        let count = share((self.sent + self.not_sent) as f64, self.limit as f64);
        Progress { share: time.max(count).min(1.0), answers: self.answers }
    }

    /// The figures at `now`, when the run is over.
    pub(super) fn report(&self, now: Instant, interrupted: bool) -> Report {
        // Ended by the number of requests, the measured time ends with the last answer.
        let limited = self.sent + self.not_sent >= self.limit;
        let end = self.last.filter(|_| limited).unwrap_or(now).min(self.until);
        let seconds = end.saturating_duration_since(self.from).as_secs_f64();
        let answered: u64 = self.statuses.values().sum();
        let failed: u64 = self.failures.values().sum();
        let with_retry_after: u64 = self.retry_after.iter().map(|(_, count)| count).sum();
        let wall = now.saturating_duration_since(self.started).as_secs_f64();
        let processor =
            processor_time().zip(self.processor).map(|(after, before)| (after - before).as_secs_f64());
        Report {
            seconds,
            interrupted,
            requests: Requests {
                sent: self.sent,
                answered,
                failed,
                abandoned: self.sent - answered - failed,
                not_sent: self.not_sent,
            },
            statuses: self.statuses.clone(),
            failures: self.failures.clone(),
            overloaded: Overloaded {
                answers: self.statuses.get(&429).copied().unwrap_or(0),
                with_retry_after,
                retry_after_seconds: spread(&self.retry_after),
            },
            latency_ms: Quantiles::of(&self.latency),
            per_second: Rates::over(&self.totals, seconds),
            totals: self.totals,
            generator: Generator {
                processor_seconds: processor,
                processor_share: processor.filter(|_| wall > 0.0).map(|seconds| seconds / wall),
                lag_ms: Quantiles::of(&self.lag),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn answer(status: u16, retry_after: Option<u64>) -> Result<Answer, Cause> {
        Ok(Answer { status, tokens: Some(7), retry_after, bytes: 1000 })
    }

    /// A second of warm-up, ten seconds of measuring, three inputs a request; and the start.
    fn tally(limit: u64) -> (Tally, Instant) {
        let start = Instant::now();
        (Tally::new(start + Duration::from_secs(1), Duration::from_secs(10), limit, 3), start)
    }

    fn at(start: Instant, milliseconds: u64) -> Instant {
        start + Duration::from_millis(milliseconds)
    }

    fn exchange(tally: &mut Tally, due: Instant, took: u64, result: Result<Answer, Cause>) {
        assert!(tally.begin(due).is_some());
        tally.end(due, due + Duration::from_millis(1), at(due, took), 100, result);
    }

    #[test]
    fn latencies_are_those_of_requests_due_and_rates_those_of_answers_arrived() {
        let (mut tally, start) = tally(u64::MAX);
        exchange(&mut tally, at(start, 100), 50, answer(200, None)); // all of it in the warm-up
        exchange(&mut tally, at(start, 900), 200, answer(200, None)); // arrives in the measured time
        exchange(&mut tally, at(start, 2000), 40, answer(200, None));
        exchange(&mut tally, at(start, 10_900), 200, answer(200, None)); // arrives after it
        assert!(tally.begin(at(start, 11_000)).is_none());
        let report = tally.report(at(start, 11_100), false);
        assert_eq!(report.seconds, 10.0);
        assert_eq!((report.requests.sent, report.requests.answered), (2, 2));
        let latency = report.latency_ms.unwrap();
        assert!((latency.max - 200.0).abs() < 0.2 && (latency.p50 - 40.0).abs() < 0.1, "{latency:?}");
        assert_eq!((report.totals.requests, report.totals.inputs, report.totals.tokens), (2, 6, 14));
        let rates = report.per_second;
        assert_eq!((rates.requests, rates.inputs, rates.tokens), (0.2, 0.6, Some(1.4)));
        assert_eq!((report.totals.bytes_sent, report.totals.bytes_received), (200, 2000));
    }

    #[test]
    fn percentiles_of_known_latencies() {
        let (mut tally, start) = tally(u64::MAX);
        for latency in 1..=1000 {
            exchange(&mut tally, at(start, 1000), latency, answer(200, None));
        }
        let latency = tally.report(at(start, 11_000), false).latency_ms.unwrap();
        for (value, expected) in [
            (latency.mean, 500.5),
            (latency.p50, 500.0),
            (latency.p90, 900.0),
            (latency.p95, 950.0),
            (latency.p99, 990.0),
            (latency.p99_9, 999.0),
            (latency.max, 1000.0),
        ] {
            assert!((value / expected - 1.0).abs() < 2e-3, "{value} is not {expected}");
        }
    }

    #[test]
    fn everything_sent_is_answered_failed_or_abandoned() {
        let (mut tally, start) = tally(7);
        let due = at(start, 1000);
        exchange(&mut tally, due, 5, answer(200, None));
        exchange(&mut tally, due, 5, answer(429, Some(2)));
        exchange(&mut tally, due, 5, answer(429, Some(4)));
        exchange(&mut tally, due, 5, answer(429, None));
        exchange(&mut tally, due, 8, Err(Cause::Timeout));
        assert_eq!(tally.begin(due), Some(5));
        assert!(tally.miss(due));
        assert!(!tally.miss(due) && tally.begin(due).is_none(), "seven were due");
        let report = tally.report(at(start, 1020), true);
        let requests = report.requests;
        assert_eq!((requests.sent, requests.answered, requests.failed), (6, 4, 1));
        assert_eq!((requests.abandoned, requests.not_sent), (1, 1));
        assert_eq!(report.statuses, BTreeMap::from([(200, 1), (429, 3)]));
        assert_eq!(report.failures, BTreeMap::from([(Cause::Timeout, 1)]));
        let retry_after = report.overloaded.retry_after_seconds.unwrap();
        assert_eq!((report.overloaded.answers, report.overloaded.with_retry_after), (3, 2));
        assert_eq!((retry_after.min, retry_after.mean, retry_after.max), (2, 3.0, 4));
        assert!((report.seconds - 0.008).abs() < 1e-9, "until the last answer");
    }

    #[test]
    fn an_end_in_the_warm_up_gives_no_figures_and_no_nonsense() {
        let (mut tally, start) = tally(u64::MAX);
        exchange(&mut tally, start, 10, answer(200, None));
        tally.stop(at(start, 500));
        assert!(tally.begin(at(start, 501)).is_none());
        let report = tally.report(at(start, 600), true);
        assert_eq!((report.seconds, report.requests.sent), (0.0, 0));
        assert_eq!((report.latency_ms, report.per_second.requests), (None, 0.0));
    }
}
