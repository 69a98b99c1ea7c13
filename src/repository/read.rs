//! One small file of a version, without the others.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::layout::{check_digest, key};
use super::manifest::Manifest;
use super::{Repository, RepositoryError, Result};

/// Largest file that is read into memory: a probe set of 48 texts and 4,096 dimensions has four megabytes.
const SMALL_FILE: u64 = 64 << 20;

impl Repository {
    /// The bytes of the file `name` of a version, of the size and digest that the manifest gives. They are kept in memory.
    ///
    /// # Errors
    /// If the version has no such file, it is another than was published, or the store fails.
    pub async fn read_file(&self, manifest: &Manifest, name: &str) -> Result<Bytes> {
        let bad = |reason: &str| RepositoryError::BadFile {
            file: name.to_owned(),
            version: manifest.id(),
            reason: reason.to_owned(),
        };
        let file = manifest.files.iter().find(|file| file.name == name);
        let file = file.ok_or_else(|| bad("its manifest does not list it"))?;
        let read = self.read(&key(&manifest.model, manifest.version, name), file.bytes.min(SMALL_FILE)).await;
        let bytes = match read {
            Err(error @ (RepositoryError::TooLarge { .. } | RepositoryError::NotAFile { .. })) => {
                return Err(bad(&error.to_string()));
            }
            read => read?.ok_or_else(|| bad("it is not there"))?,
        };
        check_digest(manifest, file, bytes.len() as u64, &hex::encode(Sha256::digest(&bytes)))?;
        Ok(bytes)
    }
}
