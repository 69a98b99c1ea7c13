//! What versions do for their model: the state that the log holds.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Which versions of a model have a role, and which other names the model has. Every other published version is idle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roles {
    /// The version that serves.
    pub stable: u32,
    /// The version that served before it and stays at hand; never the stable one itself. None after a rollback, see
    /// [`Change::Rollback`](super::Change::Rollback).
    pub previous: Option<u32>,
    /// The version on trial beside the stable one; neither of the two above.
    pub trial: Option<Trial>,
    /// Versions that are loaded for requests that name them, or their space, and answer no other; sorted, none of them one of
    /// those above.
    pub standby: Vec<u32>,
    /// Further names that the model answers to; sorted.
    pub aliases: Vec<String>,
}

impl Roles {
    /// One version that serves, and nothing else.
    pub fn alone(stable: u32) -> Self {
        Self { stable, previous: None, trial: None, standby: Vec::new(), aliases: Vec::new() }
    }

    /// Every version that has a role.
    pub fn versions(&self) -> impl Iterator<Item = u32> {
        let one = [Some(self.stable), self.previous, self.trial.map(|trial| trial.version)];
        one.into_iter().flatten().chain(self.standby.iter().copied())
    }

    /// What `version` does.
    pub fn role(&self, version: u32) -> Role {
        match self.trial {
            _ if self.stable == version => Role::Stable,
            _ if self.previous == Some(version) => Role::Previous,
            Some(trial) if trial.version == version => trial.role(),
            _ if self.standby.contains(&version) => Role::Standby,
            _ => Role::Idle,
        }
    }

    /// The versions on standby but for `version`, which has another role from now on.
    pub(super) fn standby_without(&self, version: u32) -> Vec<u32> {
        self.standby.iter().copied().filter(|standby| *standby != version).collect()
    }
}

/// A version on trial, and which part of the stable version's requests it is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trial {
    /// The version.
    pub version: u32,
    /// So many requests in a hundred are answered by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary_percent: Option<Percent>,
    /// So many in a hundred of those that the stable version answers are given to it as well, and its answers are only
    /// compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow_percent: Option<Percent>,
}

impl Trial {
    /// Canary as soon as it answers anybody.
    pub fn role(self) -> Role {
        if self.canary_percent.is_some() { Role::Canary } else { Role::Shadow }
    }
}

/// 1 to 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Percent(u8);

impl Percent {
    /// As a share of 1.
    pub fn share(self) -> f64 {
        f64::from(self.0) / 100.0
    }
}

impl TryFrom<u8> for Percent {
    type Error = String;

    fn try_from(percent: u8) -> Result<Self, String> {
        if (1..=100).contains(&percent) {
            Ok(Self(percent))
        } else {
            Err("expected 1 to 100 percent".to_owned())
        }
    }
}

impl From<Percent> for u8 {
    fn from(percent: Percent) -> Self {
        percent.0
    }
}

impl FromStr for Percent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number: u8 = text.parse().map_err(|_| "expected 1 to 100 percent".to_owned())?;
        number.try_into()
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} %", self.0)
    }
}

/// What a version does for its model now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It serves.
    Stable,
    /// It serves a part of the requests.
    Canary,
    /// It is given requests, and its answers are thrown away.
    Shadow,
    /// It served before, and stays at hand.
    Previous,
    /// It is loaded for requests that name it, and answers no other.
    Standby,
    /// Nothing.
    Idle,
}

/// What the log says of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    pub fn role(&self, version: u32) -> Option<Role> {
        match self {
            Self::Lost => None,
            Self::Known(roles) => Some(roles.role(version)),
            Self::Empty => Some(Role::Idle),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Stable => "stable",
            Self::Canary => "canary",
            Self::Shadow => "shadow",
            Self::Previous => "previous",
            Self::Standby => "standby",
            Self::Idle => "idle",
        })
    }
}
