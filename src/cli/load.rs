//! A version loaded for a command's own use, not to serve others.

use std::num::NonZeroUsize;
use std::thread;

use super::Failure;
use super::arguments::VersionName;
use crate::batch::Limits;
use crate::embed::{Embedder, Model, Resources};
use crate::engine::{Backend, Wanted, topology};
use crate::metrics::Metrics;
use crate::repository::Repository;
use crate::rollout::gate::Bounds;

/// A version with a session for each core, or as many as are best on a GPU, alone in an embedder.
pub(super) async fn load(
    repository: &Repository,
    backend: &Backend,
    VersionName { model, version }: &VersionName,
) -> Result<Embedder, Failure> {
    let manifest = repository.manifest(model, *version).await?;
    let cores = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let on_cores = Wanted {
        sessions: Some(cores.min(topology::MOST_SESSIONS)),
        threads: Some(NonZeroUsize::MIN),
        spin: Some(false),
        batch_tokens: NonZeroUsize::new(Limits::default().batch_tokens),
        lone_threads: Some(0),
        ..Wanted::measured(cores)
    };
    let wanted = if backend.devices.are_gpus() { Wanted::measured(cores) } else { on_cores };
    let limits = Limits { queue_tokens: usize::MAX, ..Limits::default() };
    let resources = Resources { tokenize_threads: cores.get(), max_input_bytes: usize::MAX, cache_bytes: 0 };
    let metrics = Metrics::new()?;
    // What its vectors are worth says nothing if they are not those that it came with.
    let model = Model::load(repository, manifest, backend, wanted, limits, Bounds::DEFAULT, &metrics).await?;
    Ok(Embedder::new(vec![model], None, resources)?)
}
