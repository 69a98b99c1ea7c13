//! The dialect of text-embeddings-inference.

use std::time::Instant;

use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::access::Caller;
use super::answer::OutlyingFields;
use super::choice::choice;
use super::encode::{Dtype, Format, JSON_VALUE_BYTES, Shared, Written};
use super::error::{ApiError, Kind};
use super::extract::{Json, Object, class, space};
use super::inputs::{Inputs, check_count, list_of_texts};
use super::{App, answer};
use crate::compare::dot;
use crate::embed::{EmbedRequest, Embeddings, Input, Prompt};
use crate::engine::Output;
use crate::repository::manifest::Precision;
use crate::tokenize::Truncate;

/// How to cut, as this dialect says it.
#[derive(Deserialize, Default)]
pub(super) struct Cut {
    #[serde(default)]
    truncate: Option<bool>,
    #[serde(default, deserialize_with = "choice")]
    truncation_direction: Option<Direction>,
    #[serde(default)]
    prompt_name: Option<String>,
}

#[derive(Deserialize, Clone, Copy)]
enum Direction {
    #[serde(rename = "right", alias = "Right")]
    Right,
    #[serde(rename = "left", alias = "Left")]
    Left,
}

/// Of `/embed` and, where `normalize` and `dimensions` have no say, of `/embed_all`.
#[derive(Deserialize)]
pub(super) struct Embed {
    inputs: Inputs,
    // Not flattened into `Cut`: serde would lose the name of a field at fault.
    #[serde(default)]
    truncate: Option<bool>,
    #[serde(default, deserialize_with = "choice")]
    truncation_direction: Option<Direction>,
    #[serde(default)]
    prompt_name: Option<String>,
    #[serde(default)]
    normalize: Option<bool>,
    #[serde(default)]
    dimensions: Option<usize>,
    #[serde(default)]
    model: Option<String>,
    /// Whether to say of each input how far it lies from the intended traffic: then an answer has objects in place of vectors.
    #[serde(default)]
    ood: Option<bool>,
}

/// An answer of `/embed` to a request that asked for more than the vector.
#[derive(Serialize)]
struct Judged<'a> {
    embedding: Written<'a>,
    #[serde(flatten)]
    outlying: Option<OutlyingFields>,
}

#[derive(Deserialize)]
pub(super) struct Similarity {
    inputs: Object<Pairs>,
    #[serde(default)]
    parameters: Option<Object<Cut>>,
    #[serde(default)]
    model: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Pairs {
    source_sentence: String,
    #[serde(deserialize_with = "list_of_texts")]
    sentences: Inputs<String>,
}

impl Cut {
    /// The server's way, or the model's where it has none, unless the request says otherwise.
    fn truncate(&self, server: Option<Truncate>) -> Option<Truncate> {
        match (self.truncate, self.truncation_direction) {
            (Some(false), _) => Some(Truncate::Error),
            (None, None) => server,
            (None, Some(_)) if server == Some(Truncate::Error) => server,
            (_, Some(Direction::Left)) => Some(Truncate::Start),
            (_, Some(Direction::Right)) => Some(Truncate::End),
            (Some(true), None) => server.filter(|way| *way != Truncate::Error),
        }
    }

    fn prompt(self) -> Prompt {
        self.prompt_name.map_or(Prompt::Default, Prompt::Named)
    }
}

impl Embed {
    /// The request for pooled vectors, and the number of characters in it.
    fn request(self, app: &App, headers: &HeaderMap) -> Result<(EmbedRequest, usize), ApiError> {
        let inputs = self.inputs.within(app.0.config.max_inputs)?;
        let characters = inputs.iter().map(characters).sum();
        let cut = Cut {
            truncate: self.truncate,
            truncation_direction: self.truncation_direction,
            prompt_name: self.prompt_name,
        };
        let request = EmbedRequest {
            model: self.model,
            key: None,
            space: space(headers),
            inputs,
            truncate: cut.truncate(app.0.config.truncate),
            prompt: cut.prompt(),
            dimensions: self.dimensions,
            normalise: Some(self.normalize.unwrap_or(true)),
            output: Output::Pooled,
            class: class(headers)?,
            ood: self.ood.unwrap_or(false),
            ..EmbedRequest::default()
        };
        Ok((request, characters))
    }
}

pub(super) async fn embed(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    Json(body): Json<Embed>,
) -> Result<Response, ApiError> {
    let started = Instant::now();
    let (request, characters) = body.request(&app, &headers)?;
    let embeddings = app.embed(request, JSON_VALUE_BYTES, &headers, &caller).await?;
    let shared = answer::shared(&embeddings, Dtype::Float, Format::Float)?;
    let vectors = embeddings.vectors.iter().map(|vector| shared.written(vector));
    if embeddings.outlying.is_none() {
        let vectors: Vec<Written> = vectors.collect();
        return answered(&embeddings, Some(&shared), &vectors, characters, started);
    }
    let judged: Vec<_> = vectors
        .enumerate()
        .map(|(index, embedding)| Judged { embedding, outlying: answer::outlying(&embeddings, index) })
        .collect();
    answered(&embeddings, Some(&shared), &judged, characters, started)
}

pub(super) async fn embed_all(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    Json(body): Json<Embed>,
) -> Result<Response, ApiError> {
    let started = Instant::now();
    let (request, characters) = body.request(&app, &headers)?;
    if request.ood {
        let message = "vectors of single tokens are held against no reference: ask /embed";
        return Err(ApiError::new(Kind::Invalid, message).at("ood"));
    }
    let embeddings = app
        .embed(
            EmbedRequest { output: Output::Tokens, dimensions: None, ..request },
            JSON_VALUE_BYTES,
            &headers,
            &caller,
        )
        .await?;
    let rows: Vec<Vec<&[f32]>> =
        embeddings.vectors.iter().map(|row| row.chunks_exact(embeddings.dimensions).collect()).collect();
    answered(&embeddings, None, &rows, characters, started)
}

pub(super) async fn similarity(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    Json(body): Json<Similarity>,
) -> Result<Response, ApiError> {
    let started = Instant::now();
    let Object(Pairs { source_sentence, sentences }) = body.inputs;
    let sentences = sentences.counted(app.0.config.max_inputs)?;
    let texts: Vec<String> = std::iter::once(source_sentence).chain(sentences).collect();
    check_count(texts.len(), app.0.config.max_inputs)?;
    if let Some(index) = texts.iter().position(String::is_empty) {
        let name = field_of_pairs(index);
        return Err(ApiError::new(Kind::Empty, format!("`{name}` is an empty string")).at(name));
    }
    let characters = texts.iter().map(|text| text.chars().count()).sum();
    let cut = body.parameters.map(|Object(cut)| cut).unwrap_or_default();
    let request = EmbedRequest {
        model: body.model,
        key: None,
        space: space(&headers),
        inputs: texts.into_iter().map(Input::Text).collect(),
        truncate: cut.truncate(app.0.config.truncate),
        prompt: cut.prompt(),
        normalise: Some(true),
        class: class(&headers)?,
        ..EmbedRequest::default()
    };
    let embeddings = app
        // Of each text there is one number in the answer.
        .embed(request, 0, &headers, &caller)
        .await
        .map_err(|refused| refused.naming_input(field_of_pairs))?;
    let cosines: Vec<f32> = match embeddings.vectors.split_first() {
        Some((source, others)) => others.iter().map(|other| cosine(source, other)).collect(),
        None => Vec::new(),
    };
    answered(&embeddings, None, &cosines, characters, started)
}

/// The field of [`Pairs`] that has the text at this place among all.
fn field_of_pairs(index: usize) -> String {
    index.checked_sub(1).map_or_else(|| "source_sentence".into(), |index| format!("sentences[{index}]"))
}

/// Answers for the routes of this dialect that other kinds of models have, as it does where the model is of none of them.
pub(super) async fn other_task() -> ApiError {
    ApiError::new(
        Kind::OtherTask,
        "the models of this server give dense embeddings: none ranks, classifies or gives sparse ones",
    )
}

#[derive(Deserialize)]
pub(super) struct InfoQuery {
    #[serde(default)]
    model: Option<String>,
}

pub(super) async fn info(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<InfoQuery>,
) -> Result<Response, ApiError> {
    let config = &app.0.config;
    let model = app.model(query.model.as_deref(), &caller)?;
    let manifest = &model.manifest;
    let dtype = match manifest.precision {
        Precision::Fp32 => "float32",
        Precision::Fp16 => "float16",
        Precision::Int8 => "int8",
        Precision::Mixed => "mixed",
    };
    answer::json(&json!({
        "model_id": model.id(),
        "model_sha": manifest.graph_digest(),
        "model_dtype": dtype,
        "model_type": { "embedding": { "pooling": manifest.pooling } },
        "max_concurrent_requests": config.max_requests,
        "max_input_length": manifest.max_tokens,
        "max_batch_tokens": model.limits.batch_tokens,
        "max_client_batch_size": config.max_inputs,
        "auto_truncate": config.truncate != Some(Truncate::Error),
        "tokenization_workers": config.tokenize_threads,
        "version": env!("CARGO_PKG_VERSION"),
        "sha": null,
        "docker_label": null,
    }))
}

/// `body` with the headers of this dialect besides our own.
fn answered(
    embeddings: &Embeddings,
    shared: Option<&Shared>,
    body: &impl Serialize,
    characters: usize,
    started: Instant,
) -> Result<Response, ApiError> {
    let mut response = answer::embedded(embeddings, shared, body)?;
    let headers = response.headers_mut();
    let timings = &embeddings.timings;
    answer::set(headers, "x-compute-characters", &characters.to_string());
    answer::set(headers, "x-compute-tokens", &embeddings.tokens.to_string());
    for (name, time) in [
        ("x-total-time", started.elapsed()),
        ("x-tokenization-time", timings.tokenize),
        ("x-queue-time", timings.queue),
        ("x-inference-time", timings.infer),
    ] {
        answer::set(headers, name, &time.as_millis().to_string());
    }
    Ok(response)
}

fn characters(input: &Input) -> usize {
    match input {
        Input::Text(text) => text.chars().count(),
        Input::Ids(_) => 0,
    }
}

/// The cosine, of vectors of unit length. In f64 and never beyond 1, so that a caller may take its angle.
fn cosine(a: &[f32], b: &[f32]) -> f32 {
    dot(a, b).clamp(-1.0, 1.0) as f32
}
