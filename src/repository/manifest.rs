//! What a version is: `manifest.toml`, written once and never edited.

use std::collections::{BTreeMap, BTreeSet};

use object_store::path::Path as Key;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::engine::pooling::normalise;
use crate::engine::{Pooling, Vector};

/// The newest layout of `manifest.toml` that this code reads. What needs nothing of it is written in the first, which older servers read too.
pub const SCHEMA: u32 = 2;

/// Begins the first line of `manifest.toml`.
const SEAL: &str = "sha256 = \"";

/// Files that every version has, none of them empty.
const REQUIRED: [&str; 3] = ["model.onnx", "tokenizer.json", "MODEL_CARD.md"];

/// What lies beside the files of a version and is none of them.
const RESERVED: [&str; 3] = ["manifest.toml", "claim.json", "signatures"];

/// Bytes of a file's name in its directory.
const MOST_IN_A_NAME: usize = 255;
/// All files of a version: 1 PiB. Sums of sizes stay numbers.
const MOST_BYTES: u64 = 1 << 50;
/// Far beyond the widest vectors of any model.
const MOST_DIMENSIONS: usize = 1 << 16;
/// Far beyond the longest input of any model.
const MOST_TOKENS: usize = 1 << 20;

/// Everything about a version but its bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The oldest layout that has all of its fields: [`Manifest::oldest_schema`].
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
    /// The graph makes wider vectors, which are cut to `dimensions` after they were normalised and are not normalised again.
    #[serde(default, skip_serializing_if = "is_false")]
    pub cut_to_dimensions: bool,
    /// Longest input in tokens, special tokens included.
    pub max_tokens: usize,
    /// The same of a query, where it is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_query_tokens: Option<usize>,
    /// The same of a document, where it is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_document_tokens: Option<usize>,
    /// A text that is too long loses its start, where neither the request nor the server says what is cut.
    #[serde(default, skip_serializing_if = "is_false")]
    pub truncate_start: bool,
    /// From token vectors to one.
    pub pooling: Pooling,
    /// Whether vectors are scaled to unit length.
    pub normalise: bool,
    /// The vector space its vectors lie in.
    pub space: Space,
    /// The version whose space that is, where it is claimed; the claim was measured by import, and is by every gate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub space_parent: Option<u32>,
    /// Whether a text gets another vector beside other texts; absent if that was never measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub depends_on_batch: Option<bool>,
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

impl Manifest {
    /// The text of `manifest.toml`: a line with the SHA-256 of all that follows it, and the fields. No other file has the
    /// digest of this one.
    ///
    /// # Errors
    /// If a field cannot be written as TOML.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        let fields = toml::to_string(self)?;
        Ok(format!("{SEAL}{}\"\n{fields}", hex::encode(Sha256::digest(&fields))))
    }

    /// Reads what [`to_toml`](Self::to_toml) wrote. A text without a digest is taken as it is.
    ///
    /// # Errors
    /// In a sentence, if it is no manifest, or not as it was written.
    pub fn from_toml(text: &str) -> Result<Self, String> {
        let sealed = text.strip_prefix(SEAL).and_then(|rest| rest.split_once("\"\n"));
        let fields = match sealed {
            None => text,
            Some((sha256, fields)) => {
                let found = hex::encode(Sha256::digest(fields));
                if found != sha256 {
                    return Err(format!("its SHA-256 is {found}, and was {sha256} when it was written"));
                }
                fields
            }
        };
        toml::from_str(fields).map_err(|error| {
            let before = error.span().and_then(|span| fields.get(..span.start)).unwrap_or_default();
            let (number, start) = (before.matches('\n').count(), before.rfind('\n').map_or(0, |end| end + 1));
            let line = fields[start..].lines().next().unwrap_or_default();
            // Cut here already: what is wrong comes after it.
            format!("line {}, `{line:.60}`: {}", number + 1, error.message())
        })
    }

    /// The oldest layout that can say what this manifest says.
    pub fn oldest_schema(&self) -> u32 {
        let Self { cut_to_dimensions, max_query_tokens, max_document_tokens, truncate_start, .. } = self;
        let is_newer = self.pooling == Pooling::InGraph
            || *cut_to_dimensions
            || *truncate_start
            || max_query_tokens.is_some()
            || max_document_tokens.is_some();
        if is_newer { SCHEMA } else { 1 }
    }

    /// Makes of the graph's vector the one that is served where the request asks for nothing else.
    pub fn finish(&self, vector: &mut Vector) {
        if self.normalise {
            normalise(vector);
        }
        vector.truncate(self.dimensions);
    }

    /// `name@version`.
    pub fn id(&self) -> String {
        format!("{}@{}", self.model, self.version)
    }

    /// SHA-256 of the graph's file, hexadecimal.
    pub fn graph_digest(&self) -> Option<&str> {
        self.files.iter().find(|file| file.name == "model.onnx").map(|file| file.sha256.as_str())
    }

    /// Whether it describes a version that can be served, as far as one can tell without its files.
    ///
    /// # Errors
    /// By name, what keeps it from being one.
    pub fn check(&self) -> Result<(), String> {
        for required in REQUIRED {
            match self.files.iter().find(|file| file.name == required) {
                None => return Err(format!("it lists no `{required}`, which every version has")),
                Some(file) if file.bytes == 0 => return Err(format!("its `{required}` is empty")),
                Some(_) => {}
            }
        }
        self.check_names()?;
        let bytes = self.files.iter().try_fold(0_u64, |sum, file| sum.checked_add(file.bytes));
        if bytes.is_none_or(|bytes| bytes > MOST_BYTES) {
            return Err("its files are larger than any disk".to_owned());
        }
        for (name, value, most) in [
            ("dimensions", self.dimensions, MOST_DIMENSIONS),
            ("max_tokens", self.max_tokens, MOST_TOKENS),
            ("max_query_tokens", self.max_query_tokens.unwrap_or(1), MOST_TOKENS),
            ("max_document_tokens", self.max_document_tokens.unwrap_or(1), MOST_TOKENS),
        ] {
            if value == 0 || value > most {
                return Err(format!("its `{name}` is {value}, and must be 1 to {most}"));
            }
        }
        if let Some(width) = self.matryoshka_dimensions.iter().find(|w| !(1..=self.dimensions).contains(*w)) {
            let dimensions = self.dimensions;
            return Err(format!(
                "`matryoshka_dimensions` has {width}, which is not between 1 and {dimensions}"
            ));
        }
        if self.graph == Graph::Packed && self.pooling == Pooling::InGraph {
            return Err("its graph is packed, of which none pools by itself".to_owned());
        }
        if self.graph == Graph::Packed && self.precision == Precision::Mixed {
            return Err("its graph is packed and its precision mixed, in which none is compiled".to_owned());
        }
        for (key, name) in [
            ("default_prompt", &self.default_prompt),
            ("default_query_prompt", &self.default_query_prompt),
            ("default_document_prompt", &self.default_document_prompt),
        ] {
            if let Some(name) = name.as_ref().filter(|name| !self.prompts.contains_key(*name)) {
                return Err(format!("its `{key}` is `{name}`, which is none of its prompts"));
            }
        }
        if self.space_parent == Some(self.version) {
            return Err("it claims the space of itself".to_owned());
        }
        let Space(space) = &self.space;
        if space.len() != 16 || !space.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(format!("its space is {space:?}, and must be 16 hexadecimal digits"));
        }
        Ok(())
    }
}

fn is_false(value: &bool) -> bool {
    !value
}

/// Whether a file name stays in the version's directory.
fn is_inside(name: &str) -> bool {
    name.split('/').all(|part| !matches!(part, "" | "." | "..")) && !name.contains('\\')
}

impl Manifest {
    /// Whether every file has a name of its own in the version's directory, the same on every file system and in every bucket.
    fn check_names(&self) -> Result<(), String> {
        let mut names = BTreeSet::new();
        for File { name, .. } in &self.files {
            if !is_inside(name) {
                return Err(format!(
                    "the file `{}` lies outside the version's directory",
                    name.escape_debug()
                ));
            }
            // Stores write other characters otherwise: the file would have one name here and another there.
            if Key::from(name.as_str()).as_ref() != name {
                let name = name.escape_debug();
                return Err(format!(
                    "the name of the file `{name}` has a character that not every store keeps"
                ));
            }
            if name.split('/').any(|part| part.len() > MOST_IN_A_NAME) {
                return Err(format!(
                    "the name of the file `{name:.60}...` has a part of more than {MOST_IN_A_NAME} bytes, which no file system keeps"
                ));
            }
            // Not every file system tells capitals.
            let folded = name.to_ascii_lowercase();
            if RESERVED.contains(&folded.split('/').next().unwrap_or_default()) {
                return Err(format!("the file `{name}` has a name of the repository's own"));
            }
            if !names.insert(folded) {
                return Err(format!("it lists the file `{name}` twice"));
            }
        }
        for name in &names {
            let mut parents = name.match_indices('/').map(|(end, _)| &name[..end]);
            if let Some(parent) = parents.find(|parent| names.contains(*parent)) {
                return Err(format!(
                    "it lists the file `{parent}` and below it, as if it were a directory, `{name}`"
                ));
            }
        }
        Ok(())
    }
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
