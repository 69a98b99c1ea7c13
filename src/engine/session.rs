//! One ONNX Runtime session: what its graph asks for, and a batch through it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use half::f16;
use ort::session::{OutputSelector, RunOptions};
use ort::value::{DynValue, Outlet, TensorElementType};
use thiserror::Error;

use super::inputs::{gathered_inputs, packed_inputs, padded_inputs, unpadded_inputs};
use super::layout::{Padded, Padding};
use super::options::{Graph, SessionOptions, commit};
use super::placement::Placement;
use super::tensorrt::{self, MOST_ROWS};
use super::{Backend, Batch, Device, EngineError, Form, Output, Pooling, Vector, failure, unpadded};

/// Names of a packed graph's inputs and outputs. `import` writes them, sessions read them.
pub(crate) mod names {
    pub(crate) const INPUT_IDS: &str = "input_ids";
    pub(crate) const ATTENTION_MASK: &str = "attention_mask";
    pub(crate) const TOKEN_TYPE_IDS: &str = "token_type_ids";
    pub(crate) const POSITION_IDS: &str = "position_ids";
    pub(crate) const PAD_INDEX: &str = "pad_index";
    pub(crate) const UNPAD_INDEX: &str = "unpad_index";
    pub(crate) const POOLING_WEIGHTS: &str = "pooling_weights";
    /// On GPUs in the place of `pooling_weights`.
    pub(crate) const PADDED_WEIGHTS: &str = "padded_weights";
    /// In the form without padding in the place of `unpad_index` and `attention_mask`.
    pub(crate) const TOKEN_OFFSET: &str = "token_offset";
    pub(crate) const CUMULATIVE_LENGTHS: &str = "cumulative_lengths";
    /// `[B, H]`, not normalised.
    pub(crate) const POOLED: &str = "pooled";
    /// `[T, H]` of a packed graph, `[B, S, H]` of a padded one.
    pub(crate) const TOKEN_EMBEDDINGS: &str = "token_embeddings";
    /// What a graph says of its padding token, in its metadata: a [`Padding`](crate::engine::layout::Padding).
    pub(crate) const PADDING: &str = "sextant.padding";
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
    /// Rows of different lengths could not run together.
    #[error(
        "the graph has no input `attention_mask`, so that padding would change the vectors of shorter texts: export it again with one \
         (`optimum-cli export onnx --model DIR OUT`)"
    )]
    NoAttentionMask,
    /// The graph takes a number of rows, or of tokens, that was fixed when it was exported.
    #[error(
        "the graph takes rows of the fixed shape {0:?}, and texts come in any number and length: export it again with dynamic axes \
         (`optimum-cli export onnx --model DIR OUT`)"
    )]
    FixedShape(Vec<i64>),
    /// Nothing in the graph pools, and the version says that the graph does.
    #[error("the graph has no pooled output, and its version says that it pools inside")]
    NoPooledOutput,
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
    /// The device computes only a part of it.
    #[error(
        "the graph does not run on `{device}`, which lacks: {strays} (versions in fp32 and fp16 have kernels there, compiled int8 has none: run it with `--device cpu`)"
    )]
    Misplaced {
        /// Where it should run.
        device: Device,
        /// The operators, with where they would run.
        strays: String,
    },
    /// TensorRT cannot be given it.
    #[error("TensorRT cannot have the graph `{}`: {reason}", path.display())]
    NotForTensorRt {
        /// The graph's file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The device's memory does not suffice for it.
    #[error("the memory of `{device}` does not suffice to load `{}`: {source}", path.display())]
    OutOfMemory {
        /// Where it should run.
        device: Device,
        /// The graph's file.
        path: PathBuf,
        /// The runtime's reason.
        source: ort::Error,
    },
}

/// The shape a graph takes its rows in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    Packed,
    Gathered,
    Unpadded,
    Padded { token_types: bool, narrow: bool },
}

/// Which output holds what is asked for, and the width of its vectors.
#[derive(Debug, Clone)]
struct Outputs {
    pooled: Option<(String, usize)>,
    tokens: Option<(String, usize)>,
}

/// A session with what it needs to know of its graph. One thread uses it: ONNX Runtime's sessions are not all safe to share.
pub struct Session {
    inner: ort::session::Session,
    layout: Layout,
    outputs: Outputs,
    pooling: Pooling,
    padding: Option<Padding>,
    /// Tokens of the longest row that will come.
    longest: usize,
    device: Device,
    placement: Placement,
}

impl Session {
    /// Loads the graph in the file `path` where `options` say. Weights beside it in other files are found.
    ///
    /// # Errors
    /// If the runtime refuses it, its inputs and outputs are not those of a text encoder, or the device does not have all that it is for.
    pub fn load(
        backend: &Backend,
        path: &Path,
        pooling: Pooling,
        options: SessionOptions,
    ) -> Result<Self, SessionError> {
        let device = options.device;
        let refused = |source: ort::Error| {
            let path = path.to_owned();
            match device.gpu() {
                Some(_) if failure::is_out_of_memory(source.message()) => {
                    SessionError::OutOfMemory { device, path, source }
                }
                _ => SessionError::Load { path, source },
            }
        };
        let edited = unpadded::read(path, options.form).map_err(|error| refused(ort::Error::wrap(error)))?;
        let declared = match device {
            Device::TensorRt(_) => Some(
                tensorrt::Inputs::read(path)
                    .map_err(|reason| SessionError::NotForTensorRt { path: path.to_owned(), reason })?,
            ),
            Device::Cpu | Device::Cuda(_) => None,
        };
        let graph = match (&edited, &declared) {
            (Some(bytes), _) => Graph::Edited(bytes, path.parent().unwrap_or(Path::new("."))),
            (None, Some(inputs)) => Graph::Declared(path, inputs),
            (None, None) => Graph::File(path),
        };
        let inner = commit(backend, graph, options).map_err(refused)?;
        let placement = match (Placement::of(&inner), device.gpu()) {
            (Ok(placement), _) => placement,
            (Err(error), Some(_)) => return Err(refused(error)),
            // A library that cannot tell: there is nowhere else than the processor.
            (Err(_), None) => Placement::default(),
        };
        if let Some(strays) = placement.strays(device) {
            return Err(SessionError::Misplaced { device, strays });
        }
        let layout = layout(inner.inputs())?;
        let outputs = outputs(inner.outputs())?;
        if pooling == Pooling::InGraph && outputs.pooled.is_none() {
            return Err(SessionError::NoPooledOutput);
        }
        let padding = inner.metadata().ok().and_then(|told| told.custom(PADDING)?.parse().ok());
        let longest = match options.max_tokens {
            0 => usize::MAX,
            known => known,
        };
        Ok(Self { inner, layout, outputs, pooling, padding, longest, device, placement })
    }

    /// Where it runs.
    pub fn device(&self) -> Device {
        self.device
    }

    /// In which form the graph is.
    pub(super) fn form(&self) -> Form {
        match self.layout {
            Layout::Packed | Layout::Padded { .. } => Form::File,
            Layout::Gathered => Form::Gathered,
            Layout::Unpadded => Form::Unpadded,
        }
    }

    /// How many nodes of the graph each provider has.
    pub fn nodes(&self) -> BTreeMap<&str, usize> {
        self.placement.nodes()
    }

    /// Width of the vectors of texts.
    pub fn dimensions(&self) -> usize {
        let Outputs { pooled, tokens } = &self.outputs;
        pooled.as_ref().or(tokens.as_ref()).map_or(0, |(_, width)| *width)
    }

    /// Width of the vectors of single tokens, if they can be had: a graph may make that of the text narrower.
    pub fn token_dimensions(&self) -> Option<usize> {
        self.outputs.tokens.as_ref().map(|(_, width)| *width)
    }

    /// Whether the graph computes no padding.
    pub fn is_packed(&self) -> bool {
        !matches!(self.layout, Layout::Padded { .. })
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
        let most = match self.device {
            Device::TensorRt(_) => MOST_ROWS,
            Device::Cpu | Device::Cuda(_) => usize::MAX,
        };
        let mut vectors = Vec::with_capacity(batch.rows.len());
        for rows in batch.rows.chunks(most) {
            vectors.extend(self.run_rows(rows, batch.output, RunOptions::new()?)?);
        }
        Ok(vectors)
    }

    /// Gives memory that no batch has needed lately back to the device, by a run over one token.
    ///
    /// # Errors
    /// If the runtime fails.
    pub fn shrink(&mut self) -> Result<(), EngineError> {
        // A GPU's session has an arena on the host too, for what comes back.
        let arena =
            self.device.gpu().map_or_else(|| "cpu:0".to_owned(), |number| format!("gpu:{number};cpu:0"));
        let mut options = RunOptions::new()?;
        options.set("memory.enable_memory_arena_shrinkage", arena)?;
        self.run_rows(&[[0].into()], Output::Pooled, options).map(drop)
    }

    fn run_rows(
        &mut self,
        rows: &[Arc<[u32]>],
        output: Output,
        options: RunOptions,
    ) -> Result<Vec<Vector>, EngineError> {
        let (inputs, padded) = match self.layout {
            Layout::Packed => (packed_inputs(rows, self.pooling, self.padding)?, 0),
            Layout::Gathered => (gathered_inputs(rows, self.pooling, self.padding)?, 0),
            Layout::Unpadded => (unpadded_inputs(rows, self.pooling, self.padding)?, 0),
            Layout::Padded { token_types, narrow } => {
                let padded = Padded::new(rows, self.longest);
                let length = padded.padded;
                (padded_inputs(padded, token_types, narrow)?, length)
            }
        };
        // Per token where that is asked for, or where the graph leaves pooling to us.
        let ((name, width), per_token) = match (output, &self.outputs) {
            (Output::Pooled, Outputs { pooled: Some(pooled), .. }) => (pooled.clone(), false),
            (_, Outputs { tokens: Some(tokens), .. }) => (tokens.clone(), true),
            (_, Outputs { tokens: None, .. }) => return Err(EngineError::NoTokenOutput),
        };
        let options = options.with_outputs(OutputSelector::no_default().with(&name));
        let device = self.device;
        let outputs =
            self.inner.run_with_options(inputs, &options).map_err(|error| failure::of(error, device))?;
        let values = floats(&outputs[name.as_str()])?;
        if !per_token {
            return exact(values.chunks_exact(width).map(<[f32]>::to_vec).collect(), rows.len(), &name);
        }
        let mut at = 0;
        let vectors = rows.iter().map(|row| {
            let tokens = values.get(at * width..(at + row.len()) * width)?;
            at += if padded > 0 { padded } else { row.len() };
            Some(match output {
                Output::Tokens => tokens.to_vec(),
                Output::Pooled => self.pooling.pool(tokens, width),
            })
        });
        exact(vectors.flatten().collect(), rows.len(), &name)
    }
}

fn exact(vectors: Vec<Vector>, rows: usize, output: &str) -> Result<Vec<Vector>, EngineError> {
    if vectors.len() == rows {
        Ok(vectors)
    } else {
        Err(EngineError::Shape { output: output.to_owned(), rows: vectors.len(), expected: rows })
    }
}

fn layout(inputs: &[Outlet]) -> Result<Layout, SessionError> {
    let has = |name: &str| inputs.iter().any(|input| input.name() == name);
    if !has(INPUT_IDS) {
        return Err(SessionError::NoTokenInput);
    }
    let known: &[&str] = if has(POOLING_WEIGHTS) {
        &[INPUT_IDS, POSITION_IDS, PAD_INDEX, UNPAD_INDEX, ATTENTION_MASK, POOLING_WEIGHTS]
    } else if has(TOKEN_OFFSET) {
        &[INPUT_IDS, POSITION_IDS, PAD_INDEX, TOKEN_OFFSET, CUMULATIVE_LENGTHS, PADDED_WEIGHTS]
    } else if has(PADDED_WEIGHTS) {
        &[INPUT_IDS, POSITION_IDS, PAD_INDEX, UNPAD_INDEX, ATTENTION_MASK, PADDED_WEIGHTS]
    } else {
        &[INPUT_IDS, ATTENTION_MASK, TOKEN_TYPE_IDS]
    };
    if let Some(unknown) = inputs.iter().find(|input| !known.contains(&input.name())) {
        return Err(SessionError::UnknownInput(unknown.name().to_owned()));
    }
    if has(POOLING_WEIGHTS) {
        return Ok(Layout::Packed);
    }
    if has(TOKEN_OFFSET) {
        return Ok(Layout::Unpadded);
    }
    if has(PADDED_WEIGHTS) {
        return Ok(Layout::Gathered);
    }
    if !has(ATTENTION_MASK) {
        return Err(SessionError::NoAttentionMask);
    }
    let shape =
        inputs.iter().find(|input| input.name() == INPUT_IDS).and_then(|input| input.dtype().tensor_shape());
    if let Some(shape) = shape.filter(|shape| shape.iter().any(|length| *length >= 0)) {
        return Err(SessionError::FixedShape(shape.to_vec()));
    }
    let narrow = match inputs.iter().find(|input| input.name() == INPUT_IDS).map(|i| i.dtype().tensor_type())
    {
        Some(Some(TensorElementType::Int32)) => true,
        Some(Some(TensorElementType::Int64)) => false,
        _ => return Err(SessionError::UnknownInput(INPUT_IDS.to_owned())),
    };
    Ok(Layout::Padded { token_types: has(TOKEN_TYPE_IDS), narrow })
}

fn outputs(outlets: &[Outlet]) -> Result<Outputs, SessionError> {
    let find = |names: &[&str]| outlets.iter().find(|outlet| names.contains(&outlet.name()));
    let (pooled, tokens) =
        (find(&[POOLED, SENTENCE_EMBEDDING]), find(&[TOKEN_EMBEDDINGS, LAST_HIDDEN_STATE]));
    if pooled.or(tokens).is_none() {
        let names: Vec<&str> = outlets.iter().map(Outlet::name).collect();
        return Err(SessionError::UnknownOutput(names.join(", ")));
    }
    let with_width = |outlet: &Outlet| {
        let width = outlet.dtype().tensor_shape().and_then(|shape| shape.last().copied());
        let width = width.and_then(|width| usize::try_from(width).ok()).filter(|width| *width > 0);
        let width = width.ok_or_else(|| SessionError::UnknownWidth(outlet.name().to_owned()))?;
        Ok((outlet.name().to_owned(), width))
    };
    Ok(Outputs { pooled: pooled.map(with_width).transpose()?, tokens: tokens.map(with_width).transpose()? })
}

/// The tensor's values as f32; exports in fp16 answer in fp16.
pub(crate) fn floats(value: &DynValue) -> ort::Result<Vec<f32>> {
    if let Ok((_, values)) = value.try_extract_tensor::<f32>() {
        return Ok(values.to_vec());
    }
    let (_, values) = value.try_extract_tensor::<f16>()?;
    Ok(values.iter().map(|value| value.to_f32()).collect())
}
