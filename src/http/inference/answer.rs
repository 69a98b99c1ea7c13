//! Vectors as an output tensor: in JSON, or as bytes behind it.

use std::sync::Arc;

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::ser::SerializeSeq;
use serde::{Serialize, Serializer};

use super::{EMBEDDING, version};
use crate::embed::Embeddings;
use crate::engine::Vector;
use crate::http::answer::{said, set, to_json};
use crate::http::encode::{JSON_VALUE_BYTES, push_le_bytes};
use crate::http::error::ApiError;
use crate::http::{answer, beside_others};

#[derive(Serialize)]
struct Answer<'a> {
    model_name: &'a str,
    model_version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    outputs: [Output<'a>; 1],
}

#[derive(Serialize)]
struct Output<'a> {
    name: &'static str,
    datatype: &'static str,
    shape: [usize; 2],
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<Parameters>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Flat<'a>>,
}

#[derive(Serialize)]
struct Parameters {
    binary_data_size: usize,
}

/// Vectors as one list, row after row.
struct Flat<'a>(&'a [Arc<Vector>]);

impl Serialize for Flat<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.iter().map(|vector| vector.len()).sum()))?;
        self.0.iter().flat_map(|vector| vector.iter()).try_for_each(|value| list.serialize_element(value))?;
        list.end()
    }
}

/// Bytes of a value in the answer.
pub(super) fn value_bytes(binary: bool) -> usize {
    if binary { size_of::<f32>() } else { JSON_VALUE_BYTES }
}

/// The answer to a request called `id`.
pub(super) fn answered(
    embeddings: &Embeddings,
    id: Option<&str>,
    binary: bool,
) -> Result<Response, ApiError> {
    let vectors = embeddings.vectors.as_slice();
    let shape = [vectors.len(), embeddings.dimensions];
    let size = vectors.iter().map(|vector| size_of_val(vector.as_slice())).sum();
    let output = |parameters, data| Answer {
        model_name: &embeddings.model.manifest.model,
        model_version: version(&embeddings.model),
        id,
        outputs: [Output { name: EMBEDDING, datatype: "FP32", shape, parameters, data }],
    };
    if !binary {
        return answer::embedded(embeddings, None, &output(None, Some(Flat(vectors))));
    }
    let json = to_json(&output(Some(Parameters { binary_data_size: size }), None))?;
    let length = json.len();
    let body = beside_others(size, move || {
        let mut body = json;
        body.reserve_exact(size);
        vectors.iter().for_each(|vector| push_le_bytes(&mut body, vector));
        body
    });
    let mut response = ([(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"))], body)
        .into_response();
    said(&mut response, embeddings);
    set(response.headers_mut(), "inference-header-content-length", &length.to_string());
    Ok(response)
}
