//! Where the models are: a repository, or a server that follows one.

use std::env;
use std::fs;
use std::path::PathBuf;

use clap::Args;
use reqwest::{Certificate, Client, Identity, Method, Url};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::arguments::ApiKey;
use super::{Failure, NOT_PASSED};
use crate::repository::Repository;
use crate::tls;

/// Where the models are.
#[derive(Debug, Args)]
pub(super) struct Target {
    /// Directory of the models, or a bucket: s3://bucket/prefix, gs://bucket/prefix, az://container/prefix
    /// [env: SEXTANT_MODELS]
    #[arg(long, value_name = "URL")]
    models: Option<String>,
    /// A running server instead, by the address of its administrators' routes, as http://127.0.0.1:8080
    /// [env: SEXTANT_SERVER]
    #[arg(long, value_name = "URL", conflicts_with = "models")]
    server: Option<String>,
    #[command(flatten)]
    key: ApiKey,
    #[command(flatten)]
    tls: ServerTls,
}

/// Whom an https server must show itself to be, and whom it is shown.
#[derive(Debug, Args)]
struct ServerTls {
    /// Authority of the server's certificate, as PEM [default: those that the system trusts]
    #[arg(long = "ca", value_name = "FILE", env = "SEXTANT_CA")]
    authority: Option<PathBuf>,
    /// Client certificate, as PEM, if the server asks for one
    #[arg(long = "client-cert", value_name = "FILE", env = "SEXTANT_CLIENT_CERT", requires = "key")]
    cert: Option<PathBuf>,
    /// Its private key, as PEM
    #[arg(long = "client-key", value_name = "FILE", env = "SEXTANT_CLIENT_KEY", requires = "cert")]
    key: Option<PathBuf>,
}

impl ServerTls {
    fn client(&self) -> Result<Client, Failure> {
        tls::install_provider();
        let read = |path: &PathBuf| {
            let failed = |error| Failure::usage(format!("cannot read `{}`: {error}", path.display()));
            fs::read(path).map_err(failed)
        };
        // No timeout: a version may take minutes to load, and the server says when it does.
        let mut builder = Client::builder();
        if let Some(path) = &self.authority {
            let wrong = || Failure::usage(format!("`{}` has no certificate in it, as PEM", path.display()));
            let authorities =
                Certificate::from_pem_bundle(&read(path)?).ok().filter(|found| !found.is_empty());
            builder = builder.tls_certs_only(authorities.ok_or_else(wrong)?);
        }
        if let (Some(cert), Some(key)) = (&self.cert, &self.key) {
            let wrong = |error| {
                let (cert, key) = (cert.display(), key.display());
                Failure::usage(format!(
                    "`{cert}` and `{key}` are no client certificate with its key: {error}"
                ))
            };
            let pair = [read(cert)?, read(key)?].join(&b'\n');
            builder = builder.identity(Identity::from_pem(&pair).map_err(wrong)?);
        }
        Ok(builder.build()?)
    }
}

/// What was named.
pub(super) enum Place {
    Repository(Repository),
    Server(Server),
}

impl Target {
    /// The repository or the server that is named; what is typed goes over what the environment says, and there the server goes
    /// first.
    pub(super) fn open(&self) -> Result<Place, Failure> {
        let variable = |name| env::var(name).ok().filter(|value| !value.is_empty());
        let typed = self.models.is_some() || self.server.is_some();
        let server = self.server.clone().or_else(|| variable("SEXTANT_SERVER").filter(|_| !typed));
        if let Some(server) = server {
            return Ok(Place::Server(Server::new(&server, self.key.read()?, self.tls.client()?)?));
        }
        let Some(models) = self.models.clone().or_else(|| variable("SEXTANT_MODELS")) else {
            return Err(Failure::usage("say where the models are: --models URL, or --server URL"));
        };
        Ok(Place::Repository(Repository::open(&models, false)?))
    }
}

/// The administrators' routes of a server.
pub(super) struct Server {
    client: Client,
    url: Url,
    key: Option<String>,
}

impl Server {
    fn new(url: &str, key: Option<String>, client: Client) -> Result<Self, Failure> {
        let parsed = Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        let Some(url) = parsed else {
            return Err(Failure::usage(format!(
                "`{url}` is no server: expected http://HOST:PORT or https://HOST:PORT"
            )));
        };
        Ok(Self { client, url, key })
    }

    /// Asks for what lies at `path`, segments below `/admin/v1/models`.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &[&str]) -> Result<T, Failure> {
        self.send(Method::GET, path, None).await
    }

    /// Asks for a change, or a check.
    pub(super) async fn post<T: DeserializeOwned>(&self, path: &[&str], body: &Value) -> Result<T, Failure> {
        self.send(Method::POST, path, Some(body)).await
    }

    async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &[&str],
        body: Option<&Value>,
    ) -> Result<T, Failure> {
        let mut url = self.url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["admin", "v1", "models"]).extend(path);
        }
        let mut request = self.client.request(method, url);
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        if let Some(key) = &self.key {
            request = request.bearer_auth(key);
        }
        let failed = |error: reqwest::Error| Failure {
            message: format!("{} does not answer: {}", self.url, innermost(&error)),
            code: 1,
        };
        let response = request.send().await.map_err(failed)?;
        let status = response.status();
        let body = response.bytes().await.map_err(failed)?;
        if status.is_success() {
            return Ok(serde_json::from_slice(&body)?);
        }
        let error = serde_json::from_slice::<Value>(&body).unwrap_or_default();
        let message = error["error"]["message"].as_str().unwrap_or("no sextant answers there");
        let code = if error["error"]["code"] == "gate_not_passed" { NOT_PASSED } else { 1 };
        Err(Failure { message: format!("{message} ({status})"), code })
    }
}

/// What happened, as "connection refused"; the errors around it say only that something did.
pub(super) fn innermost(error: &dyn std::error::Error) -> String {
    let innermost = std::iter::successors(Some(error), |error| error.source()).last();
    innermost.map(ToString::to_string).unwrap_or_default()
}
