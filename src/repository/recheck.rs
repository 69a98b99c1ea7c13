//! Files of a version that is loaded, looked at again: they are as published, or what is wrong is told.

use std::path::Path;

use super::layout::{MANIFEST, Pace, check_digest, digest, key};
use super::manifest::{File, Manifest};
use super::{Fetched, Repository, RepositoryError, Result, here};

/// A file that is not as it was published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// Its name in the version's directory.
    pub file: String,
    /// What is wrong with it.
    pub reason: String,
}

impl Repository {
    /// Whether the repository's own files are as published, where it is a directory: the cache may have good copies of files that are not.
    /// A bucket's are looked at when they are fetched.
    ///
    /// # Errors
    /// [`RepositoryError::BadFile`] or [`RepositoryError::Read`] for the first that is not.
    pub async fn check_own_files(&self, manifest: &Manifest) -> Result<()> {
        let Some(root) = &self.root else { return Ok(()) };
        let directory = here::file(root, &key(&manifest.model, manifest.version, ""));
        for file in &manifest.files {
            check(&directory, manifest, file, Pace::Full).await?;
        }
        Ok(())
    }

    /// What is changed in the repository of a version that was loaded with `manifest`: its manifest, and where the repository is a
    /// directory its files. Slowly, at a tenth of a core's time. That the repository cannot be read says nothing of the version.
    pub async fn changed(&self, manifest: &Manifest) -> Vec<Changed> {
        let reason = match self.manifest(&manifest.model, manifest.version).await {
            Ok(found) if found == *manifest => None,
            Ok(_) => Some("it is another manifest than the one that was loaded".to_owned()),
            Err(
                error @ (RepositoryError::BadManifest { .. }
                | RepositoryError::NoSuchVersion { .. }
                | RepositoryError::NotTrusted { .. }),
            ) => Some(error.to_string()),
            Err(error) => {
                tracing::debug!(version = manifest.id(), %error, "cannot look at the manifest again");
                None
            }
        };
        let mut found: Vec<Changed> =
            reason.map(|reason| Changed { file: MANIFEST.to_owned(), reason }).into_iter().collect();
        if let Some(root) = &self.root {
            let directory = here::file(root, &key(&manifest.model, manifest.version, ""));
            found.extend(changed(&directory, manifest).await);
        }
        found
    }
}

impl Fetched {
    /// The files of the copy in `directory` that are not as published any more. As slowly.
    pub async fn changed(directory: &Path, manifest: &Manifest) -> Vec<Changed> {
        changed(directory, manifest).await
    }
}

async fn changed(directory: &Path, manifest: &Manifest) -> Vec<Changed> {
    let mut found = Vec::new();
    for file in &manifest.files {
        if let Err(error) = check(directory, manifest, file, Pace::Slow).await {
            found.push(Changed { file: file.name.clone(), reason: error.to_string() });
        }
    }
    found
}

/// Whether a file in `directory` is the one that was published.
///
/// # Errors
/// [`RepositoryError::BadFile`] if not, [`RepositoryError::Read`] if it cannot be read.
pub(super) async fn check(directory: &Path, manifest: &Manifest, file: &File, pace: Pace) -> Result<()> {
    let (bytes, sha256) = digest(&directory.join(&file.name), pace).await?;
    check_digest(manifest, file, bytes, &sha256)
}
