//! What the server promises of speed and memory, measured on it: in one run beside the bare session, because the ratio
//! carries over from one machine to the next, and from a quiet hour to a busy one, as the speeds themselves do not.
//!
//! `cargo bench --bench server -- --help` lists the measurements; without one named, `saturation` is run.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark speaks to the terminal")]

mod client;
mod drift;
mod host;
mod latency;
mod models;
mod overload;
mod saturation;
mod server;
mod soak;
mod statistics;
mod swaps;
mod texts;
mod truth;

use std::error::Error;
use std::fmt::Display;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;

use clap::{Args, Parser, Subcommand};
use serde::Serialize;
use sextant::bench::session::SessionLoop;
use sextant::engine::{Backend, Pooling, Runtime, SessionOptions, graph_path, load_sessions};

use models::Model;
use texts::{Kind, TextSet};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Speed and memory of the server.
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Command {
    #[command(subcommand)]
    action: Option<Action>,
    /// Given by Cargo.
    #[arg(long, hide = true, global = true)]
    bench: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
struct Common {
    /// Which precisions
    #[arg(long, value_delimiter = ',', default_value = "fp32,int8", global = true)]
    precision: Vec<String>,
    /// A directory of imported models named as the precisions [default: imported now from .sextant/weights]
    #[arg(long, value_name = "DIRECTORY", global = true)]
    models: Option<PathBuf>,
    /// More arguments for `sextant serve`, as "--sessions 1 --threads 2"
    #[arg(long, value_name = "ARGUMENTS", default_value = "", allow_hyphen_values = true, global = true)]
    serve: String,
    /// The figures as JSON [default: server.json in Cargo's folder for temporary files]
    #[arg(long, value_name = "FILE", global = true)]
    json: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Action {
    #[command(flatten)]
    Measure(Measurement),
    /// The server that `host` measures
    #[command(hide = true)]
    ServeHost(host::serve::Options),
}

#[derive(Debug, Subcommand)]
enum Measurement {
    Saturation(saturation::Options),
    Latency(latency::Options),
    Overload(overload::Options),
    Soak(soak::Options),
    Swaps(swaps::Options),
    Truth(truth::Options),
    Drift(drift::Options),
    Host(host::Options),
}

/// What all measurements share.
struct Run {
    runtime: &'static Runtime,
    cores: usize,
    models: Vec<Model>,
    /// Arguments for the server.
    serve: String,
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(Command::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    let action = match command.action {
        Some(action) => action,
        None => Command::try_parse_from(["server", "saturation"])?.action.ok_or("no default")?,
    };
    let measurement = match action {
        Action::ServeHost(options) => return host::serve::run(&options),
        Action::Measure(measurement) => measurement,
    };
    let Common { precision, models, serve, json } = command.common;
    let directory = tempfile::Builder::new().prefix("sextant-bench-").tempdir()?;
    let prepare = |precision: &String| Model::prepare(precision, models.as_deref(), directory.path());
    let models = precision.iter().map(prepare).collect::<Result<Vec<_>>>()?;
    if models.is_empty() {
        return Err("--precision names none".into());
    }
    let runtime = Runtime::load(None)?;
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    println!("{cores} cores, {}", runtime.build());
    let run = Run { runtime, cores, models, serve, json };
    match measurement {
        Measurement::Saturation(options) => run.finish(&saturation::measure(&run, &options)?),
        Measurement::Latency(options) => run.finish(&latency::measure(&run, &options)?),
        Measurement::Overload(options) => run.finish(&overload::measure(&run, &options)?),
        Measurement::Soak(options) => run.finish(&soak::measure(&run, &options)?),
        Measurement::Swaps(options) => run.finish(&swaps::measure(&run, &options)?),
        Measurement::Truth(options) => run.finish(&truth::measure(&run, &options)?),
        Measurement::Drift(options) => run.finish(&drift::measure(&run, &options)?),
        Measurement::Host(options) => run.finish(&host::measure(&run, &options)?),
    }
}

impl Run {
    /// All precisions have the same tokenizer.
    fn texts(&self, kind: Kind) -> Result<TextSet> {
        TextSet::generate(kind, &self.models[0].tokenizer()?)
    }

    /// `count` bare sessions of the graph in `directory`.
    fn sessions(
        &self,
        directory: &Path,
        pooling: Pooling,
        count: usize,
        threads: usize,
        spin: bool,
    ) -> Result<SessionLoop> {
        let (backend, options) = (Backend::cpu(self.runtime), SessionOptions::cpu(threads, spin));
        let sessions = load_sessions(&backend, &graph_path(directory), pooling, options, count)?;
        Ok(SessionLoop::new(sessions))
    }

    fn finish(&self, figures: &(impl Display + Serialize)) -> Result<()> {
        println!("\n{figures}");
        let path = self.json.clone().unwrap_or_else(|| {
            let folder = option_env!("CARGO_TARGET_TMPDIR").map_or_else(std::env::temp_dir, PathBuf::from);
            folder.join("server.json")
        });
        std::fs::write(&path, serde_json::to_vec_pretty(figures)?)?;
        println!("as JSON: {}", path.display());
        Ok(())
    }
}
