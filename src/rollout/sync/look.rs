//! One look at the logs of all models.

use std::collections::BTreeMap;

use thiserror::Error;
use tokio::task::JoinError;

use crate::repository::{Repository, RepositoryError};
use crate::rollout::log::Log;
use crate::rollout::roles::Trial;
use crate::rollout::secret::SharedSecret;
use crate::rollout::seen::{Later, Seen};

/// Why the log could not be read.
#[derive(Debug, Error)]
pub(super) enum LookError {
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// A directory that is not mounted looks like an empty one.
    #[error("the repository has no model `{0}` any more")]
    Gone(String),
    /// A mistake in this file.
    #[error("reading the logs ended early: {0}")]
    Ended(#[from] JoinError),
}

/// What a look found of every model: the log as it was known when the look began, and what is new.
///
/// A log that cannot be read is that model's trouble: the others are followed.
pub(super) type Looked = Vec<(String, Seen, Result<Later, RepositoryError>)>;

/// Whether a version answers a part of the requests.
fn has_canary(seen: &Seen) -> bool {
    let trial = seen.good.as_ref().and_then(|rollout| rollout.trial);
    trial.is_some_and(|Trial { canary_percent, .. }| canary_percent.is_some())
}

/// Reads on in the log of every model, and the secret where a canary begins, or runs and the secret is not known.
pub(super) async fn read_on(
    repository: &Repository,
    secret: &SharedSecret,
    mut known: BTreeMap<String, Seen>,
) -> Result<Looked, LookError> {
    let models = repository.models().await?;
    if let Some(gone) = known.keys().find(|known| !models.contains(known)) {
        return Err(LookError::Gone(gone.clone()));
    }
    let mut newer = Vec::new();
    for model in models {
        let before = known.remove(&model).unwrap_or_else(Seen::nothing);
        let later = match Log::open(repository, &model) {
            Ok(log) => log.after(&before).await,
            Err(error) => Err(error),
        };
        newer.push((model, before, later));
    }
    let wants_secret = |(_, before, later): &(_, Seen, Result<Later, _>)| match later {
        Ok(Later::More(seen) | Later::Shorter(seen)) => has_canary(seen),
        Ok(Later::Nothing) | Err(_) => has_canary(before) && secret.get().is_none(),
    };
    if newer.iter().any(wants_secret) {
        secret.read_or_tell(repository).await;
    }
    Ok(newer)
}
