//! The pipeline of a request: resolve the model, add the prompt, tokenize, batch, finish.

mod cache;
mod candidate;
mod distinct;
mod error;
mod missing;
mod model;
mod outlying;
mod pairs;
mod request;
mod served;
mod spans;
mod spread;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tower::ServiceExt as _;

use crate::account::Caller;
use crate::batch::{self, Finished};
use crate::drift::inputs::InputFacts;
use crate::drift::monitor::Drawn;
use crate::drift::sides::Assigned;
use crate::engine::pooling::normalise;
use crate::engine::{Output, Vector};
use crate::rollout::guard::Side;
use crate::tokenize::{InputError, Piece, Tokens, Truncate};
use crate::trace;
use cache::VectorCache;
pub use candidate::Candidate;
use distinct::distinct;
pub use error::EmbedError;
pub(crate) use error::NOT_FINITE;
pub use missing::Reasons as MissingReasons;
pub use model::{Model, ModelError, Placed};
pub use outlying::Outlying;
pub use request::{AnswerRoom, EmbedRequest, Embeddings, Input, Prompt, Timings, tokenizing_cost};
pub use served::Resident;
use served::{Routed, Served};
use spread::Threads;

/// Numbers in an answer of [`Output::Tokens`], which has a vector for each token: about 50 MB as JSON.
const MOST_TOKEN_VALUES: usize = 1 << 22;

/// All models that are served, and the threads that tokenize for them.
pub struct Embedder {
    served: Served,
    threads: Threads,
    max_input_bytes: usize,
    cache: Option<VectorCache>,
}

/// How an [`Embedder`] works.
#[derive(Debug, Clone, Copy)]
pub struct Resources {
    /// Threads that tokenize.
    pub tokenize_threads: usize,
    /// Longest text.
    pub max_input_bytes: usize,
    /// Of vectors kept for inputs that come again; 0 for none.
    pub cache_bytes: usize,
}

impl Embedder {
    /// Serves `models`. `default` answers requests that name none; a single model is the default by itself.
    ///
    /// # Errors
    /// If the tokenizing threads cannot be started.
    pub fn new(
        models: Vec<Model>,
        default: Option<String>,
        resources: Resources,
    ) -> Result<Self, rayon::ThreadPoolBuildError> {
        Ok(Self {
            served: Served::new(models, default),
            threads: Threads::new(resources.tokenize_threads)?,
            max_input_bytes: resources.max_input_bytes,
            cache: VectorCache::new(resources.cache_bytes),
        })
    }

    /// The stable version of every model, by name.
    pub fn models(&self) -> Vec<Arc<Model>> {
        self.served.residents().values().map(|resident| Arc::clone(&resident.stable)).collect()
    }

    /// The loaded versions of a model.
    pub fn resident(&self, model: &str) -> Option<Resident> {
        self.served.residents().get(model).cloned()
    }

    /// From now on these versions answer for their model. Requests that were resolved before finish on the versions that they
    /// were resolved to.
    pub fn serve(&self, resident: Resident) {
        self.served.serve(resident);
    }

    /// The same beside models that should be served and are not. Requests for one of them are refused with its reason, and no model is
    /// the default only because the others are missing. Before anything is asked.
    #[must_use]
    pub fn without(mut self, missing: MissingReasons) -> Self {
        self.served.begin_without(missing);
        self
    }

    /// Why each model that should be served is not.
    pub fn missing(&self) -> Arc<MissingReasons> {
        self.served.missing.reasons()
    }

    /// From now on requests for this model, of which nothing is loaded, are refused for this reason, until a version is served.
    pub fn miss(&self, model: &str, reason: &str) {
        self.served.missing.set(model, reason);
    }

    /// When the longest queue of all models should be worked off, 1 to 60 s.
    pub fn retry_after(&self) -> Duration {
        let models = self.models();
        models.iter().map(|model| model.batcher.retry_after()).max().unwrap_or(Duration::from_secs(1))
    }

    /// The version that `asked` means now.
    ///
    /// # Errors
    /// If nothing of that name, version or role is served.
    pub fn resolve(&self, asked: Option<&str>) -> Result<Arc<Model>, EmbedError> {
        self.served.resolve(asked)
    }

    /// The name of the model that `asked`, a name, an alias or a hub id without a version, means now; none if it means none.
    ///
    /// # Errors
    /// [`EmbedError::AmbiguousModel`] if it means several.
    pub fn real_name(&self, asked: &str) -> Result<Option<String>, EmbedError> {
        self.served.real_name(asked)
    }

    /// What requests may call `model` besides its name: its aliases, and the hub id that its stable version came from. Without
    /// those that mean another model, or several.
    pub fn other_names(&self, model: &str) -> Vec<String> {
        self.served.other_names(model)
    }

    /// Vectors for all inputs, or an error for all: nothing is answered in part.
    ///
    /// # Errors
    /// See [`EmbedError`].
    pub async fn embed(&self, request: EmbedRequest) -> Result<Embeddings, EmbedError> {
        let asked = request.model.as_deref();
        let Routed { model, trial } =
            self.served.route(asked, request.space.as_ref(), request.key.as_deref())?;
        let Some((side, candidate, stable)) = trial else { return self.embed_on(model, request, None).await };
        // Sticky users are left out: they are not assigned at random. Token arrays may be what no text gives, see `pairs`.
        let is_text = request.inputs.iter().all(|input| matches!(input, Input::Text(_)));
        let assigned = (request.key.is_none() && is_text).then(|| Assigned {
            sides: Arc::clone(&candidate.watch.sides),
            is_canary: side == Side::Canary,
            caller: Arc::clone(&request.caller),
        });
        let asked = candidate.asked(side, &request, stable);
        let embedded = self.embed_on(model, request, assigned).await;
        asked.ended(&embedded);
        embedded
    }

    async fn embed_on(
        &self,
        model: Arc<Model>,
        request: EmbedRequest,
        side: Option<Assigned>,
    ) -> Result<Embeddings, EmbedError> {
        trace::note(|record| spans::resolved(record, &model, &request));
        let dimensions = model.width(request.dimensions)?;
        let watcher = model.watcher().filter(|_| request.output == Output::Pooled);
        let scorer = match watcher.as_ref().and_then(|watcher| watcher.scorer()) {
            _ if !request.ood => None,
            Some(scorer) => Some(Arc::clone(scorer)),
            None => return Err(EmbedError::NoReference { version: model.id() }),
        };

        let work = request.inputs.iter().map(Input::tokenizing_cost).sum();
        if let Some(budget) = &request.budget {
            budget.take_tokens(work).map_err(|wait| EmbedError::UsedUp { wait })?;
        }
        let started = Instant::now();
        let tokenized =
            self.tokenize(&model, &request.caller, request.inputs, &request.prompt, request.truncate).await?;
        let mut timings = Timings { tokenize: started.elapsed(), ..Timings::default() };
        let tokens: usize = tokenized.iter().map(|input| input.ids.len()).sum();
        if let Some(budget) = &request.budget {
            budget.owe_tokens(tokens.saturating_sub(work));
        }
        let dimensions = match request.output {
            Output::Pooled => dimensions,
            Output::Tokens => model.token_dimensions,
        };
        if request.output == Output::Tokens && tokens * dimensions > MOST_TOKEN_VALUES {
            return Err(EmbedError::TooManyTokenVectors { tokens, most: MOST_TOKEN_VALUES / dimensions });
        }
        let truncated = tokenized.iter().filter(|input| input.cut > 0).count();
        trace::note(|record| spans::tokenized(record, (started, timings.tokenize), tokens, truncated));
        let inputs: Vec<InputFacts> = tokenized.iter().map(Tokens::facts).collect();
        model.metrics.truncated.inc_by(truncated as u64);
        model.metrics.unknown.inc_by(tokenized.iter().map(|input| input.unknown as u64).sum());

        let (rows, places) = distinct(tokenized);
        let room = match &request.answer {
            Some(answer) => {
                let (values, computed) = match request.output {
                    Output::Pooled => (places.len() * dimensions, rows.len() * model.manifest.dimensions),
                    Output::Tokens => {
                        (tokens * dimensions, rows.iter().map(|row| row.len()).sum::<usize>() * dimensions)
                    }
                };
                let room = answer.reserve(&request.caller, values, computed);
                Some(Arc::new(room.map_err(|bytes| EmbedError::NoRoom { bytes })?))
            }
            None => None,
        };
        let (output, class, caller) = (request.output, request.class, request.caller);
        let batch = batch::Request { rows, output, class, caller };
        let since = Instant::now();
        let finished = self.run(&model, batch).await?;
        trace::note(|record| spans::ran(record, since, &finished));
        if let Some(watcher) = watcher {
            let counts = watcher.wants(request.key.as_deref());
            let side = side.filter(|side| side.sides.wants(&side.caller));
            // One, because the texts of a request resemble each other.
            let drawn = fastrand::choice(places.iter().zip(&inputs)).filter(|_| counts || side.is_some());
            if let Some((&place, input)) = drawn {
                let vector = Vector::clone(&finished[place].vector);
                watcher.give(Drawn { vector, input: *input, counts, side });
            }
        }
        let outlying = match scorer {
            Some(scorer) => {
                let outlying = self.outlying(scorer, &finished).await?;
                Some(places.iter().map(|&place| outlying[place]).collect())
            }
            None => None,
        };

        let started = Instant::now();
        let slowest = |of: fn(&Finished) -> Duration| finished.iter().map(of).max().unwrap_or_default();
        (timings.queue, timings.infer) = (slowest(|row| row.queued), slowest(|row| row.ran));
        let manifest = &model.manifest;
        let is_own = request.normalise.is_none() && dimensions == manifest.dimensions;
        let normalised = request.normalise.unwrap_or(manifest.normalise);
        let finish_row = |row: Finished| match output {
            // Copied only where another request waits for the same row.
            Output::Pooled => {
                let mut vector = Arc::unwrap_or_clone(row.vector);
                if is_own {
                    manifest.finish(&mut vector);
                    Arc::new(vector)
                } else {
                    Arc::new(finish(vector, dimensions, normalised))
                }
            }
            // Token vectors are compared with each other inside the model's own space: they stay as they are.
            Output::Tokens => row.vector,
        };
        let computed: Vec<Arc<Vector>> = finished.into_iter().map(finish_row).collect();
        let is_finite = |vector: &Arc<Vector>| vector.iter().all(|value| value.is_finite());
        if let Some(fault) = computed.iter().position(|vector| !is_finite(vector)) {
            let index = places.iter().position(|place| *place == fault).unwrap_or_default();
            return Err(EmbedError::NotFinite { index });
        }
        let vectors: Vec<_> = places.iter().map(|&place| Arc::clone(&computed[place])).collect();
        timings.finish = started.elapsed();
        trace::note(|record| spans::finished(record, (started, timings.finish), dimensions));
        model.observe(vectors.len(), &timings);
        Ok(Embeddings { model, vectors, room, dimensions, tokens, truncated, inputs, outlying, timings })
    }

    /// Vectors from the cache, where there is one and it has them, and the others from the engine.
    async fn run(&self, model: &Model, batch: batch::Request) -> Result<Vec<Finished>, EmbedError> {
        let Some(cache) = self.cache.as_ref().filter(|_| batch.output == Output::Pooled) else {
            return Ok(model.batcher.clone().oneshot(batch).await?);
        };
        let version: Arc<str> = model.id().into();
        let mut finished: Vec<_> = batch.rows.iter().map(|ids| cache.get(&version, ids)).collect();
        let is_missing = |place: &Option<Finished>| place.is_none();
        let rows: Vec<_> = batch
            .rows
            .into_iter()
            .zip(&finished)
            .filter_map(|(ids, place)| is_missing(place).then_some(ids))
            .collect();
        model.metrics.cache_hits.inc_by((finished.len() - rows.len()) as u64);
        model.metrics.cache_misses.inc_by(rows.len() as u64);
        if !rows.is_empty() {
            let computed =
                model.batcher.clone().oneshot(batch::Request { rows: rows.clone(), ..batch }).await?;
            for (place, (ids, computed)) in
                finished.iter_mut().filter(|place| is_missing(place)).zip(rows.into_iter().zip(computed))
            {
                cache.keep(&version, ids, &computed.vector);
                *place = Some(computed);
            }
        }
        Ok(finished.into_iter().flatten().collect())
    }

    /// Every token of each text, nothing cut off, on the threads kept for it.
    ///
    /// # Errors
    /// If there is no such prompt, or the tokenizer fails.
    pub async fn pieces(
        &self,
        model: &Arc<Model>,
        caller: &Caller,
        texts: Vec<String>,
        prompt: &Prompt,
        add_special_tokens: bool,
    ) -> Result<Vec<Vec<Piece>>, EmbedError> {
        let prompt = model.prompt(prompt)?.unwrap_or_default().to_owned();
        let model = Arc::clone(model);
        self.threads
            .spread(caller, texts, String::len, move |text| {
                model.tokenizer.pieces(&[&prompt, text.as_str()].concat(), add_special_tokens)
            })
            .await
    }

    /// The text of each list of token ids, on the threads kept for tokenizing.
    ///
    /// # Errors
    /// If an id is out of range, or the tokenizer fails.
    pub async fn decode(
        &self,
        model: &Arc<Model>,
        caller: &Caller,
        lists: Vec<Vec<i64>>,
        skip_special_tokens: bool,
    ) -> Result<Vec<String>, EmbedError> {
        let (model, effort) = (Arc::clone(model), |ids: &Vec<i64>| size_of_val(ids.as_slice()));
        self.threads
            .spread(caller, lists, effort, move |ids| model.tokenizer.decode(ids, skip_special_tokens))
            .await
    }

    async fn tokenize(
        &self,
        model: &Arc<Model>,
        caller: &Caller,
        inputs: Vec<Input>,
        prompt: &Prompt,
        truncate: Option<Truncate>,
    ) -> Result<Vec<Tokens>, EmbedError> {
        let asked = prompt.clone();
        let prompt = model.prompt(prompt)?.map(str::to_owned);
        let (version, most) = (Arc::clone(model), self.max_input_bytes);
        let before = prompt.as_ref().map_or(0, |prompt| model.tokenizer.effort(prompt));
        let effort = |input: &Input| match input {
            Input::Text(text) => before + model.tokenizer.effort(text),
            Input::Ids(ids) => size_of_val(ids.as_slice()),
        };
        self.threads
            .spread(caller, inputs, effort, move |input| match input {
                Input::Text(text) if text.len() > most => {
                    Err(InputError::TooLarge { bytes: text.len(), most })
                }
                input => version.tokens(input, prompt.as_deref(), &asked, truncate),
            })
            .await
    }
}

/// Cuts a vector to `dimensions` and, where asked, brings it to unit length: in this order, or the result is not normal.
fn finish(mut vector: Vec<f32>, dimensions: usize, normalised: bool) -> Vec<f32> {
    vector.truncate(dimensions);
    if normalised {
        normalise(&mut vector);
    }
    vector
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_vector_is_normalised_after_the_cut() {
        assert_eq!(finish(vec![3.0, 4.0, 12.0], 2, true), [0.6, 0.8]);
        assert_eq!(finish(vec![3.0, 4.0, 12.0], 2, false), [3.0, 4.0]);
    }
}
