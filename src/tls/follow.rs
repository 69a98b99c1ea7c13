//! A certificate that changes while it is shown.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio_rustls::TlsAcceptor;

use super::{Identity, TlsError, contents};
use crate::metrics::ListenerMetrics;

/// What a listener shows now.
#[derive(Clone)]
pub(crate) struct Shown {
    identity: Arc<ArcSwap<Identity>>,
    metrics: Arc<ListenerMetrics>,
}

impl Shown {
    pub(crate) fn new(identity: Identity, metrics: Arc<ListenerMetrics>) -> Self {
        metrics.certificate_expires(identity.expires);
        Self { identity: Arc::new(ArcSwap::from_pointee(identity)), metrics }
    }

    /// For the next handshake.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.identity.load().config))
    }

    /// Whether clients are asked for certificates.
    pub(crate) fn asks_clients(&self) -> bool {
        self.identity.load().files.client_ca.is_some()
    }

    /// Looks at the files, for ever. Their content is compared, not their times: a Secret of Kubernetes changes by a link to another
    /// directory, with the times of whoever wrote that.
    pub(crate) async fn follow(self, interval: Duration) {
        // What could not be used is told once, not at every look.
        let mut refused = None;
        loop {
            tokio::time::sleep(interval).await;
            let shown = self.identity.load_full();
            let found = tokio::task::spawn_blocking(move || look(&shown)).await;
            match found {
                Ok(Ok(None)) => refused = None,
                Ok(Ok(Some(identity))) => {
                    refused = None;
                    let file = identity.files.cert.display().to_string();
                    tracing::info!(file, expires = identity.expires, "the certificate has changed");
                    self.metrics.certificate_loaded(identity.expires);
                    self.identity.store(Arc::new(identity));
                }
                Ok(Err(error)) => {
                    let told = Some(error.to_string());
                    if refused != told {
                        tracing::error!(%error, "the certificate has changed and cannot be used: the last one stays");
                        self.metrics.certificate_refused();
                        refused = told;
                    }
                }
                // The runtime is going.
                Err(_) => return,
            }
        }
    }
}

/// What is in the files now, if it is something else.
fn look(shown: &Identity) -> Result<Option<Identity>, TlsError> {
    let read = contents(&shown.files)?;
    if *read == *shown.read { Ok(None) } else { Identity::of(shown.files.clone(), read).map(Some) }
}
