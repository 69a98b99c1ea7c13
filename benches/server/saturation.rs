//! How much of the runtime's own speed reaches many clients: the raw session loop and the whole server, on the same texts,
//! in turns.
//!
//! *Raw*: as many threads as there are cores, each with its own session of one thread, take batches of token ids that were
//! sorted by length, of the best of several sizes. No queue, no tokenizing, no HTTP. *Served*: `sextant serve` in a process
//! of its own, under closed-loop clients of `sextant::bench` in this one, which share its cores.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use sextant::bench::session::{Chosen, Hardware, SessionLoop};
use sextant::bench::{Bounds, Pace};
use sextant::engine::Pooling;

use crate::server::{Server, TIMEOUT, errors, runtime};
use crate::statistics::{median, range};
use crate::texts::{Kind, Summary, TextSet};
use crate::{Result, Run};

/// A raw loop that gets less of the processors than this was not alone.
const UNDISTURBED: f64 = 0.95;
/// 256 requests of 32 long texts are 1.2 million tokens in flight: refusing some of them is another measurement.
const QUEUE: &str = "--max-queue-tokens 4000000";
/// Before each measurement.
const WARMUP: Duration = Duration::from_secs(1);
/// And for each token in flight: at first all clients' texts come at once, and tokenizing them competes with the sessions for
/// as long as it takes. Afterwards it comes and goes with the answers.
const WARMUP_PER_TOKEN: Duration = Duration::from_micros(8);

/// The server's speed at saturation over the raw session loop's
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Which texts
    #[arg(long, value_enum, value_delimiter = ',', default_value = "short,mixed,long")]
    texts: Vec<Kind>,
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
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// A directory with a padded export, model.onnx, to compare the raw loop with
    #[arg(long, value_name = "DIRECTORY")]
    padded: Option<PathBuf>,
}

/// The raw loop, with the batches that suit it best.
struct Raw {
    sessions: SessionLoop,
    chosen: Chosen,
}

/// What one measurement of the raw loop gave.
struct Unserved {
    /// Real tokens.
    tokens_per_second: f64,
    /// Processor time that its threads got, of what they could use.
    got: f64,
}

/// What one measurement of the server gave.
struct Served {
    /// Real tokens.
    tokens_per_second: f64,
    /// Whether these were counted from the answers, or read from the server's own counter.
    from_answers: bool,
    /// Of a core.
    generator_share: f64,
    /// Milliseconds; of what was answered while measuring.
    p50: Option<f64>,
    /// Answers that were no vectors, and requests without one.
    errors: u64,
}

/// What a configuration is told apart by: texts, precision, clients, inputs of a request.
type Key<'a> = (Kind, &'a str, usize, usize);

/// All rounds of one configuration. Speeds in real tokens per second.
#[derive(Debug, Serialize)]
struct Row {
    texts: Kind,
    precision: String,
    clients: usize,
    inputs_per_request: usize,
    raw_batches: String,
    raw: Vec<f64>,
    served: Vec<f64>,
    ratios: Vec<f64>,
    median_ratio: f64,
    /// Counted from the answers; if not, read from the server's counter.
    from_answers: bool,
    p50_ms: Vec<f64>,
    generator_share_of_a_core: f64,
    /// The least share of the processors that the raw loop got.
    raw_got: f64,
    errors: u64,
}

/// The raw loop on a padded export beside the packed graph.
#[derive(Debug, Serialize)]
struct Padded {
    texts: Kind,
    precision: String,
    padded: f64,
    packed: f64,
}

/// Everything that was found.
#[derive(Debug, Serialize)]
pub(crate) struct Figures {
    rounds: usize,
    seconds: f64,
    texts: Vec<Summary>,
    rows: Vec<Row>,
    /// `None`: not measured, no export was given.
    padded: Option<Vec<Padded>>,
}

pub(crate) fn measure(run: &Run, options: &Options) -> Result<Figures> {
    let arguments = format!("{QUEUE} {}", run.serve);
    let servers = run.models.iter().map(|model| Server::start(model, &arguments));
    let servers = servers.collect::<Result<Vec<_>>>()?;
    let mut figures = Figures {
        rounds: options.rounds,
        seconds: options.seconds,
        texts: Vec::new(),
        rows: Vec::new(),
        padded: None,
    };
    for &kind in &options.texts {
        let set = run.texts(kind)?;
        println!("\n{set}");
        let mut raw = Vec::new();
        for model in &run.models {
            raw.push(raw_loop(run, options, model, &set, &mut figures)?);
        }
        for round in 1..=options.rounds {
            for ((model, server), raw) in run.models.iter().zip(&servers).zip(&mut raw) {
                for &clients in &options.clients {
                    for &inputs in &options.inputs {
                        let key = (kind, model.precision.as_str(), clients, inputs);
                        figures.add(round, key, measure_one(server, raw, &set, key, options.seconds)?);
                    }
                }
            }
        }
        figures.texts.push(set.summary());
    }
    Ok(figures)
}

impl Raw {
    /// As many sessions of one thread as there are cores.
    fn load(run: &Run, directory: &Path, pooling: Pooling, set: &TextSet) -> Result<Self> {
        let mut sessions = run.sessions(directory, pooling, run.cores, 1, false)?;
        let chosen = sessions.choose(&set.for_raw(), Hardware::Cpu, |_| ())?;
        match chosen.failed.first() {
            Some((batches, error)) => Err(format!("batches of {batches} cannot be run: {error}").into()),
            None => Ok(Self { sessions, chosen }),
        }
    }

    fn measure(&mut self, time: Duration) -> Result<Unserved> {
        let measured = self.sessions.measure(&self.chosen, time)?;
        let processors = self.sessions.count() as f64;
        Ok(Unserved {
            tokens_per_second: measured.tokens_per_second(),
            got: measured.processors.map_or(1.0, |busy| busy / processors),
        })
    }
}

/// The raw loop at its best.
fn raw_loop(
    run: &Run,
    options: &Options,
    model: &crate::models::Model,
    set: &TextSet,
    figures: &mut Figures,
) -> Result<Raw> {
    let pooling = model.manifest.pooling;
    let raw = Raw::load(run, &model.version, pooling, set)?;
    let (precision, packed) = (model.precision.clone(), raw.chosen.tokens_per_second);
    println!(
        "{precision}: the raw loop is fastest on batches of {}: {packed:.0} tokens/s",
        raw.chosen.batches
    );
    if let Some(directory) = &options.padded {
        let Chosen { batches, tokens_per_second: padded, .. } =
            Raw::load(run, directory, pooling, set)?.chosen;
        println!("padded export, on batches of {batches}: {padded:.0} tokens/s");
        let entry = Padded { texts: set.kind, precision, padded, packed };
        figures.padded.get_or_insert_default().push(entry);
    }
    Ok(raw)
}

/// The raw loop right before the server each time: a machine that others use as well is not the same for long.
fn measure_one(
    server: &Server,
    raw: &mut Raw,
    set: &TextSet,
    (_, _, clients, inputs): Key<'_>,
    seconds: f64,
) -> Result<(String, Unserved, Served)> {
    let time = Duration::try_from_secs_f64(seconds)?;
    server.wait_until_idle()?;
    let unserved = raw.measure(time / 2)?;
    let in_flight = (clients * inputs) as f64 * set.mean_tokens();
    let warmup = WARMUP + WARMUP_PER_TOKEN.mul_f64(in_flight);
    let target = server.target()?.with_inputs(inputs);
    let bounds = Bounds { warmup, duration: time, requests: u64::MAX, timeout: TIMEOUT };
    let pace = Pace::Closed { concurrency: clients };
    let (report, counted) = runtime()?.block_on(async {
        let mut counted = None;
        let counter = async {
            tokio::time::sleep(warmup).await;
            let before = server.tokens();
            tokio::time::sleep(time).await;
            counted = Some((before, server.tokens()));
        };
        let report = server.loaded(target, &set.texts, pace, bounds, counter).await?;
        Ok::<_, Box<dyn std::error::Error>>((report, counted))
    })?;
    let Some((before, after)) = counted else { return Err("the load ended before its time".into()) };
    let ((before, at), (after, then)) = (before?, after?);
    let by_server = (after - before) / (then - at).as_secs_f64();
    // With this much in flight few requests are both sent and answered in the time, and which ones is chance.
    let few = in_flight > by_server * time.as_secs_f64() / 4.0;
    let from_answers = report.per_second.tokens.unwrap_or(0.0);
    let served = Served {
        tokens_per_second: if few { by_server } else { from_answers },
        from_answers: !few,
        generator_share: report.generator.processor_share.unwrap_or(0.0),
        p50: report.latency_ms.map(|latency| latency.p50),
        errors: errors(&report),
    };
    Ok((raw.chosen.batches.to_string(), unserved, served))
}

impl Row {
    fn new((texts, precision, clients, inputs): Key<'_>, raw_batches: String) -> Self {
        Self {
            texts,
            precision: precision.to_owned(),
            clients,
            inputs_per_request: inputs,
            raw_batches,
            raw: Vec::new(),
            served: Vec::new(),
            ratios: Vec::new(),
            median_ratio: 0.0,
            from_answers: true,
            p50_ms: Vec::new(),
            generator_share_of_a_core: 0.0,
            raw_got: 1.0,
            errors: 0,
        }
    }

    fn key(&self) -> Key<'_> {
        (self.texts, &self.precision, self.clients, self.inputs_per_request)
    }

    fn add(&mut self, raw: &Unserved, served: &Served) {
        self.raw.push(raw.tokens_per_second);
        self.raw_got = self.raw_got.min(raw.got);
        self.served.push(served.tokens_per_second);
        self.ratios.push(served.tokens_per_second / raw.tokens_per_second);
        self.median_ratio = median(&self.ratios);
        self.from_answers &= served.from_answers;
        self.p50_ms.extend(served.p50);
        self.generator_share_of_a_core = self.generator_share_of_a_core.max(served.generator_share);
        self.errors += served.errors;
    }
}

impl Figures {
    fn add(&mut self, round: usize, key: Key<'_>, (batches, raw, served): (String, Unserved, Served)) {
        let (texts, precision, clients, inputs) = key;
        let (unserved, speed) = (raw.tokens_per_second, served.tokens_per_second);
        eprintln!(
            "round {round}: {texts} {precision}, {clients} clients x {inputs}: {speed:.0} of {unserved:.0} tokens/s = \
             {:.3}",
            speed / unserved
        );
        let known = self.rows.iter().position(|row| row.key() == key);
        let index = known.unwrap_or_else(|| {
            self.rows.push(Row::new(key, batches));
            self.rows.len() - 1
        });
        self.rows[index].add(&raw, &served);
    }

    /// Served tokens/s in int8 over those in fp32, for one configuration.
    fn int8_over_fp32(&self, int8: &Row) -> Option<f64> {
        let (texts, precision, clients, inputs) = int8.key();
        let fp32 = self.rows.iter().find(|row| row.key() == (texts, "fp32", clients, inputs))?;
        (precision == "int8").then(|| median(&int8.served) / median(&fp32.served))
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rounds, seconds, .. } = self;
        writeln!(f, "Served / raw tokens/s: medians of {rounds} rounds of {seconds} s, least and most")?;
        writeln!(
            f,
            "{:6} {:5} {:>7} {:>6} {:>8} {:>8}  {:>5}  {:13} {:>9} {:>9}  int8/fp32",
            "texts", "", "clients", "inputs", "raw", "served", "ratio", "", "p50 ms", "generator"
        )?;
        for row in &self.rows {
            let (least, most) = range(&row.ratios);
            write!(
                f,
                "{:6} {:5} {:>7} {:>6} {:>8.0} {:>7.0}{}  {:>5.3}  {least:.3}..{most:.3}  {:>9.1} {:>7.1} %",
                row.texts.to_string(),
                row.precision,
                row.clients,
                row.inputs_per_request,
                median(&row.raw),
                median(&row.served),
                if row.from_answers { ' ' } else { '*' },
                row.median_ratio,
                median(&row.p50_ms),
                row.generator_share_of_a_core * 100.0,
            )?;
            match self.int8_over_fp32(row) {
                Some(factor) => writeln!(f, "  {factor:.2}")?,
                None => writeln!(f)?,
            }
            if row.errors > 0 {
                writeln!(f, "       {} requests of these FAILED: not a figure", row.errors)?;
            }
        }
        if self.rows.iter().any(|row| !row.from_answers) {
            writeln!(
                f,
                "* from the server's counter: more is in flight than is answered while it is measured"
            )?;
        }
        let disturbed = self.rows.iter().filter(|row| row.raw_got < UNDISTURBED).count();
        if disturbed > 0 {
            let least = self.rows.iter().map(|row| row.raw_got).fold(1.0, f64::min) * 100.0;
            writeln!(
                f,
                "DISTURBED: in {disturbed} rows the raw loop once got as little as {least:.0} % of the processors: others \
                 used them, and its rounds are no figures."
            )?;
        }
        if self.padded.is_none() {
            writeln!(f, "A padded export was not measured: --padded DIRECTORY names one.")?;
        }
        Ok(())
    }
}
