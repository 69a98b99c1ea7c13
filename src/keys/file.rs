//! The keys file: TOML with an entry for each key.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use thiserror::Error;

use super::budget::{Budget, Limits};
use super::secret::Digest;
use super::{Key, Keys, Role};
use crate::repository::check_name;

/// What logs and metrics call whoever has no key, or acts without one.
const TAKEN_NAMES: &[&str] = &["none", "other", "loopback", "guard"];

/// In the place of models: all, those to come included.
pub(super) const ALL_MODELS: &str = "*";
/// The last line of a file that says where it ends. A comment, so that older servers take it as well.
const END: &str = "# end";

/// Why there are no keys. No message repeats what may be a key in the wrong place.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeysError {
    /// The file cannot be read.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    /// Not TOML, or not entries.
    #[error(
        "line {line} is not TOML, or no part of an entry: expected [[keys]] with name, hash, roles (a list), and where they are wanted \
         models (a list) and limits (a table with requests_per_second, requests_burst, tokens_per_second, tokens_burst: whole \
         numbers from 1)"
    )]
    Syntax {
        /// From 1.
        line: usize,
    },
    /// An entry that cannot be.
    #[error("key {place}{}: {reason}", if name.is_empty() { String::new() } else { format!(" (`{name}`)") })]
    Entry {
        /// From 1.
        place: usize,
        /// Empty if it has none that can be shown.
        name: String,
        /// In words.
        reason: String,
    },
    /// No entry at all, which must not mean that nobody needs a key.
    #[error(
        "there is no key in it: expected at least one [[keys]]; `sextant key new NAME --role embed` makes one"
    )]
    Empty,
    /// The file in force said where it ends.
    #[error(
        "the file in force ended with the line `{end}`, and this one does not: the rest of it is missing, or the line is not its last",
        end = END
    )]
    EndLost,
    /// A running server would let a key do more because lines of its entry are gone.
    #[error(
        "the last entry, of the key `{name}`, has lost its `models` or a limit, which it had before: the file may be cut. If that is \
         meant, say `models = [\"*\"]`, or end the file with the line `{end}`",
        end = END
    )]
    Widened {
        /// The key's.
        name: String,
    },
}

/// A key as the file has it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Shown in logs and metrics.
    pub name: String,
    /// A [`Digest`] as text.
    pub hash: String,
    /// What it is for.
    pub roles: Vec<Role>,
    /// Names of the models that it may use, or `*` alone for all; all if not said.
    pub models: Option<Vec<String>>,
    /// How much it may use up.
    #[serde(default)]
    pub limits: Limits,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    keys: Vec<Entry>,
}

impl Entry {
    /// As it stands in the file. What narrows the key goes before what no entry can be without: wherever the file is cut, the entry is
    /// refused, or is what it was.
    ///
    /// # Errors
    /// If it cannot be written as TOML.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        let value = |value: Result<toml::Value, _>| value.map(|value| value.to_string());
        let mut lines =
            vec!["[[keys]]".to_owned(), format!("name = {}", value(toml::Value::try_from(&self.name))?)];
        if let Some(models) = &self.models {
            lines.push(format!("models = {}", value(toml::Value::try_from(models))?));
        }
        if !self.limits.is_empty() {
            lines.push(format!("limits = {}", value(toml::Value::try_from(self.limits))?));
        }
        lines.push(format!("hash = {}", value(toml::Value::try_from(&self.hash))?));
        lines.push(format!("roles = {}\n", value(toml::Value::try_from(&self.roles))?));
        Ok(lines.join("\n"))
    }

    /// Whether it is for the role that has no models.
    pub(super) fn is_for_metrics_alone(&self) -> bool {
        self.roles == [Role::Metrics]
    }

    /// Its digest, or what is wrong with it.
    ///
    /// # Errors
    /// In words, without what may be a key.
    pub fn check(&self) -> Result<Digest, String> {
        check_key_name(&self.name)?;
        let digest = self.hash.parse::<Digest>().map_err(|()| {
            "`hash` is not sha256: and 64 hexadecimal digits; `sextant key hash` makes it of a key".to_owned()
        })?;
        if digest == Digest::of("") {
            return Err(
                "`hash` is that of an empty key: what made it got nothing; `sextant key hash` makes it of a key"
                    .to_owned(),
            );
        }
        if self.roles.is_empty() {
            return Err("`roles` is empty: expected embed, admin or metrics".to_owned());
        }
        let limits = &self.limits;
        if !limits.is_empty() && !self.roles.contains(&Role::Embed) {
            return Err("limits are for the role embed, which it does not have".to_owned());
        }
        for (burst, rate, name) in [
            (limits.requests_burst, limits.requests_per_second, "requests"),
            (limits.tokens_burst, limits.tokens_per_second, "tokens"),
        ] {
            if burst.is_some() && rate.is_none() {
                return Err(format!("`{name}_burst` is there without `{name}_per_second`"));
            }
        }
        if let Some(models) = self.models.as_ref().filter(|models| **models != [ALL_MODELS]) {
            if models.is_empty() {
                return Err("`models` is empty: [\"*\"] is for all models".to_owned());
            }
            if models.iter().any(|name| name == ALL_MODELS) {
                return Err("`models` has \"*\" beside names: it is for all models, alone".to_owned());
            }
            if self.roles.contains(&Role::Metrics) {
                return Err("the role metrics shows every model, so `models` cannot hold for it".to_owned());
            }
            if models.iter().any(|name| check_name(name).is_err()) {
                return Err(
                    "`models` has a name that no model can have: expected names alone, without @".to_owned()
                );
            }
        }
        Ok(digest)
    }
}

/// Whether a key may have that name, which is a label of metrics: the rule is that of models.
pub(super) fn check_key_name(name: &str) -> Result<(), String> {
    if check_name(name).is_err() {
        return Err(
            "expected a `name` of 1 to 64 letters, digits, `-`, `_` and `.`, with a letter or digit first"
                .to_owned(),
        );
    }
    if TAKEN_NAMES.contains(&name) {
        return Err("that name is taken: logs and metrics use it for whoever has no key".to_owned());
    }
    Ok(())
}

impl Keys {
    /// Reads a keys file.
    ///
    /// # Errors
    /// What is wrong with it, without a key.
    pub fn read(path: &Path) -> Result<Self, KeysError> {
        let text = fs::read_to_string(path).map_err(|error| KeysError::Unreadable(error.to_string()))?;
        text.parse()
    }
}

impl std::str::FromStr for Keys {
    type Err = KeysError;

    fn from_str(text: &str) -> Result<Self, KeysError> {
        // The parser's own message shows the line, and serde's the value: either may be a key.
        let file: File = toml::from_str(text).map_err(|error| {
            let start = error.span().map_or(0, |span| span.start);
            let line = text.get(..start).unwrap_or_default().matches('\n').count() + 1;
            KeysError::Syntax { line }
        })?;
        let (mut keys, mut names, mut hashes) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        for (place, entry) in (1..).zip(file.keys) {
            let named = check_key_name(&entry.name).is_ok();
            let wrong = |reason: String| {
                let name = if named { entry.name.clone() } else { String::new() };
                KeysError::Entry { place, name, reason }
            };
            let digest = entry.check().map_err(wrong)?;
            if !names.insert(entry.name.clone()) {
                return Err(wrong("the name is there twice".to_owned()));
            }
            if !hashes.insert(digest.to_string()) {
                return Err(wrong("the same key is there under another name".to_owned()));
            }
            let budget = Arc::new(Budget::new(&entry.limits));
            keys.push(Arc::new(Key { entry, digest, budget }));
        }
        let ended = text.lines().rfind(|line| !line.trim().is_empty()).is_some_and(|line| line.trim() == END);
        if keys.is_empty() { Err(KeysError::Empty) } else { Ok(Self { keys, ended }) }
    }
}
