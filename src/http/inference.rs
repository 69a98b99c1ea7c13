//! The Open Inference Protocol, version 2, as KServe and Triton speak it: texts or token ids in, vectors out, in JSON or
//! as binary tensors.

mod answer;
mod request;
mod tensor;

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use super::access::Caller;
use super::answer::json;
use super::error::{ApiError, Kind};
use super::extract::{Body, check_json, parse};
use super::{App, beside_others, health};
use crate::embed::{Model, Resident};
#[cfg(any(test, fuzzing))]
pub(super) use request::JSON_LENGTH;
pub(super) use request::read;
#[cfg(test)]
pub(super) use request::{Asked, InferRequest, OutputParameters, Parameters};
#[cfg(test)]
pub(super) use tensor::{Tensor, TensorParameters};

/// The input that takes texts, and those that take token ids.
const TEXT: &str = "text";
const INPUT_IDS: &str = "input_ids";
const ATTENTION_MASK: &str = "attention_mask";
/// The output.
const EMBEDDING: &str = "embedding";

/// Which model a path names: `/v2/models/{model}` or `/v2/models/{model}/versions/{version}`.
#[derive(Deserialize)]
pub(super) struct Named {
    model: String,
    #[serde(default)]
    version: Option<String>,
}

impl Named {
    /// As the other dialects name it.
    fn asked(self) -> String {
        match self.version {
            Some(version) => format!("{}@{version}", self.model),
            None => self.model,
        }
    }
}

/// Which models to list.
#[derive(Deserialize, Default)]
pub(super) struct IndexRequest {
    /// Only those that are ready. All are: what is not loaded here is not listed.
    #[serde(default, rename = "ready")]
    _ready: Option<bool>,
}

pub(super) async fn server() -> Result<Response, ApiError> {
    json(&json!({
        "name": "sextant",
        "version": env!("CARGO_PKG_VERSION"),
        "extensions": ["binary_tensor_data", "parameters"],
    }))
}

pub(super) async fn live(State(app): State<App>, caller: Caller) -> Result<Response, ApiError> {
    health::alive(&app, &caller).await?;
    json(&json!({ "live": true }))
}

pub(super) async fn ready(State(app): State<App>) -> Result<Response, ApiError> {
    health::ready(&app)?;
    json(&json!({ "ready": true }))
}

pub(super) async fn model(
    State(app): State<App>,
    caller: Caller,
    Path(named): Path<Named>,
) -> Result<Response, ApiError> {
    let model = app.model(Some(&named.asked()), &caller)?;
    let manifest = &model.manifest;
    let resident = app.0.embedder.resident(&manifest.model);
    let versions = resident.iter().flat_map(Resident::all).map(|model| version(model));
    json(&json!({
        "name": manifest.model,
        "versions": versions.collect::<Vec<_>>(),
        "platform": "onnxruntime_onnx",
        "inputs": [
            { "name": TEXT, "datatype": "BYTES", "shape": [-1] },
            { "name": INPUT_IDS, "datatype": "INT64", "shape": [-1, -1] },
            { "name": ATTENTION_MASK, "datatype": "INT64", "shape": [-1, -1] },
        ],
        "outputs": [{ "name": EMBEDDING, "datatype": "FP32", "shape": [-1, manifest.dimensions] }],
    }))
}

pub(super) async fn model_ready(
    State(app): State<App>,
    caller: Caller,
    Path(named): Path<Named>,
) -> Result<Response, ApiError> {
    let model = app.model(Some(&named.asked()), &caller)?;
    health::ready(&app)?;
    json(&json!({ "name": model.manifest.model, "ready": true }))
}

/// What is loaded here. The repository's other versions are the administrators' to see.
pub(super) async fn index(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Response, ApiError> {
    // Triton's client sends no body.
    let IndexRequest { .. } = if body.is_empty() {
        IndexRequest::default()
    } else {
        check_json(&headers)?;
        parse(&body)?
    };
    let names = app.models(&caller).into_iter().map(|model| model.manifest.model.clone());
    let residents: Vec<Resident> = names.filter_map(|name| app.0.embedder.resident(&name)).collect();
    let entry = |model: &Model| json!({ "name": model.manifest.model, "version": version(model), "state": "READY", "reason": "" });
    let entries: Vec<Value> = residents.iter().flat_map(Resident::all).map(|model| entry(model)).collect();
    json(&entries)
}

pub(super) async fn infer(
    State(app): State<App>,
    caller: Caller,
    Path(named): Path<Named>,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Response, ApiError> {
    let request = read(&headers, &body)?;
    let (id, binary) = (request.id(), request.wants_binary()?);
    let asked = beside_others(body.len(), || request.embed(named.asked(), &headers, &app.0.config))?;
    let embeddings = app.embed(asked, answer::value_bytes(binary), &headers, &caller).await?;
    answer::answered(&embeddings, id.as_deref(), binary)
}

/// Versions are strings in this protocol.
fn version(model: &Model) -> String {
    model.manifest.version.to_string()
}

/// A request that is read, and cannot be.
fn invalid(message: impl Into<String>) -> ApiError {
    ApiError::new(Kind::Invalid, message)
}
