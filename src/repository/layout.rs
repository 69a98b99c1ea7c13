//! How a repository is laid out, and what the names in it mean.

use std::path::Path;

use object_store::path::Path as Key;
use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt as _;

use super::manifest::{File, Manifest};
use super::{RepositoryError, Result};

/// Makes a number a version: written last.
pub(super) const MANIFEST: &str = "manifest.toml";
/// Marks a number as taken while its files are written.
pub(super) const CLAIM: &str = "claim.json";
/// Read and hashed, or sent, at a time: large enough that the system's calls do not count.
pub(super) const PIECE: usize = 1 << 20;

/// Whether `name` can be a model's.
///
/// # Errors
/// [`RepositoryError::BadName`] if not.
pub fn check_name(name: &str) -> Result<()> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let good =
        name.len() <= 64 && name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(fits);
    if good { Ok(()) } else { Err(RepositoryError::BadName(name.to_owned())) }
}

/// Where a file of a version lies, relative to the repository; the version's directory if `file` is empty.
pub(super) fn key(model: &str, version: u32, file: &str) -> Key {
    Key::from(format!("{model}/versions/{version}/{file}"))
}

/// The version whose directory `name` is. Only what [`key`] writes is one: `+1`, `01` and `1` would be the same version.
pub(super) fn version_number(name: &str) -> Option<u32> {
    name.parse().ok().filter(|number: &u32| *number > 0 && number.to_string() == name)
}

/// Names of the files in a directory and those below it, relative to it and sorted.
pub(super) fn file_names(directory: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(current) = directories.pop() {
        let failed = |source| RepositoryError::Read { path: current.clone(), source };
        for entry in std::fs::read_dir(&current).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            match path.strip_prefix(directory) {
                Ok(name) if path.is_file() => names.push(name.to_string_lossy().into_owned()),
                _ => directories.push(path),
            }
        }
    }
    names.sort();
    Ok(names)
}

pub(super) async fn open(path: &Path) -> Result<tokio::fs::File> {
    let failed = |source| RepositoryError::Read { path: path.to_owned(), source };
    tokio::fs::File::open(path).await.map_err(failed)
}

/// A file's size and its SHA-256, hexadecimal.
pub(super) async fn digest(path: &Path) -> Result<(u64, String)> {
    let mut file = open(path).await?;
    let (mut hasher, mut bytes, mut buffer) = (Sha256::new(), 0, vec![0; PIECE]);
    loop {
        let read = file
            .read(&mut buffer)
            .await
            .map_err(|source| RepositoryError::Read { path: path.to_owned(), source })?;
        if read == 0 {
            return Ok((bytes, hex::encode(hasher.finalize())));
        }
        bytes += read as u64;
        hasher.update(&buffer[..read]);
    }
}

/// Whether the file of that size and digest is the one that was published.
///
/// # Errors
/// [`RepositoryError::BadFile`] if not.
pub(super) fn check_digest(manifest: &Manifest, file: &File, bytes: u64, sha256: &str) -> Result<()> {
    if (bytes, sha256) == (file.bytes, &file.sha256) {
        return Ok(());
    }
    let reason =
        format!("expected {} bytes with SHA-256 {}, found {bytes} with {sha256}", file.bytes, file.sha256);
    Err(RepositoryError::BadFile { file: file.name.clone(), version: manifest.id(), reason })
}
