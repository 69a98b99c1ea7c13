//! Requests whose answers are looked at, which the load generator's are not.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::Result;
use crate::server::Server;

/// Asks a server.
pub(crate) struct Client {
    client: reqwest::Client,
    url: String,
}

impl Client {
    pub(crate) fn new(server: &Server) -> Result<Self> {
        // An error says that it is installed.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().build()?;
        Ok(Self { client, url: server.url() })
    }

    /// The version that answered, and its vectors.
    pub(crate) async fn embed(&self, model: &str, texts: &[&str]) -> Result<(String, Vec<Vec<f32>>)> {
        let body = json!({ "model": model, "input": texts, "encoding_format": "base64" });
        let request = self.client.post(format!("{}/v1/embeddings", self.url)).body(body.to_string());
        let answer = request.send().await?.error_for_status()?;
        let version = answer.headers().get("x-sextant-version").ok_or("an answer without a version")?;
        let version = version.to_str()?.to_owned();
        let answer: Value = serde_json::from_slice(&answer.bytes().await?)?;
        let data = answer["data"].as_array().ok_or("an answer without data")?;
        Ok((version, data.iter().map(vector).collect::<Result<_>>()?))
    }

    /// Asks for a change of the versions that serve.
    pub(crate) async fn change(&self, model: &str, action: &str, body: &Value) -> Result<()> {
        let url = format!("{}/admin/v1/models/{model}/{action}", self.url);
        let request = self.client.post(url).header("content-type", "application/json").body(body.to_string());
        request.send().await?.error_for_status()?;
        Ok(())
    }
}

fn vector(entry: &Value) -> Result<Vec<f32>> {
    let bytes = STANDARD.decode(entry["embedding"].as_str().ok_or("a vector that is no text")?)?;
    let (values, _) = bytes.as_chunks::<4>();
    Ok(values.iter().map(|value| f32::from_le_bytes(*value)).collect())
}
