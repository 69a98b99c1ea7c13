//! Why an import was refused.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::engine::{EngineError, SessionError};
use crate::repository::manifest::Precision;
use crate::tokenize::{InputError, TokenizerError};

/// Why a checkpoint was not imported: what is wrong, and what would work.
#[derive(Debug, Error)]
pub enum ImportError {
    /// A file that every checkpoint must have.
    #[error("`{}` is missing: {remedy}", path.display())]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
        /// How to get one.
        remedy: &'static str,
    },
    /// The operating system refused.
    #[error("cannot {action} `{}`: {source}", path.display())]
    Io {
        /// `read`, `write`, ...
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Its reason.
        source: io::Error,
    },
    /// A file that does not hold what its name says.
    #[error("`{}` is not usable: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Well-formed, and not something this server can run.
    #[error("{what} is not supported: {remedy}")]
    Unsupported {
        /// What, by name.
        what: String,
        /// What would work.
        remedy: String,
    },
    /// The request contradicts the checkpoint or itself.
    #[error("{0}")]
    Request(String),
    /// The weights lack a tensor that the architecture has.
    #[error(
        "`{}` has no tensor `{tensor}`: it is incomplete, or of another architecture than its config.json says",
        path.display()
    )]
    NoTensor {
        /// The weights.
        path: PathBuf,
        /// The tensor's full name.
        tensor: String,
    },
    /// The weights have a tensor that the architecture does not.
    #[error(
        "`{}` has a tensor `{tensor}` that a {architecture} encoder has no place for: its config.json describes another \
         model; export the checkpoint to ONNX and import that",
        path.display()
    )]
    ExtraTensor {
        /// The weights.
        path: PathBuf,
        /// The tensor's full name.
        tensor: String,
        /// `model_type` of config.json.
        architecture: String,
    },
    /// A tensor of another shape than config.json leads to.
    #[error("tensor `{tensor}` of `{}` has shape {found:?}, and config.json makes it {expected:?}", path.display())]
    TensorShape {
        /// The weights.
        path: PathBuf,
        /// The tensor's full name.
        tensor: String,
        /// As the file has it.
        found: Vec<usize>,
        /// As config.json has it.
        expected: Vec<usize>,
    },
    /// A weight that is infinite or no number, or becomes so in the asked precision.
    #[error("tensor `{tensor}` holds {value}, which has no place in {precision} weights: {remedy}")]
    Value {
        /// The tensor.
        tensor: String,
        /// The value.
        value: f32,
        /// The precision asked for.
        precision: Precision,
        /// What would work.
        remedy: &'static str,
    },
    /// The tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// A built-in or calibration text that the tokenizer cannot take.
    #[error("cannot tokenize `{text}`: {source}")]
    Text {
        /// The text.
        text: String,
        /// The tokenizer's reason.
        source: InputError,
    },
    /// The graph cannot be served.
    #[error("the graph made from `{}` cannot be served: {source}", path.display())]
    Session {
        /// What it was made from.
        path: PathBuf,
        /// Why not.
        source: SessionError,
    },
    /// The graph loaded and does not run.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// ONNX Runtime failed while calibrating.
    #[error("ONNX Runtime failed while calibrating: {0}")]
    Calibration(#[from] ort::Error),
    /// A probe's vector is no direction.
    #[error(
        "the graph gives `{text}` a vector that is {fault}: its weights are damaged, or overflow in {precision}"
    )]
    Probe {
        /// The text.
        text: String,
        /// `all zeros` or `not finite`.
        fault: &'static str,
        /// The version's.
        precision: Precision,
    },
    /// A compiled graph that gives a text another vector beside other texts.
    #[error(
        "the graph's vector for `{text}` differs by {difference:e} between alone and in a batch, more than {allowed:e}; \
         import with another --precision"
    )]
    BatchDependent {
        /// The text.
        text: String,
        /// The largest difference of a component of the unit vectors.
        difference: f32,
        /// The largest that is allowed.
        allowed: f32,
    },
    /// Vectors that do not lie in the space that is claimed.
    #[error(
        "the vectors made do not lie in the space of version {parent}: {reasons}; import without --claim-space-of, as a version \
         with a space of its own"
    )]
    Claim {
        /// The version whose space was claimed.
        parent: u32,
        /// The checks that failed, with their figures.
        reasons: String,
    },
}

impl ImportError {
    /// Turns an I/O error on `path` into one that says what was being done.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }

    pub(super) fn malformed(path: &Path, reason: impl ToString) -> Self {
        Self::Malformed { path: path.to_owned(), reason: reason.to_string() }
    }

    pub(super) fn unsupported(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Unsupported { what: what.into(), remedy: remedy.into() }
    }
}
