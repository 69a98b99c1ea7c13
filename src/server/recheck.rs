//! Looks again at the files of the versions that are loaded: nobody may change them, so a change is an alarm.
//!
//! The copy in the cache is what the runtime has mapped. The repository's own files are what the next server will load.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::embed::{Embedder, Model, Resident};
use crate::repository::{Changed, Fetched, Repository};

/// What was wrong at the last look, by version: an alarm is told once, not at each look.
type Told = BTreeMap<String, Vec<Changed>>;

/// Looks every `interval`, for as long as somebody is served by `embedder`.
pub(super) async fn run(repository: Repository, embedder: Weak<Embedder>, interval: Duration) {
    let mut told = Told::new();
    loop {
        tokio::time::sleep(interval).await;
        let Some(loaded) = embedder.upgrade().map(|embedder| loaded(&embedder)) else { return };
        told.retain(|version, _| loaded.iter().any(|(id, _)| id == version));
        for (id, model) in loaded {
            if let Some(found) = look(&repository, &model).await {
                tell(&id, &found, told.get(&id).map_or(&[], Vec::as_slice));
                told.insert(id, found);
            }
        }
    }
}

/// Every version that is loaded with a role. Not held: a version must be unloaded while its files are read.
fn loaded(embedder: &Embedder) -> Vec<(String, Weak<Model>)> {
    let residents: Vec<Resident> =
        embedder.models().iter().filter_map(|model| embedder.resident(&model.manifest.model)).collect();
    residents.iter().flat_map(Resident::all).map(|model| (model.id(), Arc::downgrade(model))).collect()
}

/// What is changed of a version; none if it was unloaded meanwhile, after which its copy may be removed from the cache.
async fn look(repository: &Repository, model: &Weak<Model>) -> Option<Vec<Changed>> {
    let (manifest, directory) = {
        let model = model.upgrade()?;
        (model.manifest.clone(), model.directory()?.to_owned())
    };
    let mut found = Fetched::changed(&directory, &manifest).await;
    found.extend(repository.changed(&manifest).await);
    model.upgrade()?.files_changed(found.len());
    Some(found)
}

fn tell(version: &str, found: &[Changed], before: &[Changed]) {
    if found == before {
        return;
    }
    let Some(first) = found.first() else {
        tracing::info!(version, "the files of this version are as published again");
        return;
    };
    let files: Vec<&str> = found.iter().map(|changed| changed.file.as_str()).collect();
    tracing::error!(
        version,
        files = files.join(", "),
        "files of a version that is loaded were changed: {}; what is loaded serves on (docs/runbook.md, SextantFilesChanged)",
        first.reason
    );
}
