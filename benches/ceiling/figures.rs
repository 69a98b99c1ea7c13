//! Medians, spreads, tables.

use std::fmt;

use serde::Serialize;

use crate::raw::Measured;
use crate::served::Served;
use crate::texts::{Kind, Summary};

/// A raw loop that gets less of the processors than this was not alone.
const UNDISTURBED: f64 = 0.95;

/// What a configuration is told apart by: texts, precision, clients, inputs of a request.
pub(crate) type Key<'a> = (Kind, &'a str, usize, usize);

/// All rounds of one configuration. Speeds in real tokens per second.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
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

impl Row {
    pub(crate) fn new((texts, precision, clients, inputs_per_request): Key<'_>, raw_batches: String) -> Self {
        Self {
            texts,
            precision: precision.to_owned(),
            clients,
            inputs_per_request,
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

    pub(crate) fn key(&self) -> Key<'_> {
        (self.texts, &self.precision, self.clients, self.inputs_per_request)
    }

    pub(crate) fn add(&mut self, raw: &Measured, served: &Served) {
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

/// One client, one input, over and over: medians in milliseconds.
#[derive(Debug, Serialize)]
pub(crate) struct Latency {
    texts: Kind,
    precision: String,
    input: &'static str,
    tokens: usize,
    session_one_thread_ms: f64,
    session_all_threads_ms: f64,
    served_ms: f64,
    /// Over the session of one thread.
    added_ms: f64,
}

impl Latency {
    pub(crate) fn new(
        texts: Kind,
        precision: &str,
        input: &'static str,
        tokens: usize,
        [one, all, served]: [f64; 3],
    ) -> Self {
        Self {
            texts,
            precision: precision.to_owned(),
            input,
            tokens,
            session_one_thread_ms: one,
            session_all_threads_ms: all,
            served_ms: served,
            added_ms: served - one,
        }
    }
}

/// The raw loop on a padded export beside the packed graph.
#[derive(Debug, Serialize)]
struct Padded {
    texts: Kind,
    precision: String,
    padded: f64,
    packed: f64,
}

/// Everything a run found.
#[derive(Debug, Serialize)]
pub(crate) struct Figures {
    cores: usize,
    runtime: String,
    rounds: usize,
    seconds: f64,
    pub(crate) texts: Vec<Summary>,
    pub(crate) rows: Vec<Row>,
    pub(crate) latencies: Vec<Latency>,
    /// `None`: not measured, no export was given.
    padded: Option<Vec<Padded>>,
}

impl Figures {
    pub(crate) fn new(cores: usize, runtime: &str, rounds: usize, seconds: f64) -> Self {
        Self {
            cores,
            runtime: runtime.to_owned(),
            rounds,
            seconds,
            texts: Vec::new(),
            rows: Vec::new(),
            latencies: Vec::new(),
            padded: None,
        }
    }

    pub(crate) fn padded(&mut self, texts: Kind, precision: &str, padded: f64, packed: f64) {
        let entry = Padded { texts, precision: precision.to_owned(), padded, packed };
        self.padded.get_or_insert_default().push(entry);
    }

    /// Served tokens/s in int8 over those in fp32, for one configuration.
    fn int8_over_fp32(&self, int8: &Row) -> Option<f64> {
        let fp32 = self.rows.iter().find(|row| {
            row.precision == "fp32"
                && (row.texts, row.clients, row.inputs_per_request)
                    == (int8.texts, int8.clients, int8.inputs_per_request)
        })?;
        (int8.precision == "int8").then(|| median(&int8.served) / median(&fp32.served))
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cores, rounds, seconds, .. } = self;
        writeln!(
            f,
            "Served / raw tokens/s: medians of {rounds} rounds of {seconds} s, least and most; {cores} cores"
        )?;
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
                "DISTURBED: in {disturbed} rows the raw loop got as little as {least:.0} % of the processors. Others used \
                 them, and these ratios are no figures."
            )?;
        }
        if self.padded.is_none() {
            writeln!(f, "A padded export was not measured: --padded DIRECTORY names one.")?;
        }
        if !self.latencies.is_empty() {
            writeln!(f, "\nOne client, one input, p50 in ms; the session runs the same ids alone")?;
            writeln!(
                f,
                "{:6} {:5} {:8} {:>6} {:>9} {:>12} {:>8} {:>8}",
                "texts", "", "input", "tokens", "1 thread", "all threads", "served", "added"
            )?;
        }
        for row in &self.latencies {
            writeln!(
                f,
                "{:6} {:5} {:8} {:>6} {:>9.2} {:>12.2} {:>8.2} {:>+8.2}",
                row.texts.to_string(),
                row.precision,
                row.input,
                row.tokens,
                row.session_one_thread_ms,
                row.session_all_threads_ms,
                row.served_ms,
                row.added_ms
            )?;
        }
        Ok(())
    }
}

/// NaN of nothing.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => sorted[length / 2],
        length => f64::midpoint(sorted[length / 2 - 1], sorted[length / 2]),
    }
}

fn range(values: &[f64]) -> (f64, f64) {
    values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), &v| (least.min(v), most.max(v)))
}
