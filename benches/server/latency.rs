//! How long a request takes: alone, at 70 % of saturation, and behind a queue of long bulk requests.

use std::fmt;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Serialize;
use sextant::bench::session::SessionLoop;
use sextant::bench::target::Class;
use sextant::bench::{Bounds, Pace, Report};

use crate::models::Model;
use crate::server::{Server, TIMEOUT, errors, runtime};
use crate::statistics::median;
use crate::texts::{Kind, Text, TextSet};
use crate::{Result, Run};

/// Clients that saturate the server, and bulk clients.
const CLIENTS: usize = 64;
/// Of saturation, in the open loop.
const SHARE: f64 = 0.7;
/// Arrivals per second of the short texts behind bulk ones.
const SHORT_RATE: f64 = 10.0;
/// Turns of the bare session and the server, one client.
const BLOCKS: usize = 10;
/// Each turn of either.
const BLOCK: Duration = Duration::from_millis(400);

/// How long requests take: alone, at 70 % of saturation, behind bulk
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Which measurements
    #[arg(long, value_enum, value_delimiter = ',', default_value = "alone,open,behind-bulk")]
    parts: Vec<Part>,
    /// Rounds of the measurements under load; the figures are medians over them
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long each round is
    #[arg(long, default_value_t = 15.0)]
    seconds: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// One client, one input
    Alone,
    /// Open loop, mixed texts
    Open,
    /// A short text behind long bulk ones
    BehindBulk,
}

/// One client that sends one input over and over, beside the bare session on the same ids: medians in milliseconds.
#[derive(Debug, Serialize)]
struct Alone {
    texts: Kind,
    precision: String,
    input: &'static str,
    tokens: usize,
    /// Sessions of one thread, of all threads, and of all threads that spin.
    sessions_ms: [f64; 3],
    served_ms: f64,
    /// Over the fastest of these sessions, in the same turn.
    added_ms: f64,
}

/// Mixed texts at 70 % of saturation, open loop.
#[derive(Debug, Serialize)]
struct Open {
    precision: String,
    requests_per_second: Vec<f64>,
    p50_ms: Vec<f64>,
    p99_ms: Vec<f64>,
    /// One client's longest input, p50.
    longest_ms: Vec<f64>,
    median_ratio: f64,
    errors: u64,
}

/// A short text while long bulk requests wait.
#[derive(Debug, Serialize)]
struct BehindBulk {
    precision: String,
    alone_ms: f64,
    /// The longest text on the bare session of one thread.
    long_batch_ms: f64,
    /// Three times alone, and one long batch.
    bound_ms: f64,
    p50_ms: Vec<f64>,
    p99_ms: Vec<f64>,
    errors: u64,
}

/// Everything that was found.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Figures {
    alone: Vec<Alone>,
    open: Vec<Open>,
    behind_bulk: Vec<BehindBulk>,
}

pub(crate) fn measure(run: &Run, options: &Options) -> Result<Figures> {
    let sets = [Kind::Short, Kind::Mixed, Kind::Long].map(|kind| run.texts(kind));
    let [short, mixed, long] = sets;
    let (short, mixed, long) = (short?, mixed?, long?);
    let mut figures = Figures::default();
    for model in &run.models {
        let server = Server::start(model, &run.serve)?;
        let measuring = Measuring { run, options, model, server };
        for part in &options.parts {
            eprintln!("{} {part:?}", model.precision);
            match part {
                Part::Alone => {
                    let mut sessions = measuring.sessions()?;
                    for set in [&short, &mixed, &long] {
                        for (input, text) in set.samples() {
                            figures.alone.push(measuring.alone(&mut sessions, set.kind, input, text)?);
                        }
                    }
                }
                Part::Open => figures.open.push(measuring.open(&mixed)?),
                Part::BehindBulk => figures.behind_bulk.push(measuring.behind_bulk(&short, &long)?),
            }
        }
    }
    Ok(figures)
}

struct Measuring<'a> {
    run: &'a Run,
    options: &'a Options,
    model: &'a Model,
    server: Server,
}

impl Measuring<'_> {
    fn sessions(&self) -> Result<[SessionLoop; 3]> {
        let (run, directory, pooling) = (self.run, &self.model.version, self.model.manifest.pooling);
        let load = |threads, spin| run.sessions(directory, pooling, 1, threads, spin);
        Ok([load(1, false)?, load(run.cores, false)?, load(run.cores, true)?])
    }

    fn alone(
        &self,
        sessions: &mut [SessionLoop; 3],
        texts: Kind,
        input: &'static str,
        text: &Text,
    ) -> Result<Alone> {
        let mut blocks = Vec::new();
        for _ in 0..BLOCKS {
            let mut bare = [0.0; 3];
            for (bare, session) in bare.iter_mut().zip(sessions.iter_mut()) {
                *bare = session.latency(&text.ids, BLOCK)?;
            }
            blocks.push((bare, self.p50(text, BLOCK)?));
        }
        let sessions_ms =
            [0, 1, 2].map(|of| median(&blocks.iter().map(|block| block.0[of]).collect::<Vec<_>>()));
        let mut fastest = 0;
        for of in 1..3 {
            if sessions_ms[of] < sessions_ms[fastest] {
                fastest = of;
            }
        }
        let added: Vec<f64> = blocks.iter().map(|(bare, served)| served - bare[fastest]).collect();
        Ok(Alone {
            texts,
            precision: self.model.precision.clone(),
            input,
            tokens: text.ids.len(),
            sessions_ms,
            served_ms: median(&blocks.iter().map(|block| block.1).collect::<Vec<_>>()),
            added_ms: median(&added),
        })
    }

    /// The median latency of one client that sends `text` over and over for `time`, in milliseconds.
    fn p50(&self, text: &Text, time: Duration) -> Result<f64> {
        let pace = Pace::Closed { concurrency: 1 };
        let report = self.load(std::slice::from_ref(text), pace, Duration::from_millis(50), time)?;
        Ok(report.latency_ms.ok_or("no request was answered")?.p50)
    }

    fn load(&self, texts: &[Text], pace: Pace, warmup: Duration, duration: Duration) -> Result<Report> {
        let bounds = Bounds { warmup, duration, requests: u64::MAX, timeout: TIMEOUT };
        self.server.load(self.server.target()?, texts, pace, bounds)
    }

    fn open(&self, mixed: &TextSet) -> Result<Open> {
        let time = Duration::try_from_secs_f64(self.options.seconds)?;
        let [_, (_, longest)] = mixed.samples();
        let mut open = Open {
            precision: self.model.precision.clone(),
            requests_per_second: Vec::new(),
            p50_ms: Vec::new(),
            p99_ms: Vec::new(),
            longest_ms: Vec::new(),
            median_ratio: f64::NAN,
            errors: 0,
        };
        for round in 0..self.options.rounds {
            let warmup = Duration::from_secs(2);
            let saturated =
                self.load(&mixed.texts, Pace::Closed { concurrency: CLIENTS }, warmup, time / 3)?;
            open.longest_ms.push(self.p50(longest, time / 8)?);
            let rate = saturated.per_second.requests * SHARE;
            let pace = Pace::Open { rate, concurrency: 4096, seed: round as u64 };
            let report = self.load(&mixed.texts, pace, warmup, time)?;
            let latency = report.latency_ms.ok_or("no request was answered")?;
            open.requests_per_second.push(rate);
            open.p50_ms.push(latency.p50);
            open.p99_ms.push(latency.p99);
            open.errors += errors(&report) + report.requests.not_sent;
        }
        let ratios: Vec<f64> =
            open.p99_ms.iter().zip(&open.longest_ms).map(|(p99, longest)| p99 / longest).collect();
        open.median_ratio = median(&ratios);
        Ok(open)
    }

    fn behind_bulk(&self, short: &TextSet, long: &TextSet) -> Result<BehindBulk> {
        let time = Duration::try_from_secs_f64(self.options.seconds)?;
        let [(_, text), _] = short.samples();
        let [_, (_, longest)] = long.samples();
        let [mut bare, ..] = self.sessions()?;
        let (alone_ms, long_batch_ms) = (self.p50(text, time / 8)?, bare.latency(&longest.ids, time / 8)?);
        let mut behind = BehindBulk {
            precision: self.model.precision.clone(),
            alone_ms,
            long_batch_ms,
            bound_ms: 3.0 * alone_ms + long_batch_ms,
            p50_ms: Vec::new(),
            p99_ms: Vec::new(),
            errors: 0,
        };
        for seed in 0..self.options.rounds {
            let target = self.server.target()?;
            let bulk = target.clone().with_class(Some(Class::Bulk));
            let warmup = Duration::from_secs(2);
            let bounds = Bounds { warmup, duration: time, requests: u64::MAX, timeout: TIMEOUT };
            let closed = Pace::Closed { concurrency: CLIENTS };
            let open = Pace::Open { rate: SHORT_RATE, concurrency: CLIENTS, seed: seed as u64 };
            let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
            let (bulk, report) = runtime()?.block_on(async {
                let until = async { drop(stopped.await) };
                let bulk = self.server.loaded(bulk, &long.texts, closed, bounds, until);
                let interactive = async {
                    let never = std::future::pending();
                    let bounds = Bounds { duration: time.mul_f64(0.9), ..bounds };
                    let report = self.server.loaded(target, &short.texts, open, bounds, never).await;
                    drop(stop);
                    report
                };
                tokio::join!(bulk, interactive)
            });
            let (bulk, report) = (bulk?, report?);
            let latency = report.latency_ms.ok_or("no request was answered")?;
            behind.p50_ms.push(latency.p50);
            behind.p99_ms.push(latency.p99);
            behind.errors += errors(&report) + errors(&bulk);
        }
        Ok(behind)
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.alone.is_empty() {
            writeln!(
                f,
                "One client, one input, medians in ms; the bare session runs the same ids in turns with it"
            )?;
            writeln!(
                f,
                "{:6} {:5} {:8} {:>6} {:>9} {:>12} {:>9} {:>8} {:>8}",
                "texts", "", "input", "tokens", "1 thread", "all threads", "spinning", "served", "added"
            )?;
        }
        for Alone { texts, precision, input, tokens, sessions_ms: [one, all, spin], served_ms, added_ms } in
            &self.alone
        {
            let texts = texts.to_string();
            writeln!(
                f,
                "{texts:6} {precision:5} {input:8} {tokens:>6} {one:>9.2} {all:>12.2} {spin:>9.2} {served_ms:>8.2} \
                 {added_ms:>+8.2}"
            )?;
        }
        for row in &self.open {
            writeln!(
                f,
                "Open loop, mixed texts, {}: {:.0} requests/s, p50 {:.1} ms, p99 {:.1} ms, the longest input alone {:.1} ms: \
                 p99 / that {:.2} (medians), {} errors",
                row.precision,
                median(&row.requests_per_second),
                median(&row.p50_ms),
                median(&row.p99_ms),
                median(&row.longest_ms),
                row.median_ratio,
                row.errors
            )?;
        }
        for row in &self.behind_bulk {
            writeln!(
                f,
                "Short text behind long bulk, {}: p50 {:.1} ms, p99 {:.1} ms; alone {:.1} ms, a long batch {:.1} ms, bound \
                 {:.1} ms (medians), {} errors",
                row.precision,
                median(&row.p50_ms),
                median(&row.p99_ms),
                row.alone_ms,
                row.long_batch_ms,
                row.bound_ms,
                row.errors
            )?;
        }
        Ok(())
    }
}
