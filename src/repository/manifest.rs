//! What a version is: `manifest.toml`, written once and never edited.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::engine::Pooling;

/// The layout of `manifest.toml` that this code reads and writes.
pub const SCHEMA: u32 = 1;

/// Everything about a version but its bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`SCHEMA`] at the time of writing.
    pub schema: u32,
    /// The name clients ask for.
    pub model: String,
    /// Counted from 1 in each model.
    pub version: u32,
    /// RFC 3339, UTC.
    pub created: String,
    /// SPDX expression, or `unknown`.
    pub licence: String,
    /// `model_type` of the checkpoint: bert, roberta, xlm-roberta, ...
    pub architecture: String,
    /// How the graph takes its rows.
    pub graph: Graph,
    /// Number format of the weights.
    pub precision: Precision,
    /// Width of the vectors.
    pub dimensions: usize,
    /// Shorter widths that the model was trained to be cut to, descending; empty if none is declared.
    #[serde(default)]
    pub matryoshka_dimensions: Vec<usize>,
    /// Longest input in tokens, special tokens included.
    pub max_tokens: usize,
    /// From token vectors to one.
    pub pooling: Pooling,
    /// Whether vectors are scaled to unit length.
    pub normalise: bool,
    /// The vector space its vectors lie in.
    pub space: Space,
    /// What the model was trained on, as far as it is known.
    pub training_data: String,
    /// What the model is meant for, as far as it is known.
    pub intended_use: String,
    /// Name of the prompt put before queries, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_query_prompt: Option<String>,
    /// Name of the prompt put before documents, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_document_prompt: Option<String>,
    /// Name of the prompt put before every input that names none, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_prompt: Option<String>,
    /// Where the files came from.
    pub source: Source,
    /// How an int8 graph got its ranges.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Calibration>,
    /// What the checkpoint did not say and import took for granted, a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub assumptions: Vec<String>,
    /// Text put before an input, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub prompts: BTreeMap<String, String>,
    /// Every file of the version but this one.
    pub files: Vec<File>,
}

/// How a graph takes its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Graph {
    /// Made by `import`: linear layers see the tokens of all rows end to end and compute no padding.
    Packed,
    /// Taken over from an export: rows padded to the longest.
    Padded,
}

/// Number format of a graph's weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 32-bit floating point, as the checkpoint.
    #[default]
    Fp32,
    /// 16-bit floating point, for GPUs.
    Fp16,
    /// 8-bit integers with fixed activation ranges.
    Int8,
    /// A taken-over graph whose weights are of several formats, or of one not listed.
    #[value(skip)]
    Mixed,
}

/// Where a version's files came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Source {
    /// A directory on the importing machine; only its last component is kept.
    Directory {
        /// The directory's name.
        name: String,
    },
    /// A model hub.
    Hub {
        /// `organisation/name`.
        id: String,
        /// The commit that the asked revision stood for.
        revision: String,
    },
}

/// How an int8 graph's activation ranges were found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calibration {
    /// `built-in`, or the name of the file given.
    pub texts: String,
    /// How many texts.
    pub count: usize,
    /// SHA-256 of the texts, hexadecimal.
    pub sha256: String,
}

/// One file of a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Relative to the version's directory.
    pub name: String,
    /// Size.
    pub bytes: u64,
    /// Hexadecimal.
    pub sha256: String,
}

/// A vector space: 16 hexadecimal digits. Vectors of different spaces must never meet in one index.
///
/// That of a version which claims no other's is a digest over all that shapes a vector, made by `import`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Space(pub String);

impl std::fmt::Display for Space {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::fmt::Display for Precision {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Fp32 => "fp32",
            Self::Fp16 => "fp16",
            Self::Int8 => "int8",
            Self::Mixed => "mixed",
        })
    }
}
