//! What watching for drift costs: the same server with a reference and without one, in turns.

use std::fmt;
use std::fs;
use std::process::Stdio;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use sextant::bench::{Bounds, Pace};

use crate::models::{Model, sextant};
use crate::server::{Server, TIMEOUT, errors};
use crate::statistics::{median, range};
use crate::texts::{Kind, TextSet};
use crate::{Result, Run};

const CLIENTS: usize = 64;
const WARMUP: Duration = Duration::from_secs(1);
/// Texts that the reference is fitted on.
const FITTED: usize = 6_000;

/// Throughput with drift watched over that without
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Turns of without, with, with and without; the figures are medians over them
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long each measurement is
    #[arg(long, default_value_t = 8.0)]
    seconds: f64,
    /// Which texts
    #[arg(long, value_enum, default_value = "mixed")]
    texts: Kind,
}

/// Everything that was found.
#[derive(Debug, Serialize)]
pub(crate) struct Figures {
    texts: Kind,
    rows: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    precision: String,
    /// Real tokens a second.
    with: Vec<f64>,
    without: Vec<f64>,
    /// With over without, of each round.
    ratios: Vec<f64>,
    median_ratio: f64,
    /// Vectors that counted, in all.
    observed: f64,
    /// Drawn, and no room for them.
    dropped: f64,
    /// Microseconds of processor time for each.
    microseconds_each: f64,
    errors: u64,
}

pub(crate) fn measure(run: &Run, options: &Options) -> Result<Figures> {
    let set = run.texts(options.texts)?;
    println!("\n{set}");
    // Measured anew by each server, it might be another, and the two would differ by that.
    let topology = format!("--sessions {} --threads 1 --lone-threads 0 --max-batch-tokens 256", run.cores);
    let arguments = format!("{topology} {}", run.serve);
    let mut rows = Vec::new();
    for model in &run.models {
        let without = Server::start(model, &arguments)?;
        let directory = tempfile::Builder::new().prefix("sextant-drift-").tempdir()?;
        let watched = watched(model, &set, directory.path())?;
        let with = Server::start(&watched, &arguments)?;
        let mut row = Row {
            precision: model.precision.clone(),
            with: Vec::new(),
            without: Vec::new(),
            ratios: Vec::new(),
            median_ratio: f64::NAN,
            observed: 0.0,
            dropped: 0.0,
            microseconds_each: 0.0,
            errors: 0,
        };
        for round in 1..=options.rounds {
            // Whatever comes later finds a warmer machine: each comes as early as the other.
            let (mut of_with, mut of_without) = (0.0, 0.0);
            for is_with in [false, true, true, false] {
                let (tokens, failed) = load(if is_with { &with } else { &without }, &set, options)?;
                *(if is_with { &mut of_with } else { &mut of_without }) += tokens / 2.0;
                row.errors += failed;
            }
            eprintln!("round {round}: {} with / without = {:.4}", row.precision, of_with / of_without);
            row.ratios.push(of_with / of_without);
            row.with.push(of_with);
            row.without.push(of_without);
        }
        row.median_ratio = median(&row.ratios);
        row.observed = with.metric("sextant_drift_samples_total", "")?.0;
        row.dropped = with.metric("sextant_drift_dropped_total", "")?.0;
        row.microseconds_each = with.metric("sextant_drift_seconds_total", "")?.0 / row.observed * 1e6;
        rows.push(row);
    }
    Ok(Figures { texts: options.texts, rows })
}

/// Real tokens a second at saturation, and answers that were no vectors.
fn load(server: &Server, set: &TextSet, options: &Options) -> Result<(f64, u64)> {
    server.wait_until_idle()?;
    let duration = Duration::try_from_secs_f64(options.seconds)?;
    let bounds = Bounds { warmup: WARMUP, duration, requests: u64::MAX, timeout: TIMEOUT };
    let report = server.load(server.target()?, &set.texts, Pace::Closed { concurrency: CLIENTS }, bounds)?;
    Ok((report.per_second.tokens.unwrap_or(0.0), errors(&report)))
}

/// A copy of the model below `directory` with a reference fitted on the texts.
fn watched(model: &Model, set: &TextSet, directory: &std::path::Path) -> Result<Model> {
    let name = model.precision.as_str();
    let watched = Model::prepare(name, Some(&model.repository), directory)?;
    let input = directory.join("texts");
    let lines = set.texts.iter().take(FITTED).map(|text| text.text.as_str());
    fs::write(&input, lines.collect::<Vec<_>>().join("\n"))?;
    let status = sextant()
        .args(["drift", "fit", &format!("{name}@1"), "--json", "--input"])
        .arg(&input)
        .arg("--models")
        .arg(&watched.repository)
        .stdout(Stdio::null())
        .status()?;
    if status.success() { Ok(watched) } else { Err("no reference was fitted".into()) }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in &self.rows {
            let (least, most) = range(&row.ratios);
            writeln!(
                f,
                "{} {}: with drift {:.0} tokens/s, without {:.0}: {:.4} ({least:.4}..{most:.4}); {} vectors at {:.0} us, {} dropped",
                self.texts,
                row.precision,
                median(&row.with),
                median(&row.without),
                row.median_ratio,
                row.observed,
                row.microseconds_each,
                row.dropped
            )?;
            if row.errors > 0 {
                writeln!(f, "       {} requests of these FAILED: not a figure", row.errors)?;
            }
        }
        Ok(())
    }
}
