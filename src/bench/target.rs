//! What is sent, and where to: a server, a dialect, and bodies made before the clock starts.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, HeaderValue, InvalidHeaderValue};
use hyper::{Method, Request, Uri};
use serde::Serialize;
use serde_json::{Value, json};
use thiserror::Error;

use super::BenchError;
use super::client::Client;

/// How urgent the server is told that the requests are, by the header `x-sextant-class`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Somebody waits.
    Interactive,
    /// Nobody waits.
    Bulk,
}

/// Which API is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// POST /v1/embeddings
    Openai,
    /// POST /embed, of text-embeddings-inference
    Tei,
}

/// How the vectors are asked for in the OpenAI dialect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// What the official clients ask for
    Base64,
    /// Numbers in JSON
    Float,
}

/// Why a URL cannot be measured.
#[derive(Debug, Error)]
#[error("`{url}` cannot be measured: expected http://HOST:PORT, without TLS")]
pub struct TargetError {
    url: String,
}

/// A server and the form of requests to it.
#[derive(Debug, Clone)]
pub struct Target {
    pub(super) host: String,
    pub(super) port: u16,
    authority: HeaderValue,
    prefix: String,
    path: Uri,
    class: Option<Class>,
    authorization: Option<HeaderValue>,
    /// The API.
    pub dialect: Dialect,
    /// The vectors' form.
    pub encoding: Encoding,
    /// Texts of each request.
    pub inputs_per_request: usize,
}

impl Target {
    /// A server at `url`: `http://host:port`, with a path before the API's if there is one.
    ///
    /// # Errors
    /// If it is no such URL.
    pub fn new(url: &str, dialect: Dialect) -> Result<Self, TargetError> {
        Self::parse(url, dialect).ok_or_else(|| TargetError { url: url.to_owned() })
    }

    fn parse(url: &str, dialect: Dialect) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        let authority = uri.authority().filter(|_| uri.scheme_str() == Some("http"))?;
        let route = match dialect {
            Dialect::Openai => "/v1/embeddings",
            Dialect::Tei => "/embed",
        };
        let prefix = uri.path().trim_end_matches('/').to_owned();
        Some(Self {
            host: authority.host().trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: authority.port_u16().unwrap_or(80),
            authority: HeaderValue::from_str(authority.as_str()).ok()?,
            path: format!("{prefix}{route}").parse().ok()?,
            prefix,
            class: None,
            authorization: None,
            dialect,
            encoding: Encoding::Base64,
            inputs_per_request: 1,
        })
    }

    /// Asks for the vectors in another form.
    pub fn with_encoding(self, encoding: Encoding) -> Self {
        Self { encoding, ..self }
    }

    /// Puts `inputs` texts into each request.
    pub fn with_inputs(self, inputs: usize) -> Self {
        Self { inputs_per_request: inputs.max(1), ..self }
    }

    /// Says how urgent the requests are.
    pub fn with_class(self, class: Option<Class>) -> Self {
        Self { class, ..self }
    }

    /// Sends a key with each request.
    ///
    /// # Errors
    /// If no header can carry it.
    pub fn with_key(self, key: Option<&str>) -> Result<Self, InvalidHeaderValue> {
        let authorization =
            key.map(|key| HeaderValue::from_str(&format!("Bearer {key}"))).transpose()?.map(|mut value| {
                value.set_sensitive(true);
                value
            });
        Ok(Self { authorization, ..self })
    }

    /// One body for each `inputs_per_request` texts; the last is filled up from the start, so that all are alike.
    pub fn bodies(&self, model: Option<&str>, texts: &[String]) -> Vec<Bytes> {
        let count = self.inputs_per_request;
        let body = |first: usize| {
            let inputs: Vec<&String> = texts.iter().cycle().skip(first).take(count).collect();
            let inputs = if count == 1 { json!(inputs.first()) } else { json!(inputs) };
            let mut body = match self.dialect {
                Dialect::Openai => json!({ "input": inputs, "encoding_format": self.encoding }),
                // Elsewhere a text that is too long is refused unless this is said.
                Dialect::Tei => json!({ "inputs": inputs, "truncate": true }),
            };
            if let Some(model) = model {
                body["model"] = json!(model);
            }
            Bytes::from(body.to_string())
        };
        (0..texts.len()).step_by(count).map(body).collect()
    }

    /// The model to ask for where none was named: the only one that the server offers. `None` in a dialect that asks for
    /// none.
    ///
    /// # Errors
    /// If the server does not answer, or offers several.
    pub async fn only_model(&self, timeout: Duration) -> Result<Option<String>, BenchError> {
        if self.dialect == Dialect::Tei {
            return Ok(None);
        }
        let path = format!("{}/v1/models", self.prefix);
        let (status, body) = self.look(Method::GET, &path, Bytes::new(), timeout).await?;
        let list: Value = serde_json::from_slice(&body).unwrap_or_default();
        let Some(data) = list["data"].as_array().filter(|_| status == 200) else {
            return Err(self.refused(status, &body));
        };
        let names: Vec<String> = data.iter().filter_map(|model| Some(model["id"].as_str()?.into())).collect();
        match <[String; 1]>::try_from(names) {
            Ok([name]) => Ok(Some(name)),
            Err(names) => Err(BenchError::WhichModel(names)),
        }
    }

    /// Sends one request and looks at the answer: a mistake should not be measured for a minute.
    pub(super) async fn check(&self, body: Bytes, timeout: Duration) -> Result<(), BenchError> {
        let (status, body) = self.look(Method::POST, self.path.path(), body, timeout).await?;
        // 429: a server under load can be measured.
        if matches!(status, 200 | 429) { Ok(()) } else { Err(self.refused(status, &body)) }
    }

    pub(super) fn request(&self, body: Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.path.clone();
        let headers = request.headers_mut();
        headers.insert(HOST, self.authority.clone());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(authorization) = &self.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        if let Some(class) = self.class {
            let class = match class {
                Class::Interactive => "interactive",
                Class::Bulk => "bulk",
            };
            headers.insert(HeaderName::from_static("x-sextant-class"), HeaderValue::from_static(class));
        }
        request
    }

    async fn look(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        timeout: Duration,
    ) -> Result<(u16, Bytes), BenchError> {
        let mut request = self.request(body);
        *request.method_mut() = method;
        if let Ok(uri) = path.parse() {
            *request.uri_mut() = uri;
        }
        let mut client = Client::default();
        let answer = match tokio::time::timeout(timeout, client.fetch(self, request)).await {
            Ok(answer) => answer,
            Err(_) => Err(super::Cause::Timeout),
        };
        answer.map_err(|cause| BenchError::Unreachable { address: self.address(), cause })
    }

    fn refused(&self, status: u16, body: &[u8]) -> BenchError {
        let body = String::from_utf8_lossy(body).chars().take(300).collect();
        BenchError::Refused { address: self.address(), status, body }
    }

    fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_http_with_a_host() {
        let target = Target::new("http://[::1]:8080/under/", Dialect::Tei).unwrap();
        assert_eq!((target.host.as_str(), target.port), ("::1", 8080));
        assert_eq!(target.path, "/under/embed");
        assert_eq!(Target::new("http://name", Dialect::Openai).unwrap().path, "/v1/embeddings");
        for url in ["https://name", "localhost:8080", "/v1", "http://", ""] {
            assert!(Target::new(url, Dialect::Openai).is_err(), "{url}");
        }
    }

    #[test]
    fn every_body_has_as_many_texts_and_every_text_is_in_one() {
        let target = Target::new("http://name", Dialect::Openai).unwrap();
        let texts: Vec<String> = ["a", "b", "c"].map(String::from).into();
        let bodies = |target: &Target, model| -> Vec<Value> {
            target.bodies(model, &texts).iter().map(|body| serde_json::from_slice(body).unwrap()).collect()
        };
        let single = bodies(&target, Some("m"));
        assert_eq!(single[2], json!({ "input": "c", "encoding_format": "base64", "model": "m" }));
        assert_eq!(single.len(), 3);
        let pairs = bodies(&target.clone().with_inputs(2), None);
        assert_eq!([&pairs[0]["input"], &pairs[1]["input"]], [&json!(["a", "b"]), &json!(["c", "a"])]);
        let more = bodies(&target.with_inputs(5), None);
        assert_eq!(more[0]["input"], json!(["a", "b", "c", "a", "b"]));
    }
}
