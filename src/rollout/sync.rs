//! Serves what the log says, as it changes: looks at it again and again, loads a new stable version beside the old one, swaps
//! them, and lets go of what has no role any more.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use thiserror::Error;
use tokio::time::{Instant, MissedTickBehavior};

use super::gate::{Bounds, GateError};
use super::log::{Log, Seen};
use super::state::{Roles, State};
use crate::batch::Limits;
use crate::embed::{Embedder, Model, ModelError, Resident};
use crate::engine::{Runtime, Wanted};
use crate::metrics::{Metrics, VersionMetrics};
use crate::repository::{Repository, RepositoryError};

/// A version that cannot be loaded is tried again after ever longer pauses: each try reads all of its files.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Loads versions for one server.
pub struct Loader {
    /// Where they are.
    pub repository: Repository,
    /// What runs them.
    pub runtime: &'static Runtime,
    /// Sessions and threads of each, where they are not to be measured.
    pub wanted: Wanted,
    /// Of their queues.
    pub limits: Limits,
    /// What they must keep to pass the gate.
    pub bounds: Bounds,
    /// Where they count.
    pub metrics: Arc<Metrics>,
}

impl Loader {
    /// Loads a version. One that comes `beside` another takes over how that one uses the machine: measuring it needs a machine
    /// that has nothing else to do.
    ///
    /// # Errors
    /// If there is no such version, or it cannot be loaded.
    pub async fn load(&self, model: &str, version: u32, beside: Option<&Model>) -> Result<Model, ModelError> {
        let manifest = self.repository.manifest(model, version).await.map_err(GateError::from)?;
        let topology = beside.and_then(|beside| beside.topology);
        let wanted = topology.map_or(self.wanted, |topology| topology.wanted(self.wanted.cores));
        Model::load(&self.repository, manifest, self.runtime, wanted, self.limits, self.bounds, &self.metrics)
            .await
    }
}

/// Why the log could not be read.
#[derive(Debug, Error)]
enum LookError {
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// A directory that is not mounted looks like an empty one.
    #[error("the repository has no model `{0}` any more")]
    Gone(String),
}

/// Follows the logs of all models for one server.
pub struct Sync {
    loader: Loader,
    /// Ends with whoever serves.
    embedder: Weak<Embedder>,
    interval: Duration,
    logs: BTreeMap<String, Followed>,
    /// Versions without a role, until the last request that runs on them is answered.
    retired: Vec<Retired>,
    /// Why the repository could not be read the last time: told once, not at each look.
    trouble: Option<String>,
}

/// How far a model's log was read.
struct Followed {
    seen: Seen,
    /// Its versions could not be loaded: when to try again, and how long to wait after that.
    retry: Option<(Instant, Duration)>,
}

struct Retired {
    /// `name@version`.
    id: String,
    model: Weak<Model>,
    series: VersionMetrics,
}

impl Sync {
    /// Looks every `interval` for what came after `logs`, the ends of the logs that `embedder` serves already.
    pub fn new(
        loader: Loader,
        embedder: Weak<Embedder>,
        interval: Duration,
        logs: BTreeMap<String, Seen>,
    ) -> Self {
        let logs = logs.into_iter().map(|(model, seen)| (model, Followed { seen, retry: None })).collect();
        Self { loader, embedder, interval, logs, retired: Vec::new(), trouble: None }
    }

    /// Runs until nobody serves any more.
    pub async fn run(mut self) {
        let mut ticks = tokio::time::interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let Some(embedder) = self.embedder.upgrade() else { return };
            self.forget_unloaded();
            self.look().await;
            for (model, roles) in self.due() {
                self.follow(&embedder, &model, roles).await;
            }
        }
    }

    /// Reads on in every log. What cannot be read leaves everything as it is.
    async fn look(&mut self) {
        let trouble = self.read_on().await.err().map(|error| error.to_string());
        if trouble.is_some() {
            self.loader.metrics.sync_failures.repository.inc();
        }
        if trouble != self.trouble {
            match &trouble {
                Some(trouble) => tracing::warn!("serving on with what is known: {trouble}"),
                None => tracing::info!("the repository can be read again"),
            }
            self.trouble = trouble;
        }
    }

    async fn read_on(&mut self) -> Result<(), LookError> {
        let models = self.loader.repository.models().await?;
        if let Some(gone) = self.logs.keys().find(|known| !models.contains(known)) {
            return Err(LookError::Gone(gone.clone()));
        }
        for model in models {
            let followed = self.logs.entry(model.clone()).or_insert_with(Followed::from_the_start);
            let newer = Log::open(&self.loader.repository, &model)?.after(followed.seen.last).await?;
            for document in &newer.damaged {
                tracing::warn!("{document}");
            }
            if newer.good.is_some() {
                followed.retry = None;
            }
            followed.seen.extend(newer);
        }
        Ok(())
    }

    /// Models whose roles are known, but for those whose versions failed to load lately.
    fn due(&self) -> Vec<(String, Roles)> {
        let now = Instant::now();
        let due = self.logs.iter().filter_map(|(model, followed)| match followed.seen.state() {
            State::Known(roles) if followed.retry.is_none_or(|(at, _)| at <= now) => {
                Some((model.clone(), roles))
            }
            State::Known(_) | State::Empty | State::Lost => None,
        });
        due.collect()
    }

    async fn follow(&mut self, embedder: &Embedder, model: &str, roles: Roles) {
        let followed = self.install(embedder, model, roles).await;
        let Some(log) = self.logs.get_mut(model) else { return };
        match followed {
            Ok(()) => {
                log.retry = None;
                let number = log.seen.good.as_ref().map_or(0, |rollout| rollout.number);
                self.loader.metrics.rollout_generation(model, number);
            }
            Err((version, error)) => {
                self.loader.metrics.sync_failures.load.inc();
                let pause = log.retry.map_or(self.interval, |(_, pause)| (pause * 2).min(LONGEST_PAUSE));
                log.retry = Some((Instant::now() + pause, pause));
                tracing::warn!(
                    retry = ?pause,
                    "serving on with what is loaded: {model}@{version} cannot be served: {error}"
                );
            }
        }
    }

    /// Brings what is loaded of a model in line with its roles; the version that cannot be loaded, if one cannot.
    async fn install(
        &mut self,
        embedder: &Embedder,
        model: &str,
        roles: Roles,
    ) -> Result<(), (u32, ModelError)> {
        let before = embedder.resident(model);
        if before.as_ref().is_some_and(|before| before.roles() == roles) {
            return Ok(());
        }
        let stable = self.loaded_or_load(before.as_ref(), model, roles.stable).await?;
        let at_hand = |number| before.as_ref().and_then(|before| before.version(number)).cloned();
        let swapped = Resident { stable, previous: roles.previous.and_then(at_hand) };
        if before.as_ref().is_none_or(|before| !Arc::ptr_eq(&before.stable, &swapped.stable)) {
            tracing::info!("{} serves now", swapped.stable.id());
        }
        self.serve(embedder, swapped.clone());
        // Only now: whoever waits for the new version should not wait for the old one too.
        if let (Some(number), None) = (roles.previous, &swapped.previous) {
            let previous = self.loaded_or_load(Some(&swapped), model, number).await?;
            self.serve(embedder, Resident { previous: Some(previous), ..swapped });
        }
        Ok(())
    }

    async fn loaded_or_load(
        &mut self,
        resident: Option<&Resident>,
        model: &str,
        number: u32,
    ) -> Result<Arc<Model>, (u32, ModelError)> {
        if let Some(loaded) = resident.and_then(|resident| resident.version(number)) {
            return Ok(Arc::clone(loaded));
        }
        if let Some(revived) = self.revive(model, number) {
            return Ok(revived);
        }
        let beside = resident.map(|resident| &*resident.stable);
        self.loader.load(model, number, beside).await.map(Arc::new).map_err(|error| (number, error))
    }

    /// A version that lost its role and is not unloaded yet.
    fn revive(&mut self, model: &str, number: u32) -> Option<Arc<Model>> {
        let id = format!("{model}@{number}");
        let place = self.retired.iter().position(|retired| retired.id == id)?;
        let Retired { model, series, .. } = self.retired.swap_remove(place);
        let revived = model.upgrade();
        if revived.is_none() {
            // Before it is loaded again: the new series have the same names.
            self.loader.metrics.forget(&series);
        }
        revived
    }

    fn serve(&mut self, embedder: &Embedder, resident: Resident) {
        for left in embedder.serve(resident) {
            let series = left.metrics.clone();
            self.retired.push(Retired { id: left.id(), model: Arc::downgrade(&left), series });
        }
    }

    /// Removes the series of versions that no request runs on any more.
    fn forget_unloaded(&mut self) {
        let unloaded = self.retired.extract_if(.., |retired| retired.model.strong_count() == 0);
        for Retired { id, series, .. } in unloaded {
            tracing::info!("{id} is unloaded");
            self.loader.metrics.forget(&series);
        }
    }
}

impl Followed {
    fn from_the_start() -> Self {
        Self { seen: Seen { good: None, damaged: Vec::new(), last: 0 }, retry: None }
    }
}
