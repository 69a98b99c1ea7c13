//! Which loaded version answers whom. Changed while requests run: each keeps the version that it was resolved to.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use super::{EmbedError, Model};
use crate::rollout::{Role, Roles};

/// The versions of a model that are loaded.
#[derive(Debug, Clone)]
pub struct Resident {
    /// Answers whoever names no version.
    pub stable: Arc<Model>,
    /// Answers whoever names it, and is at hand for a rollback.
    pub previous: Option<Arc<Model>>,
}

impl Resident {
    /// The version of that number.
    pub fn version(&self, number: u32) -> Option<&Arc<Model>> {
        self.all().find(|model| model.manifest.version == number)
    }

    /// The roles that its versions have.
    pub fn roles(&self) -> Roles {
        let number = |model: &Arc<Model>| model.manifest.version;
        Roles { stable: number(&self.stable), previous: self.previous.as_ref().map(number) }
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Model>> {
        [&self.stable].into_iter().chain(&self.previous)
    }

    /// The version that `pin` means, the part of a name behind its `@`.
    fn pinned(&self, pin: Option<&str>) -> Option<&Arc<Model>> {
        match pin {
            None | Some("stable") => Some(&self.stable),
            Some("previous") => self.previous.as_ref(),
            Some(number) => self.all().find(|model| model.manifest.version.to_string() == number),
        }
    }
}

/// By the model's name.
type Residents = BTreeMap<String, Resident>;

/// Every model that is served.
pub(super) struct Served {
    /// Replaced as a whole: a request takes one look, and no lock is held while it runs.
    residents: RwLock<Arc<Residents>>,
    default: Option<String>,
}

impl Served {
    pub(super) fn new(models: Vec<Model>, default: Option<String>) -> Self {
        let residents = models.into_iter().map(|model| {
            model.metrics.role(Some(Role::Stable));
            (model.manifest.model.clone(), Resident { stable: Arc::new(model), previous: None })
        });
        let residents: Residents = residents.collect();
        // Not when a request comes: a model that is added later must not take it from those who name none.
        let single = if residents.len() == 1 { residents.keys().next().cloned() } else { None };
        Self { default: default.or(single), residents: RwLock::new(Arc::new(residents)) }
    }

    pub(super) fn residents(&self) -> Arc<Residents> {
        Arc::clone(&self.residents.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn resolve(&self, asked: Option<&str>) -> Result<Arc<Model>, EmbedError> {
        let residents = self.residents();
        let Some(asked) = asked.or(self.default.as_deref()) else {
            return Err(EmbedError::NoDefaultModel(residents.keys().cloned().collect()));
        };
        let (name, pin) = asked.split_once('@').map_or((asked, None), |(name, pin)| (name, Some(pin)));
        let found = residents.get(name).and_then(|resident| resident.pinned(pin));
        found.cloned().ok_or_else(|| EmbedError::UnknownModel {
            asked: asked.to_owned(),
            available: residents.values().flat_map(Resident::all).map(|model| model.id()).collect(),
        })
    }

    /// See [`Embedder::serve`](super::Embedder::serve).
    pub(super) fn serve(&self, resident: Resident) -> Vec<Arc<Model>> {
        let mut residents = self.residents.write().unwrap_or_else(PoisonError::into_inner);
        let mut changed = Residents::clone(&residents);
        resident.stable.metrics.role(Some(Role::Stable));
        if let Some(previous) = &resident.previous {
            previous.metrics.role(Some(Role::Previous));
        }
        let before = changed.insert(resident.stable.manifest.model.clone(), resident.clone());
        *residents = Arc::new(changed);
        drop(residents);
        let stays = |model: &Arc<Model>| resident.all().any(|other| Arc::ptr_eq(model, other));
        let left = before.iter().flat_map(Resident::all).filter(|model| !stays(model));
        left.inspect(|model| model.metrics.role(None)).cloned().collect()
    }
}
