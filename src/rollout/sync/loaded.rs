//! Every version that is loaded, with a role or without, until the last request that runs on it is answered.

use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::embed::Model;
use crate::memory;
use crate::metrics::{Metrics, VersionMetrics};

/// After the last request on a version its threads end and its sessions are given back.
const UNLOADING: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(super) struct LoadedVersions(Vec<Entry>);

struct Entry {
    model: String,
    version: u32,
    loaded: Weak<Model>,
    series: VersionMetrics,
}

impl Entry {
    fn is(&self, model: &str, version: u32) -> bool {
        self.model == model && self.version == version
    }
}

impl LoadedVersions {
    /// Adds a version. One of the same name that was unloaded before has the same series: they go on.
    pub(super) fn add(&mut self, loaded: &Arc<Model>) {
        let (model, version) = (loaded.manifest.model.clone(), loaded.manifest.version);
        self.0.retain(|entry| !entry.is(&model, version));
        self.0.push(Entry { model, version, loaded: Arc::downgrade(loaded), series: loaded.metrics.clone() });
    }

    pub(super) fn find(&self, model: &str, version: u32) -> Option<Arc<Model>> {
        self.0.iter().find(|entry| entry.is(model, version))?.loaded.upgrade()
    }

    /// Removes the series of versions that are unloaded and not being loaded again, and gives their memory back.
    pub(super) fn forget_unloaded(&mut self, metrics: &Metrics, is_loading: impl Fn(&str, u32) -> bool) {
        let before = self.0.len();
        let is_gone =
            |entry: &mut Entry| entry.loaded.strong_count() == 0 && !is_loading(&entry.model, entry.version);
        for Entry { model, version, series, .. } in self.0.extract_if(.., is_gone) {
            tracing::info!("{model}@{version} is unloaded");
            metrics.forget(&series);
        }
        if self.0.len() < before {
            tokio::spawn(async {
                tokio::time::sleep(UNLOADING).await;
                // A panic in there leaves the memory where it is.
                let _ = tokio::task::spawn_blocking(memory::give_back).await;
            });
        }
    }
}
