//! `sextant bench`.

mod session;

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgMatches, Args, Command, FromArgMatches, Subcommand, ValueEnum};
use serde::Serialize;

use super::arguments::ApiKey;
use super::{Failure, print_line, progress};
use crate::bench::target::{Class, Dialect, Encoding};
use crate::bench::{self, Bounds, Pace, Report, Target, input};
use crate::server;

/// Requests at most where only a time is given.
const MOST_REQUESTS: u64 = 100_000_000;
/// The time at most where only a number of requests is given.
const LONGEST: Duration = Duration::from_secs(3600);
/// Measured where neither is given.
const DURATION: Duration = Duration::from_secs(10);
/// Steps of the progress bar.
const STEPS: u64 = 1000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Each client sends when its last request is answered
    Closed,
    /// Requests arrive at --rate, whatever the server does
    Open,
}

/// Flags, or a subcommand.
#[derive(Debug)]
pub(super) enum Bench {
    Load(Load),
    WithoutServer(WithoutServer),
}

#[derive(Debug, Subcommand)]
pub(super) enum WithoutServer {
    /// Run the bare sessions of a version in a loop, without a server: what this machine can do at most
    ///
    /// Texts are tokenized before and sorted by length, and several batch sizes are tried: the fastest is measured. The
    /// vectors are thrown away, so nothing is said of whether they are right; `sextant verify` and `sextant evaluate` say that.
    Session(session::Session),
}

/// By hand: what clap derives from a struct of both has `--server` in an `Option`, though it must be given.
impl Args for Bench {
    fn augment_args(command: Command) -> Command {
        WithoutServer::augment_subcommands(Load::augment_args(command))
            .args_conflicts_with_subcommands(true)
            .subcommand_negates_reqs(true)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Bench {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(match matches.subcommand_name() {
            Some(_) => Self::WithoutServer(WithoutServer::from_arg_matches(matches)?),
            None => Self::Load(Load::from_arg_matches(matches)?),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[derive(Debug, Args)]
pub(super) struct Load {
    /// The server, as http://127.0.0.1:8080
    #[arg(long, value_name = "URL")]
    server: String,
    /// Texts to send: one a line, or one JSON object with a `text` a line
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// The model to ask for [default: the only one the server has]
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// What paces the requests [default: open if there is a rate]
    #[arg(long, value_enum)]
    mode: Option<Mode>,
    /// Open loop: requests per second, in Poisson arrivals
    #[arg(long, value_name = "R")]
    rate: Option<f64>,
    /// Open loop: another seed, other arrivals
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Closed loop: clients [default: 64]; open loop: most requests in flight [default: 512]
    #[arg(long, value_name = "N")]
    concurrency: Option<usize>,
    /// Texts in each request
    #[arg(long, value_name = "N", default_value_t = 1)]
    inputs_per_request: usize,
    /// How long to measure [default: 10s, or as long as the requests take]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// How many requests to measure [default: as many as go into the duration]
    #[arg(long, value_name = "N")]
    requests: Option<u64>,
    /// Load before measuring
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "2s")]
    warmup: Duration,
    /// A request without an answer after this has failed
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "30s")]
    timeout: Duration,
    /// Which API to call
    #[arg(long, value_enum, default_value = "openai")]
    dialect: Dialect,
    /// How to ask for the vectors (OpenAI)
    #[arg(long, value_enum, default_value = "base64")]
    encoding: Encoding,
    /// Sent as the header x-sextant-class
    #[arg(long, value_enum)]
    class: Option<Class>,
    #[command(flatten)]
    key: ApiKey,
    /// Print the figures and the settings as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Settings<'a> {
    server: &'a str,
    input: String,
    texts: usize,
    model: Option<&'a str>,
    #[serde(flatten)]
    pace: Pace,
    inputs_per_request: usize,
    duration_seconds: Option<f64>,
    requests: Option<u64>,
    warmup_seconds: f64,
    timeout_seconds: f64,
    dialect: Dialect,
    encoding: Option<Encoding>,
    class: Option<Class>,
}

#[derive(Serialize)]
struct Output<'a> {
    settings: Settings<'a>,
    #[serde(flatten)]
    report: &'a Report,
}

impl Bench {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self {
            Self::Load(load) => load.run(),
            Self::WithoutServer(WithoutServer::Session(session)) => session.run(),
        }
    }
}

impl Load {
    fn run(self) -> Result<(), Failure> {
        let pace = self.pace()?;
        let bounds = self.bounds()?;
        let texts = input::read_texts(&self.input)?;
        let target = Target::new(&self.server, self.dialect)
            .map_err(Failure::usage)?
            .with_encoding(self.encoding)
            .with_inputs(self.inputs_per_request)
            .with_class(self.class)
            .with_key(self.key.read()?.as_deref())
            .map_err(|_| Failure::usage("the key has characters that no header can carry"))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (model, report) = runtime.block_on(async {
            let model = match &self.model {
                Some(name) => Some(name.clone()),
                None => target.only_model(bounds.timeout).await?,
            };
            let bodies = target.bodies(model.as_deref(), &texts);
            let bar = progress::bar("Measuring", STEPS, false);
            let stop = server::stop_signal()?;
            let report = bench::run(target, bodies, pace, bounds, stop, |progress| {
                bar.set_message(format!("{} answers", progress.answers));
                bar.set_position((progress.share * STEPS as f64) as u64);
            })
            .await;
            bar.finish_and_clear();
            Ok::<_, Failure>((model, report?))
        })?;
        print_line(&if self.json {
            let settings = self.settings(pace, model.as_deref(), texts.len());
            serde_json::to_string_pretty(&Output { settings, report: &report })?
        } else {
            report.to_string()
        })
    }

    fn pace(&self) -> Result<Pace, Failure> {
        if self.concurrency == Some(0) || self.inputs_per_request == 0 {
            return Err(Failure::usage("--concurrency and --inputs-per-request are at least 1"));
        }
        match (self.mode, self.rate) {
            (Some(Mode::Closed), Some(_)) => {
                Err(Failure::usage("--rate is for the open loop: a closed one sends when answers come"))
            }
            (Some(Mode::Open), None) => {
                Err(Failure::usage("--mode open needs --rate R, in requests per second"))
            }
            (_, None) => Ok(Pace::Closed { concurrency: self.concurrency.unwrap_or(64) }),
            (_, Some(rate)) if rate > 0.0 && rate <= 1e6 => {
                Ok(Pace::Open { rate, concurrency: self.concurrency.unwrap_or(512), seed: self.seed })
            }
            (_, Some(rate)) => {
                Err(Failure::usage(format!("--rate is `{rate}`: expected more than 0 and at most 1000000")))
            }
        }
    }

    fn bounds(&self) -> Result<Bounds, Failure> {
        if [self.duration, Some(self.warmup), Some(self.timeout)]
            .into_iter()
            .flatten()
            .any(|t| t > LONGEST * 24)
        {
            return Err(Failure::usage("--duration, --warmup and --timeout are at most 24h"));
        }
        if self.requests == Some(0) || self.duration.is_some_and(|duration| duration.is_zero()) {
            return Err(Failure::usage("--requests and --duration are more than 0"));
        }
        let unsaid = if self.requests.is_some() { LONGEST } else { DURATION };
        Ok(Bounds {
            warmup: self.warmup,
            duration: self.duration.unwrap_or(unsaid),
            requests: self.requests.unwrap_or(MOST_REQUESTS),
            timeout: self.timeout,
        })
    }

    fn settings<'a>(&'a self, pace: Pace, model: Option<&'a str>, texts: usize) -> Settings<'a> {
        let bounds = self.bounds().ok();
        Settings {
            server: &self.server,
            input: self.input.display().to_string(),
            texts,
            model,
            pace,
            inputs_per_request: self.inputs_per_request,
            duration_seconds: bounds.map(|bounds| bounds.duration.as_secs_f64()),
            requests: self.requests,
            warmup_seconds: self.warmup.as_secs_f64(),
            timeout_seconds: self.timeout.as_secs_f64(),
            dialect: self.dialect,
            encoding: (self.dialect == Dialect::Openai).then_some(self.encoding),
            class: self.class,
        }
    }
}
