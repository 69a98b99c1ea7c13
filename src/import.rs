//! A checkpoint directory becomes the files of a version.
//!
//! Weights of a BERT-family encoder are compiled to a graph that computes no padding, in fp32, fp16 or int8; any other
//! ONNX export is taken over as it is. What cannot be served with the same vectors as the checkpoint's own library gives
//! is refused by name.
//!
//! Reading order: `checkpoint` and `pipeline` (what the directory says), `encoder` and `weights` (the model), `plan` (compile or take
//! over), `bert` over `graph` over `onnx` (the compiler), `calibration` and `int8`, `export` over `parts` (the other way), `probe`, `space`
//! and `card` (what goes with the graph).

mod bert;
mod calibration;
mod card;
mod checkpoint;
mod directory;
mod encoder;
mod error;
pub(crate) mod export;
mod facts;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod graph;
pub mod hub;
mod inlined;
mod int8;
mod modules;
mod parts;
mod pipeline;
mod plan;
mod pooled;
mod pooling;
pub mod probe;
mod progress;
mod prompts;
mod request;
mod sentence;
mod space;
mod task;
mod tokenizer;
mod weights;

use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use bert::Arithmetic;
use checkpoint::Checkpoint;
use encoder::{Encoder, WORD_EMBEDDINGS};
pub use error::ImportError;
use export::Export;
pub use facts::Facts;
use int8::Quantisation;
use plan::{NoPlan, Plan, plan};
pub use progress::{Phase, Progress};
pub use request::Request;
use space::{Ingredients, Origin, Ranges};
use weights::Weights;

use crate::engine::{Backend, Pooling, Runtime, Session, SessionOptions, graph_path};
use crate::repository::manifest::{Calibration, Graph, Manifest, Precision, Space};
use crate::rollout::gate::claim::Parent;
use crate::tokenize::{Tokenizer, Truncate};

/// What the manifest says where nobody said anything.
const NOT_STATED: &str = "not stated";

/// What was made of a checkpoint.
#[derive(Debug)]
pub struct Staged {
    /// Its version number and list of files are the repository's to fill in.
    pub manifest: Manifest,
    /// What it was made from.
    pub facts: Facts,
}

/// Fills the empty directory `stage` with all files of a version but its manifest, and returns that with what was found.
///
/// # Errors
/// If the checkpoint is incomplete, damaged or not supported, or its vectors are not fit to be served. What `stage` holds
/// then is of no use.
pub fn stage(
    request: &Request<'_>,
    stage: &Path,
    runtime: &'static Runtime,
    progress: &dyn Fn(Progress),
) -> Result<Staged, ImportError> {
    let (mut checkpoint, tokenizer) = Progress::step(Phase::Read, progress, || {
        let checkpoint = Checkpoint::read(request)?;
        let tokenizer = checkpoint.tokenizer()?;
        Ok::<_, ImportError>((checkpoint, tokenizer))
    })?;
    let mut facts = std::mem::take(&mut checkpoint.facts);
    // Everywhere the same: what a version comes with must not depend on the devices of the machine that made it.
    let backend = &Backend::cpu(runtime);
    let job = Job { request, checkpoint: &checkpoint, tokenizer: &tokenizer, stage, backend, progress };
    let made = job.graph(&mut facts)?;
    let tokenizer_digest = hex::encode(Sha256::digest(&checkpoint.tokenizer_file));
    let options = SessionOptions { max_tokens: checkpoint.max_tokens, ..SessionOptions::all_threads() };
    let mut load = |pooling| {
        let path = graph_path(stage);
        Progress::step(Phase::Load, progress, || Session::load(backend, &path, pooling, options))
            .map_err(|source| ImportError::Session { path: made.path.clone(), source })
    };
    // What the graph itself does is only known of a session.
    let pooling = match made.graph {
        Graph::Packed => checkpoint.pooling()?,
        Graph::Padded => pooled::settle(&checkpoint, &tokenizer, &mut load, &mut facts)?,
    };
    let mut session = load(pooling)?;
    let space = match &request.claim {
        Some(parent) => parent.space().clone(),
        None => job.space(&made, pooling, &tokenizer_digest)?,
    };
    let to = stage.join("tokenizer.json");
    fs::write(&to, &checkpoint.tokenizer_file).map_err(ImportError::io("write", &to))?;
    let (from, to) = (checkpoint.file("config.json"), stage.join("config.json"));
    fs::copy(&from, &to).map_err(ImportError::io("copy", &from))?;
    // As the library does: a width beyond the vectors' own cuts nothing.
    let dimensions =
        checkpoint.truncate_dim.map_or(session.dimensions(), |width| width.min(session.dimensions()));
    let or_unstated = |asked: &Option<String>, read: Option<&String>, unstated: &str| {
        asked.as_ref().or(read).map_or_else(|| unstated.to_owned(), String::clone)
    };
    let mut manifest = Manifest {
        schema: 1,
        model: request.model.to_owned(),
        version: 0,
        created: request.created.clone(),
        licence: or_unstated(&request.licence, checkpoint.licence.as_ref(), "unknown"),
        architecture: checkpoint.architecture.clone(),
        graph: made.graph,
        precision: made.precision,
        dimensions,
        matryoshka_dimensions: matryoshka(&request.matryoshka_dimensions, dimensions)?,
        cut_to_dimensions: dimensions < session.dimensions(),
        max_tokens: checkpoint.max_tokens,
        max_query_tokens: checkpoint.max_query_tokens,
        max_document_tokens: checkpoint.max_document_tokens,
        truncate_start: checkpoint.cuts_start,
        pooling,
        normalise: checkpoint.normalise,
        space,
        space_parent: request.claim.as_ref().map(Parent::version),
        depends_on_batch: None,
        training_data: or_unstated(&request.training_data, checkpoint.training_data.as_ref(), NOT_STATED),
        intended_use: or_unstated(&request.intended_use, None, NOT_STATED),
        default_query_prompt: checkpoint.query_prompt().map(str::to_owned),
        default_document_prompt: checkpoint.document_prompt().map(str::to_owned),
        default_prompt: checkpoint.default_prompt.clone(),
        source: request.source.clone(),
        calibration: made.calibration,
        assumptions: checkpoint.assumptions.clone(),
        prompts: checkpoint.prompts.clone(),
        files: Vec::new(),
    };
    manifest.schema = manifest.oldest_schema();
    let probed = probe::write(&manifest, &tokenizer, &mut session, stage, progress)?;
    manifest.depends_on_batch = Some(probed.depends_on_batch);
    if let Some(parent) = &request.claim {
        probed.check_claim(parent, &manifest, &tokenizer, &mut session)?;
    }
    card::write(&manifest, &facts, &stage.join("MODEL_CARD.md"))?;
    Ok(Staged { manifest, facts })
}

/// A graph in its place, and what the manifest must say of it.
struct Made {
    graph: Graph,
    precision: Precision,
    /// The encoder it was compiled from; none if it was taken over.
    encoder: Option<Encoder>,
    /// The file it was made from, for messages.
    path: PathBuf,
    /// SHA-256 of the files it was made from.
    weights: String,
    calibration: Option<Calibration>,
}

struct Job<'a> {
    request: &'a Request<'a>,
    checkpoint: &'a Checkpoint,
    tokenizer: &'a Tokenizer,
    stage: &'a Path,
    backend: &'a Backend,
    progress: &'a dyn Fn(Progress),
}

impl Job<'_> {
    /// Makes the graph.
    fn graph(&self, facts: &mut Facts) -> Result<Made, ImportError> {
        let weights = self.checkpoint.file("model.safetensors");
        let named = self.request.onnx_file;
        let export = Export::find(self.request.checkpoint, named)?;
        let encoder = Encoder::from_config(&self.checkpoint.file("config.json"), &self.checkpoint.config);
        let asked = self.request.graph.or(named.map(|_| Graph::Padded));
        match (plan(asked, encoder, weights.is_file(), export.is_some()), export) {
            (Ok(Plan::Compile(encoder)), _) => self.compile(encoder, &weights, facts),
            (Ok(Plan::TakeOver(reason)), Some(export)) => self.take_over(&Export::read(&export)?, reason),
            (Err(NoPlan::Encoder(error)), _) => Err(error),
            (Err(NoPlan::NoWeights), _) => Err(checkpoint::missing(&weights, WEIGHTS_NEEDED)),
            (Ok(Plan::TakeOver(_)) | Err(NoPlan::NoExport), _) => {
                let root = self.request.checkpoint;
                match Export::listed(root) {
                    none if none.is_empty() => Err(checkpoint::missing(&root.join("model.onnx"), NO_GRAPH)),
                    others => Err(ImportError::Request(format!(
                        "the checkpoint has no model.onnx or onnx/model.onnx; it has {}: name one of them with --onnx-file",
                        others.join(", ")
                    ))),
                }
            }
        }
    }

    fn compile(&self, encoder: Encoder, path: &Path, facts: &mut Facts) -> Result<Made, ImportError> {
        // Before minutes of work.
        self.checkpoint.pooling()?;
        checkpoint::check_inside(self.request.checkpoint, path)?;
        let mut weights = Weights::open(path, WORD_EMBEDDINGS)?;
        if let (Precision::Fp32, Some((key, dtype))) =
            (self.request.precision, checkpoint::half(&self.checkpoint.config))
        {
            let told = format!(
                "computed in fp32, more exactly than sentence-transformers does in {dtype}: vectors differ by up to about 0.003"
            );
            facts.took(told, "config.json", key);
        }
        let known = self.tokenizer.vocabulary();
        if known > encoder.vocabulary {
            let (tokenizer, rows) = (self.checkpoint.file("tokenizer.json"), encoder.vocabulary);
            let reason = format!(
                "it has {known} tokens and the model has vectors for {rows}; they do not belong together"
            );
            return Err(ImportError::malformed(&tokenizer, reason));
        }
        let mut compile = |arithmetic| encoder.compile(&mut weights, arithmetic, self.stage, self.progress);
        let precision = self.request.precision;
        let mut calibration = None;
        match precision {
            Precision::Fp32 => compile(Arithmetic::Fp32)?,
            Precision::Fp16 => compile(Arithmetic::Fp16)?,
            Precision::Int8 => {
                let texts = calibration::Texts::read(self.request.calibrate)?;
                let rows = probe::tokenize(self.tokenizer, &texts.lines())?;
                let channels = calibration::observe(
                    &encoder,
                    &mut weights,
                    rows,
                    self.backend,
                    self.stage,
                    self.progress,
                )?;
                let quantisation = Quantisation::new(&encoder, &mut weights, &channels)?;
                encoder.compile(&mut weights, Arithmetic::Int8(&quantisation), self.stage, self.progress)?;
                calibration = Some(texts.record());
            }
            Precision::Mixed => {
                let what = "compiling in mixed precision";
                return Err(ImportError::unsupported(what, "one of fp32, fp16 and int8 is"));
            }
        }
        let (unread, architecture) = (weights.unread(), &encoder.architecture);
        task::check_unread(
            unread.iter().map(String::as_str),
            path,
            architecture,
            self.checkpoint.is_declared,
            facts,
        )?;
        if let Some(keys) = self.checkpoint.config.as_object() {
            task::note_keys(keys, facts);
        }
        let weights = digest(path, self.progress)?;
        Ok(Made {
            graph: Graph::Packed,
            precision,
            encoder: Some(encoder),
            path: path.to_owned(),
            weights,
            calibration,
        })
    }

    /// Copies `export`. `reason` says why the weights beside it cannot be compiled, if they cannot.
    fn take_over(&self, export: &Export, reason: Option<ImportError>) -> Result<Made, ImportError> {
        let (asked, precision) = (self.request.precision, export.precision);
        // fp32 is what is asked for if nothing is: the export's own format.
        if asked != Precision::Fp32 && asked != precision {
            let because = reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
            return Err(ImportError::unsupported(
                format!("changing an ONNX export to {asked}"),
                format!(
                    "its weights stay {precision}; export it in {asked} yourself, or import the model.safetensors of a bert, \
                     roberta, xlm-roberta or camembert encoder{because}"
                ),
            ));
        }
        export.files().try_for_each(|file| checkpoint::check_inside(self.request.checkpoint, &file))?;
        export.check_weights()?;
        let weights = export.copy(self.stage, self.progress)?;
        Ok(Made {
            graph: Graph::Padded,
            precision,
            encoder: None,
            path: export.path.clone(),
            weights,
            calibration: None,
        })
    }

    /// The space of the vectors that `made` gives with the tokenizer of this digest.
    fn space(&self, made: &Made, pooling: Pooling, tokenizer: &str) -> Result<Space, ImportError> {
        let Made { encoder, weights, calibration, precision, .. } = made;
        let checkpoint = self.checkpoint;
        let ranges = calibration.as_ref().map(|from| Ranges { texts: &from.sha256, recipe: int8::RECIPE });
        let graph = match encoder {
            Some(encoder) => Origin::Compiled { weights, encoder, ranges },
            None => Origin::TakenOver { files: weights },
        };
        let ingredients = Ingredients {
            graph,
            tokenizer,
            precision: *precision,
            pooling,
            normalise: checkpoint.normalise,
            max_tokens: checkpoint.max_tokens,
            max_query_tokens: checkpoint.max_query_tokens,
            max_document_tokens: checkpoint.max_document_tokens,
            truncate: checkpoint.cuts_start.then_some(Truncate::Start),
            truncate_dim: checkpoint.truncate_dim,
            prompts: &checkpoint.prompts,
            default_prompt: checkpoint.default_prompt.as_deref(),
            default_query_prompt: checkpoint.query_prompt(),
            default_document_prompt: checkpoint.document_prompt(),
        };
        ingredients.space()
    }
}

const WEIGHTS_NEEDED: &str = "compiling needs the weights in this one file; a checkpoint in pytorch_model.bin or in several \
    files is saved so by `model.save_pretrained(DIR, safe_serialization=True, max_shard_size=\"1000GB\")` of transformers";

const NO_GRAPH: &str = "a checkpoint needs model.safetensors of a bert, roberta, xlm-roberta or camembert encoder, or \
    model.onnx or onnx/model.onnx of any; weights in pytorch_model.bin or in several files are saved as one by \
    `model.save_pretrained(DIR, safe_serialization=True, max_shard_size=\"1000GB\")` of transformers";

/// The widths in descending order, each once.
fn matryoshka(asked: &[usize], dimensions: usize) -> Result<Vec<usize>, ImportError> {
    if let Some(width) = asked.iter().find(|width| !(1..=dimensions).contains(*width)) {
        let reason = format!("--matryoshka has {width}, which is not between 1 and the model's {dimensions}");
        return Err(ImportError::Request(reason));
    }
    let mut widths = asked.to_vec();
    widths.sort_unstable_by(|left, right| right.cmp(left));
    widths.dedup();
    Ok(widths)
}

/// The file's SHA-256 in hexadecimal.
fn digest(path: &Path, progress: &dyn Fn(Progress)) -> Result<String, ImportError> {
    let total = fs::metadata(path).map_err(ImportError::io("read", path))?.len();
    let (mut hasher, mut done) = (Sha256::new(), 0);
    export::read_in_chunks(path, |chunk| {
        hasher.update(chunk);
        done += chunk.len() as u64;
        progress(Progress { phase: Phase::Digest, done, total });
        Ok(())
    })?;
    Ok(hex::encode(hasher.finalize()))
}
