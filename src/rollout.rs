//! Who serves: a numbered log of documents beside the versions. The highest number is the state.

pub mod gate;

use object_store::path::Path as Key;
use serde::{Deserialize, Serialize};

use crate::repository::{Repository, RepositoryError};

/// One document of the log: the roles from now on, and who set them, when and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rollout {
    /// The document's own number, from 1.
    pub number: u64,
    /// The version that serves.
    pub stable: u32,
    /// The version that served before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<u32>,
    /// Who made the change.
    pub by: String,
    /// RFC 3339, UTC.
    pub at: String,
    /// Why.
    pub reason: String,
}

/// The state of a model, or `None` if no version was ever activated.
///
/// # Errors
/// If the repository fails or the newest document is damaged.
pub async fn current(repository: &Repository, model: &str) -> Result<Option<Rollout>, RepositoryError> {
    let listing = repository.list(Some(&Key::from_iter([model, "rollouts"]))).await?;
    let numbered = listing.objects.into_iter().filter_map(|object| {
        let name = object.location.filename()?;
        let number: u64 = name.strip_suffix(".json")?.parse().ok()?;
        // `+2.json` beside `00000002.json` would make two documents of one number.
        (name == file_name(number)).then_some((number, object.location))
    });
    let Some((number, key)) = numbered.max_by_key(|(number, _)| *number) else { return Ok(None) };
    let bad = |reason| RepositoryError::BadRollout { key: key.to_string(), reason };
    let bytes =
        repository.read(&key).await?.ok_or_else(|| bad("it was removed while it was read".to_owned()))?;
    let rollout: Rollout = serde_json::from_slice(&bytes).map_err(|error| bad(error.to_string()))?;
    if rollout.number != number {
        return Err(bad(format!("it says that it is number {}", rollout.number)));
    }
    Ok(Some(rollout))
}

/// Makes `version` the one that serves. Whoever loses the race for a number reads again and writes the next.
///
/// # Errors
/// If the version is not published, or the repository fails.
pub async fn activate(
    repository: &Repository,
    model: &str,
    version: u32,
    by: &str,
    at: &str,
    reason: &str,
) -> Result<Rollout, RepositoryError> {
    repository.manifest(model, version).await?;
    loop {
        let before = current(repository, model).await?;
        let last = before.as_ref().map_or(0, |before| before.number);
        let number = last.checked_add(1).ok_or_else(|| RepositoryError::BadRollout {
            key: format!("{model}/rollouts/{}", file_name(last)),
            reason: "no number is left after it".to_owned(),
        })?;
        let rollout = Rollout {
            number,
            stable: version,
            previous: before.map(|before| before.stable),
            by: by.to_owned(),
            at: at.to_owned(),
            reason: reason.to_owned(),
        };
        let key = Key::from(format!("{model}/rollouts/{}", file_name(number)));
        let text = serde_json::to_vec_pretty(&rollout).map_err(|error| RepositoryError::BadRollout {
            key: key.to_string(),
            reason: error.to_string(),
        })?;
        if repository.create(&key, text).await? {
            return Ok(rollout);
        }
    }
}

fn file_name(number: u64) -> String {
    format!("{number:08}.json")
}
