//! A request freed of its dialect, and its answer.

use std::sync::Arc;
use std::time::Duration;

use super::{Model, Outlying};
use crate::account::{Account, Caller, Reservation};
use crate::batch::Class;
use crate::drift::inputs::InputFacts;
use crate::engine::{Output, Vector};
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

/// Bytes of a text that are tokenized at the cost of a token that is run, about: 0.3 to 1.5 ms of one core for 1,000 bytes of the costliest
/// texts, and 0.25 ms for a token of all-MiniLM-L6-v2.
const BYTES_OF_A_TOKEN: usize = 256;

impl Input {
    /// Tokens that are charged before the input is tokenized: no fewer than the work is worth, and no more than most inputs turn out to have.
    pub fn tokenizing_cost(&self) -> usize {
        match self {
            Self::Text(text) => tokenizing_cost(text),
            Self::Ids(_) => 1,
        }
    }
}

/// The same of a text.
pub fn tokenizing_cost(text: &str) -> usize {
    1 + text.len() / BYTES_OF_A_TOKEN
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
    /// Of the caller's key: what the request's tokens are taken from.
    pub budget: Option<Arc<Budget>>,
    /// Who asks: the name of its key, or its address where there are no keys. Empty for what the process asks itself. Sessions and room are
    /// shared between callers, and the guard counts them.
    pub caller: Caller,
    /// Where the answer's bytes are reserved before anything is computed; none where the caller takes the vectors as they are.
    pub answer: Option<AnswerRoom>,
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

/// Where the bytes of an answer are counted, and how many each value takes as it is written.
#[derive(Debug, Clone)]
pub struct AnswerRoom {
    /// Of all answers and bodies.
    pub account: Arc<Account>,
    /// Of one value of a vector, separators included.
    pub value_bytes: usize,
    /// So much of each answer is not counted: small ones need not wait for large ones.
    pub free_bytes: usize,
}

impl AnswerRoom {
    /// Reserves room for an answer of so many values, of which `computed` are in memory as floats besides. None if there is no room; an
    /// empty reservation for a small answer.
    ///
    /// # Errors
    /// The bytes for which there is no room.
    pub fn reserve(&self, caller: &Caller, values: usize, computed: usize) -> Result<Reservation, usize> {
        let bytes = values * self.value_bytes + computed * size_of::<f32>();
        let counted = bytes.saturating_sub(self.free_bytes);
        self.account.reserve(caller, counted).ok_or(counted)
    }
}

/// The answer to an [`EmbedRequest`], in the order of its inputs.
#[derive(Debug)]
pub struct Embeddings {
    /// The version that made the vectors.
    pub model: Arc<Model>,
    /// One an input: `[dimensions]`, or `[tokens, dimensions]` flat. Equal inputs share one.
    pub vectors: Vec<Arc<Vector>>,
    /// What is reserved for the vectors and the answer, where the request asked for that.
    pub room: Option<Arc<Reservation>>,
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
