//! Loads versions for a server.

use std::sync::Arc;

use super::gate::{self, Bounds, GateError};
use super::room::{Need, Reserved, Room};
use super::secret::SharedSecret;
use crate::batch::Limits;
use crate::drift::follow::References;
use crate::embed::{Model, ModelError};
use crate::engine::{Backend, Topology, Wanted};
use crate::memory;
use crate::metrics::Metrics;
use crate::repository::Repository;
use crate::repository::manifest::Manifest;

/// Loads versions for one server.
pub struct Loader {
    /// Where they are.
    pub repository: Repository,
    /// What runs them.
    pub backend: Backend,
    /// Sessions and threads of each, where they are not to be measured.
    pub wanted: Wanted,
    /// Of their queues.
    pub limits: Limits,
    /// What they must keep to pass the gate.
    pub bounds: Bounds,
    /// Where they count.
    pub metrics: Arc<Metrics>,
    /// What their traffic is held against.
    pub references: Arc<References>,
    /// What is being loaded.
    pub room: Room,
    /// By which users are drawn for a version on trial.
    pub secret: SharedSecret,
}

/// The version beside which one is loaded.
#[derive(Debug, Clone, Copy)]
pub struct Beside {
    /// The new one takes it over: measuring needs a machine that has nothing else to do.
    pub topology: Topology,
    /// Bytes that its largest batches took when it was loaded.
    pub activations: u64,
}

impl Beside {
    /// Of a loaded version; none if a test made it.
    pub fn of(model: &Model) -> Option<Self> {
        Some(Self { topology: model.topology?, activations: model.activations })
    }
}

impl Loader {
    /// Loads a version through the gate, `beside` another one if there is enough memory for both.
    ///
    /// # Errors
    /// If there is no such version, no room for it, or it cannot be loaded.
    pub async fn load(&self, model: &str, version: u32, beside: Option<Beside>) -> Result<Model, ModelError> {
        let manifest = gate::manifest(&self.repository, model, version).await?;
        let wanted = beside.map_or(self.wanted, |beside| beside.topology.wanted(self.wanted.cores));
        let _reserved = match beside {
            Some(beside) => self.reserve(&manifest, &wanted, beside.activations).await?,
            None => None,
        };
        let Self { repository, backend, limits, bounds, metrics, references, .. } = self;
        let model = Model::load(repository, manifest, backend, wanted, *limits, *bounds, metrics).await?;
        references.attach(&model);
        Ok(model)
    }

    /// Room for one more version. Not asked for on GPUs, whose own memory has the weights.
    ///
    /// # Errors
    /// [`GateError::NoRoom`], which is counted.
    pub(super) async fn reserve(
        &self,
        manifest: &Manifest,
        wanted: &Wanted,
        activations: u64,
    ) -> Result<Option<Reserved>, GateError> {
        let need = Need::of(manifest, wanted, activations);
        let Some(need) = need.filter(|_| self.backend.devices.first().gpu().is_none()) else {
            return Ok(None);
        };
        if let Ok(reserved) = self.room.reserve(need, memory::room::read()) {
            return Ok(Some(reserved));
        }
        // What the allocator keeps of versions that are gone is there for this one.
        tokio::task::spawn_blocking(memory::give_back).await.map_err(|_| GateError::Interrupted)?;
        self.room.reserve(need, memory::room::read()).map(Some).map_err(|error| {
            self.metrics.sync_failures.memory.inc();
            error.into()
        })
    }
}
