//! Versions that are being loaded.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::task::{Id, JoinSet};

use crate::embed::{Model, ModelError, Resident};
use crate::rollout::gate::GateError;
use crate::rollout::loader::{Beside, Loader};
use crate::rollout::operator::Loaded;

/// A model's name and a version's number.
type Name = (String, u32);

#[derive(Default)]
pub(super) struct Loads {
    running: JoinSet<Result<Model, ModelError>>,
    names: HashMap<Id, Name>,
    /// Who else waits for them.
    waiting: BTreeMap<Name, Vec<oneshot::Sender<Loaded>>>,
}

/// A load that has ended.
pub(super) struct Done {
    pub(super) model: String,
    pub(super) version: u32,
    pub(super) result: Loaded,
}

impl Loads {
    /// Loads a version beside those that are `resident`, unless that is under way; `reply` is told when it is done.
    pub(super) fn start(
        &mut self,
        loader: &Arc<Loader>,
        model: &str,
        version: u32,
        resident: Option<&Resident>,
        reply: Option<oneshot::Sender<Loaded>>,
    ) {
        let name = (model.to_owned(), version);
        let is_running = self.is_running(model, version);
        self.waiting.entry(name.clone()).or_default().extend(reply);
        if is_running {
            return;
        }
        let beside = resident.and_then(|resident| Beside::of(&resident.stable));
        let loader = Arc::clone(loader);
        let (model, version) = name.clone();
        let running = self.running.spawn(async move { loader.load(&model, version, beside).await });
        self.names.insert(running.id(), name);
    }

    /// The next load that ends; none while nothing is loaded.
    pub(super) async fn next(&mut self) -> Option<Done> {
        let (id, result) = match self.running.join_next_with_id().await? {
            Ok((id, result)) => (id, result),
            Err(error) => (error.id(), Err(ModelError::Gate(GateError::Interrupted))),
        };
        let (model, version) = self.names.remove(&id)?;
        let result = result.map(Arc::new).map_err(Arc::new);
        for waiting in self.waiting.remove(&(model.clone(), version)).unwrap_or_default() {
            // A caller that has gone needs no answer.
            let _ = waiting.send(result.clone());
        }
        Some(Done { model, version, result })
    }

    /// Whether a version is being loaded.
    pub(super) fn is_running(&self, model: &str, version: u32) -> bool {
        self.names.values().any(|(name, number)| name == model && *number == version)
    }
}
