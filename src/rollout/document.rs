//! One document of the log: what it holds, and whether it contradicts itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::guard::Cause;
use super::roles::{Roles, Trial};
use super::state::{Change, Crossing, is_alias};
use crate::files::said;

/// The layout of documents with neither aliases nor versions on standby: a server that knows neither reads them.
pub const SCHEMA: u32 = 1;
/// The layout of the others: a server that knows neither refuses them by this number.
pub const NAMES_SCHEMA: u32 = 2;

/// A change that was made: the roles from now on, and who set them, when and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rollout {
    /// [`SCHEMA`], or [`NAMES_SCHEMA`] where it is about names or standbys.
    pub schema: u32,
    /// The document's own number, from 1.
    pub number: u64,
    /// Drawn for this change. A writer that lost the store's answer knows its own document by it.
    pub id: String,
    /// The version that serves.
    pub stable: u32,
    /// The version that served before and stays at hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<u32>,
    /// The version on trial beside it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial: Option<Trial>,
    /// Versions that are loaded for requests that name them, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub standby: Vec<u32>,
    /// Further names of the model, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// What was asked for.
    pub change: Change,
    /// Number of the document that the change was decided on; none if there was no good one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
    /// Whether it left the space, and for which.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crossed: Option<Crossing>,
    /// Who ended a trial, if nothing but names and standbys changed since: a rollback that names no version would take back one more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial_ended_by: Option<String>,
    /// Who made the change.
    pub by: String,
    /// RFC 3339, UTC.
    pub at: String,
    /// Why.
    pub reason: String,
    /// What the guard found, if it made the change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// What the gate measured of the version that the change is about, by the name of the check, on the server that made it. A
    /// change made in the repository is measured by the servers that follow it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub gate: BTreeMap<String, f64>,
}

/// Why a document cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Unreadable {
    /// By this code. A newer one wrote it, and knows what it says.
    #[error(
        "it was written by a newer sextant: schema {0}, and this one reads schemas {SCHEMA} and {NAMES_SCHEMA}"
    )]
    Newer(u32),
    /// By anybody.
    #[error("{0}")]
    Damaged(String),
}

/// Only the schema: of another one the rest would be misread.
#[derive(Deserialize)]
struct Head {
    schema: Option<u32>,
}

/// A document from before there was a schema. All of them are activations, and no space was compared.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Activation {
    number: u64,
    stable: u32,
    previous: Option<u32>,
    by: String,
    at: String,
    reason: String,
}

impl From<Activation> for Rollout {
    fn from(activation: Activation) -> Self {
        let Activation { number, stable, previous, by, at, reason } = activation;
        Self {
            schema: SCHEMA,
            number,
            id: String::new(),
            stable,
            // The version that served could be activated once more.
            previous: previous.filter(|previous| *previous != stable),
            change: Change::Rollout { version: stable, force: true },
            from: number.checked_sub(1).filter(|from| *from > 0),
            crossed: None,
            trial_ended_by: None,
            by,
            at,
            reason,
            trial: None,
            standby: Vec::new(),
            aliases: Vec::new(),
            cause: None,
            gate: BTreeMap::new(),
        }
    }
}

impl Rollout {
    /// Who serves from here on.
    pub fn roles(&self) -> Roles {
        let Self { stable, previous, trial, standby, aliases, .. } = self;
        Roles {
            stable: *stable,
            previous: *previous,
            trial: *trial,
            standby: standby.clone(),
            aliases: aliases.clone(),
        }
    }

    /// Who ended a trial with this change, or with one since which nothing but names and standbys changed.
    pub(super) fn trial_ended_by(&self) -> Option<&str> {
        match &self.change {
            // Of all documents only one that ended a trial and nothing else is a rollback with a previous version.
            Change::Rollback { .. } => self.previous.map(|_| self.by.as_str()),
            change if change.is_of_names() => self.trial_ended_by.as_deref(),
            _ => None,
        }
    }

    /// The oldest schema that can say what `change` made of the roles.
    pub(super) fn schema_of(change: &Change, roles: &Roles) -> u32 {
        let plain = roles.standby.is_empty() && roles.aliases.is_empty() && !change.is_of_names();
        if plain { SCHEMA } else { NAMES_SCHEMA }
    }

    /// Reads the document that lies at `number`, or says what is wrong with it.
    pub(crate) fn read(number: u64, text: &[u8]) -> Result<Self, Unreadable> {
        let told = |error: serde_json::Error| Unreadable::Damaged(said(&error.to_string()));
        let rollout = match serde_json::from_slice::<Head>(text).map_err(told)?.schema {
            None => serde_json::from_slice::<Activation>(text).map_err(told)?.into(),
            Some(SCHEMA | NAMES_SCHEMA) => serde_json::from_slice::<Self>(text).map_err(told)?,
            Some(newer) => return Err(Unreadable::Newer(newer)),
        };
        rollout.check(number).map_err(Unreadable::Damaged)?;
        Ok(rollout)
    }

    /// Finds what the log would never write.
    pub(super) fn check(&self, number: u64) -> Result<(), String> {
        let Self { stable, previous, trial, change, .. } = self;
        if self.number != number {
            return Err(format!("it says that it is number {}", self.number));
        }
        let tried = trial.map(|trial| trial.version);
        if *stable == 0 || *previous == Some(0) || tried == Some(0) {
            return Err("it names version 0, and versions count from 1".to_owned());
        }
        if *previous == Some(*stable) {
            return Err(format!("it says that version {stable} is stable and previous at once"));
        }
        if tried.is_some_and(|tried| tried == *stable || Some(tried) == *previous) {
            return Err("it says that the version on trial has another role as well".to_owned());
        }
        if trial.is_some_and(|trial| trial.canary_percent.is_none() && trial.shadow_percent.is_none()) {
            return Err("it says that a version is on trial without requests".to_owned());
        }
        if let Some(from) = self.from.filter(|from| *from >= number) {
            return Err(format!("it says that it was decided on document {from}, which is not before it"));
        }
        self.check_names()?;
        let (alone, within) = (trial.is_none(), self.crossed.is_none());
        let agrees = match change {
            Change::Begin { version } => version == stable && previous.is_none() && alone && within,
            Change::Rollout { version, force } => version == stable && alone && (*force || within),
            Change::Trial(asked) => *trial == Some(*asked) && within,
            Change::Promote { version, force } => {
                version.is_none_or(|version| version == *stable) && alone && (*force || within)
            }
            Change::Rollback { of, to } => to.is_none_or(|to| to == *stable) && *of != Some(*stable) && alone,
            Change::Standby { version } => self.standby.contains(version) && within,
            Change::Retire { version } => !self.standby.contains(version) && within,
            Change::Alias { name, remove } => self.aliases.contains(name) != *remove && within,
        };
        if !agrees {
            return Err(format!(
                "its change, `{change}`, does not lead to stable {stable}, previous {}, on trial {}{}",
                previous.map_or_else(|| "none".to_owned(), |previous| previous.to_string()),
                tried.map_or_else(|| "none".to_owned(), |tried| tried.to_string()),
                if self.crossed.is_some() { ", in another space" } else { "" }
            ));
        }
        Ok(())
    }

    /// Finds what is wrong with the versions on standby and the aliases.
    fn check_names(&self) -> Result<(), String> {
        let roles = self.roles();
        if self.schema != Self::schema_of(&self.change, &roles) {
            return Err(format!(
                "it says that it has schema {}, and what it holds is of another",
                self.schema
            ));
        }
        let others = [Some(0), Some(self.stable), self.previous, self.trial.map(|trial| trial.version)];
        if let Some(version) = self.standby.iter().find(|version| others.contains(&Some(**version))) {
            return Err(format!("it says that version {version} is on standby, which cannot be"));
        }
        if let Some(alias) = self.aliases.iter().find(|alias| !is_alias(alias)) {
            return Err(format!("it has the alias `{alias}`, which cannot be one"));
        }
        if !(self.standby.is_sorted_by(|one, next| one < next)
            && self.aliases.is_sorted_by(|one, next| one < next))
        {
            return Err("its versions on standby or its aliases are not in order".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::manifest::Space;

    fn rollout() -> Rollout {
        Rollout {
            schema: SCHEMA,
            number: 3,
            id: "0123456789abcdef".into(),
            stable: 2,
            previous: Some(1),
            change: Change::Rollout { version: 2, force: true },
            from: Some(2),
            crossed: Some(Crossing { from: None, to: Space("b".into()) }),
            trial_ended_by: None,
            by: "me".into(),
            at: "2026-01-01T00:00:00Z".into(),
            reason: "why".into(),
            trial: None,
            standby: Vec::new(),
            aliases: Vec::new(),
            cause: None,
            gate: BTreeMap::from([("probe_cosine".into(), 0.999)]),
        }
    }

    fn trial(version: u32) -> Trial {
        Trial { version, canary_percent: 10.try_into().ok(), shadow_percent: None }
    }

    fn read(rollout: &Rollout) -> Result<Rollout, Unreadable> {
        Rollout::read(3, &serde_json::to_vec(rollout).unwrap())
    }

    #[test]
    fn what_is_written_is_read() {
        let back = Change::Rollback { of: Some(3), to: None };
        for document in [
            rollout(),
            Rollout { crossed: None, ..rollout() },
            Rollout { crossed: None, trial: Some(trial(3)), change: Change::Trial(trial(3)), ..rollout() },
            Rollout { change: Change::Promote { version: None, force: true }, ..rollout() },
            Rollout { change: back, previous: None, from: None, ..rollout() },
        ] {
            assert_eq!(read(&document).unwrap(), document);
        }
    }

    #[test]
    fn documents_from_before_there_was_a_schema_are_read() {
        let text = br#"{"number": 2, "stable": 3, "previous": 1, "by": "root", "at": "2026-01-01T00:00:00Z", "reason": "a"}"#;
        let read = Rollout::read(2, text).unwrap();
        assert_eq!(read.roles(), Roles { stable: 3, previous: Some(1), trial: None, ..Roles::alone(1) });
        assert_eq!((read.from, read.by.as_str()), (Some(1), "root"));
        let twice = br#"{"number": 1, "stable": 3, "previous": 3, "by": "a", "at": "b", "reason": "c"}"#;
        assert_eq!(
            Rollout::read(1, twice).unwrap().roles(),
            Roles { stable: 3, previous: None, trial: None, ..Roles::alone(1) }
        );
        assert!(Rollout::read(2, twice).is_err());
    }

    #[test]
    fn a_document_that_contradicts_itself_is_told_how() {
        let to = |version| Change::Rollback { of: None, to: Some(version) };
        for (document, expected) in [
            (Rollout { number: 4, ..rollout() }, "it says that it is number 4"),
            (Rollout { stable: 0, ..rollout() }, "version 0"),
            (Rollout { previous: Some(2), ..rollout() }, "stable and previous at once"),
            (Rollout { from: Some(3), ..rollout() }, "document 3, which is not before it"),
            (
                Rollout { stable: 5, ..rollout() },
                "`rollout 2, forced`, does not lead to stable 5, previous 1",
            ),
            (Rollout { change: Change::Rollout { version: 2, force: false }, ..rollout() }, "another space"),
            (Rollout { change: to(7), previous: None, ..rollout() }, "stable 2, previous none"),
            (Rollout { change: Change::Begin { version: 2 }, crossed: None, ..rollout() }, "begin with 2"),
            (Rollout { trial: Some(trial(1)), ..rollout() }, "another role as well"),
            (Rollout { trial: Some(trial(3)), ..rollout() }, "on trial 3, in another space"),
            (Rollout { change: Change::Trial(trial(3)), crossed: None, ..rollout() }, "on trial none"),
            (
                Rollout { trial: Some(Trial { canary_percent: None, ..trial(3) }), ..rollout() },
                "on trial without requests",
            ),
            (Rollout { change: Change::Rollback { of: Some(2), to: None }, ..rollout() }, "rollback of 2"),
        ] {
            let reason = read(&document).unwrap_err().to_string();
            assert!(reason.contains(expected), "{reason}");
        }
        for (text, expected) in [
            (&b""[..], "EOF"),
            (b"{\"schema\": 1}", "missing field"),
            (b"{\"stable\": 1, \"stable\": 2}", "duplicate field `stable`"),
            (b"{\"schema\": 1, \"stabel\": 2}", "unknown field `stabel`"),
            (b"{\"schema\": \"x\"}", "invalid type"),
            (b"[]", "invalid length"),
        ] {
            let reason = Rollout::read(3, text).unwrap_err().to_string();
            assert!(reason.contains(expected), "{reason}");
        }
        // What else is in it may be anything.
        assert_eq!(Rollout::read(3, b"{\"schema\": 3, \"serves\": []}"), Err(Unreadable::Newer(3)));
    }
}
