//! One small file of a version, without the others.

use bytes::Bytes;
use object_store::ObjectStoreExt as _;
use sha2::{Digest, Sha256};

use super::manifest::Manifest;
use super::{Repository, RepositoryError, key};

impl Repository {
    /// The bytes of the file `name` of a version, of the size and digest that the manifest gives. They are kept in memory.
    ///
    /// # Errors
    /// If the version has no such file, it is another than was published, or the store fails.
    pub async fn read(&self, manifest: &Manifest, name: &str) -> Result<Bytes, RepositoryError> {
        let bad = |reason| RepositoryError::BadFile {
            file: name.to_owned(),
            version: format!("{}@{}", manifest.model, manifest.version),
            reason,
        };
        let Some(file) = manifest.files.iter().find(|file| file.name == name) else {
            return Err(bad("its manifest does not list it".to_owned()));
        };
        let bytes = match self.store.get(&key(&manifest.model, manifest.version, name)).await {
            Ok(found) => found.bytes().await?,
            Err(object_store::Error::NotFound { .. }) => return Err(bad("it is not there".to_owned())),
            Err(error) => return Err(error.into()),
        };
        let sha256 = hex::encode(Sha256::digest(&bytes));
        if (bytes.len() as u64, &sha256) != (file.bytes, &file.sha256) {
            return Err(bad(format!(
                "expected {} bytes with SHA-256 {}, found {} with {sha256}",
                file.bytes,
                file.sha256,
                bytes.len()
            )));
        }
        Ok(bytes)
    }
}
