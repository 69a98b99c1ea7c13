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
use texts::{Kind, TextSet};

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
    #[arg(long, default_value_t = 150)]
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
    let measured = Duration::try_from_secs_f64(options.seconds)?;
    let directory = tempfile::Builder::new().prefix("sextant-ceiling-").tempdir()?;
    let models = options
        .precision
        .iter()
        .map(|precision| Model::prepare(precision, options.models.as_deref(), directory.path()))
        .collect::<Result<Vec<_>>>()?;
    let mut figures = Figures::new(cores, runtime.build(), options.rounds, options.seconds);

    for &kind in &options.texts {
        let Some(model) = models.first() else { break };
        // All precisions have the same tokenizer.
        let set = TextSet::generate(kind, &model.tokenizer()?)?;
        println!("\n{set}");
        let mut loops = Vec::new();
        for model in &models {
            let mut raw = Raw::load(runtime, &model.version, model.manifest.pooling, cores)?;
            raw.choose_batches(&set, true)?;
            println!("{}: raw loop, packed, is fastest on batches of {}", model.precision, raw.batches());
            if let Some(directory) = &options.padded {
                let mut padded = Raw::load(runtime, directory, model.manifest.pooling, cores)?;
                let speed = padded.choose_batches(&set, false)?;
                let (batches, best) = (padded.batches(), raw.speed());
                println!("padded export: {speed:.0} tokens/s on batches of {batches}; packed: {best:.0}");
                figures.padded(kind, &model.precision, speed, best);
            }
            loops.push(raw);
        }
        let mut rows: Vec<Row> = Vec::new();
        for round in 1..=options.rounds {
            for (model, raw) in models.iter().zip(&mut loops) {
                let unserved = raw.measure(measured)?;
                for (&clients, &inputs) in
                    options.clients.iter().flat_map(|c| options.inputs.iter().map(move |i| (c, i)))
                {
                    let served = Served::measure(model, &set, clients, inputs, measured, &options.serve)?;
                    eprintln!(
                        "round {round}: {kind} {}, {clients} clients x {inputs}: {:.0} of {unserved:.0} tokens/s = {:.3}",
                        model.precision,
                        served.tokens_per_second,
                        served.tokens_per_second / unserved
                    );
                    let key = (kind, model.precision.as_str(), clients, inputs);
                    let index = rows.iter().position(|row| row.key() == key).unwrap_or_else(|| {
                        rows.push(Row::new(key, raw.batches().to_string()));
                        rows.len() - 1
                    });
                    rows[index].add(unserved, &served);
                }
            }
        }
        figures.rows.extend(rows);
        if options.latency_requests > 0 {
            for (model, raw) in models.iter().zip(&mut loops) {
                for (length, text) in set.samples() {
                    let bare = raw.latency(&text.ids, options.latency_requests)?;
                    let all = Raw::load_one(runtime, &model.version, model.manifest.pooling, cores)?
                        .latency(&text.ids, options.latency_requests)?;
                    let served = Served::latency(model, text, options.latency_requests, &options.serve)?;
                    figures.latencies.push(Latency::new(
                        kind,
                        &model.precision,
                        length,
                        text.ids.len(),
                        [bare, all, served],
                    ));
                }
            }
        }
        figures.texts.push(set.summary());
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
