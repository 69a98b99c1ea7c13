//! `sextant health`.

use std::path::PathBuf;

use clap::Args;
use reqwest::Client;
use serde_json::Value;

use super::target::innermost;
use super::{Failure, print_line};
use crate::config::{Settings, TlsSettings};
use crate::tls;

/// What the health check of a container runs: its image has no other client. It takes the server's own settings, so that one
/// variable or one file says to both where the server listens.
#[derive(Debug, Args)]
pub(super) struct Health {
    /// TOML file that the server is given; flags and SEXTANT_* variables go over it
    #[arg(long, value_name = "FILE", env = "SEXTANT_CONFIG")]
    config: Option<PathBuf>,
    /// Address that the server listens on [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS", env = "SEXTANT_LISTEN")]
    listen: Option<String>,
    /// Its own address for the health routes [default: the same]
    #[arg(long, value_name = "ADDRESS", env = "SEXTANT_ADMIN_LISTEN")]
    admin_listen: Option<String>,
    /// How long its /livez waits for an inference [default: 10s]
    #[arg(long, value_name = "TIME", env = "SEXTANT_LIVENESS_DEADLINE")]
    liveness_deadline: Option<String>,
    #[command(flatten)]
    tls: TlsSettings,
}

impl Health {
    pub(super) fn run(self) -> Result<(), Failure> {
        let given = Settings {
            listen: self.listen,
            admin_listen: self.admin_listen,
            liveness_deadline: self.liveness_deadline,
            tls: self.tls,
            ..Settings::default()
        };
        let settings = given.over_file(self.config.as_deref()).map_err(Failure::usage)?;
        let (address, patience) = settings.health().map_err(Failure::usage)?;
        tls::install_provider();
        // Not by the proxy of the environment, which is for what lies outside. The certificate is for the name that others ask
        // by, not for this machine's address; nothing secret is sent, and a kubelet's probe does not look at it either.
        let client =
            Client::builder().no_proxy().timeout(patience).tls_danger_accept_invalid_certs(true).build()?;
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?
            .block_on(ask(&client, &format!("{address}/livez")))
    }
}

/// `/livez`, not `/readyz`: nothing is answered before the models are loaded, and a server that stops is not ill.
async fn ask(client: &Client, url: &str) -> Result<(), Failure> {
    let failed = |error: reqwest::Error| Failure {
        message: format!("{url} does not answer: {}", innermost(&error)),
        code: 1,
    };
    let response = client.get(url).send().await.map_err(failed)?;
    let status = response.status();
    let body = response.bytes().await.map_err(failed)?;
    if status.is_success() {
        return print_line("alive");
    }
    let error = serde_json::from_slice::<Value>(&body).unwrap_or_default();
    let message = error["error"].as_str().unwrap_or("no sextant's health is answered there");
    Err(Failure { message: format!("{url}: {message} ({status})"), code: 1 })
}
