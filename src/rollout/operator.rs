//! Changes made through a server: it loads what it is to serve before it writes the log, so that a version that does not pass the
//! gate here is not rolled out from here, and answers when it serves what it wrote.

use std::sync::Arc;

use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use super::document::Rollout;
use super::gate::{GateError, GateReport};
use super::loader::Loader;
use super::log::{Log, RolloutError, Signature};
use super::roles::Trial;
use super::state::{Change, Refusal};
use crate::embed::{Model, ModelError};
use crate::engine::Wanted;
use crate::repository::Repository;

/// A version, loaded or not.
pub(super) type Loaded = Result<Arc<Model>, Arc<ModelError>>;

/// What the task that follows the logs is asked for.
pub(super) enum Command {
    /// A version, loaded if it is not.
    Load { model: String, version: u32, reply: oneshot::Sender<Loaded> },
    /// To serve what a document says that was just written. `loaded` holds what was loaded for it.
    Follow {
        model: String,
        rollout: Box<Rollout>,
        loaded: Vec<Arc<Model>>,
        /// Whether it is served; why not, in words.
        reply: oneshot::Sender<Result<(), String>>,
    },
}

/// Why a change was not made, or is not served.
#[derive(Debug, Error)]
pub enum OperateError {
    /// It is not allowed, or cannot be written.
    #[error(transparent)]
    Rollout(#[from] RolloutError),
    /// A version cannot be loaded here. Nothing was written.
    #[error("nothing was changed: {version} cannot be served here: {source}")]
    NotLoaded {
        /// The version.
        version: String,
        /// Why.
        source: Arc<ModelError>,
    },
    /// It is written, and other servers may serve it.
    #[error("rollout {} is written, and this server does not serve it yet: {reason}", written.number)]
    NotServed {
        /// The document.
        written: Box<Rollout>,
        /// Why.
        reason: String,
    },
    /// The server stops.
    #[error("the server is stopping")]
    Stopping,
}

impl OperateError {
    /// What the gate found, if a version did not pass it.
    pub fn report(&self) -> Option<&GateReport> {
        match self {
            Self::NotLoaded { source, .. } => match &**source {
                ModelError::Gate(GateError::NotPassed(report)) => Some(report),
                ModelError::Gate(_) | ModelError::Start(_) => None,
            },
            Self::Rollout(_) | Self::NotServed { .. } | Self::Stopping => None,
        }
    }
}

/// Makes changes through a server.
#[derive(Clone)]
pub struct Operator {
    loader: Arc<Loader>,
    commands: mpsc::Sender<Command>,
}

impl Operator {
    pub(super) fn new(loader: Arc<Loader>, commands: mpsc::Sender<Command>) -> Self {
        Self { loader, commands }
    }

    /// The repository that the server follows.
    pub fn repository(&self) -> &Repository {
        &self.loader.repository
    }

    /// Makes a change: decides, loads what would serve, writes, and decides again if somebody else was faster. With `on`, only if it
    /// is decided on the document of that number.
    ///
    /// # Errors
    /// See [`OperateError`].
    pub async fn change(
        &self,
        model: &str,
        change: Change,
        on: Option<u64>,
        signature: Signature<'_>,
    ) -> Result<Rollout, OperateError> {
        let log = Log::open(self.repository(), model).map_err(RolloutError::from)?;
        if let Change::Trial(Trial { canary_percent: Some(_), .. }) = change {
            // Before the version answers anybody.
            self.loader.secret.read(self.repository()).await.map_err(RolloutError::from)?;
        }
        let (rollout, loaded) = loop {
            let mut draft = log.decide(&change, signature).await?;
            if on.is_some() && draft.from != on {
                let (model, refusal) = (model.to_owned(), Refusal::Overtaken);
                return Err(RolloutError::Refused { model, refusal }.into());
            }
            let mut loaded = Vec::new();
            let stood_by = match change {
                Change::Standby { version } => Some(version),
                _ => None,
            };
            let wanted = [Some(draft.stable), draft.trial.map(|trial| trial.version), stood_by];
            for version in wanted.into_iter().flatten() {
                let version = self.load(model, version).await?;
                if change.brings() == Some(version.manifest.version) {
                    self.check_files(&version).await?;
                }
                loaded.push(version);
            }
            // A rollback is about the version that is taken back, and these others are about none that was loaded for them.
            if !matches!(change, Change::Rollback { .. } | Change::Retire { .. } | Change::Alias { .. }) {
                let report = loaded.last().and_then(|model| model.gate.as_ref());
                draft.gate = report.map(GateReport::figures).unwrap_or_default();
            }
            if log.write(&draft).await? {
                break (draft, loaded);
            }
            log.may_decide_again(&change)?;
        };
        let (reply, served) = oneshot::channel();
        let written = Box::new(rollout.clone());
        let command = Command::Follow { model: model.to_owned(), rollout: written.clone(), loaded, reply };
        self.commands.send(command).await.map_err(|_| OperateError::Stopping)?;
        let served = served.await.map_err(|_| OperateError::Stopping)?;
        served.map_err(|reason| OperateError::NotServed { written, reason })?;
        Ok(rollout)
    }

    /// What `change` would lead to. Nothing is loaded or written.
    ///
    /// # Errors
    /// If it is not allowed, or the repository cannot be read.
    pub async fn decide(
        &self,
        model: &str,
        change: &Change,
        signature: Signature<'_>,
    ) -> Result<Rollout, RolloutError> {
        Log::open(self.repository(), model)?.decide(change, signature).await
    }

    /// Checks a version on this server, beside those that serve.
    ///
    /// # Errors
    /// If there is no such version, no room for it, or the repository fails.
    pub async fn verify(&self, model: &str, version: u32) -> Result<GateReport, GateError> {
        let Loader { repository, backend, wanted, bounds, .. } = &*self.loader;
        let wanted = Wanted::one_session(wanted.cores);
        let _reserved = match super::gate::manifest(repository, model, version).await {
            Ok(manifest) => self.loader.reserve(&manifest, &wanted, 0).await?,
            // The gate says what is wrong with it.
            Err(_) => None,
        };
        super::gate::verify(repository, model, version, backend, wanted, *bounds).await
    }

    /// The files that other servers are to load.
    async fn check_files(&self, model: &Model) -> Result<(), OperateError> {
        let checked = super::gate::as_published(self.repository(), &model.manifest).await;
        checked.map_err(|error| OperateError::NotLoaded {
            version: model.id(),
            source: Arc::new(ModelError::Gate(error)),
        })
    }

    async fn load(&self, model: &str, version: u32) -> Result<Arc<Model>, OperateError> {
        let (reply, loaded) = oneshot::channel();
        let command = Command::Load { model: model.to_owned(), version, reply };
        self.commands.send(command).await.map_err(|_| OperateError::Stopping)?;
        let loaded = loaded.await.map_err(|_| OperateError::Stopping)?;
        loaded.map_err(|source| OperateError::NotLoaded { version: format!("{model}@{version}"), source })
    }
}
