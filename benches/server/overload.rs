//! Three times what the server can do, for minutes: what still comes through, what it costs, and how soon it is over.

use std::fmt;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;
use sextant::bench::{Bounds, Pace};

use crate::server::{Server, TIMEOUT, runtime};
use crate::texts::{Kind, TextSet};
use crate::{Result, Run};

const CLIENTS: usize = 64;
/// Times saturation.
const FACTOR: f64 = 3.0;
/// Connections of the load: more than the server answers at once.
const CONNECTIONS: usize = 6000;
/// How often memory is read.
const SAMPLE: Duration = Duration::from_secs(1);

/// Three times saturation: goodput, refusals, memory, recovery
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How long
    #[arg(long, default_value_t = 300.0)]
    seconds: f64,
}

#[derive(Debug, Serialize)]
struct Row {
    precision: String,
    seconds: f64,
    /// Requests per second, closed loop: before and after.
    saturation: [f64; 2],
    /// Requests per second.
    offered: f64,
    /// Answers with vectors per second.
    goodput: f64,
    goodput_over_saturation: f64,
    refused: u64,
    refused_with_retry_after: u64,
    /// Neither vectors nor 429.
    other_errors: u64,
    /// Arrivals for which all connections were taken.
    not_sent: u64,
    memory_mb_before: f64,
    memory_mb_most: f64,
    memory_mb_after_half: f64,
    memory_mb_end: f64,
    /// From the moment the load's clients hang up until a short text is answered within twice its usual time.
    recovery_seconds: f64,
}

/// Everything that was found.
#[derive(Debug, Serialize)]
pub(crate) struct Figures(Vec<Row>);

pub(crate) fn measure(run: &Run, options: &Options) -> Result<Figures> {
    let (mixed, short) = (run.texts(Kind::Mixed)?, run.texts(Kind::Short)?);
    let rows = run.models.iter().map(|model| {
        let server = Server::start(model, &run.serve)?;
        overload(&server, &model.precision, &mixed, &short, Duration::try_from_secs_f64(options.seconds)?)
    });
    Ok(Figures(rows.collect::<Result<_>>()?))
}

fn overload(
    server: &Server,
    precision: &str,
    mixed: &TextSet,
    short: &TextSet,
    time: Duration,
) -> Result<Row> {
    let [(_, text), _] = short.samples();
    let bounds =
        |duration| Bounds { warmup: Duration::from_secs(2), duration, requests: u64::MAX, timeout: TIMEOUT };
    let saturation = || -> Result<f64> {
        let pace = Pace::Closed { concurrency: CLIENTS };
        let report = server.load(server.target()?, &mixed.texts, pace, bounds(Duration::from_secs(10)))?;
        Ok(report.per_second.requests)
    };
    let usual = {
        let pace = Pace::Closed { concurrency: 1 };
        let one = std::slice::from_ref(text);
        let report = server.load(server.target()?, one, pace, bounds(Duration::from_secs(2)))?;
        report.latency_ms.ok_or("no request was answered")?.p50
    };
    let before = saturation()?;
    let memory_before = server.memory()?;
    let rate = before * FACTOR;
    eprintln!("{precision}: saturated at {before:.0} requests/s; {rate:.0} for {} s", time.as_secs());
    let pace = Pace::Open { rate, concurrency: CONNECTIONS, seed: 1 };
    let mut memory = Vec::new();
    let report = runtime()?.block_on(async {
        let watch = async {
            let end = Instant::now() + Duration::from_secs(2) + time;
            while Instant::now() < end {
                tokio::time::sleep(SAMPLE).await;
                memory.extend(server.memory().ok());
            }
        };
        // Interrupted at its end: the clients that still wait hang up.
        server.loaded(server.target()?, &mixed.texts, pace, bounds(time * 2), watch).await
    })?;
    let ended = Instant::now();
    let recovery_seconds = recovery(server, text, usual, ended)?;
    server.wait_until_idle()?;
    let after = saturation()?;
    let goodput = report.per_second.requests;
    let answers = |status| report.statuses.get(&status).copied().unwrap_or(0);
    let megabytes = |bytes: f64| bytes / 1e6;
    Ok(Row {
        precision: precision.to_owned(),
        seconds: report.seconds,
        saturation: [before, after],
        offered: (report.requests.sent + report.requests.not_sent) as f64 / report.seconds,
        goodput,
        goodput_over_saturation: goodput / f64::midpoint(before, after),
        refused: answers(429),
        refused_with_retry_after: report.overloaded.with_retry_after,
        other_errors: report.requests.failed + report.requests.answered - answers(200) - answers(429),
        not_sent: report.requests.not_sent,
        memory_mb_before: megabytes(memory_before),
        memory_mb_most: megabytes(memory.iter().copied().fold(0.0, f64::max)),
        memory_mb_after_half: megabytes(memory.get(memory.len() / 2).copied().unwrap_or(0.0)),
        memory_mb_end: megabytes(memory.last().copied().unwrap_or(0.0)),
        recovery_seconds,
    })
}

/// Seconds from `ended` until a short text is answered within twice its `usual` milliseconds.
fn recovery(server: &Server, text: &crate::texts::Text, usual: f64, ended: Instant) -> Result<f64> {
    let bounds =
        Bounds { warmup: Duration::ZERO, duration: TIMEOUT, requests: 1, timeout: Duration::from_secs(60) };
    while ended.elapsed() < TIMEOUT {
        let pace = Pace::Closed { concurrency: 1 };
        let report = server.load(server.target()?, std::slice::from_ref(text), pace, bounds);
        let latency = report.ok().and_then(|report| report.latency_ms);
        if latency.is_some_and(|latency| latency.max <= 2.0 * usual) {
            return Ok(ended.elapsed().as_secs_f64());
        }
    }
    Err("the server does not recover".into())
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in &self.0 {
            writeln!(f, "{}: overload for {:.0} s", row.precision, row.seconds)?;
            let [before, after] = row.saturation;
            writeln!(
                f,
                "  saturation   {before:.0} requests/s before, {after:.0} after; offered {:.0}",
                row.offered
            )?;
            let share = row.goodput_over_saturation;
            writeln!(f, "  goodput      {:.0} requests/s, {share:.3} of saturation", row.goodput)?;
            writeln!(
                f,
                "  refused      {} with 429, {} of them with Retry-After; {} other errors; {} not sent",
                row.refused, row.refused_with_retry_after, row.other_errors, row.not_sent
            )?;
            writeln!(
                f,
                "  memory       {:.0} MB before, at most {:.0}, {:.0} at half time, {:.0} at the end",
                row.memory_mb_before, row.memory_mb_most, row.memory_mb_after_half, row.memory_mb_end
            )?;
            writeln!(f, "  recovery     {:.3} s after the load's clients hang up", row.recovery_seconds)?;
        }
        Ok(())
    }
}
