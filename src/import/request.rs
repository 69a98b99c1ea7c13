//! What is asked of an import.

use std::collections::BTreeMap;
use std::path::Path;

use crate::engine::Pooling;
use crate::repository::manifest::{Graph, Precision, Source};
use crate::rollout::gate::claim::Parent;

/// What to import, and what to say about it that the checkpoint does not.
#[derive(Debug)]
pub struct Request<'a> {
    /// The checkpoint's directory.
    pub checkpoint: &'a Path,
    /// The name that clients will ask for.
    pub model: &'a str,
    /// Number format of the graph. A graph that is taken over keeps its own.
    pub precision: Precision,
    /// Compile ([`Graph::Packed`]) or take over ([`Graph::Padded`]); if not said, compiled where that is possible.
    pub graph: Option<Graph>,
    /// The export to take over, relative to the checkpoint, if it is none of the usual names; then nothing is compiled.
    pub onnx_file: Option<&'a str>,
    /// Texts for int8's ranges, one a line; the built-in ones if not said.
    pub calibrate: Option<&'a Path>,
    /// Instead of the checkpoint's own.
    pub pooling: Option<Pooling>,
    /// Whether vectors are scaled to unit length, instead of what the checkpoint says.
    pub normalise: Option<bool>,
    /// Instead of the checkpoint's own.
    pub max_tokens: Option<usize>,
    /// Added to the checkpoint's own, or put in place of them, by name.
    pub prompts: BTreeMap<String, String>,
    /// Instead of what the checkpoint's README says.
    pub licence: Option<String>,
    /// Instead of what the checkpoint's README says.
    pub training_data: Option<String>,
    /// No file of a checkpoint says it.
    pub intended_use: Option<String>,
    /// Shorter widths that the model was trained to be cut to.
    pub matryoshka_dimensions: Vec<usize>,
    /// The version whose space this one writes into, if that is claimed.
    pub claim: Option<Parent>,
    /// Where the directory came from.
    pub source: Source,
    /// RFC 3339, UTC.
    pub created: String,
}

impl<'a> Request<'a> {
    /// An import in fp32 of what the checkpoint says of itself.
    pub fn new(checkpoint: &'a Path, model: &'a str, source: Source, created: String) -> Self {
        Self {
            checkpoint,
            model,
            precision: Precision::Fp32,
            graph: None,
            onnx_file: None,
            calibrate: None,
            pooling: None,
            normalise: None,
            max_tokens: None,
            prompts: BTreeMap::new(),
            licence: None,
            training_data: None,
            intended_use: None,
            matryoshka_dimensions: Vec::new(),
            claim: None,
            source,
            created,
        }
    }
}
