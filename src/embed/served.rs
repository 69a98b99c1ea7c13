//! Which loaded version answers whom. Changed while requests run: each keeps the version that it was resolved to.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::missing::{Missing, Reasons};
use super::{Candidate, EmbedError, Model};
use crate::repository::manifest::{Source, Space};
use crate::rollout::guard::Side;
use crate::rollout::{Role, Roles, State};

/// The versions of a model that are loaded.
#[derive(Debug, Clone)]
pub struct Resident {
    /// Answers whoever names no version.
    pub stable: Arc<Model>,
    /// Answers whoever names it, and is at hand for a rollback.
    pub previous: Option<Arc<Model>>,
    /// On trial beside the stable one.
    pub candidate: Option<Candidate>,
    /// Answer requests that name them, or their space, and no other; by their numbers.
    pub standby: Vec<Arc<Model>>,
    /// Further names of the model, in order.
    pub aliases: Vec<String>,
}

impl Resident {
    /// One version alone.
    pub fn alone(stable: Arc<Model>) -> Self {
        Self { stable, previous: None, candidate: None, standby: Vec::new(), aliases: Vec::new() }
    }

    /// The roles that its versions have.
    pub fn roles(&self) -> Roles {
        let number = |model: &Arc<Model>| model.manifest.version;
        Roles {
            stable: number(&self.stable),
            previous: self.previous.as_ref().map(number),
            trial: self.candidate.as_ref().map(|candidate| candidate.trial),
            standby: self.standby.iter().map(number).collect(),
            aliases: self.aliases.clone(),
        }
    }

    /// Every version.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Model>> {
        let candidate = self.candidate.as_ref().map(|candidate| &candidate.model);
        [&self.stable].into_iter().chain(&self.previous).chain(candidate).chain(&self.standby)
    }

    /// The hub id that its stable version came from.
    fn hub_id(&self) -> Option<&str> {
        match &self.stable.manifest.source {
            Source::Hub { id, .. } => Some(id),
            _ => None,
        }
    }

    /// The version that `pin` means, the part of a name behind its `@`.
    fn pinned(&self, pin: &str) -> Option<&Arc<Model>> {
        let roles = self.roles();
        let mut meant = self.all().filter(|model| {
            let number = model.manifest.version;
            number.to_string() == pin || roles.role(number).to_string() == pin
        });
        // Several versions can be on standby, and their vectors may differ: then the request has to give a number.
        let first = meant.next();
        first.filter(|_| meant.next().is_none())
    }

    /// The version for a request that names none.
    fn route(&self, space: Option<&Space>, key: Option<&str>) -> Result<Routed, EmbedError> {
        let elsewhere = space.filter(|space| **space != self.stable.manifest.space);
        if let Some(asked) = elsewhere {
            // A canary is in the stable version's space, and a shadow answers no request. Of several on standby in this space the
            // newest answers: their vectors meet in one index anyway.
            let mut others = self.previous.iter().chain(self.standby.iter().rev());
            let other = others.find(|other| other.manifest.space == *asked);
            let other = other.ok_or_else(|| mismatch(asked, &self.stable))?;
            return Ok(Routed { model: Arc::clone(other), trial: None });
        }
        let stable = || Arc::clone(&self.stable);
        let Some(candidate) = self.candidate.clone() else {
            return Ok(Routed { model: stable(), trial: None });
        };
        let (model, side) = if candidate.takes(key) {
            (Arc::clone(&candidate.model), Side::Canary)
        } else {
            (stable(), Side::Stable)
        };
        Ok(Routed { model, trial: Some((side, candidate, stable())) })
    }
}

/// Which version answers a request.
pub(super) struct Routed {
    pub(super) model: Arc<Model>,
    /// Its part in a trial, if there is one: the version on trial, and the stable one.
    pub(super) trial: Option<(Side, Candidate, Arc<Model>)>,
}

fn mismatch(asked: &Space, model: &Model) -> EmbedError {
    let serves = model.manifest.space.clone();
    EmbedError::SpaceMismatch { asked: asked.clone(), serves, version: model.id() }
}

/// By the model's name.
type Residents = BTreeMap<String, Resident>;

/// The model that `name` means: the one that is called so, else the one that has it as an alias, else the one whose stable
/// version came from the hub under this id.
fn named<'a>(residents: &'a Residents, name: &str) -> Result<Option<&'a Resident>, EmbedError> {
    if let Some(resident) = residents.get(name) {
        return Ok(Some(resident));
    }
    let has_alias = |resident: &&Resident| resident.aliases.iter().any(|alias| alias == name);
    let mut meant: Vec<&Resident> = residents.values().filter(has_alias).collect();
    if meant.is_empty() {
        meant = residents.values().filter(|resident| resident.hub_id() == Some(name)).collect();
    }
    match meant[..] {
        [] => Ok(None),
        [resident] => Ok(Some(resident)),
        _ => Err(EmbedError::AmbiguousModel {
            asked: name.to_owned(),
            models: meant.iter().map(|resident| resident.stable.manifest.model.clone()).collect(),
        }),
    }
}

/// Every model that is served.
pub(super) struct Served {
    /// Replaced as a whole: a request takes one look, and no lock is held while it runs.
    residents: ArcSwap<Residents>,
    default: Option<String>,
    /// Whether the default was asked for, or is the only model.
    is_default_asked: bool,
    /// Models of which nothing is loaded.
    pub(super) missing: Missing,
}

impl Served {
    pub(super) fn new(models: Vec<Model>, default: Option<String>) -> Self {
        let residents = models.into_iter().map(|model| {
            model.metrics.role(Some(Role::Stable));
            (model.manifest.model.clone(), Resident::alone(Arc::new(model)))
        });
        let residents: Residents = residents.collect();
        // Not when a request comes: a model that is added later must not take it from those who name none.
        let single = if residents.len() == 1 { residents.keys().next().cloned() } else { None };
        Self {
            is_default_asked: default.is_some(),
            default: default.or(single),
            residents: ArcSwap::from_pointee(residents),
            missing: Missing::new(Reasons::new()),
        }
    }

    /// See [`Embedder::without`](super::Embedder::without).
    pub(super) fn begin_without(&mut self, missing: Reasons) {
        if !self.is_default_asked && !missing.is_empty() {
            self.default = None;
        }
        self.missing = Missing::new(missing);
    }

    pub(super) fn residents(&self) -> Arc<Residents> {
        self.residents.load_full()
    }

    /// The version that `asked` means; the stable one if it names none.
    pub(super) fn resolve(&self, asked: Option<&str>) -> Result<Arc<Model>, EmbedError> {
        self.find(asked, |resident, pin| {
            Some(pin.map_or_else(|| Some(&resident.stable), |pin| resident.pinned(pin))?.clone())
        })
    }

    /// The version that answers a request for `asked` in `space`, from whoever has `key`.
    pub(super) fn route(
        &self,
        asked: Option<&str>,
        space: Option<&Space>,
        key: Option<&str>,
    ) -> Result<Routed, EmbedError> {
        self.find(asked, |resident, pin| {
            let Some(pin) = pin else { return Some(resident.route(space, key)) };
            let model = Arc::clone(resident.pinned(pin)?);
            Some(match space.filter(|space| **space != model.manifest.space) {
                Some(asked) => Err(mismatch(asked, &model)),
                None => Ok(Routed { model, trial: None }),
            })
        })?
    }

    /// What `of` makes of the model and the pin that `asked` names.
    fn find<T>(
        &self,
        asked: Option<&str>,
        of: impl FnOnce(&Resident, Option<&str>) -> Option<T>,
    ) -> Result<T, EmbedError> {
        let residents = self.residents.load();
        let Some(asked) = asked.or(self.default.as_deref()) else {
            return Err(EmbedError::NoDefaultModel(residents.keys().cloned().collect()));
        };
        let (name, pin) = asked.split_once('@').map_or((asked, None), |(name, pin)| (name, Some(pin)));
        let unknown = || EmbedError::UnknownModel {
            asked: asked.to_owned(),
            available: residents.values().flat_map(Resident::all).map(|model| model.id()).collect(),
        };
        match named(&residents, name)? {
            Some(resident) => of(resident, pin).ok_or_else(unknown),
            None => Err(self.missing.refusal(name).unwrap_or_else(unknown)),
        }
    }

    /// See [`Embedder::real_name`](super::Embedder::real_name).
    pub(super) fn real_name(&self, asked: &str) -> Result<Option<String>, EmbedError> {
        Ok(named(&self.residents.load(), asked)?.map(|resident| resident.stable.manifest.model.clone()))
    }

    /// See [`Embedder::other_names`](super::Embedder::other_names).
    pub(super) fn other_names(&self, model: &str) -> Vec<String> {
        let residents = self.residents.load();
        let Some(resident) = residents.get(model) else { return Vec::new() };
        let mut names: Vec<String> =
            resident.aliases.iter().map(String::as_str).chain(resident.hub_id()).map(str::to_owned).collect();
        names.sort_unstable();
        names.dedup();
        names.retain(|name| {
            let meant = named(&residents, name).ok().flatten();
            !residents.contains_key(name) && meant.is_some_and(|meant| meant.stable.manifest.model == model)
        });
        names
    }

    /// See [`Embedder::serve`](super::Embedder::serve).
    pub(super) fn serve(&self, resident: Resident) {
        let state = State::Known(resident.roles());
        let name = &resident.stable.manifest.model;
        let before = self.residents.rcu(|residents| {
            let mut changed = Residents::clone(residents);
            changed.insert(name.clone(), resident.clone());
            changed
        });
        self.missing.clear(name);
        let stays = |model: &&Arc<Model>| resident.all().any(|other| Arc::ptr_eq(model, other));
        for left in before.get(name).into_iter().flat_map(Resident::all).filter(|model| !stays(model)) {
            left.metrics.role(None);
        }
        for model in resident.all() {
            model.metrics.role(state.role(model.manifest.version));
        }
    }
}
