//! `sextant bench session`.

use std::fmt;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use clap::Args;
use rayon::prelude::*;
use serde::Serialize;

use super::LONGEST;
use crate::bench::input::read_texts;
use crate::bench::session::{Chosen, Hardware, Row, SessionLoop};
use crate::cli::arguments::{Execution, VersionName};
use crate::cli::cache::Versions;
use crate::cli::{Failure, print_line, progress, warn_line};
use crate::engine::{self, Backend, SessionOptions, Wanted, graph_path, load_sessions, topology};
use crate::repository::Fetched;
use crate::repository::manifest::{Manifest, Precision};
use crate::rollout::gate::check_weights;
use crate::tokenize::{InputError, Tokenizer, Truncate};

#[derive(Debug, Args)]
pub(in crate::cli) struct Session {
    /// The version, as minilm@2
    version: VersionName,
    #[command(flatten)]
    versions: Versions,
    /// Texts to run: one a line, or one JSON object with a `text` a line
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// How long to measure, once the batch size is chosen
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "10s")]
    duration: Duration,
    /// Sessions, which share the cores [default: one for each core; on a GPU as many as a server finds best]
    #[arg(long, value_name = "N")]
    sessions: Option<NonZeroUsize>,
    /// Measure for as long again how long one text of median length takes alone, on one of the sessions
    #[arg(long)]
    latency: bool,
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    execution: Execution,
}

#[derive(Debug, Serialize)]
struct Report {
    version: String,
    device: Vec<String>,
    precision: Precision,
    sessions: usize,
    /// Of each session.
    threads: usize,
    /// In the file.
    texts: usize,
    /// Of the texts that were run, again and again: a sample of them if they are many.
    rows: usize,
    batches: String,
    /// Real tokens that were run while measuring.
    tokens: usize,
    seconds: f64,
    tokens_per_second: f64,
    /// Processors that were busy meanwhile.
    processors: Option<f64>,
    latency_ms: Option<Latency>,
}

/// Of one row alone.
#[derive(Debug, Serialize)]
struct Latency {
    tokens: usize,
    p50: f64,
}

impl Session {
    pub(in crate::cli) fn run(self) -> Result<(), Failure> {
        if self.duration.is_zero() || self.duration > LONGEST {
            return Err(Failure::usage("--duration is more than 0 and at most 1h"));
        }
        let texts = read_texts(&self.input)?;
        let repository = self.versions.open()?;
        let VersionName { model, version } = &self.version;
        let fetch = async {
            let manifest = repository.manifest(model, *version).await?;
            let files = repository.fetch(&manifest).await?;
            Ok::<_, Failure>((manifest, files))
        };
        let (manifest, files) = tokio::runtime::Runtime::new()?.block_on(fetch)?;
        let report = self.measure(&manifest, &files, &texts)?;
        print_line(&if self.json { serde_json::to_string_pretty(&report)? } else { report.to_string() })
    }

    fn measure(&self, manifest: &Manifest, files: &Fetched, texts: &[String]) -> Result<Report, Failure> {
        let graph = graph_path(files);
        let refused = |reason| format!("{} cannot be loaded: {reason}", manifest.id());
        check_weights(&graph, manifest).map_err(|reason| Failure { message: refused(reason), code: 1 })?;
        let backend = self.execution.start()?;
        let hardware = if backend.devices.are_gpus() { Hardware::Gpu } else { Hardware::Cpu };
        let tokenizer = Tokenizer::load(&files.join("tokenizer.json"), manifest.max_tokens)?;
        let rows = tokenize(manifest, &tokenizer, texts)?;
        let (sessions, threads) = self.load(&backend, manifest, &graph, tokenizer.vocabulary())?;
        let mut sessions = SessionLoop::new(sessions);
        let count = sessions.count();
        let median = median_row(&rows);
        let rows = sessions.sample(rows, hardware)?;
        let chosen = try_batches(&mut sessions, &rows, hardware)?;
        let measured = sessions.measure(&chosen, self.duration)?;
        let latency_ms = match median.filter(|_| self.latency) {
            Some(row) => Some(Latency { tokens: row.len(), p50: sessions.latency(&row, self.duration)? }),
            None => None,
        };
        Ok(Report {
            version: manifest.id(),
            device: backend.devices.names(),
            precision: manifest.precision,
            sessions: count,
            threads,
            texts: texts.len(),
            rows: rows.len(),
            batches: chosen.batches.to_string(),
            tokens: measured.tokens,
            seconds: measured.seconds,
            tokens_per_second: measured.tokens_per_second(),
            processors: measured.processors,
            latency_ms,
        })
    }

    /// The sessions, and threads of each.
    fn load(
        &self,
        backend: &Backend,
        manifest: &Manifest,
        graph: &Path,
        vocabulary: usize,
    ) -> Result<(Vec<engine::Session>, usize), Failure> {
        let (pooling, max_tokens) = (manifest.pooling, manifest.max_tokens);
        let cores = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        if backend.devices.are_gpus() {
            // How many a GPU is to have, and which form of the graph is the fastest on it, is found as a server finds it.
            let wanted = Wanted { sessions: self.sessions, ..Wanted::measured(cores) };
            let chosen = topology::choose(backend, graph, pooling, vocabulary, max_tokens, wanted)?;
            return Ok((chosen.sessions, chosen.topology.threads.get()));
        }
        let count = self.sessions.unwrap_or(cores).get();
        let threads = (cores.get() / count).max(1);
        Ok((load_sessions(backend, graph, pooling, SessionOptions::cpu(threads, false), count)?, threads))
    }
}

/// The ids that a server makes of the texts, if requests name no prompt and no truncation.
fn tokenize(manifest: &Manifest, tokenizer: &Tokenizer, texts: &[String]) -> Result<Vec<Row>, Failure> {
    let prompt = manifest.default_prompt.as_ref().and_then(|name| manifest.prompts.get(name));
    let prompt = prompt.map_or("", String::as_str);
    let bar = progress::bar("Tokenizing", texts.len() as u64, false);
    let row = |text: &String| {
        let tokens = tokenizer.tokenize(&[prompt, text].concat(), Truncate::End)?;
        bar.inc(1);
        Ok(tokens.ids)
    };
    let rows = texts.par_iter().map(row).collect::<Result<Vec<Row>, InputError>>();
    bar.finish_and_clear();
    Ok(rows?)
}

fn try_batches(sessions: &mut SessionLoop, rows: &[Row], hardware: Hardware) -> Result<Chosen, Failure> {
    let bar = progress::bar("Trying batches", hardware.candidates().len() as u64, false);
    let chosen = sessions.choose(rows, hardware, |batches| {
        bar.set_message(format!("Trying batches of {batches}"));
        bar.inc(1);
    });
    bar.finish_and_clear();
    let chosen = chosen?;
    for (batches, error) in &chosen.failed {
        warn_line(format!("batches of {batches} cannot be run: {error}"));
    }
    Ok(chosen)
}

fn median_row(rows: &[Row]) -> Option<Row> {
    let mut sorted: Vec<&Row> = rows.iter().collect();
    sorted.sort_by_key(|row| row.len());
    sorted.get(sorted.len() / 2).map(|row| Row::clone(row))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, precision, sessions, threads, texts, rows, batches, tokens, seconds, .. } = self;
        let device = self.device.join(", ");
        writeln!(f, "version     {version}, {precision} on {device}")?;
        writeln!(f, "sessions    {sessions}, threads of each: {threads}")?;
        writeln!(f, "texts       {rows} of {texts}, sorted by length, in batches of {batches}")?;
        write!(f, "tokens/s    {:.0}: {tokens} tokens in {seconds:.1} s", self.tokens_per_second)?;
        if let Some(processors) = self.processors {
            write!(f, ", {processors:.2} processors busy")?;
        }
        if let Some(Latency { tokens, p50 }) = &self.latency_ms {
            write!(f, "\nlatency     {p50:.2} ms for {tokens} tokens alone (median)")?;
        }
        Ok(())
    }
}
