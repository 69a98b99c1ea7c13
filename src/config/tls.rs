//! Certificates as they are given.

use std::path::PathBuf;

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::tls::{Files, Identity};

/// Certificates as given, all optional: as flags, as `SEXTANT_TLS_*` variables, as keys of the TOML file's table `tls`.
#[derive(Debug, Clone, Default, PartialEq, Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsSettings {
    /// The server's certificate and those up to its authority, as PEM; read again when it changes [default: no TLS]
    #[arg(long = "tls-cert", value_name = "FILE", env = "SEXTANT_TLS_CERT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert: Option<PathBuf>,
    /// Its private key, as PEM
    #[arg(long = "tls-key", value_name = "FILE", env = "SEXTANT_TLS_KEY")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// Another certificate for the address of --admin-listen [default: the same]
    #[arg(long = "tls-admin-cert", value_name = "FILE", env = "SEXTANT_TLS_ADMIN_CERT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin_cert: Option<PathBuf>,
    /// Its private key
    #[arg(long = "tls-admin-key", value_name = "FILE", env = "SEXTANT_TLS_ADMIN_KEY")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin_key: Option<PathBuf>,
    /// Authorities of client certificates: at --admin-listen whoever has none gets no more than /livez and /readyz
    #[arg(long = "tls-admin-client-ca", value_name = "FILE", env = "SEXTANT_TLS_ADMIN_CLIENT_CA")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin_client_ca: Option<PathBuf>,
}

/// What each listener shows, if it speaks TLS.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    /// The embedding routes'.
    pub public: Option<Identity>,
    /// The operators' own listener's.
    pub admin: Option<Identity>,
}

impl TlsSettings {
    /// Reads every file. `is_apart` says that the operators have a listener of their own.
    ///
    /// # Errors
    /// All mistakes, a sentence each.
    pub fn validate(&self, is_apart: bool) -> Result<Tls, Vec<String>> {
        let mut mistakes = Vec::new();
        let mut pair = |names: [&str; 2], cert: &Option<PathBuf>, key: &Option<PathBuf>| match (cert, key) {
            (Some(cert), Some(key)) => Some(Files { cert: cert.clone(), key: key.clone(), client_ca: None }),
            (None, None) => None,
            (given, _) => {
                let (there, missing) =
                    if given.is_some() { (names[0], names[1]) } else { (names[1], names[0]) };
                mistakes.push(format!("`tls.{missing}` is missing: `tls.{there}` is given"));
                None
            }
        };
        let public = pair(["cert", "key"], &self.cert, &self.key);
        let own = pair(["admin_cert", "admin_key"], &self.admin_cert, &self.admin_key);
        for (name, given) in [("admin_cert", &self.admin_cert), ("admin_client_ca", &self.admin_client_ca)] {
            if given.is_some() && !is_apart {
                mistakes.push(format!("`tls.{name}` is given, but there is no `admin_listen`"));
            }
        }
        let admin = own.or_else(|| public.clone()).filter(|_| is_apart);
        if self.admin_client_ca.is_some() && is_apart && admin.is_none() && mistakes.is_empty() {
            mistakes.push("`tls.admin_client_ca` is given, but no certificate of the server".to_owned());
        }
        let admin = admin.map(|files| Files { client_ca: self.admin_client_ca.clone(), ..files });
        let mut read = |files: Option<Files>| {
            let identity = Identity::read(files?);
            identity.map_err(|error| mistakes.push(format!("`tls`: {error}"))).ok()
        };
        let tls = Tls { public: read(public), admin: read(admin) };
        // One file may serve both.
        mistakes.dedup();
        if mistakes.is_empty() { Ok(tls) } else { Err(mistakes) }
    }

    /// Whether nothing is given.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl From<&Tls> for TlsSettings {
    fn from(tls: &Tls) -> Self {
        let public = tls.public.as_ref().map(Identity::files);
        let admin = tls.admin.as_ref().map(Identity::files);
        let own = admin.filter(|admin| public.is_none_or(|public| public.cert != admin.cert));
        Self {
            cert: public.map(|files| files.cert.clone()),
            key: public.map(|files| files.key.clone()),
            admin_cert: own.map(|files| files.cert.clone()),
            admin_key: own.map(|files| files.key.clone()),
            admin_client_ca: admin.and_then(|files| files.client_ca.clone()),
        }
    }
}
