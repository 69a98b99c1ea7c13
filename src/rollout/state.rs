//! Which change of roles is allowed, and what it leads to: a pure function of the state and of what is known of the versions.
//! The log reads both and writes the outcome.

mod change;
mod refusal;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::roles::{Role, Roles, State, Trial};
use crate::repository::check_name;
use crate::repository::manifest::Space;
pub use change::Change;
pub use refusal::Refusal;

/// The published versions of a model, each with its space, or with the reason why its manifest cannot be read.
pub type Versions = BTreeMap<u32, Result<Space, String>>;

/// A change of the stable version that left the space: its vectors must not meet those made before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Crossing {
    /// The space that was left, if that is known: it may have been the same then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Space>,
    /// The space that is written into now.
    pub to: Space,
}

/// An allowed change, carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Who serves now.
    pub roles: Roles,
    /// Whether that left the space.
    pub crossed: Option<Crossing>,
}

/// Two parts of the length that a model's name may have, and the slash.
const MOST_ALIAS_BYTES: usize = 129;

/// Whether `name` can be an alias: a model's name, or two with a slash between them as a hub has them.
pub fn is_alias(name: &str) -> bool {
    let mut parts = name.split('/');
    let (first, second, more) = (parts.next(), parts.next(), parts.next());
    more.is_none() && first.into_iter().chain(second).all(|part| check_name(part).is_ok())
}

/// What `change` makes of `state`.
///
/// # Errors
/// If it is not allowed; the state stays.
pub fn next(state: &State, change: &Change, versions: &Versions) -> Result<Step, Refusal> {
    let published = || versions.keys().copied().collect();
    let known = match state {
        State::Known(roles) => Some(roles),
        State::Empty | State::Lost => None,
    };
    let trial = known.and_then(|roles| roles.trial);
    let (version, force) = match *change {
        Change::Trial(trial) => return try_out(known, trial, versions),
        Change::Standby { version } => return stand_by(known, version, versions),
        Change::Retire { version } => return retire(known, version),
        Change::Alias { ref name, remove } => return name_anew(known, name, remove),
        Change::Begin { version } if *state == State::Empty => (version, false),
        Change::Begin { version } => return Err(Refusal::AlreadyBegun { version }),
        Change::Rollout { version, force } => (version, force),
        Change::Promote { version: asked, force } => {
            let Trial { version, .. } = trial.ok_or(Refusal::NoTrial)?;
            match asked {
                Some(asked) if asked != version => return Err(Refusal::OtherTrial { asked, trial: version }),
                _ => (version, force),
            }
        }
        Change::Rollback { .. } if *state == State::Empty => return Err(Refusal::NothingServes),
        Change::Rollback { of: Some(version), to } if to == Some(version) => {
            return Err(Refusal::OfIsTo { version });
        }
        Change::Rollback { of, to } => {
            let on_trial = |version| trial.is_some_and(|trial| trial.version == version);
            if let Some(version) =
                of.filter(|of| known.is_none_or(|roles| roles.stable != *of) && !on_trial(*of))
            {
                return Err(Refusal::NotServing { version });
            }
            if let (Some(roles), Some(_)) = (known, trial)
                && of.is_none_or(on_trial)
                && to.is_none_or(|to| to == roles.stable)
            {
                return Ok(Step { roles: Roles { trial: None, ..roles.clone() }, crossed: None });
            }
            let previous = known.and_then(|roles| roles.previous);
            let to = to.or(previous).ok_or_else(|| Refusal::NoPrevious { published: published() })?;
            (to, true)
        }
    };
    let to = space_of(version, versions)?;
    let stable = known.map(|roles| roles.stable);
    if stable == Some(version) {
        return Err(Refusal::AlreadyStable { version });
    }
    let from = stable.and_then(|stable| versions.get(&stable)?.as_ref().ok());
    let stays = *state == State::Empty || from == Some(&to);
    if !stays && !force {
        return Err(match (stable, from.cloned()) {
            (Some(stable), Some(from)) => Refusal::SpaceConflict { version, to, stable, from },
            _ => Refusal::SpaceUnknown { version, to },
        });
    }
    let previous = if matches!(change, Change::Rollback { .. }) { None } else { stable };
    let crossed = (!stays).then(|| Crossing { from: from.cloned(), to });
    let standby = known.map(|roles| roles.standby_without(version)).unwrap_or_default();
    let aliases = known.map(|roles| roles.aliases.clone()).unwrap_or_default();
    Ok(Step { roles: Roles { stable: version, previous, trial: None, standby, aliases }, crossed })
}

/// Loads a version for requests that name it.
fn stand_by(known: Option<&Roles>, version: u32, versions: &Versions) -> Result<Step, Refusal> {
    space_of(version, versions)?;
    let mut roles = known.cloned().ok_or(Refusal::NoStable { version })?;
    let role = roles.role(version);
    if role != Role::Idle {
        return Err(Refusal::AlreadyLoaded { version, role });
    }
    roles.standby.push(version);
    roles.standby.sort_unstable();
    Ok(Step { roles, crossed: None })
}

/// Ends a standby. The version need not be published any more.
fn retire(known: Option<&Roles>, version: u32) -> Result<Step, Refusal> {
    let roles = known.filter(|roles| roles.standby.contains(&version));
    let roles = roles.ok_or(Refusal::NotOnStandby { version })?;
    Ok(Step { roles: Roles { standby: roles.standby_without(version), ..roles.clone() }, crossed: None })
}

/// Gives the model another name, or takes one away. Whether another model has that name is for [`Log`](super::Log) to see.
fn name_anew(known: Option<&Roles>, name: &str, remove: bool) -> Result<Step, Refusal> {
    if !is_alias(name) {
        return Err(Refusal::BadAlias(name.to_owned()));
    }
    let mut roles = known.cloned().ok_or(Refusal::NothingToName)?;
    match (roles.aliases.binary_search_by(|alias| alias.as_str().cmp(name)), remove) {
        (Err(place), false) => roles.aliases.insert(place, name.to_owned()),
        (Ok(place), true) => drop(roles.aliases.remove(place)),
        (Ok(_), false) => return Err(Refusal::SameAlias(name.to_owned())),
        (Err(_), true) => {
            return Err(Refusal::NoSuchAlias { asked: name.to_owned(), known: roles.aliases });
        }
    }
    Ok(Step { roles, crossed: None })
}

/// Puts a version on trial. The previous version stays at hand, unless it is the one.
fn try_out(known: Option<&Roles>, trial: Trial, versions: &Versions) -> Result<Step, Refusal> {
    let version = trial.version;
    let to = space_of(version, versions)?;
    let roles = known.ok_or(Refusal::NoStable { version })?;
    if trial.canary_percent.is_none() && trial.shadow_percent.is_none() {
        return Err(Refusal::NoShare { version });
    }
    if roles.stable == version {
        return Err(Refusal::AlreadyStable { version });
    }
    if roles.trial == Some(trial) {
        return Err(Refusal::SameTrial { version });
    }
    let from = versions.get(&roles.stable).and_then(|space| space.as_ref().ok());
    if trial.canary_percent.is_some() && from != Some(&to) {
        let from = from.cloned();
        return Err(Refusal::CanaryAcrossSpaces { version, to, stable: roles.stable, from });
    }
    let previous = roles.previous.filter(|previous| *previous != version);
    let standby = roles.standby_without(version);
    Ok(Step { roles: Roles { previous, trial: Some(trial), standby, ..roles.clone() }, crossed: None })
}

/// The space of a version that could serve.
fn space_of(version: u32, versions: &Versions) -> Result<Space, Refusal> {
    match versions.get(&version) {
        None => Err(Refusal::UnknownVersion { version, published: versions.keys().copied().collect() }),
        Some(Err(reason)) => Err(Refusal::Damaged { version, reason: reason.clone() }),
        Some(Ok(space)) => Ok(space.clone()),
    }
}
