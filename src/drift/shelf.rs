//! References in the repository: `<model>/references/<number>.bin`, the newest of a space counts.

use std::sync::Arc;

use thiserror::Error;

use super::reference::{Reference, ReferenceError};
use super::score::Scorer;
use crate::repository::manifest::Space;
use crate::repository::{LAST_NUMBER, Numbered, Repository, RepositoryError, check_name};

/// A reference of 256 topics in 8,192 dimensions has 10 MB, and an example of each topic may be a long text. More is not read into
/// memory.
const REFERENCE_BYTES: u64 = 256 << 20;

/// Why a reference was not stored.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The repository.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// A mistake of whoever made it.
    #[error("the reference cannot be written: {0}")]
    Encoding(#[from] ReferenceError),
    /// Every number up to the last one is taken.
    #[error("the references of `{0}` have no number left after {last}", last = LAST_NUMBER)]
    NoNumberLeft(String),
    /// Something that is no file has the name of the next one.
    #[error("the reference `{key}` cannot be written: something else has its name; remove it")]
    Blocked {
        /// The key.
        key: String,
    },
}

/// What was found above a number.
#[derive(Debug)]
pub struct Found {
    /// The newest first; one at most of each space.
    pub references: Vec<Arc<Scorer>>,
    /// Files that are none, a sentence each.
    pub damaged: Vec<String>,
    /// The highest number.
    pub last: u64,
}

fn documents(model: &str) -> Numbered<'_> {
    Numbered { model, directory: "references", extension: "bin" }
}

/// The references of a model above number `known`.
///
/// # Errors
/// If the repository fails. A damaged file is no failure.
pub async fn after(repository: &Repository, model: &str, known: u64) -> Result<Found, RepositoryError> {
    check_name(model)?;
    let mut numbers = repository.numbers_after(documents(model), known).await?;
    let last = numbers.last().copied().unwrap_or(known);
    let (mut references, mut damaged): (Vec<Arc<Scorer>>, _) = (Vec::new(), Vec::new());
    while let Some(number) = numbers.pop() {
        let key = documents(model).key(number);
        // One that was removed meanwhile is not there.
        let file = match repository.read(&key, REFERENCE_BYTES).await {
            Ok(Some(file)) => file,
            Ok(None) => continue,
            Err(error @ (RepositoryError::TooLarge { .. } | RepositoryError::NotAFile { .. })) => {
                damaged.push(format!("the drift reference is not used: {error}"));
                continue;
            }
            Err(error) => return Err(error),
        };
        match Reference::decode(&file) {
            Ok((name, reference)) => {
                let is_other = |known: &Arc<Scorer>| known.reference().origin.space != reference.origin.space;
                if references.iter().all(is_other) {
                    references.push(Scorer::new(name, reference));
                }
            }
            Err(error) => damaged.push(format!("the drift reference `{key}` is not used: {error}")),
        }
    }
    Ok(Found { references, damaged, last })
}

/// The newest reference of a model for a space, and what was passed over.
///
/// # Errors
/// If the repository fails.
pub async fn newest(
    repository: &Repository,
    model: &str,
    space: &Space,
) -> Result<(Option<Arc<Scorer>>, Vec<String>), RepositoryError> {
    let found = after(repository, model, 0).await?;
    let of_space = |scorer: &Arc<Scorer>| scorer.reference().origin.space == *space;
    Ok((found.references.into_iter().find(of_space), found.damaged))
}

/// Stores a reference under the next free number, which is returned. With `if_first` only if there is none of its space: of several
/// replicas that learn one at once the first wins, and the others get `None`.
///
/// # Errors
/// If the repository fails, or has no number left.
pub async fn store(
    repository: &Repository,
    model: &str,
    reference: &Reference,
    if_first: bool,
) -> Result<Option<u64>, StoreError> {
    let file = reference.encode()?;
    loop {
        let found = after(repository, model, 0).await?;
        let is_same = |other: &Arc<Scorer>| other.reference().origin.space == reference.origin.space;
        if if_first && found.references.iter().any(is_same) {
            return Ok(None);
        }
        if found.last >= LAST_NUMBER {
            return Err(StoreError::NoNumberLeft(model.to_owned()));
        }
        let number = found.last + 1;
        let key = documents(model).key(number);
        if repository.create(&key, file.clone()).await? {
            return Ok(Some(number));
        }
        match repository.read(&key, REFERENCE_BYTES).await? {
            // A store that asks again by itself after a lost answer is told that its own file is there.
            Some(written) if written == file => return Ok(Some(number)),
            Some(_) => {}
            None => return Err(StoreError::Blocked { key: key.to_string() }),
        }
    }
}
