//! One look at the logs of all models.

use std::collections::BTreeMap;

use thiserror::Error;
use tokio::task::JoinError;

use crate::repository::{Repository, RepositoryError};
use crate::rollout::log::Log;
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

/// Reads on in the log of every model.
pub(super) async fn read_on(
    repository: &Repository,
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
    Ok(newer)
}
