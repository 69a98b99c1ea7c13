//! What can be asked of a model's roles and names, and how the log writes it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::rollout::roles::{Percent, Trial};

/// A change that an operator or the guard asks for.
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

    /// The version that it brings in, which servers have to load. Those of a promotion and of a rollback are loaded already, or must be used
    /// whatever has become of the repository's files since.
    pub(in crate::rollout) fn brings(&self) -> Option<u32> {
        match self {
            Self::Begin { version }
            | Self::Rollout { version, .. }
            | Self::Trial(Trial { version, .. })
            | Self::Standby { version } => Some(*version),
            Self::Promote { .. } | Self::Rollback { .. } | Self::Retire { .. } | Self::Alias { .. } => None,
        }
    }

    /// Whether only documents of [`NAMES_SCHEMA`](crate::rollout::document::NAMES_SCHEMA) can hold it.
    pub(in crate::rollout) fn is_of_names(&self) -> bool {
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
