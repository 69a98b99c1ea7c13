//! The models that a server starts with: those that load, and why the others do not.

use std::collections::BTreeMap;

use super::ServeError;
use crate::embed::{MissingReasons, Model};
use crate::repository::RepositoryError;
use crate::rollout::{Loader, Log, Seen};

/// What was found in the repository.
#[derive(Default)]
pub(super) struct Found {
    /// The stable version of each model that loads.
    pub(super) models: Vec<Model>,
    /// The ends of all logs.
    pub(super) logs: BTreeMap<String, Seen>,
    /// Why the other models are not served.
    pub(super) missing: MissingReasons,
}

/// Loads the stable version of every model, each through the gate. A model that cannot be loaded is left out with one line of the log, so
/// that it does not take the others down with it.
///
/// # Errors
/// The first reason, if there are models and none can be loaded; or if the repository cannot be listed.
pub(super) async fn load(loader: &Loader) -> Result<Found, ServeError> {
    let (mut found, mut first) = (Found::default(), None);
    for name in loader.repository.models().await? {
        let seen = match end(loader, &name).await {
            Ok(seen) => seen,
            Err(error) => {
                found.miss(&name, error.into(), &mut first);
                Seen::nothing()
            }
        };
        match stable(loader, &name, &seen).await {
            Ok(model) => found.models.extend(model),
            Err(error) => found.miss(&name, error, &mut first),
        }
        found.logs.insert(name, seen);
    }
    match first {
        Some(error) if found.models.is_empty() => Err(error),
        _ => Ok(found),
    }
}

async fn end(loader: &Loader, name: &str) -> Result<Seen, RepositoryError> {
    let seen = Log::open(&loader.repository, name)?.current().await?;
    for document in &seen.damaged {
        tracing::warn!("{document}");
    }
    Ok(seen)
}

/// The version that the log says is stable; none if no version was ever activated.
async fn stable(loader: &Loader, name: &str, seen: &Seen) -> Result<Option<Model>, ServeError> {
    if let Some(rollout) = &seen.good {
        let version = rollout.stable;
        let model = loader.load(name, version, None).await;
        return model
            .map(Some)
            .map_err(|source| ServeError::Model { version: format!("{name}@{version}"), source });
    }
    match seen.damaged.first() {
        Some(newest) => Err(ServeError::NoGoodDocument { model: name.to_owned(), newest: newest.clone() }),
        None => Ok(None),
    }
}

impl Found {
    fn miss(&mut self, name: &str, error: ServeError, first: &mut Option<ServeError>) {
        tracing::error!(
            model = name,
            "this model is missing, the others are served without it: {error}; mend or roll out another version of it \
             (`sextant list`, `sextant verify`, `sextant rollout`), and it comes up without a restart"
        );
        self.missing.insert(name.to_owned(), error.to_string());
        first.get_or_insert(error);
    }

    /// Says which models were never activated.
    pub(super) fn warn_of_idle(&self) {
        let is_loaded = |name: &str| self.models.iter().any(|model| model.manifest.model == name);
        for name in self.logs.keys().filter(|name| !is_loaded(name) && !self.missing.contains_key(*name)) {
            tracing::warn!(model = name, "no version of this model was ever activated: it is not served");
        }
    }
}
