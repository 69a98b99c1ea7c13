//! Follows the keys file: what it says is in force within the sync interval, and what cannot be read changes nothing.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::{Keys, KeysError};

/// The keys that are in force.
#[derive(Debug, Default)]
pub struct Current(ArcSwap<Keys>);

/// What a look at the file led to, for those who tell others.
#[derive(Debug, PartialEq, Eq)]
pub enum Look {
    /// The file says what is in force.
    Same,
    /// Other keys are in force now.
    Changed {
        /// Names that are new.
        added: Vec<String>,
        /// Names that are gone.
        removed: Vec<String>,
        /// Names whose key, roles, models or limits are others.
        changed: Vec<String>,
    },
    /// The file is wrong, or not there; the keys before stay in force.
    Failed {
        /// Why.
        error: KeysError,
        /// Whether the look before had found the same.
        known: bool,
    },
}

impl Current {
    /// These keys are in force.
    pub fn new(keys: Keys) -> Self {
        Self(ArcSwap::from_pointee(keys))
    }

    /// As they are now. A request takes one look.
    pub fn get(&self) -> Arc<Keys> {
        self.0.load_full()
    }

    fn replace(&self, keys: Keys) -> Look {
        let before = self.get();
        let after = keys.after(&before);
        let names = |keys: &Keys| keys.names().map(str::to_owned).collect::<BTreeSet<String>>();
        let (old, new) = (names(&before), names(&after));
        let differs = |name: &&String| {
            let entry =
                |keys: &Keys| keys.keys.iter().find(|key| key.name() == *name).map(|key| key.entry.clone());
            entry(&before) != entry(&after)
        };
        let changed: Vec<String> = new.intersection(&old).filter(differs).cloned().collect();
        let (added, removed): (Vec<String>, Vec<String>) =
            (new.difference(&old).cloned().collect(), old.difference(&new).cloned().collect());
        if added.is_empty() && removed.is_empty() && changed.is_empty() {
            return Look::Same;
        }
        self.0.store(Arc::new(after));
        Look::Changed { added, removed, changed }
    }
}

/// Looks at a keys file again and again.
pub struct Follower {
    path: PathBuf,
    failed: Option<KeysError>,
}

impl Follower {
    /// Of the file at `path`.
    pub fn new(path: PathBuf) -> Self {
        Self { path, failed: None }
    }

    /// Reads the file, and puts what it says in force.
    ///
    /// It is read whole, whatever its time and size say: a rename within the granularity of the clock, or a link that leads elsewhere,
    /// as Kubernetes swaps a mounted Secret, may leave both as they were, and a few lines are read as fast as asked about.
    pub fn look(&mut self, current: &Current) -> Look {
        self.found(Keys::read(&self.path), current)
    }

    fn found(&mut self, read: Result<Keys, KeysError>, current: &Current) -> Look {
        match read.and_then(|keys| keys.check_end(&current.get()).map(|()| keys)) {
            Ok(keys) => {
                self.failed = None;
                current.replace(keys)
            }
            Err(error) => {
                let known = self.failed.replace(error.clone()) == Some(error.clone());
                Look::Failed { error, known }
            }
        }
    }

    /// Looks every `interval`, for ever, and says what it finds.
    pub async fn run(mut self, current: Arc<Current>, interval: Duration, tell: impl Fn(Look)) {
        loop {
            // A mounted file may be as slow as the network behind it.
            let path = self.path.clone();
            let Ok(read) = tokio::task::spawn_blocking(move || Keys::read(&path)).await else {
                // The runtime is going.
                return;
            };
            tell(self.found(read, &current));
            tokio::time::sleep(interval).await;
        }
    }
}
