//! A version's files on this machine, each as it was published.

use std::fs::File as Lock;
use std::io::ErrorKind;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use futures_util::StreamExt as _;
use object_store::ObjectStoreExt as _;
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt as _;

use super::cache::{CacheSettings, Slot, blocking, create_file, make_directory};
use super::layout::{Pace, check_digest, digest, key};
use super::manifest::{File, Manifest};
use super::recheck::check;
use super::{Repository, RepositoryError, Result, here};

/// The directory in the cache with a version's files. They stay there while this lives.
#[derive(Debug)]
pub struct Fetched {
    directory: PathBuf,
    lock: Lock,
}

impl Deref for Fetched {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.directory
    }
}

impl Drop for Fetched {
    fn drop(&mut self) {
        touch(&self.lock);
    }
}

/// Marks the version as used now. Failing to is no reason to fail: it is removed from the cache a little too early.
fn touch(lock: &Lock) {
    if let Err(error) = lock.set_modified(SystemTime::now()) {
        tracing::debug!(%error, "cannot note the use of a version in the cache");
    }
}

impl Repository {
    /// The directory with a version's files, each of the size and digest that the manifest gives. It is the cache's, also where the
    /// repository is a directory: others write there, and a file that is changed while it is mapped changes vectors, or ends the
    /// process where it becomes shorter. The cache gets what it lacks. A file of the cache that is not as published is replaced.
    ///
    /// # Errors
    /// If a file is missing or another than was published, the manifest does not list what every version has, the store
    /// fails, or the cache cannot be written.
    pub async fn fetch(&self, manifest: &Manifest) -> Result<Fetched> {
        let (model, version) = (manifest.model.clone(), manifest.version);
        manifest.check().map_err(|reason| RepositoryError::BadManifest { model, version, reason })?;
        let cache = &self.cache.private(self.trusted.is_some()).await?;
        let slot = cache.slot(manifest);
        let lock = slot.hold().await?;
        touch(&lock);
        let fetched = Fetched { directory: slot.directory(), lock };
        if fetched.is_dir() && self.damaged(cache, &fetched, manifest).await?.is_empty() {
            return Ok(fetched);
        }
        let brought = self.bring(cache, &slot, &fetched, manifest).await;
        // Again, since two that came at once saw the same room; and for what a fetch that failed left on its way.
        let room = cache.make_room(0).await;
        brought.and(room).map(|()| fetched)
    }

    /// Puts all of a version, or what is damaged of it, into its place in the cache.
    async fn bring(
        &self,
        cache: &CacheSettings,
        slot: &Slot<'_>,
        place: &Path,
        manifest: &Manifest,
    ) -> Result<()> {
        let mut lock = slot.clear_incoming(slot.fetch_alone().await?).await?;
        // Once more: whoever had the lock may have done it.
        if place.is_dir() {
            for (file, reason) in self.damaged(cache, place, manifest).await? {
                tracing::warn!(
                    version = manifest.id(),
                    file = file.name,
                    reason,
                    "damaged in the cache, fetched again"
                );
                let incoming = slot.incoming().join(&file.name);
                self.download(manifest, file, &incoming).await?;
                lock = slot.rename(incoming, &place.join(&file.name), lock).await?;
            }
            return Ok(());
        }
        let bytes = manifest.files.iter().map(|file| file.bytes).sum();
        tracing::info!(version = manifest.id(), bytes, "fetching");
        cache.make_room(bytes).await?;
        for file in &manifest.files {
            self.download(manifest, file, &slot.incoming().join(&file.name)).await?;
        }
        slot.rename(slot.incoming(), place, lock).await.map(drop)
    }

    /// Brings a file from the repository to `target`. One that arrives as another is asked for once more: the second time
    /// tells a slip on the way, or a file that is being written, from a repository that has it wrong.
    async fn download(&self, manifest: &Manifest, file: &File, target: &Path) -> Result<()> {
        match self.download_once(manifest, file, target).await {
            Err(RepositoryError::BadFile { reason, .. }) => {
                tracing::warn!(
                    version = manifest.id(),
                    file = file.name,
                    reason,
                    "arrived damaged, fetched again"
                );
                self.download_once(manifest, file, target).await
            }
            done => done,
        }
    }

    async fn download_once(&self, manifest: &Manifest, file: &File, target: &Path) -> Result<()> {
        let bad = |reason: String| RepositoryError::BadFile {
            file: file.name.clone(),
            version: manifest.id(),
            reason,
        };
        let created = async || {
            blocking(target, |path| {
                path.parent().map_or(Ok(()), make_directory)?;
                create_file(path)
            })
            .await
        };
        if let Some(root) = &self.root {
            let from = here::file(root, &key(&manifest.model, manifest.version, &file.name));
            let (to, most) = (created().await?, file.bytes.saturating_add(1));
            let copied = tokio::task::spawn_blocking(move || here::copy(&from, &to, most)).await;
            return match copied.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
                // What arrived is looked at where it lies: the system may have copied it without showing it to this process.
                Ok(_) => {
                    let (bytes, sha256) = digest(target, Pace::Full).await?;
                    check_digest(manifest, file, bytes, &sha256)
                }
                Err(error) if here::is_missing(&error) => Err(bad("it is not in the repository".to_owned())),
                Err(error) if error.kind() == ErrorKind::InvalidInput => Err(bad(error.to_string())),
                Err(source) => Err(RepositoryError::Cache { path: target.to_owned(), source }),
            };
        }
        let mut pieces = match self.store.get(&key(&manifest.model, manifest.version, &file.name)).await {
            Ok(found) => found.into_stream(),
            Err(object_store::Error::NotFound { .. }) => {
                return Err(bad("it is not in the repository".to_owned()));
            }
            Err(error) => return Err(self.failed(error)),
        };
        let mut written = tokio::fs::File::from_std(created().await?);
        let failed = |source| RepositoryError::Cache { path: target.to_owned(), source };
        let (mut hasher, mut bytes) = (Sha256::new(), 0);
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|error| self.failed(error))?;
            bytes += piece.len() as u64;
            if bytes > file.bytes {
                return Err(bad(format!("expected {} bytes, found more", file.bytes)));
            }
            hasher.update(&piece);
            written.write_all(&piece).await.map_err(failed)?;
        }
        // Not synced: a machine that goes down may leave less, and the next fetch finds it by its digest.
        written.flush().await.map_err(failed)?;
        check_digest(manifest, file, bytes, &hex::encode(hasher.finalize()))
    }

    /// The files in the cache that are not as published, cannot be read, or could be changed by another; and why.
    async fn damaged<'a>(
        &self,
        cache: &CacheSettings,
        place: &Path,
        manifest: &'a Manifest,
    ) -> Result<Vec<(&'a File, String)>> {
        let foreign = cache.foreign(place, manifest).await?;
        let mut found = Vec::new();
        for file in &manifest.files {
            if foreign.contains(&file) {
                found.push((file, "others than this user could change it".to_owned()));
            } else if let Err(error) = check(place, manifest, file, Pace::Full).await {
                found.push((file, error.to_string()));
            }
        }
        Ok(found)
    }
}
