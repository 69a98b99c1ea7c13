//! Memory over very many requests of mixed lengths.

use std::fmt;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use sextant::bench::{Bounds, Pace};

use crate::server::{Server, TIMEOUT, errors, runtime};
use crate::texts::Kind;
use crate::{Result, Run};

const CLIENTS: usize = 64;
/// How often memory and the number of embeddings are read.
const SAMPLE: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Memory over very many requests
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How many requests
    #[arg(long, default_value_t = 1_000_000)]
    requests: u64,
    /// The memory after so many is what the rest is compared with
    #[arg(long, default_value_t = 10_000)]
    first: u64,
}

#[derive(Debug, Serialize)]
struct Row {
    precision: String,
    requests: u64,
    errors: u64,
    seconds: f64,
    memory_mb_first: f64,
    memory_mb_most: f64,
    memory_mb_end: f64,
    end_over_first: f64,
}

/// Everything that was found.
#[derive(Debug, Serialize)]
pub(crate) struct Figures {
    first: u64,
    rows: Vec<Row>,
}

pub(crate) fn measure(run: &Run, options: &Options) -> Result<Figures> {
    let mixed = run.texts(Kind::Mixed)?;
    let mut rows = Vec::new();
    for model in &run.models {
        let server = Server::start(model, &run.serve)?;
        let bounds =
            Bounds { warmup: Duration::ZERO, duration: DAY, requests: options.requests, timeout: TIMEOUT };
        let pace = Pace::Closed { concurrency: CLIENTS };
        let mut samples: Vec<(f64, f64)> = Vec::new();
        let report = runtime()?.block_on(async {
            let load =
                server.loaded(server.target()?, &mixed.texts, pace, bounds, std::future::pending());
            tokio::pin!(load);
            loop {
                tokio::select! {
                    report = &mut load => return report,
                    () = tokio::time::sleep(SAMPLE) => {
                        let done = server.metric("sextant_embeddings_total", "")?.0;
                        samples.push((done, server.memory()?));
                        if samples.len().is_multiple_of(60) {
                            eprintln!("{}: {done} answers, {:.0} MB", model.precision, server.memory()? / 1e6);
                        }
                    }
                }
            }
        })?;
        let end = server.memory()?;
        let first = samples.iter().find(|(done, _)| *done >= options.first as f64).map(|(_, memory)| *memory);
        let first = first.ok_or("too few requests for a comparison")?;
        rows.push(Row {
            precision: model.precision.clone(),
            requests: report.requests.answered,
            errors: errors(&report),
            seconds: report.seconds,
            memory_mb_first: first / 1e6,
            memory_mb_most: samples.iter().map(|(_, memory)| *memory).fold(end, f64::max) / 1e6,
            memory_mb_end: end / 1e6,
            end_over_first: end / first,
        });
    }
    Ok(Figures { first: options.first, rows })
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in &self.rows {
            writeln!(
                f,
                "{}: {} requests in {:.0} s, {} errors: {:.1} MB after {}, at most {:.1}, {:.1} at the end: {:.3}",
                row.precision,
                row.requests,
                row.seconds,
                row.errors,
                row.memory_mb_first,
                self.first,
                row.memory_mb_most,
                row.memory_mb_end,
                row.end_over_first
            )?;
        }
        Ok(())
    }
}
