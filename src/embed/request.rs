//! A request freed of its dialect, and its answer.

use std::sync::Arc;
use std::time::Duration;

use super::{Model, Outlying};
use crate::batch::Class;
use crate::drift::inputs::InputFacts;
use crate::engine::Output;
use crate::keys::Budget;
use crate::repository::manifest::Space;
use crate::tokenize::Truncate;

/// One thing to embed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Text.
    Text(String),
    /// Ids of the model's own tokenizer, special tokens included.
    Ids(Vec<i64>),
}

/// Which prompt goes before the inputs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Prompt {
    /// The model's default for inputs of no stated kind, if it has one.
    #[default]
    Default,
    /// The model's prompt for queries, if it has one.
    Query,
    /// The model's prompt for documents, if it has one.
    Document,
    /// The prompt of this name.
    Named(String),
}

/// A request, freed of its dialect.
#[derive(Debug, Clone, Default)]
pub struct EmbedRequest {
    /// `name`, `name@version` or `name@role`; `None` for the default model.
    pub model: Option<String>,
    /// Requests with the same key are answered by the same version while one is on trial.
    pub key: Option<String>,
    /// Who asks: the name of its key, or its address where there are no keys. Empty for what the process asks itself.
    pub caller: Arc<str>,
    /// Of the caller's key: what the request's tokens are taken from.
    pub budget: Option<Arc<Budget>>,
    /// The space that the caller's index is in: a version that writes into it answers, or none.
    pub space: Option<Space>,
    /// What to embed.
    pub inputs: Vec<Input>,
    /// Put before each text.
    pub prompt: Prompt,
    /// What to do with long inputs; `None`: as the model was made.
    pub truncate: Option<Truncate>,
    /// Cut the vectors to this width, before they are normalised where they are.
    pub dimensions: Option<usize>,
    /// `None`: as the model was made.
    pub normalise: Option<bool>,
    /// One vector an input, or one a token.
    pub output: Output,
    /// How urgent it is.
    pub class: Class,
    /// Whether to say of each input how far it lies from the intended traffic; of pooled vectors only.
    pub ood: bool,
}

/// The answer to an [`EmbedRequest`], in the order of its inputs.
#[derive(Debug)]
pub struct Embeddings {
    /// The version that made the vectors.
    pub model: Arc<Model>,
    /// One an input: `[dimensions]`, or `[tokens, dimensions]` flat.
    pub vectors: Vec<Vec<f32>>,
    /// Width of the vectors.
    pub dimensions: usize,
    /// Tokens computed, special tokens included.
    pub tokens: usize,
    /// Inputs that were cut.
    pub truncated: usize,
    /// What there is to know of each input.
    pub inputs: Vec<InputFacts>,
    /// How far each input lies outside, where the request asked; none for a vector that is all zeros.
    pub outlying: Option<Vec<Option<Outlying>>>,
    /// Where the time went.
    pub timings: Timings,
}

/// Where a request's time went. Of several inputs the slowest counts.
#[derive(Debug, Clone, Copy, Default)]
pub struct Timings {
    /// Text to token ids.
    pub tokenize: Duration,
    /// Waiting for a session.
    pub queue: Duration,
    /// In a session.
    pub infer: Duration,
    /// Cutting and normalising.
    pub finish: Duration,
}
