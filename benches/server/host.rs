//! What a server costs the processor beside its engine: HTTP, JSON, tokenizing, the queue, vectors and their encoding.
//!
//! The engine gives constant vectors, at once or as fast as a device of some speed would, so on a GPU this is the processor's whole
//! part but for the copies to the device and back. The figure is processor time for each real token, of the server's process alone: the
//! load generator has other cores on a machine that serves, and shares these here.

pub(crate) mod serve;

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use sextant::bench::report::processor_time;
use sextant::bench::target::Encoding;
use sextant::bench::{Bounds, Pace};
use sextant::tokenize::Truncate;

use crate::server::{Server, TIMEOUT, errors, runtime};
use crate::statistics::{median, range};
use crate::texts::{Kind, TextSet};
use crate::{Result, Run};

/// Before each measurement.
const WARMUP: Duration = Duration::from_secs(1);
/// Of the machine that is extrapolated to.
const CORES: f64 = 16.0;
/// Texts that are tokenized for one figure, at least: the clock has steps of 10 ms.
const TOKENIZED: Duration = Duration::from_secs(1);

/// Processor time of a server whose engine costs nothing
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Which texts
    #[arg(long, value_enum, default_value = "mixed")]
    texts: Kind,
    /// How many clients
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// How many texts in a request
    #[arg(long, value_delimiter = ',', default_value = "32,1")]
    inputs: Vec<usize>,
    /// How fast the engine is in real tokens a second, 0: it answers at once and nothing waits
    #[arg(long, value_delimiter = ',', default_value = "0,100000")]
    speeds: Vec<f64>,
    /// The figures are medians over them
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long each measurement is
    #[arg(long, default_value_t = 4.0)]
    seconds: f64,
    /// Another build of this benchmark, whose server is measured in turns with this one's
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
}

/// Everything that was found.
#[derive(Debug, Serialize)]
pub(crate) struct Figures {
    texts: Kind,
    clients: usize,
    /// Of a million real tokens on one thread, the tokenizer alone: processor seconds of each round.
    tokenizer: Vec<f64>,
    rows: Vec<Row>,
}

/// All rounds of one configuration.
#[derive(Debug, Serialize)]
struct Row {
    inputs_per_request: usize,
    /// Of the engine, tokens a second; 0: at once.
    speed: f64,
    rounds: Vec<Cost>,
    /// Of the other build.
    against: Vec<Cost>,
    errors: u64,
}

/// Processor seconds for a million real tokens.
#[derive(Debug, Clone, Copy, Serialize)]
struct Cost {
    all: f64,
    /// Of these in the kernel.
    system: f64,
    /// Of these on the threads that tokenize; short requests are tokenized where they arrive.
    tokenizing_threads: f64,
    /// Real tokens a second that were reached while the generator used the same cores.
    tokens_per_second: f64,
}

/// What a process has used, in seconds.
struct Used {
    user: f64,
    system: f64,
    tokenizing_threads: f64,
}

pub(crate) fn measure(run: &Run, options: &Options) -> Result<Figures> {
    let set = run.texts(options.texts)?;
    println!("\n{set}");
    let model = &run.models[0];
    let program = std::env::current_exe()?;
    let programs: Vec<&PathBuf> = std::iter::once(&program).chain(&options.against).collect();
    let mut rows = Vec::new();
    for &inputs_per_request in &options.inputs {
        for &speed in &options.speeds {
            let row = Row { inputs_per_request, speed, rounds: Vec::new(), against: Vec::new(), errors: 0 };
            rows.push(row);
        }
    }
    let mut tokenizer = Vec::new();
    for round in 1..=options.rounds {
        tokenizer.push(tokenize(run, &set)?);
        for row in &mut rows {
            // Each comes first as often as the other.
            let turns: Vec<usize> = match (programs.len(), round % 2) {
                (1, _) => vec![0],
                (_, 0) => vec![1, 0],
                _ => vec![0, 1],
            };
            for turn in turns {
                let command = serve::command(programs[turn], &model.version, row.speed);
                let server = Server::spawn(command, &model.manifest.model)?;
                let (cost, failed) = load(&server, &set, options, row.inputs_per_request)?;
                let (inputs, speed, Cost { all, tokens_per_second, .. }) =
                    (row.inputs_per_request, row.speed, cost);
                let build = if turn == 0 { "" } else { ", the other build" };
                eprintln!(
                    "round {round}: {inputs} inputs, engine {speed:.0}{build}: {all:.3} s/M at {tokens_per_second:.0} tokens/s"
                );
                if turn == 0 { &mut row.rounds } else { &mut row.against }.push(cost);
                row.errors += failed;
            }
        }
    }
    Ok(Figures { texts: options.texts, clients: options.clients, tokenizer, rows })
}

/// Processor seconds for a million tokens of the tokenizer, on one thread.
fn tokenize(run: &Run, set: &TextSet) -> Result<f64> {
    let tokenizer = run.models[0].tokenizer()?;
    let now = || processor_time().ok_or("the system does not say what processor time was used");
    let (before, mut tokens) = (now()?, 0);
    for texts in set.texts.chunks(1024).cycle() {
        for text in texts {
            tokens += tokenizer.tokenize(&text.text, Truncate::End)?.ids.len();
        }
        if now()? - before >= TOKENIZED {
            break;
        }
    }
    Ok((now()? - before).as_secs_f64() / tokens as f64 * 1e6)
}

/// The server under clients of this process, and answers that were no vectors.
fn load(server: &Server, set: &TextSet, options: &Options, inputs: usize) -> Result<(Cost, u64)> {
    let duration = Duration::try_from_secs_f64(options.seconds)?;
    let bounds = Bounds { warmup: WARMUP, duration, requests: u64::MAX, timeout: TIMEOUT };
    let target = server.target()?.with_inputs(inputs).with_encoding(Encoding::Base64);
    let pace = Pace::Closed { concurrency: options.clients };
    let now = || Ok::<_, Box<dyn std::error::Error>>((server.tokens()?, Used::by(server.process())?));
    let (report, counted) = runtime()?.block_on(async {
        let mut counted = None;
        let counter = async {
            tokio::time::sleep(WARMUP).await;
            let before = now();
            tokio::time::sleep(duration.mul_f64(0.95)).await;
            counted = Some((before, now()));
        };
        let report = server.loaded(target, &set.texts, pace, bounds, counter).await?;
        Ok::<_, Box<dyn std::error::Error>>((report, counted))
    })?;
    let Some((before, after)) = counted else { return Err("the load ended before its time".into()) };
    let (((tokens, at), before), ((more, then), after)) = (before?, after?);
    let tokens = more - tokens;
    let of = |of: fn(&Used) -> f64| (of(&after) - of(&before)) / tokens * 1e6;
    let cost = Cost {
        all: of(|used| used.user + used.system),
        system: of(|used| used.system),
        tokenizing_threads: of(|used| used.tokenizing_threads),
        tokens_per_second: tokens / (then - at).as_secs_f64(),
    };
    Ok((cost, errors(&report)))
}

impl Used {
    fn by(process: u32) -> Result<Self> {
        let (_, user, system) = times(&format!("/proc/{process}/stat"))?;
        let mut tokenizing_threads = 0.0;
        for thread in fs::read_dir(format!("/proc/{process}/task"))? {
            // Threads come and go; those that tokenize stay.
            let Ok((name, user, system)) = times(&thread?.path().join("stat").display().to_string()) else {
                continue;
            };
            if name.starts_with("tokenize-") {
                tokenizing_threads += user + system;
            }
        }
        Ok(Self { user, system, tokenizing_threads })
    }
}

/// Name, user and system time in seconds, out of the `stat` file of a process or a thread.
fn times(path: &str) -> Result<(String, f64, f64)> {
    let stat = fs::read_to_string(path)?;
    let unreadable = || format!("{path}: not as it should be: {stat}");
    let (name, fields) =
        stat.split_once('(').and_then(|(_, rest)| rest.rsplit_once(')')).ok_or_else(unreadable)?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    // Fields 14 and 15 of the file, in hundredths of a second on every Linux.
    let seconds = |field: usize| Some(fields.get(field)?.parse::<f64>().ok()? / 100.0);
    let (user, system) = seconds(11).zip(seconds(12)).ok_or_else(unreadable)?;
    Ok((name.to_owned(), user, system))
}

impl Row {
    /// This build's costs over the other's, round by round.
    fn ratios(&self) -> Vec<f64> {
        self.rounds.iter().zip(&self.against).map(|(this, other)| this.all / other.all).collect()
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (least, most) = range(&self.tokenizer);
        writeln!(
            f,
            "the tokenizer alone, one thread: {:.3} s for a million tokens ({least:.3}..{most:.3})",
            median(&self.tokenizer)
        )?;
        for row in &self.rows {
            let of = |of: fn(&Cost) -> f64| median(&row.rounds.iter().map(of).collect::<Vec<_>>());
            let all = of(|cost| cost.all);
            let (least, most) = range(&row.rounds.iter().map(|cost| cost.all).collect::<Vec<_>>());
            let engine =
                if row.speed > 0.0 { format!("{:.0} tokens/s", row.speed) } else { "at once".to_owned() };
            writeln!(
                f,
                "{} clients x {}, engine {engine}: {all:.3} s for a million tokens ({least:.3}..{most:.3}), of it {:.3} in the kernel, \
                 {:.3} on tokenizing threads; {:.0} tokens/s reached; by that at most {:.0} tokens/s on {CORES:.0} cores",
                self.clients,
                row.inputs_per_request,
                of(|cost| cost.system),
                of(|cost| cost.tokenizing_threads),
                of(|cost| cost.tokens_per_second),
                CORES * 1e6 / all
            )?;
            if !row.against.is_empty() {
                let (least, most) = range(&row.ratios());
                writeln!(
                    f,
                    "       over the other build: {:.3} ({least:.3}..{most:.3})",
                    median(&row.ratios())
                )?;
            }
            if row.errors > 0 {
                writeln!(f, "       {} requests of these FAILED: not a figure", row.errors)?;
            }
        }
        Ok(())
    }
}
