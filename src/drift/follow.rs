//! Gives every loaded version the newest reference of its space, as they appear in the repository, and has one learned where there is
//! none and the operator wants it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::fit::{Sample, fit};
use super::learn::Learner;
use super::monitor::{Monitor, Settings};
use super::reference::Origin;
use super::score::Scorer;
use super::shelf;
use super::watcher::Watcher;
use crate::embed::{Embedder, Model};
use crate::metrics::Metrics;
use crate::repository::Repository;

/// The references that are known, for whoever loads a version: it should be held against its own from its first request on.
pub struct References {
    settings: Settings,
    metrics: Arc<Metrics>,
    shelves: Mutex<BTreeMap<String, Shelf>>,
}

/// What is known of a model's references.
#[derive(Default)]
struct Shelf {
    last: u64,
    /// One of each space at most.
    newest: Vec<Arc<Scorer>>,
}

impl References {
    /// None yet.
    pub fn new(settings: Settings, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { settings, metrics, shelves: Mutex::default() })
    }

    /// Has a version held against the newest reference of its space, if there is one and it is not yet.
    pub fn attach(&self, model: &Model) {
        let manifest = &model.manifest;
        let of_space = |scorer: &&Arc<Scorer>| scorer.reference().origin.space == manifest.space;
        let known =
            self.shelves().get(&manifest.model).and_then(|shelf| shelf.newest.iter().find(of_space).cloned());
        let Some(scorer) = known else { return };
        match model.watcher().as_deref() {
            Some(Watcher::Monitor(monitor)) if monitor.has_ended() => {
                tracing::error!("{}: drift was no longer measured, and is again", model.id());
                // Before the next one: its series have the same labels, and go with it.
                model.watch(None);
            }
            Some(Watcher::Monitor(monitor)) if monitor.scorer().name == scorer.name => return,
            _ => {}
        }
        if let Err(error) = scorer.reference().fits(&manifest.space, manifest.dimensions) {
            // Once a look would be too often, and it is no danger: it only stays unused.
            tracing::debug!("{}: a drift reference is not used: {error}", model.id());
            return;
        }
        let metrics = self.metrics.drift(manifest, &scorer);
        match Monitor::start(model.id(), Arc::clone(&scorer), self.settings, metrics) {
            Ok(monitor) => {
                tracing::info!(version = model.id(), reference = scorer.name, "drift is measured");
                self.metrics.learned(manifest, None);
                model.watch(Some(Watcher::Monitor(monitor)));
            }
            Err(error) => tracing::warn!("{}: drift is not measured: {error}", model.id()),
        }
    }

    /// The number of a model's last reference that was read.
    fn last(&self, model: &str) -> u64 {
        self.shelves().get(model).map_or(0, |shelf| shelf.last)
    }

    fn add(&self, model: &str, last: u64, newer: Vec<Arc<Scorer>>) {
        let space = |scorer: &Arc<Scorer>| scorer.reference().origin.space.clone();
        let mut shelves = self.shelves();
        let shelf = shelves.entry(model.to_owned()).or_default();
        shelf.last = last;
        shelf.newest.retain(|known| newer.iter().all(|newer| space(newer) != space(known)));
        shelf.newest.extend(newer);
    }

    fn shelves(&self) -> MutexGuard<'_, BTreeMap<String, Shelf>> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Follows the references of all models for one server.
pub struct Follower {
    repository: Repository,
    /// Ends with whoever serves.
    embedder: Weak<Embedder>,
    references: Arc<References>,
    interval: Duration,
    /// Why references could not be read the last time: told once, not at each look.
    trouble: Option<String>,
}

impl Follower {
    /// Looks for references every `interval`.
    pub fn new(
        repository: Repository,
        embedder: Weak<Embedder>,
        references: Arc<References>,
        interval: Duration,
    ) -> Self {
        Self { repository, embedder, references, interval, trouble: None }
    }

    /// Runs until nobody serves any more.
    pub async fn run(mut self) {
        let mut ticks = tokio::time::interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if self.embedder.strong_count() == 0 {
                return;
            }
            self.look().await;
        }
    }

    /// Looks once. What cannot be read leaves everything as it is.
    pub async fn look(&mut self) {
        let Some(embedder) = self.embedder.upgrade() else { return };
        let mut trouble = None;
        for name in embedder.models().iter().map(|model| model.manifest.model.clone()) {
            match shelf::after(&self.repository, &name, self.references.last(&name)).await {
                Ok(found) => {
                    found.damaged.iter().for_each(|damaged| tracing::warn!("{damaged}"));
                    self.references.add(&name, found.last, found.references);
                }
                Err(error) => trouble = Some(error.to_string()),
            }
            let Some(resident) = embedder.resident(&name) else { continue };
            for model in resident.all() {
                self.references.attach(model);
                // It was stable when it began, and what comes to it now is no longer the model's traffic.
                if matches!(model.watcher().as_deref(), Some(Watcher::Learner(_)))
                    && !Arc::ptr_eq(model, &resident.stable)
                {
                    self.references.metrics.learned(&model.manifest, None);
                    model.watch(None);
                }
            }
            self.learn(&resident.stable).await;
        }
        if let Some(trouble) = trouble.as_ref().filter(|_| trouble != self.trouble) {
            tracing::warn!("drift goes on being measured against what is known: {trouble}");
        }
        self.trouble = trouble;
    }

    /// Has a reference learned from the stable version's traffic where there is none, and stores it when there are enough vectors.
    async fn learn(&self, model: &Arc<Model>) {
        let References { settings, metrics, .. } = &*self.references;
        let Some(wanted) = settings.learn else { return };
        let learner = || Watcher::Learner(Learner::new(wanted, settings.per_second));
        match model.watcher().as_deref() {
            Some(Watcher::Monitor(_)) => {}
            None => {
                tracing::info!(version = model.id(), vectors = wanted, "a drift reference is being learned");
                metrics.learned(&model.manifest, Some(0));
                model.watch(Some(learner()));
            }
            Some(Watcher::Learner(full)) => {
                metrics.learned(&model.manifest, Some(full.len()));
                let Some(samples) = full.take() else { return };
                if let Err(error) = self.freeze(model, samples).await {
                    tracing::warn!("{}: learning begins again: {error}", model.id());
                }
                // A reference that was stored, here or elsewhere, is attached at the next look.
                model.watch(Some(learner()));
            }
        }
    }

    /// Makes a reference of what was learned and stores it, unless another replica was faster.
    async fn freeze(&self, model: &Arc<Model>, samples: Vec<Sample>) -> Result<(), String> {
        let manifest = &model.manifest;
        let origin = Origin::now(model.id(), manifest.space.clone(), "live traffic".to_owned());
        let fitted = tokio::task::spawn_blocking(move || fit(&samples, origin, fastrand::u64(..))).await;
        let (reference, report) =
            fitted.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        let stored = shelf::store(&self.repository, &manifest.model, &reference, true).await;
        match stored.map_err(|error| error.to_string())? {
            Some(number) => tracing::info!(
                version = model.id(),
                number,
                design_effect = report.design_effect,
                "a drift reference was learned and stored"
            ),
            None => tracing::info!(version = model.id(), "another replica has stored a drift reference"),
        }
        Ok(())
    }
}
