//! TLS: the cryptography under every HTTPS client of the process, and the certificates that its listeners show.

mod expiry;
mod follow;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::default_provider;
use rustls::server::{ServerConfig, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{ConfigBuilder, RootCertStore, WantsVerifier};
use rustls_pki_types::pem::{self, PemObject as _};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;

pub(crate) use follow::Shown;

/// Makes ring the provider of the process, unless there is one. Before any client is built: reqwest has none of its own
/// here, and panics without.
pub(crate) fn install_provider() {
    if CryptoProvider::get_default().is_none() {
        // An error says that another thread was faster, which does as well.
        let _already_there = default_provider().install_default();
    }
}

/// Why a listener cannot show a certificate.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read `{}`: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("`{}` has no {what} in it, as PEM: {source}", path.display())]
    NotPem {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
        /// Where it broke.
        source: pem::Error,
    },
    /// The two do not belong together, or cannot be used.
    #[error("the key in `{}` cannot be used with the certificate in `{}`: {source}", key.display(), cert.display())]
    Pair {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// The library's reason.
        source: rustls::Error,
    },
    /// No certificate by its form.
    #[error("a certificate in `{}` is damaged: it does not say until when it is valid", .0.display())]
    Damaged(PathBuf),
    /// A client's certificate cannot be checked against these.
    #[error("`{}` has no authority that could sign clients' certificates: {source}", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// The library's reason.
        source: VerifierBuilderError,
    },
}

/// Where a listener's certificate is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The certificate and those up to its authority, as PEM.
    pub cert: PathBuf,
    /// Its private key, as PEM.
    pub key: PathBuf,
    /// Authorities of clients' certificates, if those are asked for.
    pub client_ca: Option<PathBuf>,
}

/// A certificate with the files that it comes from. No key is ever printed.
#[derive(Clone)]
pub struct Identity {
    files: Files,
    config: Arc<ServerConfig>,
    /// When the first of its certificates expires, in seconds since 1970.
    expires: i64,
    /// What was in the files.
    read: Arc<[Vec<u8>]>,
}

impl Identity {
    /// Reads the files, and tries the key on the certificate.
    ///
    /// # Errors
    /// If a file is not what it should be, or they do not belong together.
    pub fn read(files: Files) -> Result<Self, TlsError> {
        let read = contents(&files)?;
        Self::of(files, read)
    }

    /// Where it comes from.
    pub fn files(&self) -> &Files {
        &self.files
    }

    fn of(files: Files, read: Vec<Vec<u8>>) -> Result<Self, TlsError> {
        let chain = certificates(&files.cert, &read[0])?;
        let key = PrivateKeyDer::from_pem_slice(&read[1]).map_err(|source| TlsError::NotPem {
            path: files.key.clone(),
            what: "private key",
            source,
        })?;
        let expires = chain.iter().map(|certificate| expiry::not_after(certificate)).min().flatten();
        let expires = expires.ok_or_else(|| TlsError::Damaged(files.cert.clone()))?;
        let mismatch = |source| TlsError::Pair { cert: files.cert.clone(), key: files.key.clone(), source };
        let builder = versions().map_err(mismatch)?;
        let builder = match &files.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let wrong = |source| TlsError::Authority { path: path.clone(), source };
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(certificates(path, &read[2])?);
                // Without one a client is let in, and gets no more than the health routes: a probe has no certificate.
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(roots.into(), default_provider().into())
                        .allow_unauthenticated()
                        .build()
                        .map_err(wrong)?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder.with_single_cert(chain, key).map_err(mismatch)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { files, config: config.into(), expires, read: read.into() })
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.files.fmt(formatter)
    }
}

/// TLS 1.2 and 1.3.
fn versions() -> Result<ConfigBuilder<ServerConfig, WantsVerifier>, rustls::Error> {
    ServerConfig::builder_with_provider(default_provider().into()).with_safe_default_protocol_versions()
}

fn contents(files: &Files) -> Result<Vec<Vec<u8>>, TlsError> {
    let all = [Some(&files.cert), Some(&files.key), files.client_ca.as_ref()];
    let read = |path: &PathBuf| {
        std::fs::read(path).map_err(|source| TlsError::Unreadable { path: path.clone(), source })
    };
    all.into_iter().flatten().map(read).collect()
}

/// The certificates of a file; there is at least one.
fn certificates(path: &Path, read: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |source| TlsError::NotPem { path: path.to_owned(), what: "certificate", source };
    let found: Vec<_> = CertificateDer::pem_slice_iter(read).collect::<Result<_, _>>().map_err(wrong)?;
    if found.is_empty() { Err(wrong(pem::Error::NoItemsFound)) } else { Ok(found) }
}
