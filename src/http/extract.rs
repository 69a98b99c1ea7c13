//! What comes in besides the inputs: JSON bodies with errors that name the field, and the headers.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, Deserializer, MapAccess, Visitor};

use super::beside_others;
use super::body::Unread;
use super::error::{ApiError, Kind};
use super::mistake::in_words;
use crate::batch::Class;
use crate::embed::Prompt;
use crate::repository::manifest::Space;

/// A body as it came.
pub(super) struct Body(pub(super) Bytes);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let body = Bytes::from_request(request, state).await.map_err(|rejection| {
            if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
                return ApiError::new(
                    Kind::TooLarge,
                    "the body is larger than this server takes (max_body_bytes)",
                );
            }
            Unread::behind(&rejection).unwrap_or_else(|| {
                let message = format!("the body could not be read: {}", rejection.body_text());
                ApiError::new(Kind::Malformed, message)
            })
        })?;
        Ok(Self(body))
    }
}

/// A JSON body. Like axum's own, but its refusals are ours and name the field.
pub(super) struct Json<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        check_json(request.headers())?;
        let Body(body) = Body::from_request(request, state).await?;
        Ok(Self(parse(&body)?))
    }
}

/// Reads JSON, with a refusal that names the field.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    beside_others(body.len(), || parse_here(body))
}

pub(super) fn parse_here<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    let mut parser = serde_json::Deserializer::from_slice(body);
    let Object(value) = serde_path_to_error::deserialize(&mut parser)
        .map_err(|error| malformed(&error.path().to_string(), error.inner()))?;
    parser.end().map_err(|error| malformed("", &error))?;
    Ok(value)
}

/// The refusal of a body for what is wrong at `path`.
fn malformed(path: &str, error: &serde_json::Error) -> ApiError {
    let told = in_words(error);
    // Where the JSON ends too soon, or is none, the field is not known: `?`.
    match path.trim_end_matches('?').trim_end_matches('.') {
        "" if told.starts_with("must be ") => ApiError::new(Kind::Malformed, format!("the body {told}")),
        "" if told.starts_with("not JSON") => ApiError::new(Kind::Malformed, format!("the body is {told}")),
        "" => ApiError::new(Kind::Malformed, told),
        field => ApiError::new(Kind::Malformed, format!("{field}: {told}")).at(field),
    }
}

/// What is an object in JSON. By itself serde also takes a list for a struct, its fields in the order of the code.
#[derive(Debug)]
pub(super) struct Object<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
            type Value = T;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }
        deserializer.deserialize_any(ObjectVisitor(PhantomData)).map(Self)
    }
}

/// Takes `application/json`, relatives of it, and no type at all.
pub(super) fn check_json(headers: &HeaderMap) -> Result<(), ApiError> {
    if !headers.contains_key(header::CONTENT_TYPE) {
        return Ok(());
    }
    let essence = essence(headers);
    if essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json")) {
        return Ok(());
    }
    Err(ApiError::new(
        Kind::UnsupportedMediaType,
        format!("the body's content-type is `{essence}`: expected application/json"),
    ))
}

/// The type of a body, without its parameters.
pub(super) fn essence(headers: &HeaderMap) -> String {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    value.split(';').next().unwrap_or("").trim().to_ascii_lowercase()
}

/// What the inputs of a request are for.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum InputType {
    Query,
    Document,
}

/// The prompt that a request asks for, by its name or by what the inputs are for.
pub(super) fn prompt(name: Option<String>, input_type: Option<InputType>) -> Prompt {
    match (name, input_type) {
        (Some(name), _) => Prompt::Named(name),
        (None, Some(InputType::Query)) => Prompt::Query,
        (None, Some(InputType::Document)) => Prompt::Document,
        (None, None) => Prompt::Default,
    }
}

/// The space that a caller's index is in, by the header `x-sextant-space`.
pub(super) fn space(headers: &HeaderMap) -> Option<Space> {
    let values: Vec<_> = headers.get_all("x-sextant-space").iter().map(HeaderValue::as_bytes).collect();
    // Sent twice, both count. What is no text, or two spaces, is no space of ours, and must not pass for one not sent.
    let distinct = if values.windows(2).all(|pair| pair[0] == pair[1]) {
        &values[..values.len().min(1)]
    } else {
        &values
    };
    (!distinct.is_empty()).then(|| Space(String::from_utf8_lossy(&distinct.join(&b", "[..])).into_owned()))
}

/// How urgent the request is, by the header `x-sextant-class`: interactive, as if it is not there, or bulk.
pub(super) fn class(headers: &HeaderMap) -> Result<Class, ApiError> {
    match headers.get("x-sextant-class").map(HeaderValue::as_bytes) {
        None | Some(b"interactive") => Ok(Class::Interactive),
        Some(b"bulk") => Ok(Class::Bulk),
        Some(_) => {
            let refused =
                ApiError::new(Kind::Invalid, "the header x-sextant-class must be interactive or bulk");
            Err(refused.at("x-sextant-class"))
        }
    }
}

/// When the caller stops waiting, by the header `x-request-timeout-ms`; none if it is not there.
pub(super) fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, ApiError> {
    let Some(value) = headers.get("x-request-timeout-ms") else { return Ok(None) };
    let milliseconds = value.to_str().ok().and_then(|text| text.parse::<u32>().ok()).filter(|&ms| ms > 0);
    match milliseconds {
        Some(milliseconds) => Ok(Some(Duration::from_millis(milliseconds.into()))),
        None => {
            let message =
                "the header x-request-timeout-ms must be a whole number of milliseconds, 1 to 4294967295";
            Err(ApiError::new(Kind::Invalid, message).at("x-request-timeout-ms"))
        }
    }
}
