//! Why a change is not allowed, with what would be.

use thiserror::Error;

use super::MOST_ALIAS_BYTES;
use crate::repository::manifest::Space;
use crate::rollout::roles::Role;

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
    /// The stable version's space is not known: its vectors may not be comparable with the new ones.
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
    /// Another version was put on trial.
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
    /// The roles are others now, and a rollback decided on the old ones could take back too much.
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

fn there_are(published: &[u32]) -> String {
    if published.is_empty() {
        return "none is published".to_owned();
    }
    format!("there are: {}", published.iter().map(u32::to_string).collect::<Vec<_>>().join(", "))
}
