//! Why a request got no vectors, in words that a caller can act on.

use std::time::Duration;

use thiserror::Error;

use crate::batch::BatchError;
use crate::repository::manifest::Space;
use crate::tokenize::InputError;

/// What is wrong with an input whose vector has NaN or infinity.
pub(crate) const NOT_FINITE: &str = "the model made a vector that is not finite";

/// Why a request got no vectors.
#[derive(Debug, Error)]
pub enum EmbedError {
    /// No such model or version.
    #[error("the model `{asked}` is not served here; there are: {}", if available.is_empty() { "none".into() } else { available.join(", ") })]
    UnknownModel {
        /// What was asked for.
        asked: String,
        /// What is served.
        available: Vec<String>,
    },
    /// Several models answer to one name: each could be meant, and their vectors differ.
    #[error("`{asked}` is a name of several models here: {}; ask for one of them", models.join(", "))]
    AmbiguousModel {
        /// What was asked for, without a version.
        asked: String,
        /// The models.
        models: Vec<String>,
    },
    /// A model of the repository, no version of which could be loaded.
    #[error("the model `{model}` cannot be served at the moment: {reason}")]
    Missing {
        /// Its name.
        model: String,
        /// Why.
        reason: String,
    },
    /// Several models, none asked for and none the default.
    #[error("say which model: this server has {}, and none is the default", .0.join(", "))]
    NoDefaultModel(Vec<String>),
    /// The caller's index is in another space.
    #[error("{version} writes into the space {serves}, not into {asked}: its vectors must not meet yours")]
    SpaceMismatch {
        /// The space asked for.
        asked: Space,
        /// The space of the version resolved.
        serves: Space,
        /// That version.
        version: String,
    },
    /// No prompt of that name.
    #[error("this model has no prompt `{asked}`; it has: {}", if available.is_empty() { "none".into() } else { available.join(", ") })]
    UnknownPrompt {
        /// What was asked for.
        asked: String,
        /// What there is.
        available: Vec<String>,
    },
    /// A width that the model was not trained to be cut to.
    #[error(
        "`dimensions` is {asked}; vectors of {version} have {full} and {}",
        if declared.is_empty() {
            "are not to be cut: no shorter width was declared when it was imported (sextant import --matryoshka 256,128)"
                .to_owned()
        } else {
            format!("were trained to be cut to {declared:?}")
        }
    )]
    Dimensions {
        /// What was asked for.
        asked: usize,
        /// `name@version`.
        version: String,
        /// Width of its vectors.
        full: usize,
        /// Shorter widths that can be had.
        declared: Vec<usize>,
    },
    /// One of the inputs.
    #[error("input {index}: {source}")]
    Input {
        /// Its place in the request, from 0.
        index: usize,
        /// What is wrong with it.
        source: InputError,
    },
    /// A vector for each token, of too many tokens.
    #[error(
        "the inputs have {tokens} tokens, and vectors of at most {most} are given at once: send them in parts"
    )]
    TooManyTokenVectors {
        /// Of all inputs.
        tokens: usize,
        /// Allowed.
        most: usize,
    },
    /// The answer would be larger than there is room for beside those that are not taken yet.
    #[error(
        "other requests and answers that are not taken yet have the room (max_held_bytes), and this answer needs {bytes} bytes: ask \
         later, or for less at once"
    )]
    NoRoom {
        /// What it needs.
        bytes: usize,
    },
    /// The caller's key has used up its tokens.
    #[error("this key has used up its tokens for now")]
    UsedUp {
        /// Until some are left.
        wait: Duration,
    },
    /// The queue or the engine.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// The model made a vector of NaN or infinity, which must not reach an index.
    #[error("input {index}: {NOT_FINITE}")]
    NotFinite {
        /// The input's place in the request, from 0.
        index: usize,
    },
    /// It was asked how far inputs lie outside, and nobody has said of what.
    #[error(
        "{version} has no drift reference: make one with `sextant drift fit`, or have the server --learn one"
    )]
    NoReference {
        /// The version.
        version: String,
    },
    /// The thread that held vectors against the reference is gone.
    #[error("a scoring thread failed")]
    Scoring,
    /// The tokenizing thread is gone.
    #[error("a tokenizing thread failed")]
    Tokenizing,
}
