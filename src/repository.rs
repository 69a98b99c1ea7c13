//! Where versions live: `<model>/versions/<n>/`, immutable, published whole or not at all.

mod error;
pub mod manifest;
mod read;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use object_store::buffered::BufWriter;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt as _, PutMode};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

pub use error::RepositoryError;
use manifest::{File, Manifest, SCHEMA};

const MANIFEST: &str = "manifest.toml";
/// Marks a number as taken while its files are written.
const CLAIM: &str = "claim.json";

type Result<T> = std::result::Result<T, RepositoryError>;

/// A repository of models.
#[derive(Clone)]
pub struct Repository {
    pub(crate) store: Arc<dyn ObjectStore>,
    root: PathBuf,
}

impl Repository {
    /// Opens the repository at `url`: a directory, or a `file://` URL. Makes the directory where `create` says so.
    ///
    /// # Errors
    /// If the URL is of another kind or the directory cannot be opened.
    pub fn open(url: &str, create: bool) -> Result<Self> {
        let path = local_path(url)?;
        let failed = |source| RepositoryError::Directory { path: path.clone(), source };
        if create {
            std::fs::create_dir_all(&path).map_err(failed)?;
        }
        let root = path.canonicalize().map_err(failed)?;
        std::fs::read_dir(&root).map_err(failed)?;
        let store = Arc::new(LocalFileSystem::new_with_prefix(&root)?);
        Ok(Self { store, root })
    }

    /// Finds out whether a version of `model` could be published in the repository at `url`, and leaves it as it was: what
    /// takes minutes to make should not be made for a directory that cannot be written.
    ///
    /// # Errors
    /// If not: the URL is of another kind, or the directory cannot be made or written.
    pub async fn check_writable(url: &str, model: &str) -> Result<()> {
        check_name(model)?;
        let versions = local_path(url)?.join(model).join("versions");
        // From the deepest up, as they have to be removed.
        let missing: Vec<&Path> = versions.ancestors().take_while(|path| !path.exists()).collect();
        let probed = async {
            let repository = Self::open(url, true)?;
            // No model's file: those of a version lie one directory deeper. Two imports at once must not meet.
            let name = format!(".sextant-probe-{}-{:016x}", std::process::id(), fastrand::u64(..));
            let probe = Key::from_iter([model, "versions", &name]);
            repository.store.put_opts(&probe, Vec::new().into(), PutMode::Create.into()).await?;
            Ok(repository.store.delete(&probe).await?)
        };
        let probed = probed.await;
        for directory in missing {
            // Refused by the system if another import has put something into it, and then it has to stay.
            let _in_use = std::fs::remove_dir(directory);
        }
        probed
    }

    /// Every model's name, sorted.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn models(&self) -> Result<Vec<String>> {
        let mut names = self.directories(None).await?;
        names.retain(|name| check_name(name).is_ok());
        names.sort();
        Ok(names)
    }

    /// The numbers of a model's published versions, ascending.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn versions(&self, model: &str) -> Result<Vec<u32>> {
        let mut published = Vec::new();
        for number in self.numbers(model).await? {
            match self.store.head(&key(model, number, MANIFEST)).await {
                Ok(_) => published.push(number),
                Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(published)
    }

    /// What a version is.
    ///
    /// # Errors
    /// If there is no such version, or its manifest is damaged, of a newer schema, or describes none that could be served.
    pub async fn manifest(&self, model: &str, version: u32) -> Result<Manifest> {
        let text = match self.store.get(&key(model, version, MANIFEST)).await {
            Ok(found) => found.bytes().await?,
            Err(object_store::Error::NotFound { .. }) => {
                return Err(RepositoryError::NoSuchVersion { model: model.to_owned(), version });
            }
            Err(error) => return Err(error.into()),
        };
        let bad = |reason| RepositoryError::BadManifest { model: model.to_owned(), version, reason };
        let manifest: Manifest = std::str::from_utf8(&text)
            .map_err(|error| bad(error.to_string()))
            .and_then(|text| Manifest::from_toml(text).map_err(bad))?;
        if manifest.schema != SCHEMA {
            return Err(bad(format!("schema {} is not known, this is for schema {SCHEMA}", manifest.schema)));
        }
        if manifest.model != model || manifest.version != version {
            return Err(bad(format!("it says that it is of {}@{}", manifest.model, manifest.version)));
        }
        manifest.check().map_err(bad)?;
        Ok(manifest)
    }

    /// The directory with a version's files, each of the size and digest that the manifest gives.
    ///
    /// # Errors
    /// If a file is missing or another than was published, or the manifest does not list what every version has.
    pub async fn fetch(&self, manifest: &Manifest) -> Result<PathBuf> {
        let (model, version) = (manifest.model.clone(), manifest.version);
        manifest.check().map_err(|reason| RepositoryError::BadManifest { model, version, reason })?;
        let directory = self.root.join(key(&manifest.model, manifest.version, "").as_ref());
        for file in &manifest.files {
            let (bytes, sha256) = digest(&directory.join(&file.name)).await?;
            if (bytes, &sha256) != (file.bytes, &file.sha256) {
                return Err(RepositoryError::BadFile {
                    file: file.name.clone(),
                    version: format!("{}@{}", manifest.model, manifest.version),
                    reason: format!(
                        "expected {} bytes with SHA-256 {}, found {bytes} with {sha256}",
                        file.bytes, file.sha256
                    ),
                });
            }
        }
        Ok(directory)
    }

    /// Publishes the files in `stage` as the next version of `manifest.model` and returns the manifest as written: with
    /// its number and its files. The manifest goes last, so nobody sees half a version.
    ///
    /// # Errors
    /// If the files make no version, or one cannot be read or written. In the last case the number is spent, and the
    /// version never listed.
    pub async fn publish(&self, stage: &Path, mut manifest: Manifest) -> Result<Manifest> {
        check_name(&manifest.model)?;
        manifest.schema = SCHEMA;
        manifest.files = Vec::new();
        for name in file_names(stage)? {
            let (bytes, sha256) = digest(&stage.join(&name)).await?;
            manifest.files.push(File { name, bytes, sha256 });
        }
        // Before the claim: what cannot be served must not cost a number.
        let model = manifest.model.clone();
        manifest.check().map_err(|reason| RepositoryError::NoVersion { model, reason })?;
        manifest.version = self.claim(&manifest.model, &manifest.created).await?;
        for File { name, .. } in &manifest.files {
            self.upload(&stage.join(name), key(&manifest.model, manifest.version, name)).await?;
        }
        let bad = |error: toml::ser::Error| RepositoryError::BadManifest {
            model: manifest.model.clone(),
            version: manifest.version,
            reason: error.to_string(),
        };
        let text = manifest.to_toml().map_err(bad)?;
        let key = key(&manifest.model, manifest.version, MANIFEST);
        self.store.put_opts(&key, text.into(), PutMode::Create.into()).await?;
        Ok(manifest)
    }

    /// Takes the next free number: whoever creates its claim first has it.
    async fn claim(&self, model: &str, created: &str) -> Result<u32> {
        let mut taken = self.numbers(model).await?.last().copied().unwrap_or(0);
        loop {
            let number =
                taken.checked_add(1).ok_or_else(|| RepositoryError::NoNumberLeft(model.to_owned()))?;
            let claim = serde_json::json!({ "created": created }).to_string();
            match self.store.put_opts(&key(model, number, CLAIM), claim.into(), PutMode::Create.into()).await
            {
                Ok(_) => return Ok(number),
                Err(object_store::Error::AlreadyExists { .. }) => taken = number,
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn upload(&self, path: &Path, key: Key) -> Result<()> {
        let failed = |source| RepositoryError::Write { key: key.to_string(), source };
        let mut file = open(path).await?;
        let mut writer = BufWriter::new(Arc::clone(&self.store), key.clone());
        tokio::io::copy(&mut file, &mut writer).await.map_err(failed)?;
        writer.shutdown().await.map_err(failed)
    }

    /// Numbers taken, published or not, ascending.
    async fn numbers(&self, model: &str) -> Result<Vec<u32>> {
        check_name(model)?;
        let names = self.directories(Some(&Key::from_iter([model, "versions"]))).await?;
        let mut numbers: Vec<u32> = names.iter().filter_map(|name| version_number(name)).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    async fn directories(&self, below: Option<&Key>) -> Result<Vec<String>> {
        let listing = self.store.list_with_delimiter(below).await?;
        Ok(listing.common_prefixes.iter().filter_map(|key| key.filename().map(str::to_owned)).collect())
    }
}

/// The directory that `url` names.
fn local_path(url: &str) -> Result<PathBuf> {
    match url.split_once("://") {
        None => Ok(PathBuf::from(url)),
        Some(("file", path)) => Ok(PathBuf::from(path)),
        Some(_) => Err(RepositoryError::UnsupportedUrl(url.to_owned())),
    }
}

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

fn key(model: &str, version: u32, file: &str) -> Key {
    Key::from(format!("{model}/versions/{version}/{file}"))
}

/// The version whose directory `name` is. Only what [`key`] writes is one: `+1`, `01` and `1` would be the same version.
fn version_number(name: &str) -> Option<u32> {
    name.parse().ok().filter(|number: &u32| *number > 0 && number.to_string() == name)
}

/// Names of the files in a directory and those below it, relative to it and sorted.
fn file_names(directory: &Path) -> Result<Vec<String>> {
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

async fn open(path: &Path) -> Result<tokio::fs::File> {
    let failed = |source| RepositoryError::Read { path: path.to_owned(), source };
    tokio::fs::File::open(path).await.map_err(failed)
}

/// A file's size and its SHA-256, hexadecimal.
async fn digest(path: &Path) -> Result<(u64, String)> {
    let mut file = open(path).await?;
    let (mut hasher, mut bytes, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 20]);
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
