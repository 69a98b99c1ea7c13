//! Which change of roles is allowed, and what it leads to: a pure function of the state and of what is known of the versions.
//! The log reads both and writes the outcome.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::repository::manifest::Space;

/// Which versions of a model have a role. Every other published version is idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roles {
    /// The version that serves.
    pub stable: u32,
    /// The version that served before it and stays at hand; never the stable one itself. None after a rollback, see
    /// [`Change::Rollback`].
    pub previous: Option<u32>,
}

/// What a version does for its model now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It serves.
    Stable,
    /// It served before, and stays at hand.
    Previous,
    /// Nothing.
    Idle,
}

/// What the log says of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// No version was ever rolled out.
    Empty,
    /// There were changes, and no document of them can be read: nobody knows what served, or in which space.
    Lost,
    /// These serve.
    Known(Roles),
}

impl State {
    /// What `version` does, if that is known.
    pub fn role(self, version: u32) -> Option<Role> {
        match self {
            Self::Lost => None,
            Self::Known(roles) if roles.stable == version => Some(Role::Stable),
            Self::Known(roles) if roles.previous == Some(version) => Some(Role::Previous),
            Self::Known(_) | Self::Empty => Some(Role::Idle),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Stable => "stable",
            Self::Previous => "previous",
            Self::Idle => "idle",
        })
    }
}

/// What somebody wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case", deny_unknown_fields)]
pub enum Change {
    /// Makes `version` stable if none ever was. Apart from `Rollout`, so that of two imports that both believe to be a model's
    /// first the later one does not take the place of the earlier.
    Begin {
        /// The version.
        version: u32,
    },
    /// Makes `version` stable at once.
    Rollout {
        /// The version.
        version: u32,
        /// Also across spaces.
        #[serde(default, skip_serializing_if = "is_not")]
        force: bool,
    },
    /// Makes the previous version stable, or `to`. Allowed across spaces: whoever rolls back has an incident to end, and the
    /// document says that it crossed.
    ///
    /// It leaves no previous version behind: the version that was taken back would be the one, and a second rollback, by an
    /// operator who has not seen the first, would bring back what had to go. Going on to another version needs its number.
    Rollback {
        /// Any version instead of the previous one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<u32>,
    },
}

fn is_not(flag: &bool) -> bool {
    !flag
}

impl fmt::Display for Change {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begin { version } => write!(formatter, "begin with {version}"),
            Self::Rollout { version, force: false } => write!(formatter, "rollout {version}"),
            Self::Rollout { version, force: true } => write!(formatter, "rollout {version}, forced"),
            Self::Rollback { to: None } => write!(formatter, "rollback"),
            Self::Rollback { to: Some(version) } => write!(formatter, "rollback to {version}"),
        }
    }
}

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

/// Why a change is not allowed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// No such version.
    #[error("version {version} is not published; {}", there_are(published))]
    UnknownVersion {
        /// The version.
        version: u32,
        /// Those there are.
        published: Vec<u32>,
    },
    /// A version whose manifest cannot be read.
    #[error("version {version} cannot serve: {reason}")]
    Damaged {
        /// The version.
        version: u32,
        /// What is wrong with it.
        reason: String,
    },
    /// Nothing would change.
    #[error("version {version} is the stable one already")]
    AlreadyStable {
        /// The version.
        version: u32,
    },
    /// It is not the first one.
    #[error("a version of this model was rolled out before: roll version {version} out by name")]
    AlreadyBegun {
        /// The version.
        version: u32,
    },
    /// Its vectors would meet others in the clients' indexes.
    #[error(
        "version {version} writes into the space {to}, and version {stable}, which is stable, into {from}: their vectors must \
         not meet in one index; when the index has been made anew with version {version}, force the rollout"
    )]
    SpaceConflict {
        /// The version.
        version: u32,
        /// Its space.
        to: Space,
        /// The stable version.
        stable: u32,
        /// Its space.
        from: Space,
    },
    /// Nobody can say whether its vectors would meet others.
    #[error(
        "version {version} writes into the space {to}, and which one the version before it wrote into cannot be read: if it \
         was the same, or the index has been made anew, force the rollout"
    )]
    SpaceUnknown {
        /// The version.
        version: u32,
        /// Its space.
        to: Space,
    },
    /// Nothing to take back.
    #[error("no version was ever rolled out, so there is none to go back to")]
    NothingServes,
    /// It is not said where to.
    #[error("there is no previous version to go back to: name the version; {}", there_are(published))]
    NoPrevious {
        /// Those there are.
        published: Vec<u32>,
    },
}

fn there_are(published: &[u32]) -> String {
    if published.is_empty() {
        return "none is published".to_owned();
    }
    format!("there are: {}", published.iter().map(u32::to_string).collect::<Vec<_>>().join(", "))
}

/// What `change` makes of `state`.
///
/// # Errors
/// If it is not allowed; the state stays.
pub fn next(state: State, change: Change, versions: &Versions) -> Result<Step, Refusal> {
    let published = || versions.keys().copied().collect();
    let version = match (change, state) {
        (Change::Begin { version }, State::Empty) | (Change::Rollout { version, .. }, _) => version,
        (Change::Begin { version }, _) => return Err(Refusal::AlreadyBegun { version }),
        (Change::Rollback { .. }, State::Empty) => return Err(Refusal::NothingServes),
        (Change::Rollback { to: Some(version) }, _) => version,
        (Change::Rollback { to: None }, State::Known(Roles { previous: Some(version), .. })) => version,
        (Change::Rollback { to: None }, _) => return Err(Refusal::NoPrevious { published: published() }),
    };
    let to = match versions.get(&version) {
        None => return Err(Refusal::UnknownVersion { version, published: published() }),
        Some(Err(reason)) => return Err(Refusal::Damaged { version, reason: reason.clone() }),
        Some(Ok(space)) => space.clone(),
    };
    let stable = match state {
        State::Known(roles) if roles.stable == version => return Err(Refusal::AlreadyStable { version }),
        State::Known(roles) => Some(roles.stable),
        State::Empty | State::Lost => None,
    };
    let from = stable.and_then(|stable| versions.get(&stable)?.as_ref().ok());
    let stays = state == State::Empty || from == Some(&to);
    if let Change::Rollout { force: false, .. } = change
        && !stays
    {
        return Err(match (stable, from.cloned()) {
            (Some(stable), Some(from)) => Refusal::SpaceConflict { version, to, stable, from },
            _ => Refusal::SpaceUnknown { version, to },
        });
    }
    let previous = if matches!(change, Change::Rollback { .. }) { None } else { stable };
    let crossed = (!stays).then(|| Crossing { from: from.cloned(), to });
    Ok(Step { roles: Roles { stable: version, previous }, crossed })
}
