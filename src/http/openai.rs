//! The OpenAI dialect: `/v1/embeddings` and `/v1/models`.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use serde::{Deserialize, Serialize};

use super::access::Caller;
use super::answer::OutlyingFields;
use super::choice::choice;
use super::encode::{Dtype, Format, Written};
use super::error::ApiError;
use super::extract::{InputType, Json, class, prompt, space};
use super::inputs::Inputs;
use super::{App, answer};
use crate::embed::{EmbedRequest, Model};
use crate::engine::Output;
use crate::tokenize::Truncate;

#[derive(Deserialize)]
pub(super) struct CreateEmbeddings {
    input: Inputs,
    model: String,
    #[serde(default, deserialize_with = "choice")]
    encoding_format: Option<Format>,
    #[serde(default)]
    dimensions: Option<usize>,
    /// While a version is on trial, the same user is answered by the same version.
    #[serde(default)]
    user: Option<String>,
    #[serde(default, deserialize_with = "choice")]
    input_type: Option<InputType>,
    #[serde(default)]
    prompt_name: Option<String>,
    #[serde(default, deserialize_with = "choice")]
    truncate: Option<Truncate>,
    /// Whether to say of each input how far it lies from the intended traffic.
    #[serde(default)]
    ood: Option<bool>,
    #[serde(default, deserialize_with = "choice")]
    output_dtype: Option<Dtype>,
}

#[derive(Serialize)]
struct EmbeddingList<'a> {
    object: &'static str,
    data: Vec<Embedding<'a>>,
    model: String,
    usage: Usage,
}

#[derive(Serialize)]
struct Embedding<'a> {
    object: &'static str,
    index: usize,
    embedding: Written<'a>,
    #[serde(flatten)]
    outlying: Option<OutlyingFields>,
}

#[derive(Serialize)]
struct Usage {
    prompt_tokens: usize,
    total_tokens: usize,
}

#[derive(Serialize)]
struct ModelList {
    object: &'static str,
    data: Vec<ModelEntry>,
}

#[derive(Serialize)]
struct ModelEntry {
    id: String,
    object: &'static str,
    /// Seconds since 1970.
    created: u64,
    owned_by: &'static str,
    /// The model's real name, where the id is another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    root: Option<String>,
}

pub(super) async fn create_embeddings(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    Json(body): Json<CreateEmbeddings>,
) -> Result<Response, ApiError> {
    let inputs = body.input.within(app.0.config.max_inputs).map_err(|refused| refused.at("input"))?;
    let dtype = body.output_dtype.unwrap_or_default();
    let request = EmbedRequest {
        model: Some(body.model.clone()),
        key: body.user,
        space: space(&headers),
        inputs,
        prompt: prompt(body.prompt_name, body.input_type),
        truncate: body.truncate.or(app.0.config.truncate),
        dimensions: body.dimensions,
        normalise: dtype.needs_unit_vectors().then_some(true),
        output: Output::Pooled,
        class: class(&headers)?,
        ood: body.ood.unwrap_or(false),
        ..EmbedRequest::default()
    };
    let format = body.encoding_format.unwrap_or_default();
    let embeddings = app.embed(request, dtype.value_bytes(format), &headers, &caller).await?;
    let shared = answer::shared(&embeddings, dtype, format)?;
    let data = embeddings.vectors.iter().enumerate().map(|(index, vector)| Embedding {
        object: "embedding",
        index,
        embedding: shared.written(vector),
        outlying: answer::outlying(&embeddings, index),
    });
    let list = EmbeddingList {
        object: "list",
        data: data.collect(),
        model: body.model,
        usage: Usage { prompt_tokens: embeddings.tokens, total_tokens: embeddings.tokens },
    };
    answer::embedded(&embeddings, Some(&shared), &list)
}

pub(super) async fn list_models(State(app): State<App>, caller: Caller) -> Result<Response, ApiError> {
    let models = app.models(&caller);
    // A client may look for the id that it is about to send: every name is there.
    let entries = |model: &Arc<Model>| {
        let name = &model.manifest.model;
        let names = std::iter::once(name.clone()).chain(app.0.embedder.other_names(name));
        names.map(|id| ModelEntry::new(id, model)).collect::<Vec<_>>()
    };
    let data = models.iter().flat_map(entries).collect();
    answer::json(&ModelList { object: "list", data })
}

pub(super) async fn show_model(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let model = app.model(Some(&id), &caller)?;
    answer::json(&ModelEntry::new(id, &model))
}

impl ModelEntry {
    fn new(id: String, model: &Model) -> Self {
        let created = humantime::parse_rfc3339(&model.manifest.created)
            .ok()
            .and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok())
            .map_or(0, |since| since.as_secs());
        let name = &model.manifest.model;
        let root = (id.split('@').next() != Some(name)).then(|| name.clone());
        Self { id, object: "model", created, owned_by: "sextant", root }
    }
}
