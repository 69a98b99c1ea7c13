//! Publishing: a number is claimed before the files are written, and the manifest goes last, so that two importers never
//! collide and nobody sees half a version.

use std::path::Path;
use std::sync::Arc;

use bytes::BytesMut;
use object_store::ObjectStoreExt as _;
use object_store::buffered::BufWriter;
use object_store::path::Path as Key;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::layout::{CLAIM, MANIFEST, PIECE, Pace, check_name, digest, file_names, key, open};
use super::manifest::{File, Manifest};
use super::store::Place;
use super::{MANIFEST_BYTES, Repository, RepositoryError, Result};

/// How names of files begin by which [`Repository::check_writable`] finds out what a store takes.
pub(super) const PROBE: &str = ".sextant-probe-";

impl Repository {
    /// Finds out whether a version of `model` could be published in the repository at `url`, and leaves it as it was: what
    /// takes minutes to make should not be made for a place that cannot be written.
    ///
    /// # Errors
    /// If not: the URL is of another kind, the directory cannot be made or written, the bucket is not there or refuses, or
    /// it would let two importers have one number.
    pub async fn check_writable(url: &str, model: &str) -> Result<()> {
        check_name(model)?;
        let Place::Directory(root) = Place::parse(url)? else {
            return Self::open(url, true)?.probe(model).await;
        };
        let versions = root.join(model).join("versions");
        // From the deepest up, as they have to be removed.
        let missing: Vec<&Path> = versions.ancestors().take_while(|path| !path.exists()).collect();
        let probed = async { Self::open(url, true)?.probe(model).await }.await;
        for directory in missing {
            // Refused by the system if another import has put something into it, and then it has to stay.
            let _in_use = std::fs::remove_dir(directory);
        }
        probed
    }

    /// Creates an object where versions lie, and removes it.
    async fn probe(&self, model: &str) -> Result<()> {
        // No model's file: those of a version lie one directory deeper. Two imports at once must not meet.
        let name = format!("{PROBE}{}-{:016x}", std::process::id(), fastrand::u64(..));
        let probe = Key::from_iter([model, "versions", &name]);
        self.create(&probe, Vec::new()).await?;
        // A store that does not know the condition overwrites, and says nothing.
        let twice = self.create(&probe, Vec::new()).await;
        match self.store.delete(&probe).await.map_err(|error| self.failed(error)) {
            // Who may publish need not be allowed to delete, and versions are never deleted. An empty object stays.
            Err(RepositoryError::Refused { .. }) => {}
            deleted => deleted?,
        }
        if twice? { Err(RepositoryError::NoCreate { url: self.url.clone() }) } else { Ok(()) }
    }

    /// Publishes the files in `stage` as the next version of `manifest.model` and returns the manifest as written: with
    /// its number and its files. The manifest goes last, so nobody sees half a version.
    ///
    /// # Errors
    /// If the files make no version, or one cannot be read or written. In the last case the number is spent, and the
    /// version never listed.
    pub async fn publish(&self, stage: &Path, mut manifest: Manifest) -> Result<Manifest> {
        check_name(&manifest.model)?;
        manifest.schema = manifest.oldest_schema();
        manifest.files = Vec::new();
        for name in file_names(stage)? {
            let (bytes, sha256) = digest(&stage.join(&name), Pace::Full).await?;
            manifest.files.push(File { name, bytes, sha256 });
        }
        // Before the claim: what cannot be served must not cost a number.
        let model = manifest.model.clone();
        manifest.check().map_err(|reason| RepositoryError::NoVersion { model, reason })?;
        self.remove_abandoned(&manifest.model).await;
        manifest.version = self.claim(&manifest.model, &manifest.created).await?;
        if let Err(error) = self.upload_files(stage, &manifest).await {
            // On a full disk each attempt would take more of it. If this fails too, the first reason is the one to tell.
            for File { name, .. } in &manifest.files {
                let _is_left = self.store.delete(&key(&manifest.model, manifest.version, name)).await;
            }
            return Err(error);
        }
        let bad = |reason| RepositoryError::BadManifest {
            model: manifest.model.clone(),
            version: manifest.version,
            reason,
        };
        let text = manifest.to_toml().map_err(|error| bad(error.to_string()))?;
        let key = key(&manifest.model, manifest.version, MANIFEST);
        // The number is ours. If there is a manifest, an attempt whose answer was lost has written it, or somebody who
        // heeds no claim.
        if !self.create(&key, text.clone().into()).await?
            && self.read(&key, MANIFEST_BYTES).await? != Some(text.into())
        {
            return Err(bad("somebody else wrote it, past the claim".to_owned()));
        }
        Ok(manifest)
    }

    /// Takes the next free number: whoever creates its claim first has it.
    async fn claim(&self, model: &str, created: &str) -> Result<u32> {
        let mut taken = self.numbers(model).await?.last().copied().unwrap_or(0);
        loop {
            let number =
                taken.checked_add(1).ok_or_else(|| RepositoryError::NoNumberLeft(model.to_owned()))?;
            let claim = serde_json::json!({ "created": created }).to_string();
            if self.create(&key(model, number, CLAIM), claim.into()).await? {
                return Ok(number);
            }
            taken = number;
        }
    }

    async fn upload_files(&self, stage: &Path, manifest: &Manifest) -> Result<()> {
        for File { name, .. } in &manifest.files {
            self.upload(&stage.join(name), key(&manifest.model, manifest.version, name)).await?;
        }
        Ok(())
    }

    /// Writes a file to the store, in several parts if it is large.
    async fn upload(&self, path: &Path, key: Key) -> Result<()> {
        let read = |source| RepositoryError::Read { path: path.to_owned(), source };
        let mut file = open(path).await?;
        let mut writer = BufWriter::new(Arc::clone(&self.store), key.clone());
        let sent: Result<()> = async {
            loop {
                let mut piece = BytesMut::with_capacity(PIECE);
                if file.read_buf(&mut piece).await.map_err(read)? == 0 {
                    return Ok(());
                }
                writer.put(piece.freeze()).await.map_err(|error| self.failed(error))?;
            }
        }
        .await;
        if let Err(error) = sent {
            // A bucket keeps the parts of an upload that nobody ends, and bills them. If this fails too, the first reason
            // is the one to tell.
            let _parts_stay = writer.abort().await;
            return Err(error);
        }
        writer.shutdown().await.map_err(|source| RepositoryError::Write { key: key.to_string(), source })
    }
}
