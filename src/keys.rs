//! Keys with names: who may ask what, how much of it, and how a key is found without a word about the others.

mod budget;
mod file;
pub mod follow;
mod secret;

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use subtle::{ConditionallySelectable as _, ConstantTimeEq};

pub use budget::{Budget, Limits};
use file::ALL_MODELS;
pub use file::{Entry, KeysError};
pub use secret::{Digest, SHORTEST_KEY, Secret};

/// What a key is for. None contains another: a key has each that it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Vectors, and what belongs to them: tokens, and which models there are
    Embed,
    /// Which version serves, and changes of that
    Admin,
    /// What Prometheus scrapes
    Metrics,
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Embed => "embed",
            Self::Admin => "admin",
            Self::Metrics => "metrics",
        })
    }
}

/// One named key, known by its digest only.
#[derive(Debug)]
pub struct Key {
    entry: Entry,
    digest: Digest,
    /// Outlives a change of the file, also one of its limits: touching a file must not refill a bucket.
    budget: Arc<Budget>,
}

impl Key {
    /// Its name, which logs and metrics may show.
    pub fn name(&self) -> &str {
        &self.entry.name
    }

    /// Whether it is for that.
    pub fn has(&self, role: Role) -> bool {
        self.entry.roles.contains(&role)
    }

    /// The models that it may use; `None` for all, those to come included.
    pub fn models(&self) -> Option<&[String]> {
        self.entry.models.as_deref().filter(|models| *models != [ALL_MODELS])
    }

    /// What it may still use up.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }
}

/// Every key, in the order of the file; none where nobody needs one.
#[derive(Clone, Default)]
pub struct Keys {
    keys: Vec<Arc<Key>>,
    /// Whether the file says where it ends, so that no part of it can be missing.
    ended: bool,
}

impl Keys {
    /// Whether nobody needs a key.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The names, in the order of the file.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(|key| key.name())
    }

    /// The key, found in a time that depends on its length and on how many keys there are.
    pub fn find(&self, key: &str) -> Option<&Arc<Key>> {
        let digest = Digest::of(key);
        let place = place(self.keys.iter().map(|key| &key.digest), &digest);
        self.keys.get(usize::try_from(place).ok()?)
    }

    /// The names of keys that are for every model because their entries do not say for which.
    pub fn without_models(&self) -> impl Iterator<Item = &str> {
        let unsaid = |key: &&Arc<Key>| key.entry.models.is_none() && !key.entry.is_for_metrics_alone();
        self.keys.iter().filter(unsaid).map(|key| key.name())
    }

    /// Refuses a file that may have lost its end since `before` was read, where the loss would let a key do more. A cut file can only have
    /// lost lines of its last entry, and entries behind it.
    ///
    /// # Errors
    /// With the name of the entry, and the remedy.
    fn check_end(&self, before: &Self) -> Result<(), KeysError> {
        if self.ended {
            return Ok(());
        }
        if before.ended {
            return Err(KeysError::EndLost);
        }
        let Some(last) = self.keys.last() else { return Ok(()) };
        let Some(old) = before.keys.iter().find(|old| old.name() == last.name()) else { return Ok(()) };
        let (now, then) = (&last.entry, &old.entry);
        if (then.models.is_some() && now.models.is_none()) || now.limits.lost(&then.limits) {
            return Err(KeysError::Widened { name: now.name.clone() });
        }
        Ok(())
    }

    /// These keys, with what the same names have used up already.
    fn after(self, before: &Self) -> Self {
        let of_old = |key: Arc<Key>| match before.keys.iter().find(|old| old.name() == key.name()) {
            Some(old) if old.entry == key.entry => Arc::clone(old),
            Some(old) => {
                let (entry, digest) = (key.entry.clone(), key.digest.clone());
                old.budget.change(&entry.limits);
                Arc::new(Key { entry, digest, budget: Arc::clone(&old.budget) })
            }
            None => key,
        };
        Self { keys: self.keys.into_iter().map(of_old).collect(), ended: self.ended }
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.names()).finish()
    }
}

/// The place of the digest that is `given`, `u64::MAX` if it is not there. Compares every byte of every digest,
/// without branching.
fn place<'a, T: ConstantTimeEq + 'a>(known: impl Iterator<Item = &'a T>, given: &T) -> u64 {
    let mut found = u64::MAX;
    for (place, digest) in (0..).zip(known) {
        found.conditional_assign(&place, digest.ct_eq(given));
    }
    found
}

#[cfg(test)]
mod tests;
