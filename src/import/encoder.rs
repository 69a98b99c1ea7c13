//! What a BERT-family encoder is: the sizes that its config.json gives, and the rules in which the family's members differ.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::ImportError;
use super::weights::Weights;

/// The tensor by which an encoder's weights are known.
pub(super) const WORD_EMBEDDINGS: &str = "embeddings.word_embeddings.weight";

/// What works for an encoder that this module does not know.
const EXPORT: &str =
    "export the checkpoint to ONNX and import that (`optimum-cli export onnx --model DIR OUT`)";

/// The keys of config.json that shape the graph. What is absent has the default of the `transformers` library.
#[derive(Debug, Deserialize)]
struct Config {
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
    type_vocab_size: Option<usize>,
    layer_norm_eps: Option<f32>,
    hidden_act: Option<String>,
    position_embedding_type: Option<String>,
    pad_token_id: Option<usize>,
    #[serde(default)]
    is_decoder: bool,
    auto_map: Option<serde_json::Value>,
    /// Heads of each layer that were taken out: the library does so when it loads the weights.
    pruned_heads: Option<serde_json::Map<String, serde_json::Value>>,
}

/// A BERT-family encoder: its sizes, and the rules in which the family's members differ.
///
/// Serialised, it is an ingredient of the vector space: two encoders are written alike exactly if they compute the same of
/// the same weights.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Encoder {
    /// Not written: what the family's members differ in are the rules below.
    #[serde(skip)]
    pub(super) architecture: String,
    pub(super) hidden: usize,
    pub(super) layers: usize,
    pub(super) heads: usize,
    pub(super) intermediate: usize,
    pub(super) vocabulary: usize,
    /// Rows of the position table.
    pub(super) table: usize,
    /// The row of the position table that a text's first token takes.
    pub(super) first_position: usize,
    /// The padding token, where positions begin behind it: standing in a text, it has the row before the first for its position, and the
    /// tokens after it do not count it. Absent in versions of before this was computed, so that they and their spaces stay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) padding: Option<usize>,
    pub(super) token_types: usize,
    pub(super) epsilon: f32,
    pub(super) activation: Activation,
}

#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Activation {
    /// By the error function, not its approximation.
    Gelu,
    /// The approximation by tanh, which some checkpoints were trained with.
    GeluTanh,
    Relu,
}

/// One of the four linear layers in a layer of the encoder, in running order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Projection {
    /// Query, key and value side by side.
    Attention,
    /// From the heads back to the hidden width.
    Output,
    /// To the intermediate width.
    Up,
    /// Back to the hidden width.
    Down,
}

impl Projection {
    pub(super) const ALL: [Self; 4] = [Self::Attention, Self::Output, Self::Up, Self::Down];
}

/// A linear layer's place in the encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) layer: usize,
    pub(super) projection: Projection,
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "layer.{}.{:?}", self.layer, self.projection)
    }
}

/// A linear layer's weights.
pub(super) struct Linear {
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    /// `[inputs, outputs]`
    pub(super) weight: Vec<f32>,
    /// `[outputs]`
    pub(super) bias: Vec<f32>,
}

impl Encoder {
    /// The encoder that config.json describes.
    ///
    /// # Errors
    /// By name, what of it this module does not know.
    pub(super) fn from_config(path: &Path, config: &serde_json::Value) -> Result<Self, ImportError> {
        let architecture = config.get("model_type").and_then(|value| value.as_str()).unwrap_or_default();
        let offset_positions = match architecture {
            "bert" => false,
            "roberta" | "xlm-roberta" | "camembert" => true,
            "" => return Err(ImportError::malformed(path, "it has no `model_type`")),
            other => return Err(unsupported(format!("compiling the architecture `{other}`"))),
        };
        let config: Config =
            serde_path_to_error::deserialize(config).map_err(|error| ImportError::malformed(path, error))?;
        if config.auto_map.is_some() {
            return Err(unsupported("a model with code of its own (`auto_map` in config.json)"));
        }
        if config.is_decoder {
            return Err(unsupported("a decoder (`is_decoder` in config.json)"));
        }
        if config.pruned_heads.is_some_and(|heads| !heads.is_empty()) {
            return Err(unsupported("attention with heads taken out (`pruned_heads` in config.json)"));
        }
        if let Some(other) = config.position_embedding_type.filter(|kind| kind != "absolute") {
            return Err(unsupported(format!("the position embedding type `{other}`")));
        }
        let activation = match config.hidden_act.as_deref() {
            None | Some("gelu") => Activation::Gelu,
            Some("gelu_new" | "gelu_pytorch_tanh") => Activation::GeluTanh,
            Some("relu") => Activation::Relu,
            Some(other) => return Err(unsupported(format!("the activation `{other}`"))),
        };
        let (hidden, heads) = (config.hidden_size, config.num_attention_heads);
        if hidden == 0 || heads == 0 || !hidden.is_multiple_of(heads) {
            let reason = format!("hidden_size {hidden} is no multiple of num_attention_heads {heads}");
            return Err(ImportError::malformed(path, reason));
        }
        // RoBERTa counts positions from the one after its padding token's id.
        let first_position =
            if offset_positions { config.pad_token_id.unwrap_or(1).saturating_add(1) } else { 0 };
        if config.max_position_embeddings <= first_position {
            let rows = config.max_position_embeddings;
            let reason = format!("max_position_embeddings {rows} leaves no position from {first_position}");
            return Err(ImportError::malformed(path, reason));
        }
        Ok(Self {
            architecture: architecture.to_owned(),
            hidden,
            layers: config.num_hidden_layers,
            heads,
            intermediate: config.intermediate_size,
            vocabulary: config.vocab_size,
            table: config.max_position_embeddings,
            first_position,
            padding: first_position.checked_sub(1),
            token_types: config.type_vocab_size.unwrap_or(2),
            epsilon: config.layer_norm_eps.unwrap_or(1e-12),
            activation,
        })
    }

    /// Every linear layer, in running order.
    pub(super) fn places(&self) -> impl Iterator<Item = Place> {
        (0..self.layers)
            .flat_map(|layer| Projection::ALL.into_iter().map(move |projection| Place { layer, projection }))
    }

    /// Reads a linear layer, its weight turned to `[inputs, outputs]`.
    pub(super) fn linear(&self, weights: &mut Weights, place: Place) -> Result<Linear, ImportError> {
        let (hidden, wide) = (self.hidden, self.intermediate);
        let (inputs, outputs, names) = match place.projection {
            Projection::Attention => {
                (hidden, hidden, &["attention.self.query", "attention.self.key", "attention.self.value"][..])
            }
            Projection::Output => (hidden, hidden, &["attention.output.dense"][..]),
            Projection::Up => (hidden, wide, &["intermediate.dense"][..]),
            Projection::Down => (wide, hidden, &["output.dense"][..]),
        };
        let total = outputs * names.len();
        let mut weight = vec![0.0; inputs * total];
        let mut bias = Vec::with_capacity(total);
        for (part, name) in names.iter().enumerate() {
            let name = format!("encoder.layer.{}.{name}", place.layer);
            let rows = weights.read(&format!("{name}.weight"), &[outputs, inputs])?;
            for (output, row) in rows.chunks_exact(inputs).enumerate() {
                let column = part * outputs + output;
                row.iter().enumerate().for_each(|(input, value)| weight[input * total + column] = *value);
            }
            bias.extend(weights.read(&format!("{name}.bias"), &[outputs])?);
        }
        Ok(Linear { inputs, outputs: total, weight, bias })
    }
}

fn unsupported(what: impl Into<String>) -> ImportError {
    ImportError::unsupported(what, EXPORT)
}
