//! `sextant import`.

mod watch;
mod workplace;

use std::cell::RefCell;
use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use indicatif::ProgressBar;

use super::arguments::{self, parse_reason};
use super::cache::Trust;
use super::{Failure, print_line, progress, warn_line};
use crate::engine::{Pooling, Runtime};
use crate::import::hub::{self, Hub, Patience, Snapshot};
use crate::import::{self, Facts, Phase, Progress, Request, Staged};
use crate::repository::manifest::{Graph, Precision, Source};
use crate::repository::signing::SigningKey;
use crate::repository::{CacheSettings, Repository, check_name};
use crate::rollout::gate::claim::Parent;
use crate::rollout::{Change, Log, Refusal, RolloutError, Signature};
use watch::{Limits, Watch};
use workplace::Workplace;

#[derive(Debug, Args)]
pub(super) struct Import {
    /// A checkpoint directory, or a model's id on the hub, as organisation/name
    source: String,
    /// Directory of the models, made if it is not there, or a bucket: s3://bucket/prefix, gs://..., az://...
    #[arg(long, value_name = "URL", env = "SEXTANT_MODELS")]
    models: String,
    /// The name that clients will ask for
    #[arg(long)]
    name: String,
    /// Number format of the graph
    #[arg(long, value_enum, default_value_t)]
    precision: Precision,
    /// Compile the weights (packed) or take an ONNX export over (padded) [default: compile where possible]
    #[arg(long, value_enum)]
    graph: Option<Graph>,
    /// Take over this ONNX file of the checkpoint, as onnx/model_fp16.onnx [default: model.onnx or onnx/model.onnx]
    #[arg(long, value_name = "FILE", conflicts_with = "precision")]
    onnx_file: Option<String>,
    /// Texts that int8's ranges are taken from, one a line [default: a built-in set]
    #[arg(long, value_name = "FILE")]
    calibrate: Option<PathBuf>,
    /// Make it the version that serves; a model's first version always is
    #[arg(long)]
    activate: bool,
    /// Activate it also in another vector space: only when the index has been made anew
    #[arg(long, requires = "activate")]
    force: bool,
    /// Why, for the rollout log
    #[arg(long, default_value = "import", value_parser = parse_reason)]
    reason: String,
    /// Branch, tag or commit on the hub
    #[arg(long, default_value = "main")]
    revision: String,
    /// Where files of the hub are kept
    #[arg(long, value_name = "DIRECTORY", env = "SEXTANT_CACHE", default_value = ".sextant/hub")]
    cache: PathBuf,
    /// Instead of the checkpoint's own pooling
    #[arg(long, value_enum)]
    pooling: Option<Pooling>,
    /// Whether vectors are scaled to unit length, instead of what the checkpoint says
    #[arg(long, value_name = "BOOL")]
    normalise: Option<bool>,
    /// Instead of the checkpoint's own longest input, in tokens
    #[arg(long, value_name = "N")]
    max_tokens: Option<usize>,
    /// A prompt, as query="query: "; may be given several times
    #[arg(long, value_name = "NAME=TEXT", value_parser = parse_prompt)]
    prompt: Vec<(String, String)>,
    /// Shorter widths that the model was trained to be cut to, as 256,128
    #[arg(long, value_name = "WIDTHS", value_delimiter = ',')]
    matryoshka: Vec<usize>,
    /// Claim the vector space of version N, made of the same weights: measured on its probe texts, refused if the vectors differ
    #[arg(long, value_name = "N")]
    claim_space_of: Option<u32>,
    /// Sign the version with this private key, in PEM
    #[arg(long, value_name = "FILE", env = "SEXTANT_SIGN")]
    sign: Option<PathBuf>,
    #[command(flatten)]
    trust: Trust,
    /// Instead of the licence that the checkpoint's README names
    #[arg(long, value_name = "SPDX")]
    licence: Option<String>,
    /// For the model card: what it was trained on
    #[arg(long, value_name = "TEXT")]
    training_data: Option<String>,
    /// For the model card: what it is meant for
    #[arg(long, value_name = "TEXT")]
    intended_use: Option<String>,
    /// The ONNX Runtime library [default: looked for]
    #[arg(long, value_name = "FILE", env = "SEXTANT_ONNXRUNTIME")]
    onnxruntime: Option<PathBuf>,
    /// Most time to make the version, as 30m; what is downloaded or published before and after does not count
    #[arg(long, value_name = "TIME", value_parser = parse_timeout, default_value = "1h")]
    import_timeout: Duration,
    /// Most memory to take, in bytes [default: 4 GiB and 16 times the checkpoint's files, at most 90 % of what the machine leaves]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    import_memory: Option<u64>,
}

impl Import {
    pub(super) fn run(self) -> Result<(), Failure> {
        check_name(&self.name).map_err(Failure::usage)?;
        if self.calibrate.is_some() && self.precision != Precision::Int8 {
            return Err(Failure::usage(
                "`--calibrate` is for `--precision int8`: no other has ranges to find",
            ));
        }
        // Before minutes of work are done for a key that is none, or for a version that could not be activated.
        let signer = self.sign.as_deref().map(SigningKey::read).transpose().map_err(Failure::usage)?;
        self.check_signer(signer.as_ref())?;
        let tokio = tokio::runtime::Runtime::new()?;
        // Before a checkpoint is fetched and int8 ranges are measured.
        tokio.block_on(Repository::check_writable(&self.models, &self.name))?;
        tokio.block_on(self.check_no_alias())?;
        let claim = match self.claim_space_of {
            Some(parent) => {
                // A probe set is read from the repository itself.
                let repository = Repository::open(&self.models, false)?;
                let repository = self.trust.over(repository, CacheSettings::new(None, None))?;
                Some(tokio.block_on(Parent::read(&repository, &self.name, parent))?)
            }
            None => None,
        };
        let runtime = Runtime::load(self.onnxruntime.as_deref())?;
        let watch = Watch::start(Limits { time: self.import_timeout, memory: self.import_memory })?;
        let (checkpoint, source) = tokio.block_on(self.checkpoint())?;
        let stage = Workplace::new()?;
        watch.begin(&checkpoint, stage.path());
        let created = Signature::now();
        let request = Request {
            precision: self.precision,
            graph: self.graph,
            onnx_file: self.onnx_file.as_deref(),
            calibrate: self.calibrate.as_deref(),
            pooling: self.pooling,
            normalise: self.normalise,
            max_tokens: self.max_tokens,
            prompts: self.prompt.iter().cloned().collect(),
            licence: self.licence.clone(),
            training_data: self.training_data.clone(),
            intended_use: self.intended_use.clone(),
            matryoshka_dimensions: self.matryoshka.clone(),
            claim,
            ..Request::new(&checkpoint, &self.name, source, created.clone())
        };
        let bars = Bars::default();
        let Staged { manifest, facts } = import::stage(&request, stage.path(), runtime, &|progress| {
            watch.enter(progress.phase);
            bars.show(progress);
        })?;
        bars.finish();
        // What follows copies files of known sizes, and must not be ended half-way.
        drop(watch);

        // Only now: an import that fails leaves no trace in the repository.
        let repository = Repository::open(&self.models, true)?;
        let trusting = self.trust.over(repository.clone(), CacheSettings::new(None, None))?;
        tokio.block_on(async {
            let manifest = repository.publish(stage.path(), manifest).await?;
            let version = format!("{}@{}", manifest.model, manifest.version);
            let megabytes = manifest.files.iter().map(|file| file.bytes).sum::<u64>() as f64 / 1e6;
            if let Some(signer) = &signer {
                repository.sign_published(&manifest, signer).await.map_err(|error| Failure {
                    message: format!("{version} is imported, but not signed and not activated: {error}"),
                    code: 1,
                })?;
            }
            // Before anything is printed: a full disk at the other end must not leave the version without its role.
            let activated = self.activate_published(&trusting, manifest.version, &created).await;
            if manifest.depends_on_batch == Some(true) {
                warn_line(format!(
                    "{version} gives a text other vectors beside other texts, as graphs do that find their ranges in each batch (dynamic \
                     quantisation): the vectors of an index differ with what else was asked for; a float export, or int8 compiled from \
                     the weights, does not"
                ));
            }
            let mut printed = print_line(&format!(
                "imported {version}: {}, {} dimensions, {} tokens, space {}, {megabytes:.1} MB",
                manifest.precision, manifest.dimensions, manifest.max_tokens, manifest.space
            ));
            if printed.is_ok() {
                printed = told(&manifest.assumptions, &facts);
            }
            match activated {
                Ok(true) if printed.is_ok() => {
                    printed = print_line(&format!("{version} is the version that serves"));
                }
                Ok(_) => {}
                Err(error) => printed = Err(error.into()),
            }
            // Whoever reads of a failure would import once more.
            printed.map_err(|Failure { message, code }| Failure {
                message: format!("{version} is imported, but {message}"),
                code,
            })
        })
    }

    /// Finds that a version signed so is one that this place would take.
    fn check_signer(&self, signer: Option<&SigningKey>) -> Result<(), Failure> {
        let Some(trusted) = self.trust.keys()? else { return Ok(()) };
        let file = trusted.file().display();
        match signer.map(SigningKey::public) {
            None => Err(Failure::usage(format!(
                "a signature by a key in `{file}` is required and none would be made: give `--sign FILE`, or import without \
                 `--require-signed` and sign the version where the key is"
            ))),
            Some(public) if !trusted.has(&public) => Err(Failure::usage(format!(
                "the version would be signed with the key {public}, which is none of those in `{file}` that are required"
            ))),
            Some(_) => Ok(()),
        }
    }

    /// Refuses a name that is another model's alias: requests for it would get this model's vectors from then on.
    async fn check_no_alias(&self) -> Result<(), Failure> {
        // One that cannot be opened holds no names yet, or is refused when it is written to.
        let Ok(repository) = Repository::open(&self.models, false) else { return Ok(()) };
        match Log::holder(&repository, &self.name).await? {
            Some(model) => Err(Failure::usage(format!(
                "`{0}` is an alias of the model `{model}`: take another name, or take the alias away with `sextant alias {model} {0} \
                 --remove`",
                self.name
            ))),
            None => Ok(()),
        }
    }

    /// Makes `version` the one that serves, if that was asked for or it is the model's first. Whether it did.
    async fn activate_published(
        &self,
        repository: &Repository,
        version: u32,
        at: &str,
    ) -> Result<bool, RolloutError> {
        let change = if self.activate {
            Change::Rollout { version, force: self.force }
        } else {
            Change::Begin { version }
        };
        let by = arguments::user();
        let signature = Signature { by: &by, at, reason: &self.reason, ..Signature::default() };
        match Log::open(repository, &self.name)?.change(change, signature).await {
            Ok(_) => Ok(true),
            Err(RolloutError::Refused { refusal: Refusal::AlreadyBegun { .. }, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The directory to import and where it came from; fetched from the hub if it is not on this disk.
    async fn checkpoint(&self) -> Result<(PathBuf, Source), Failure> {
        let path = Path::new(&self.source);
        if path.is_dir() {
            let absolute = path.canonicalize()?;
            let name = absolute.file_name().unwrap_or_default().to_string_lossy().into_owned();
            return Ok((absolute, Source::Directory { name }));
        }
        if path.exists() {
            let message = format!(
                "`{}` is no directory: give a checkpoint directory, or a model's id on the hub",
                self.source
            );
            return Err(Failure::usage(message));
        }
        let endpoint = endpoint(env::var("HF_ENDPOINT").ok());
        let token = env::var("HF_TOKEN").ok();
        let hub = Hub::new(&endpoint, token.as_deref(), Patience::default())?;
        let bars = Bars::default();
        let wanted = hub::Wanted { graph: self.graph, onnx_file: self.onnx_file.as_deref() };
        let fetched = hub
            .fetch(&self.source, &self.revision, &self.cache, wanted, |file, done, total| {
                bars.at(file, done, total, true)
            })
            .await;
        bars.finish();
        let Snapshot { directory, id, revision } = fetched.map_err(|error| Failure {
            // A directory's name mistyped looks like a model's id.
            message: format!("there is no directory `{}`, and as a model on the hub: {error}", self.source),
            code: 1,
        })?;
        Ok((directory, Source::Hub { id, revision }))
    }
}

/// Prints what the version was made from, a line each.
fn told(assumptions: &[String], facts: &Facts) -> Result<(), Failure> {
    for fact in facts.taken() {
        print_line(&format!("  {fact}"))?;
    }
    for assumption in assumptions {
        print_line(&format!("  assumed: {assumption}"))?;
    }
    for part in facts.left_out() {
        print_line(&format!("  not understood, and without effect here: {part}"))?;
    }
    Ok(())
}

/// One bar at a time, a new one for each new label.
#[derive(Default)]
struct Bars(RefCell<Option<(String, ProgressBar)>>);

impl Bars {
    fn show(&self, progress: Progress) {
        let Progress { phase, done, total } = progress;
        self.at(&phase.to_string(), done, total, Phase::counts_bytes(phase));
    }

    fn at(&self, label: &str, done: u64, total: u64, bytes: bool) {
        let mut current = self.0.borrow_mut();
        match current.as_ref().filter(|(shown, _)| shown == label) {
            Some((_, bar)) => bar.set_position(done),
            None => {
                let bar = progress::bar(label, total, bytes);
                bar.set_position(done);
                if let Some((_, before)) = current.replace((label.to_owned(), bar)) {
                    before.finish_and_clear();
                }
            }
        }
    }

    fn finish(&self) {
        if let Some((_, bar)) = self.0.take() {
            bar.finish_and_clear();
        }
    }
}

/// The hub's address. Set to nothing is how many deployments write "not set".
fn endpoint(variable: Option<String>) -> String {
    let set = variable.filter(|endpoint| !endpoint.trim().is_empty());
    set.unwrap_or_else(|| hub::DEFAULT_ENDPOINT.to_owned())
}

fn parse_timeout(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).ok().filter(|time| !time.is_zero());
    time.ok_or_else(|| "expected a time above 0, as 30m or 1h 30m".to_owned())
}

fn parse_prompt(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, prompt)) if !name.is_empty() => Ok((name.to_owned(), prompt.to_owned())),
        _ => Err("expected NAME=TEXT".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_endpoint_is_none() {
        for unset in [None, Some(""), Some(" ")] {
            assert_eq!(endpoint(unset.map(str::to_owned)), hub::DEFAULT_ENDPOINT);
        }
        assert_eq!(endpoint(Some("http://mirror".to_owned())), "http://mirror");
    }
}
