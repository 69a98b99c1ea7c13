//! A request to infer: its JSON, the bytes behind it, and what they ask for.

use axum::http::{HeaderMap, header};
use bytes::Bytes;
use serde::Deserialize;

use super::tensor::{Few, Tensor, Values};
use super::{ATTENTION_MASK, EMBEDDING, INPUT_IDS, TEXT, invalid};
use crate::config::HttpConfig;
use crate::embed::{EmbedRequest, Input};
use crate::http::choice::choice;
use crate::http::error::{ApiError, Kind};
use crate::http::extract::{self, InputType, Object, check_json, essence, parse};
use crate::http::inputs::{Inputs, check_count};
use crate::tokenize::Truncate;

/// Says how many bytes of a body are JSON; the tensors' bytes follow.
pub(in crate::http) const JSON_LENGTH: &str = "inference-header-content-length";

#[derive(Debug, Deserialize)]
pub(in crate::http) struct InferRequest {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    parameters: Option<Object<Parameters>>,
    inputs: Few<Object<Tensor>>,
    #[serde(default)]
    outputs: Option<Few<Object<Asked>>>,
}

/// Of a request. All but the first are those of the other dialects.
#[derive(Debug, Default, Deserialize)]
pub(in crate::http) struct Parameters {
    #[serde(default)]
    binary_data_output: Option<bool>,
    #[serde(default)]
    dimensions: Option<usize>,
    #[serde(default, deserialize_with = "choice")]
    input_type: Option<InputType>,
    #[serde(default)]
    prompt_name: Option<String>,
    #[serde(default, deserialize_with = "choice")]
    truncate: Option<Truncate>,
    #[serde(default)]
    user: Option<String>,
}

/// An output that is asked for.
#[derive(Debug, Deserialize)]
pub(in crate::http) struct Asked {
    name: String,
    #[serde(default)]
    parameters: Option<Object<OutputParameters>>,
}

#[derive(Debug, Default, Deserialize)]
pub(in crate::http) struct OutputParameters {
    #[serde(default)]
    binary_data: Option<bool>,
    /// Asks for something else than the vectors: refused, not passed over.
    #[serde(default)]
    classification: Option<u64>,
    /// Asks for the vectors to be put where this server does not reach.
    #[serde(default)]
    shared_memory_region: Option<String>,
}

/// A request with the bytes of its tensors.
pub(in crate::http) struct Read {
    request: InferRequest,
    binary: Bytes,
}

/// Reads a body: JSON, or JSON and bytes where a header says where one ends.
pub(in crate::http) fn read(headers: &HeaderMap, body: &Bytes) -> Result<Read, ApiError> {
    let Some(length) = headers.get(JSON_LENGTH) else {
        check_json(headers)?;
        return Ok(Read { request: parse(body)?, binary: Bytes::new() });
    };
    if headers.contains_key(header::CONTENT_TYPE) && essence(headers) != "application/octet-stream" {
        check_json(headers)?;
    }
    let there = body.len();
    let length = length.to_str().ok().and_then(|text| text.parse().ok()).filter(|n| (1..=there).contains(n));
    let length = length.ok_or_else(|| {
        invalid(format!(
            "the header Inference-Header-Content-Length must be the length of the JSON, 1 to the {there} bytes of the body"
        ))
    })?;
    Ok(Read { request: parse(&body[..length])?, binary: body.slice(length..) })
}

impl Read {
    pub(super) fn id(&self) -> Option<String> {
        self.request.id.clone()
    }

    /// Whether the vectors are to come as bytes.
    ///
    /// # Errors
    /// If anything but the vectors is asked for.
    pub(in crate::http) fn wants_binary(&self) -> Result<bool, ApiError> {
        let parameters = self.request.parameters.as_ref();
        let usual = parameters.and_then(|Object(parameters)| parameters.binary_data_output).unwrap_or(false);
        let asked = match self.request.outputs.as_ref().map(|Few(outputs)| outputs.as_slice()) {
            None | Some([]) => return Ok(usual),
            Some([Object(asked)]) if asked.name == EMBEDDING => asked.parameters.as_ref(),
            Some(others) => {
                let names: Vec<_> = others.iter().map(|Object(asked)| asked.name.as_str()).collect();
                return Err(invalid(format!(
                    "the outputs {names:?} are asked for; there is one: {EMBEDDING}"
                )));
            }
        };
        let Some(Object(asked)) = asked else { return Ok(usual) };
        if asked.classification.is_some() || asked.shared_memory_region.is_some() {
            return Err(invalid("outputs are vectors in the answer: no classification, no shared memory"));
        }
        Ok(asked.binary_data.unwrap_or(usual))
    }

    /// What is to be embedded, by the model that is `asked` for.
    pub(in crate::http) fn embed(
        self,
        asked: String,
        headers: &HeaderMap,
        config: &HttpConfig,
    ) -> Result<EmbedRequest, ApiError> {
        let Self { request: InferRequest { parameters, inputs: Few(tensors), .. }, binary } = self;
        let parameters = parameters.map(|Object(parameters)| parameters).unwrap_or_default();
        Ok(EmbedRequest {
            model: Some(asked),
            key: parameters.user,
            space: extract::space(headers),
            inputs: inputs(tensors, &binary, config.max_inputs)?,
            prompt: extract::prompt(parameters.prompt_name, parameters.input_type),
            truncate: parameters.truncate.or(config.truncate),
            dimensions: parameters.dimensions,
            class: extract::class(headers)?,
            ..EmbedRequest::default()
        })
    }
}

/// What the tensors hold, at most `most` inputs. `binary` has the bytes of those that are not in JSON, in their order.
fn inputs(tensors: Vec<Object<Tensor>>, mut binary: &[u8], most: usize) -> Result<Vec<Input>, ApiError> {
    let (mut text, mut ids, mut mask) = (None, None, None);
    for Object(mut tensor) in tensors {
        let place = match tensor.name.as_str() {
            TEXT => &mut text,
            INPUT_IDS => &mut ids,
            ATTENTION_MASK => &mut mask,
            other => {
                return Err(invalid(format!(
                    "there is no input `{other}`; there are {TEXT}, or {INPUT_IDS} and {ATTENTION_MASK}"
                )));
            }
        };
        if place.is_some() {
            return Err(invalid(format!("the input `{}` is there twice", tensor.name)));
        }
        let values = tensor.values(&mut binary)?;
        *place = Some((tensor.shape.0, values));
    }
    if !binary.is_empty() {
        return Err(invalid(format!("{} bytes of the body belong to no input", binary.len())));
    }
    let inputs = match (text, ids, mask) {
        (Some((shape, values)), None, None) => texts(&shape, values)?,
        (None, Some((shape, ids)), mask) => rows(&shape, ids, mask, most)?,
        _ => {
            return Err(invalid(format!(
                "the inputs must be {TEXT} alone, or {INPUT_IDS} and {ATTENTION_MASK}"
            )));
        }
    };
    Inputs::from(inputs).within(most)
}

fn texts(shape: &[u64], values: Values) -> Result<Vec<Input>, ApiError> {
    match (shape, values) {
        ([_] | [_, 1], Values::Texts(texts)) => Ok(texts.into_iter().map(Input::Text).collect()),
        // Of no elements nobody can tell what they would have been.
        ([0] | [0, 1], Values::Numbers(_)) => Ok(Vec::new()),
        ([_] | [_, 1], _) => Err(invalid(format!("`{TEXT}` must be BYTES"))),
        _ => Err(invalid(format!("`{TEXT}` has the shape {shape:?}, and must have [n] or [n, 1]"))),
    }
}

/// Each row of ids, without what its mask leaves out.
fn rows(
    shape: &[u64],
    ids: Values,
    mask: Option<(Vec<u64>, Values)>,
    most: usize,
) -> Result<Vec<Input>, ApiError> {
    let &[count, length] = shape else {
        return Err(invalid(format!("`{INPUT_IDS}` has the shape {shape:?}, and must have [n, length]")));
    };
    let Values::Numbers(ids) = ids else { return Err(invalid(format!("`{INPUT_IDS}` must be INT64"))) };
    // Before there is a list for each: millions of rows of one id are no work to refuse.
    check_count(usize::try_from(count).unwrap_or(usize::MAX), most)?;
    let length = usize::try_from(length).unwrap_or(0);
    if length == 0 {
        return Err(ApiError::new(Kind::Empty, format!("the rows of `{INPUT_IDS}` are empty")));
    }
    let mask = match mask {
        None => return Ok(ids.chunks_exact(length).map(|row| Input::Ids(row.to_vec())).collect()),
        Some((other, Values::Numbers(mask))) if other == shape => mask,
        Some((other, _)) => {
            return Err(invalid(format!(
                "`{ATTENTION_MASK}` must be INT64 of the shape {shape:?}, as `{INPUT_IDS}` is; its shape is {other:?}"
            )));
        }
    };
    let rows = ids.chunks_exact(length).zip(mask.chunks_exact(length)).enumerate();
    rows.map(|(index, (ids, mask))| {
        let kept = kept(ids, mask).ok_or_else(|| {
            invalid(format!(
                "row {index} of `{ATTENTION_MASK}` must be 1 for the tokens, in one run, and 0 else"
            ))
        })?;
        Ok(Input::Ids(kept.to_vec()))
    })
    .collect()
}

/// The ids that a mask of ones and zeros keeps, if they are in one run: padding is before or behind, never between.
fn kept<'a>(ids: &'a [i64], mask: &[i64]) -> Option<&'a [i64]> {
    let is_one = |value: &i64| *value == 1;
    let start = mask.iter().position(is_one).unwrap_or(mask.len());
    let end = mask.iter().rposition(is_one).map_or(start, |last| last + 1);
    let is_run = mask[start..end].iter().all(is_one);
    let padded = mask[..start].iter().chain(&mask[end..]).all(|value| *value == 0);
    (is_run && padded).then(|| &ids[start..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_keeps_one_run() {
        for (mask, expected) in [
            ([1, 1, 1, 1], Some(&[5, 6, 7, 8][..])),
            ([1, 1, 0, 0], Some(&[5, 6])),
            ([0, 1, 1, 0], Some(&[6, 7])),
            ([0, 0, 0, 0], Some(&[])),
            ([1, 0, 1, 0], None),
            ([1, 2, 1, 0], None),
            ([-1, 1, 1, 0], None),
        ] {
            assert_eq!(kept(&[5, 6, 7, 8], &mask), expected, "{mask:?}");
        }
    }
}
