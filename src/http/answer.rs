//! What every embedding answer says besides its vectors.

use std::sync::Arc;

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::access::{Caller, seen_by};
use super::body::Reserved;
use super::encode::{Dtype, Format, Shared};
use super::error::{ApiError, Kind};
use super::extract::timeout;
use super::{App, beside_others};
use crate::embed::{EmbedError, EmbedRequest, Embeddings};

const JSON: (HeaderName, HeaderValue) = (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));

impl App {
    /// Embeds, what its key allows, for as long as the caller's headers say that it waits. The answer will have `value_bytes` for each
    /// value of a vector, which are reserved before anything is computed.
    pub(super) async fn embed(
        &self,
        request: EmbedRequest,
        value_bytes: usize,
        headers: &HeaderMap,
        caller: &Caller,
    ) -> Result<Embeddings, ApiError> {
        let timeout = timeout(headers)?;
        let model = self.asked_model(request.model.as_deref(), caller)?;
        let answer = Some(self.0.intake.answer_room(value_bytes));
        let request = EmbedRequest { model, budget: caller.budget(), caller: caller.id(), answer, ..request };
        let embeddings = async {
            self.0.embedder.embed(request).await.map_err(|error| match error {
                EmbedError::NoRoom { bytes } => self.no_room(bytes),
                error => seen_by(caller, error),
            })
        };
        let Some(timeout) = timeout else { return embeddings.await };
        // What is dropped leaves the queue before it is run.
        match tokio::time::timeout(timeout, embeddings).await {
            Ok(embeddings) => embeddings,
            Err(_) => {
                let waited = format!("no answer within the {} ms that you gave it", timeout.as_millis());
                Err(ApiError::new(Kind::DeadlineExceeded, waited))
            }
        }
    }
}

/// `body` as JSON with the headers that say which version made the vectors and where the time went. Vectors that inputs share are in it
/// as `shared` has them.
pub(super) fn embedded(
    embeddings: &Embeddings,
    shared: Option<&Shared>,
    body: &impl Serialize,
) -> Result<Response, ApiError> {
    let bytes = probable_bytes(embeddings);
    let mut response = beside_others(bytes, || {
        let referring = shared.map(|shared| shared.refer(body)).transpose().map_err(unwritten)?;
        match referring.flatten() {
            Some(parts) => Ok(([JSON], parts).into_response()),
            None => json_in(Vec::with_capacity(bytes), body),
        }
    })?;
    said(&mut response, embeddings);
    Ok(response)
}

/// The vectors that inputs share, written where they keep no other request waiting.
pub(super) fn shared(embeddings: &Embeddings, dtype: Dtype, format: Format) -> Result<Shared, ApiError> {
    beside_others(probable_bytes(embeddings), || {
        Shared::of(&embeddings.vectors, dtype, format).map_err(unwritten)
    })
}

/// Of an answer with these vectors: as base64 a value takes six bytes, as a number about eleven.
fn probable_bytes(embeddings: &Embeddings) -> usize {
    embeddings.vectors.iter().map(|vector| vector.len()).sum::<usize>() * 8
}

/// Sets the headers that say which version made the vectors and where the time went, and hands over what is reserved for the answer.
pub(super) fn said(response: &mut Response, embeddings: &Embeddings) {
    if let Some(room) = &embeddings.room {
        response.extensions_mut().insert(Reserved(Arc::clone(room)));
    }
    let headers = response.headers_mut();
    let timings = &embeddings.timings;
    set(headers, "x-sextant-version", &embeddings.model.id());
    set(headers, "x-sextant-space", &embeddings.model.manifest.space.0);
    set(headers, "x-sextant-truncated", &embeddings.truncated.to_string());
    let stages = [
        ("tokenize", timings.tokenize),
        ("queue", timings.queue),
        ("infer", timings.infer),
        ("finish", timings.finish),
    ];
    let timing =
        stages.map(|(stage, time)| format!("{stage};dur={:.3}", time.as_secs_f64() * 1e3)).join(", ");
    set(headers, "server-timing", &timing);
}

/// How far an input lies outside, as it stands in answers; nulls for a vector that is all zeros.
#[derive(Serialize)]
pub(super) struct OutlyingFields {
    ood_score: Option<f32>,
    ood_p_value: Option<f64>,
}

/// How far the input at `index` lies outside, if the request asked.
pub(super) fn outlying(embeddings: &Embeddings, index: usize) -> Option<OutlyingFields> {
    let outlying = embeddings.outlying.as_ref()?.get(index)?;
    Some(OutlyingFields {
        ood_score: outlying.map(|outlying| outlying.score),
        ood_p_value: outlying.map(|outlying| outlying.p_value),
    })
}

/// `body` as a JSON answer.
pub(super) fn json(body: &impl Serialize) -> Result<Response, ApiError> {
    json_in(Vec::new(), body)
}

/// The same, written to `buffer`: one that has room for most of it need not grow again and again, by a copy each time.
fn json_in(mut buffer: Vec<u8>, body: &impl Serialize) -> Result<Response, ApiError> {
    serde_json::to_writer(&mut buffer, body).map_err(unwritten)?;
    Ok(([JSON], buffer).into_response())
}

/// `body` as JSON.
pub(super) fn to_json(body: &impl Serialize) -> Result<Vec<u8>, ApiError> {
    serde_json::to_vec(body).map_err(unwritten)
}

fn unwritten(error: serde_json::Error) -> ApiError {
    ApiError::new(Kind::Internal, error.to_string())
}

/// Sets a header; a value that no header can carry is left out.
pub(super) fn set(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(HeaderName::from_static(name), value);
    }
}
