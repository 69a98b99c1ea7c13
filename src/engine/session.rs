//! One ONNX Runtime session: what its graph asks for, and a batch through it.

use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use half::f16;
use ort::session::{OutputSelector, RunOptions, SessionInputValue};
use ort::value::{DynValue, Outlet, Tensor, TensorElementType};
use thiserror::Error;

use super::layout::{Packed, Padded};
use super::{Batch, EngineError, Output, Pooling, Runtime, Vector};

/// Makes sessions one after the other: creating them from several threads has crashed ONNX Runtime on GPUs.
static COMMIT: Mutex<()> = Mutex::new(());

/// Names of a packed graph's inputs and outputs. `import` writes them, sessions read them.
pub(crate) mod names {
    pub(crate) const INPUT_IDS: &str = "input_ids";
    pub(crate) const ATTENTION_MASK: &str = "attention_mask";
    pub(crate) const TOKEN_TYPE_IDS: &str = "token_type_ids";
    pub(crate) const POSITION_IDS: &str = "position_ids";
    pub(crate) const PAD_INDEX: &str = "pad_index";
    pub(crate) const UNPAD_INDEX: &str = "unpad_index";
    pub(crate) const POOLING_WEIGHTS: &str = "pooling_weights";
    /// `[B, H]`, not normalised.
    pub(crate) const POOLED: &str = "pooled";
    /// `[T, H]` of a packed graph, `[B, S, H]` of a padded one.
    pub(crate) const TOKEN_EMBEDDINGS: &str = "token_embeddings";
    /// What exports call the same.
    pub(crate) const LAST_HIDDEN_STATE: &str = "last_hidden_state";
    /// `[B, H]`: exports of a whole sentence-transformers pipeline, pooled inside.
    pub(crate) const SENTENCE_EMBEDDING: &str = "sentence_embedding";
}
use names::*;

/// Why a graph cannot be served.
#[derive(Debug, Error)]
pub enum SessionError {
    /// ONNX Runtime refuses the file.
    #[error("ONNX Runtime cannot load `{}`: {source}", path.display())]
    Load {
        /// The graph's file.
        path: PathBuf,
        /// The runtime's reason.
        source: ort::Error,
    },
    /// The graph wants an input that an encoder of text cannot be given.
    #[error(
        "the graph's input `{0}` is not known: supported are input_ids, attention_mask and token_type_ids (int64 or int32)"
    )]
    UnknownInput(String),
    /// The graph has no input for token ids.
    #[error("the graph has no input `input_ids`")]
    NoTokenInput,
    /// None of the graph's outputs is an embedding.
    #[error(
        "the graph has no output named sentence_embedding, last_hidden_state or token_embeddings; it has: {0}"
    )]
    UnknownOutput(String),
    /// The output's last dimension is not a number known before it runs.
    #[error("the width of the graph's output `{0}` is not fixed")]
    UnknownWidth(String),
}

/// How a session is set up.
#[derive(Debug, Clone, Copy)]
pub struct SessionOptions {
    /// Threads that share one operation. 1: the engine's own thread does all the work.
    pub threads: usize,
    /// Whether threads that wait for work burn their processor for a while before they sleep. Says nothing with one thread.
    pub spin: bool,
}

impl SessionOptions {
    /// A session that may use all of the machine: nothing else runs beside an import.
    pub(crate) fn all_threads() -> Self {
        Self { threads: thread::available_parallelism().map_or(1, NonZero::get), spin: false }
    }
}

/// The shape a graph takes its rows in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    Packed,
    Padded { token_types: bool, narrow: bool },
}

/// Which output holds what is asked for, by its place among the graph's outputs.
#[derive(Debug, Clone)]
struct Outputs {
    pooled: Option<String>,
    tokens: Option<String>,
}

/// A session with what it needs to know of its graph. One thread uses it: ONNX Runtime's sessions are not all safe to share.
pub struct Session {
    inner: ort::session::Session,
    layout: Layout,
    outputs: Outputs,
    pooling: Pooling,
    dimensions: usize,
}

impl Session {
    /// Loads the graph in the file `path` on the CPU. Weights beside it in other files are found.
    ///
    /// # Errors
    /// If the runtime refuses it, or its inputs and outputs are not those of a text encoder.
    pub fn load(
        runtime: &Runtime,
        path: &Path,
        pooling: Pooling,
        options: SessionOptions,
    ) -> Result<Self, SessionError> {
        let inner = commit(runtime, path, options)
            .map_err(|source| SessionError::Load { path: path.to_owned(), source })?;
        let layout = layout(inner.inputs())?;
        let (outputs, dimensions) = outputs(inner.outputs())?;
        Ok(Self { inner, layout, outputs, pooling, dimensions })
    }

    /// Width of the vectors.
    pub fn dimensions(&self) -> usize {
        self.dimensions
    }

    /// Whether the graph computes no padding.
    pub fn is_packed(&self) -> bool {
        self.layout == Layout::Packed
    }

    /// Whether the graph pools by itself, so that the pooling given to [`Session::load`] has no say.
    pub fn pools_inside(&self) -> bool {
        !self.is_packed() && self.outputs.pooled.is_some()
    }

    /// Whether [`Output::Tokens`] can be had.
    pub fn has_token_output(&self) -> bool {
        self.outputs.tokens.is_some()
    }

    /// Runs `batch`: one vector a row, not normalised, `[dimensions]`, or `[tokens, dimensions]` for [`Output::Tokens`].
    ///
    /// # Errors
    /// If the runtime fails, or answers with another shape than the graph promised.
    pub fn run(&mut self, batch: &Batch) -> Result<Vec<Vector>, EngineError> {
        if batch.rows.is_empty() {
            return Ok(Vec::new());
        }
        let (inputs, padded) = match self.layout {
            Layout::Packed => (packed_inputs(&batch.rows, self.pooling)?, 0),
            Layout::Padded { token_types, narrow } => {
                let padded = Padded::new(&batch.rows);
                let length = padded.padded;
                (padded_inputs(padded, token_types, narrow)?, length)
            }
        };
        // Per token where that is asked for, or where the graph leaves pooling to us.
        let (name, per_token) = match (batch.output, &self.outputs) {
            (Output::Pooled, Outputs { pooled: Some(name), .. }) => (name.clone(), false),
            (_, Outputs { tokens: Some(name), .. }) => (name.clone(), true),
            (_, Outputs { tokens: None, .. }) => return Err(EngineError::NoTokenOutput),
        };
        let options = RunOptions::new()?.with_outputs(OutputSelector::no_default().with(&name));
        let outputs = self.inner.run_with_options(inputs, &options)?;
        let values = floats(&outputs[name.as_str()])?;
        let width = self.dimensions;
        if !per_token {
            return exact(values.chunks_exact(width).map(<[f32]>::to_vec).collect(), batch.rows.len(), &name);
        }
        let mut at = 0;
        let rows = batch.rows.iter().map(|row| {
            let tokens = values.get(at * width..(at + row.len()) * width)?;
            at += if padded > 0 { padded } else { row.len() };
            Some(match batch.output {
                Output::Tokens => tokens.to_vec(),
                Output::Pooled => self.pooling.pool(tokens, width),
            })
        });
        exact(rows.flatten().collect(), batch.rows.len(), &name)
    }
}

fn exact(vectors: Vec<Vector>, rows: usize, output: &str) -> Result<Vec<Vector>, EngineError> {
    if vectors.len() == rows {
        Ok(vectors)
    } else {
        Err(EngineError::Shape { output: output.to_owned(), rows: vectors.len(), expected: rows })
    }
}

/// Loads any graph with the settings that every session has: `import` calibrates with it.
pub(crate) fn commit(
    runtime: &Runtime,
    path: &Path,
    options: SessionOptions,
) -> ort::Result<ort::session::Session> {
    let _one_at_a_time = COMMIT.lock().unwrap_or_else(PoisonError::into_inner);
    let mut builder = ort::session::Session::builder(runtime.environment())?
        // Without it the runtime chooses devices by a policy of its own.
        .with_no_environment_execution_providers()?
        .with_execution_providers([ort::ep::CPU::default().with_arena_allocator(true).build()])?
        .with_intra_threads(options.threads.max(1))?
        .with_inter_threads(1)?
        .with_intra_op_spinning(options.spin)?
        // It remembers a plan for each shape ever seen.
        .with_memory_pattern(false)?;
    if sums_of_products_overflow() {
        builder = builder.with_precise_qmm()?;
    }
    builder.commit_from_file(path)
}

/// Whether this processor adds pairs of 8-bit products in 16 bits, as those with AVX2 or AVX-512 and no VNNI do. Int8
/// vectors would there fall to a cosine of .994 to the same version's elsewhere (Haswell, emulated; 1.0000 with the exact
/// product). Asked of the processor because the exact product costs two fifths of the speed wherever it is asked for.
fn sums_of_products_overflow() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        !is_x86_feature_detected!("avx512vnni") && !is_x86_feature_detected!("avxvnni")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

fn layout(inputs: &[Outlet]) -> Result<Layout, SessionError> {
    let has = |name: &str| inputs.iter().any(|input| input.name() == name);
    if !has(INPUT_IDS) {
        return Err(SessionError::NoTokenInput);
    }
    let known: &[&str] = if has(POOLING_WEIGHTS) {
        &[INPUT_IDS, POSITION_IDS, PAD_INDEX, UNPAD_INDEX, ATTENTION_MASK, POOLING_WEIGHTS]
    } else {
        &[INPUT_IDS, ATTENTION_MASK, TOKEN_TYPE_IDS]
    };
    if let Some(unknown) = inputs.iter().find(|input| !known.contains(&input.name())) {
        return Err(SessionError::UnknownInput(unknown.name().to_owned()));
    }
    if has(POOLING_WEIGHTS) {
        return Ok(Layout::Packed);
    }
    let narrow = match inputs.iter().find(|input| input.name() == INPUT_IDS).map(|i| i.dtype().tensor_type())
    {
        Some(Some(TensorElementType::Int32)) => true,
        Some(Some(TensorElementType::Int64)) => false,
        _ => return Err(SessionError::UnknownInput(INPUT_IDS.to_owned())),
    };
    Ok(Layout::Padded { token_types: has(TOKEN_TYPE_IDS), narrow })
}

fn outputs(outlets: &[Outlet]) -> Result<(Outputs, usize), SessionError> {
    let find = |names: &[&str]| outlets.iter().find(|outlet| names.contains(&outlet.name()));
    let pooled = find(&[POOLED, SENTENCE_EMBEDDING]);
    let tokens = find(&[TOKEN_EMBEDDINGS, LAST_HIDDEN_STATE]);
    let Some(first) = pooled.or(tokens) else {
        let names: Vec<&str> = outlets.iter().map(Outlet::name).collect();
        return Err(SessionError::UnknownOutput(names.join(", ")));
    };
    let width = first.dtype().tensor_shape().and_then(|shape| shape.last().copied());
    let dimensions = width
        .and_then(|width| usize::try_from(width).ok())
        .filter(|width| *width > 0)
        .ok_or_else(|| SessionError::UnknownWidth(first.name().to_owned()))?;
    let name = |outlet: Option<&Outlet>| outlet.map(|outlet| outlet.name().to_owned());
    Ok((Outputs { pooled: name(pooled), tokens: name(tokens) }, dimensions))
}

pub(crate) type Inputs = Vec<(&'static str, SessionInputValue<'static>)>;

/// What a packed graph is fed for `rows`: `import` calibrates with it.
pub(crate) fn packed_inputs(rows: &[Arc<[u32]>], pooling: Pooling) -> ort::Result<Inputs> {
    let packed = Packed::new(rows, pooling);
    let (tokens, rows, padded) = (packed.tokens, packed.rows, packed.padded);
    Ok(vec![
        (INPUT_IDS, Tensor::from_array(([tokens], packed.input_ids))?.into()),
        (POSITION_IDS, Tensor::from_array(([tokens], packed.position_ids))?.into()),
        (PAD_INDEX, Tensor::from_array(([rows, padded], packed.pad_index))?.into()),
        (UNPAD_INDEX, Tensor::from_array(([tokens], packed.unpad_index))?.into()),
        (ATTENTION_MASK, Tensor::from_array(([rows, padded], packed.attention_mask))?.into()),
        (POOLING_WEIGHTS, Tensor::from_array(([rows, tokens], packed.pooling_weights))?.into()),
    ])
}

fn padded_inputs(padded: Padded, token_types: bool, narrow: bool) -> ort::Result<Inputs> {
    let shape = [padded.rows, padded.padded];
    let tensor = |values: Vec<i64>| -> ort::Result<SessionInputValue<'static>> {
        Ok(if narrow {
            Tensor::from_array((shape, values.into_iter().map(|value| value as i32).collect::<Vec<_>>()))?
                .into()
        } else {
            Tensor::from_array((shape, values))?.into()
        })
    };
    let types = token_types.then(|| vec![0; padded.input_ids.len()]);
    let mut inputs =
        vec![(INPUT_IDS, tensor(padded.input_ids)?), (ATTENTION_MASK, tensor(padded.attention_mask)?)];
    if let Some(types) = types {
        inputs.push((TOKEN_TYPE_IDS, tensor(types)?));
    }
    Ok(inputs)
}

/// The tensor's values as f32; exports in fp16 answer in fp16.
pub(crate) fn floats(value: &DynValue) -> ort::Result<Vec<f32>> {
    if let Ok((_, values)) = value.try_extract_tensor::<f32>() {
        return Ok(values.to_vec());
    }
    let (_, values) = value.try_extract_tensor::<f16>()?;
    Ok(values.iter().map(|value| value.to_f32()).collect())
}
