//! How much of the runtime's own speed reaches a client: the raw session loop and the whole server, on the same texts, in
//! turns, in one run. The ratio is the figure: it carries over from one machine to the next, and from a quiet hour to a
//! busy one, as the speeds themselves do not.
//!
//! *Raw*: as many threads as there are cores, each with its own session of one thread, take batches of token ids that were
//! sorted by length, of the best of several sizes. No queue, no tokenizing, no HTTP. *Served*: `sextant serve` in a process
//! of its own, under closed-loop clients of `sextant::bench` in this one, which share its cores.
//!
//! `cargo bench --bench ceiling -- --help` lists what can be left out of a run.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark speaks to the terminal")]

mod figures;
mod models;
mod raw;
mod served;
mod texts;

use std::error::Error;
use std::num::NonZero;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use clap::Parser;
use sextant::engine::Runtime;

use figures::{Figures, Latency, Row};
use models::Model;
use raw::Raw;
use served::Served;
use texts::{Kind, Text, TextSet};

/// Of each measurement of the latency, at most.
const LATENCY: Duration = Duration::from_secs(3);

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The server's speed beside the raw session loop's.
#[derive(Debug, Parser)]
struct Options {
    /// Which texts
    #[arg(long, value_enum, value_delimiter = ',', default_value = "short,mixed,long")]
    texts: Vec<Kind>,
    /// Which precisions
    #[arg(long, value_delimiter = ',', default_value = "fp32,int8")]
    precision: Vec<String>,
    /// How many clients
    #[arg(long, value_delimiter = ',', default_value = "64,256")]
    clients: Vec<usize>,
    /// How many texts in a request
    #[arg(long, value_delimiter = ',', default_value = "1,32")]
    inputs: Vec<usize>,
    /// Turns of raw and served; the figures are medians over them
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long each measurement is
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Requests of the one-client latency; 0 leaves it out
    #[arg(long, default_value_t = 200)]
    latency_requests: u64,
    /// A directory of imported models named as the precisions [default: imported now from .sextant/weights]
    #[arg(long, value_name = "DIRECTORY")]
    models: Option<PathBuf>,
    /// A directory with a padded export, model.onnx, to compare the raw loop with
    #[arg(long, value_name = "DIRECTORY")]
    padded: Option<PathBuf>,
    /// More arguments for `sextant serve`, as "--sessions 1 --threads 2"
    #[arg(long, value_name = "ARGUMENTS", default_value = "", allow_hyphen_values = true)]
    serve: String,
    /// The figures as JSON [default: ceiling.json in Cargo's folder for temporary files]
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Given by Cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    let runtime = Runtime::load(None)?;
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let directory = tempfile::Builder::new().prefix("sextant-ceiling-").tempdir()?;
    let models = options
        .precision
        .iter()
        .map(|precision| Model::prepare(precision, options.models.as_deref(), directory.path()))
        .collect::<Result<Vec<_>>>()?;
    let run = Run { options, runtime, cores, models };
    let mut figures = Figures::new(cores, runtime.build(), options.rounds, options.seconds);
    for &kind in &options.texts {
        run.texts(kind, &mut figures)?;
    }
    println!("\n{figures}");
    let path = options.json.clone().unwrap_or_else(|| {
        let folder = option_env!("CARGO_TARGET_TMPDIR").map_or_else(std::env::temp_dir, PathBuf::from);
        folder.join("ceiling.json")
    });
    std::fs::write(&path, serde_json::to_vec_pretty(&figures)?)?;
    println!("as JSON: {}", path.display());
    Ok(())
}

/// What all measurements share.
struct Run<'a> {
    options: &'a Options,
    runtime: &'static Runtime,
    cores: usize,
    models: Vec<Model>,
}

impl Run<'_> {
    /// Everything that is measured on one set of texts.
    fn texts(&self, kind: Kind, figures: &mut Figures) -> Result<()> {
        let Some(model) = self.models.first() else { return Ok(()) };
        // All precisions have the same tokenizer.
        let set = TextSet::generate(kind, &model.tokenizer()?)?;
        println!("\n{set}");
        let mut loops = self
            .models
            .iter()
            .map(|model| self.raw_loop(model, &set, figures))
            .collect::<Result<Vec<_>>>()?;
        let first = figures.rows.len();
        for round in 1..=self.options.rounds {
            for (model, raw) in self.models.iter().zip(&mut loops) {
                self.round(round, model, raw, &set, &mut figures.rows, first)?;
            }
        }
        if self.options.latency_requests > 0 {
            for (model, raw) in self.models.iter().zip(&mut loops) {
                figures.latencies.extend(self.latencies(model, raw, &set)?);
            }
        }
        figures.texts.push(set.summary());
        Ok(())
    }

    /// The raw loop at its best.
    fn raw_loop(&self, model: &Model, set: &TextSet, figures: &mut Figures) -> Result<Raw> {
        let pooling = model.manifest.pooling;
        let mut raw = Raw::load(self.runtime, &model.version, pooling, self.cores)?;
        let best = raw.choose_batches(set, true)?;
        println!(
            "{}: the raw loop is fastest on batches of {}: {best:.0} tokens/s",
            model.precision,
            raw.batches()
        );
        if let Some(directory) = &self.options.padded {
            let mut padded = Raw::load(self.runtime, directory, pooling, self.cores)?;
            let speed = padded.choose_batches(set, false)?;
            println!("padded export, on batches of {}: {speed:.0} tokens/s", padded.batches());
            figures.padded(set.kind, &model.precision, speed, best);
        }
        Ok(raw)
    }

    /// Each configuration of one model once; their rows are those from `first` on.
    fn round(
        &self,
        round: usize,
        model: &Model,
        raw: &mut Raw,
        set: &TextSet,
        rows: &mut Vec<Row>,
        first: usize,
    ) -> Result<()> {
        let options = self.options;
        let measured = Duration::try_from_secs_f64(options.seconds)?;
        for &clients in &options.clients {
            for &inputs in &options.inputs {
                // Each time: a machine that others use as well is not the same for long.
                let unserved = raw.measure(measured / 2)?;
                let served = Served::measure(model, set, clients, inputs, measured, &options.serve)?;
                eprintln!(
                    "round {round}: {} {}, {clients} clients x {inputs}: {:.0} of {:.0} tokens/s = {:.3}",
                    set.kind,
                    model.precision,
                    served.tokens_per_second,
                    unserved.tokens_per_second,
                    served.tokens_per_second / unserved.tokens_per_second
                );
                let key = (set.kind, model.precision.as_str(), clients, inputs);
                let known = rows[first..].iter().position(|row| row.key() == key);
                let index = known.map_or(rows.len(), |known| first + known);
                if known.is_none() {
                    rows.push(Row::new(key, raw.batches().to_string()));
                }
                rows[index].add(&unserved, &served);
            }
        }
        Ok(())
    }

    fn latencies(&self, model: &Model, raw: &mut Raw, set: &TextSet) -> Result<Vec<Latency>> {
        let (pooling, requests) = (model.manifest.pooling, self.options.latency_requests);
        let of = |(name, text): (&'static str, &Text)| {
            let one = raw.latency(&text.ids, requests, LATENCY)?;
            let served = Served::latency(model, text, requests, LATENCY, &self.options.serve)?;
            let all = Raw::load_one(self.runtime, &model.version, pooling, self.cores)?
                .latency(&text.ids, requests, LATENCY)?;
            Ok(Latency::new(set.kind, &model.precision, name, text.ids.len(), [one, all, served]))
        };
        set.samples().into_iter().map(of).collect()
    }
}
