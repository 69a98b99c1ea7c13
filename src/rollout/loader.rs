//! Loads versions for a server.

use std::sync::Arc;

use super::gate::{self, Bounds};
use super::secret::SharedSecret;
use crate::batch::Limits;
use crate::drift::follow::References;
use crate::embed::{Model, ModelError};
use crate::engine::{Backend, Topology, Wanted};
use crate::metrics::Metrics;
use crate::repository::Repository;

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
    /// By which users are drawn for a version on trial.
    pub secret: SharedSecret,
}

impl Loader {
    /// Loads a version through the gate. One that comes beside another takes over that one's `topology`: measuring needs a machine
    /// that has nothing else to do.
    ///
    /// # Errors
    /// If there is no such version, or it cannot be loaded.
    pub async fn load(
        &self,
        model: &str,
        version: u32,
        topology: Option<Topology>,
    ) -> Result<Model, ModelError> {
        let manifest = gate::manifest(&self.repository, model, version).await?;
        let wanted = topology.map_or(self.wanted, |topology| topology.wanted(self.wanted.cores));
        let Self { repository, backend, limits, bounds, metrics, references, .. } = self;
        let model = Model::load(repository, manifest, backend, wanted, *limits, *bounds, metrics).await?;
        references.attach(&model);
        Ok(model)
    }
}
