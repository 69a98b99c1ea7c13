//! The secret by which users are drawn for a canary. It lies in the repository, so that all servers of a fleet draw alike, and a caller
//! that knows only the model cannot choose users who are answered by the canary. No answer, metric or log line shows it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwapOption;
use object_store::path::Path as Key;
use ring::hmac;
use thiserror::Error;

use crate::repository::{Repository, RepositoryError};

/// Its name in the repository: no model can have it.
const FILE: &str = ".trial-secret";
/// Of the secret, before it is written as hexadecimal digits.
const BYTES: usize = 32;
/// More is not read into memory.
const MOST_BYTES: u64 = 1024;

/// Why there is no secret.
#[derive(Debug, Error)]
pub enum SecretError {
    /// The file holds something else. What it holds is not told.
    #[error("`{FILE}` in the repository is not 64 hexadecimal digits: remove it, and another one is made")]
    Damaged,
    /// The system has no random numbers.
    #[error("no secret can be drawn for `{FILE}`: {0}")]
    Random(String),
    /// It can be neither read nor created.
    #[error(
        "`{FILE}`, the secret by which users are drawn for a canary, can be neither read nor created: {0}"
    )]
    Repository(#[from] RepositoryError),
}

/// The secret of a repository.
pub struct TrialSecret(hmac::Key);

impl TrialSecret {
    /// Reads the secret of the repository, and creates it where there is none yet. Of servers that create it at once one does, and the
    /// others read what that one wrote.
    ///
    /// # Errors
    /// If it is damaged, or the repository fails.
    pub async fn load(repository: &Repository) -> Result<Self, SecretError> {
        let key = Key::from(FILE);
        if let Some(text) = repository.read(&key, MOST_BYTES).await? {
            return Self::parse(&text);
        }
        let mut drawn = [0; BYTES];
        getrandom::fill(&mut drawn).map_err(|error| SecretError::Random(error.to_string()))?;
        let text = format!("{}\n", hex::encode(drawn));
        if repository.create(&key, text.clone().into_bytes()).await? {
            return Self::parse(text.as_bytes());
        }
        Self::parse(&repository.read(&key, MOST_BYTES).await?.unwrap_or_default())
    }

    fn parse(text: &[u8]) -> Result<Self, SecretError> {
        let mut bytes = [0; BYTES];
        hex::decode_to_slice(text.trim_ascii(), &mut bytes).map_err(|_| SecretError::Damaged)?;
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }

    /// The place of `user` on the scale from 0 to 1 while `version` is on trial, the same on every server. Another version has other
    /// places, so that not always the same users try what is new; a user within 10 % is within 50 %.
    pub fn place(&self, version: &str, user: &str) -> f64 {
        let mut context = hmac::Context::with_key(&self.0);
        for part in [version.as_bytes(), &[0], user.as_bytes()] {
            context.update(part);
        }
        let tag = context.sign();
        let leading = tag.as_ref().iter().take(4).fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
        f64::from(leading) / 2_f64.powi(32)
    }
}

impl fmt::Debug for TrialSecret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("TrialSecret")
    }
}

/// The secret as far as a server has read it. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct SharedSecret(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    secret: ArcSwapOption<TrialSecret>,
    /// Whether the log says already why it cannot be read: once, and not at each look.
    is_told: AtomicBool,
}

impl SharedSecret {
    /// The secret, if it was read.
    pub fn get(&self) -> Option<Arc<TrialSecret>> {
        self.0.secret.load_full()
    }

    /// Reads the secret, or reads it again: a repository that was restored may have another one.
    ///
    /// # Errors
    /// See [`TrialSecret::load`]. What was read before stays.
    pub async fn read(&self, repository: &Repository) -> Result<(), SecretError> {
        self.0.secret.store(Some(Arc::new(TrialSecret::load(repository).await?)));
        self.0.is_told.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// The same, with a failure told in the log once.
    pub(super) async fn read_or_tell(&self, repository: &Repository) {
        if let Err(error) = self.read(repository).await
            && !self.0.is_told.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                "requests with a `user` are answered by the stable version until it can be read: {error}"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(directory: &tempfile::TempDir) -> Repository {
        Repository::open(directory.path().to_str().unwrap(), false).unwrap()
    }

    #[tokio::test]
    async fn servers_of_one_repository_draw_the_same_users_and_of_another_one_others() {
        let [one, other] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let loaded = futures_util::future::join_all(
            (0..8).map(async |_| TrialSecret::load(&repository(&one)).await.unwrap()),
        )
        .await;
        let other = TrialSecret::load(&repository(&other)).await.unwrap();
        let users: Vec<String> = (0..200).map(|user| format!("user {user}")).collect();
        let places =
            |secret: &TrialSecret| users.iter().map(|user| secret.place("m@2", user)).collect::<Vec<_>>();
        let expected = places(&loaded[0]);
        assert!(loaded.iter().all(|secret| places(secret) == expected));
        assert!(places(&other) != expected);
        assert!(loaded[0].place("m@3", "user 1") != loaded[0].place("m@2", "user 1"));
        let within = expected.iter().filter(|place| **place < 0.2).count();
        assert!((10..=80).contains(&within), "{within} of 200 are within 20 %");
    }

    #[tokio::test]
    async fn a_damaged_secret_is_refused_without_its_content_and_a_new_one_is_made_once_it_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        std::fs::write(&path, "0123SECRET").unwrap();
        let error = TrialSecret::load(&repository(&directory)).await.unwrap_err().to_string();
        assert!(error.contains(FILE) && !error.contains("SECRET"), "{error}");
        std::fs::remove_file(&path).unwrap();
        let made = TrialSecret::load(&repository(&directory)).await.unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.trim().len(), 2 * BYTES);
        assert!(!format!("{made:?}").contains(text.trim()));
        assert!(repository(&directory).models().await.unwrap().is_empty(), "it is no model");
    }
}
