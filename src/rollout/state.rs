//! Which change of roles is allowed, and what it leads to: a pure function of the state and of what is known of the versions.
//! The log reads both and writes the outcome.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::roles::{Percent, Role, Roles, State, Trial};
use crate::repository::check_name;
use crate::repository::manifest::Space;

/// What somebody wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case", deny_unknown_fields)]
pub enum Change {
    /// Makes `version` stable if none ever was. Apart from `Rollout`, so that of two imports that both believe to be a model's
    /// first the later one does not take the place of the earlier.
    Begin {
        /// The version.
        version: u32,
    },
    /// Makes `version` stable at once, and ends a trial.
    Rollout {
        /// The version.
        version: u32,
        /// Also across spaces.
        #[serde(default, skip_serializing_if = "is_not")]
        force: bool,
    },
    /// Puts a version on trial beside the stable one, or gives the one on trial other shares.
    Trial(Trial),
    /// Makes the version on trial stable.
    Promote {
        /// Only if this is the version.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<u32>,
        /// Also across spaces, which a shadow can be.
        #[serde(default, skip_serializing_if = "is_not")]
        force: bool,
    },
    /// Takes back the version on trial, if there is one: stable and previous stay as they are. Otherwise makes the previous version
    /// stable. With `to` that version becomes stable in either case. Allowed across spaces: whoever rolls back has an incident
    /// to end, and the document says that it crossed.
    ///
    /// A rollback of the stable version leaves no previous version behind: the version that was taken back would be the one,
    /// and a second rollback, by an operator who has not seen the first, would bring back what had to go. Going on to another version needs its number.
    Rollback {
        /// Only this version is to be taken back, on trial or stable: of two who saw the same incident, the second must not take
        /// back what the first left.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        of: Option<u32>,
        /// Any version instead of the previous one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<u32>,
    },
    /// Loads a version for requests that name it, in any space: it answers no other.
    Standby {
        /// The version.
        version: u32,
    },
    /// Ends a standby.
    Retire {
        /// The version.
        version: u32,
    },
    /// Gives the model another name, or takes one away.
    Alias {
        /// The name.
        name: String,
        /// Takes it away.
        #[serde(default, skip_serializing_if = "is_not")]
        remove: bool,
    },
}

fn is_not(flag: &bool) -> bool {
    !flag
}

impl Change {
    /// A rollout as it is asked for: a trial if it has a share of the requests, else of all of them.
    pub fn rollout(version: u32, canary: Option<Percent>, shadow: Option<Percent>, force: bool) -> Self {
        if canary.is_some() || shadow.is_some() {
            Self::Trial(Trial { version, canary_percent: canary, shadow_percent: shadow })
        } else {
            Self::Rollout { version, force }
        }
    }

    /// What is asked for, in a word.
    pub fn action(&self) -> &'static str {
        match self {
            Self::Begin { .. } => "begin",
            Self::Rollout { .. } => "rollout",
            Self::Trial(_) => "trial",
            Self::Promote { .. } => "promote",
            Self::Rollback { .. } => "rollback",
            Self::Standby { .. } => "standby",
            Self::Retire { .. } => "retire",
            Self::Alias { .. } => "alias",
        }
    }

    /// Whether only documents of [`NAMES_SCHEMA`](super::document::NAMES_SCHEMA) can hold it.
    pub(super) fn is_of_names(&self) -> bool {
        matches!(self, Self::Standby { .. } | Self::Retire { .. } | Self::Alias { .. })
    }
}

impl fmt::Display for Change {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Begin { version } => write!(formatter, "begin with {version}"),
            Self::Rollout { version, force: false } => write!(formatter, "rollout {version}"),
            Self::Rollout { version, force: true } => write!(formatter, "rollout {version}, forced"),
            Self::Trial(Trial { version, canary_percent, shadow_percent }) => {
                let share =
                    |name, percent: &Option<Percent>| percent.map(|percent| format!("{name} {percent}"));
                let shares = [share("canary", canary_percent), share("shadow", shadow_percent)];
                write!(
                    formatter,
                    "try {version}, {}",
                    shares.into_iter().flatten().collect::<Vec<_>>().join(", ")
                )
            }
            Self::Promote { version, force } => {
                formatter.write_str("promote")?;
                version.map_or(Ok(()), |version| write!(formatter, " {version}"))?;
                formatter.write_str(if *force { ", forced" } else { "" })
            }
            Self::Rollback { of, to } => {
                formatter.write_str("rollback")?;
                of.map_or(Ok(()), |of| write!(formatter, " of {of}"))?;
                to.map_or(Ok(()), |to| write!(formatter, " to {to}"))
            }
            Self::Standby { version } => write!(formatter, "standby {version}"),
            Self::Retire { version } => write!(formatter, "retire {version}"),
            Self::Alias { name, remove: false } => write!(formatter, "alias {name}"),
            Self::Alias { name, remove: true } => write!(formatter, "remove alias {name}"),
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
    /// Its vectors would meet those of the stable version at once.
    #[error(
        "version {version} writes into the space {to}, and version {stable}, which is stable, into {}: a canary's vectors would \
         meet the others in one index. Make the index anew with version {version} by name, then roll it out with force; or try \
         it as a shadow", from.as_ref().map_or("one that cannot be read", |from| &from.0)
    )]
    CanaryAcrossSpaces {
        /// The version.
        version: u32,
        /// Its space.
        to: Space,
        /// The stable version.
        stable: u32,
        /// Its space.
        from: Option<Space>,
    },
    /// No share of anything.
    #[error("version {version} would be on trial without requests: give it a canary's or a shadow's share")]
    NoShare {
        /// The version.
        version: u32,
    },
    /// Nothing would change.
    #[error("version {version} is on trial with these shares already")]
    SameTrial {
        /// The version.
        version: u32,
    },
    /// There is none to be tried beside.
    #[error("no version is known to be stable, so version {version} cannot be tried beside it")]
    NoStable {
        /// The version.
        version: u32,
    },
    /// It answers requests that name it already.
    #[error(
        "version {version} is loaded as the {role} version already, so requests that name it are answered"
    )]
    AlreadyLoaded {
        /// The version.
        version: u32,
        /// Why it is loaded.
        role: Role,
    },
    /// Nothing to end.
    #[error("version {version} is not on standby")]
    NotOnStandby {
        /// The version.
        version: u32,
    },
    /// There is no document that could carry an alias.
    #[error("no version is known to be stable, so there is nothing that an alias could stand for")]
    NothingToName,
    /// Nothing would change.
    #[error("the model has the alias `{0}` already")]
    SameAlias(String),
    /// Nothing to remove.
    #[error("the model has no alias `{asked}`; it has: {}", if known.is_empty() { "none".to_owned() } else { known.join(", ") })]
    NoSuchAlias {
        /// What was to be removed.
        asked: String,
        /// What there is.
        known: Vec<String>,
    },
    /// Not a name that a request could carry.
    #[error(
        "`{0}` cannot be an alias: expected a name or `organisation/name` of letters, digits, dots, underscores and hyphens, each \
         part beginning with a letter or a digit, at most {MOST_ALIAS_BYTES} characters"
    )]
    BadAlias(String),
    /// Another model answers to it.
    #[error("`{alias}` is a name of the model `{model}` already: a request for it must mean one model")]
    AliasTaken {
        /// The alias.
        alias: String,
        /// The model that has it.
        model: String,
    },
    /// Nothing to promote.
    #[error("no version is on trial")]
    NoTrial,
    /// Somebody put another one on trial.
    #[error("version {trial} is on trial, not version {asked}")]
    OtherTrial {
        /// The version to promote.
        asked: u32,
        /// The version on trial.
        trial: u32,
    },
    /// The guard or another operator was faster.
    #[error(
        "the trial was ended by {by} in the last change; to take back version {stable} as well, say so: of {stable}"
    )]
    TrialJustEnded {
        /// Who ended it.
        by: String,
        /// The stable version.
        stable: u32,
    },
    /// The roles are others now, and a rollback by whoever has not seen them could take back too much.
    #[error("somebody else changed the roles meanwhile: look again")]
    Overtaken,
    /// Of and to are one.
    #[error("version {version} cannot be taken back and serve at once")]
    OfIsTo {
        /// The version.
        version: u32,
    },
    /// It was taken back already, or never served.
    #[error("version {version} is neither stable nor on trial: there is nothing of it to take back")]
    NotServing {
        /// The version.
        version: u32,
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

/// Two parts of the length that a model's name may have, and the slash.
const MOST_ALIAS_BYTES: usize = 129;

/// Whether `name` can be an alias: a model's name, or two with a slash between them as a hub has them.
pub fn is_alias(name: &str) -> bool {
    let mut parts = name.split('/');
    let (first, second, more) = (parts.next(), parts.next(), parts.next());
    more.is_none() && first.into_iter().chain(second).all(|part| check_name(part).is_ok())
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
