//! Where versions live: `<model>/versions/<n>/`, immutable, published whole or not at all; in a directory or a bucket.

mod abandoned;
mod cache;
mod error;
mod fetch;
mod here;
mod layout;
pub mod manifest;
mod numbered;
mod publish;
mod read;
mod recheck;
mod signed;
pub mod signing;
mod store;

use std::env;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::{GetResult, ObjectMeta, ObjectStore, ObjectStoreExt as _, PutMode};

pub use cache::CacheSettings;
pub use error::RepositoryError;
pub use fetch::Fetched;
pub use layout::check_name;
use layout::{MANIFEST, key, version_number};
use manifest::{Manifest, SCHEMA};
pub(crate) use numbered::{LAST_NUMBER, Listed, Numbered};
pub use recheck::Changed;
pub use signed::{Distrust, Found, KeyIds};
use signing::TrustedKeys;
use store::Place;

use crate::files::said;

type Result<T> = std::result::Result<T, RepositoryError>;

/// Questions asked of a bucket at once where each is of one version.
const AT_ONCE: usize = 16;

/// A manifest is of some kilobytes; one of ten thousand files and as many prompts is below this. More is not read into memory.
const MANIFEST_BYTES: u64 = 4 << 20;

/// A repository of models.
#[derive(Clone)]
pub struct Repository {
    store: Arc<dyn ObjectStore>,
    /// As errors name it.
    url: String,
    /// The repository's directory, if it is one and no bucket.
    root: Option<PathBuf>,
    /// Where the files of versions are kept on this machine while they are used.
    cache: CacheSettings,
    /// Of which one must have signed a version.
    trusted: Option<TrustedKeys>,
}

impl Repository {
    /// Opens the repository at `url`: a directory, a `file://` URL, or a bucket and a prefix in it (`s3://`, `gs://`,
    /// `az://`), whose credentials and endpoint are taken from the environment. Makes a directory where `create` says so;
    /// a bucket is not asked anything yet.
    ///
    /// # Errors
    /// If the URL is of another kind, the directory cannot be opened, or the environment is not enough for the bucket.
    pub fn open(url: &str, create: bool) -> Result<Self> {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self::open_with(url, create, &env::vars_os().filter_map(text).collect::<Vec<_>>())
    }

    /// [`Repository::open`] with `variables`, names and values, as the environment.
    ///
    /// # Errors
    /// The same.
    pub fn open_with(url: &str, create: bool, variables: &[(String, String)]) -> Result<Self> {
        let cache = CacheSettings::new(None, None);
        let path = match Place::parse(url)? {
            Place::Directory(path) => path,
            Place::Bucket(bucket) => {
                let (store, url) = (bucket.connect(variables)?, bucket.url().to_owned());
                return Ok(Self { store, url, root: None, cache, trusted: None });
            }
        };
        let failed = |source| RepositoryError::Directory { path: path.clone(), source };
        if create {
            std::fs::create_dir_all(&path).map_err(failed)?;
        }
        let root = path.canonicalize().map_err(failed)?;
        std::fs::read_dir(&root).map_err(failed)?;
        let store = LocalFileSystem::new_with_prefix(&root)
            .map_err(|source| RepositoryError::of_store(url, source))?
            // Whoever was told that a version serves must find it so after a power cut.
            .with_fsync(true);
        Ok(Self { store: Arc::new(store), url: url.to_owned(), root: Some(root), cache, trusted: None })
    }

    /// The same with its versions kept as `cache` says while they are used.
    #[must_use]
    pub fn with_cache(mut self, cache: CacheSettings) -> Self {
        self.cache = cache;
        self
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
        let published = async |number| {
            let manifest = key(model, number, MANIFEST);
            if let Some(root) = &self.root {
                return Ok(here::is_there(root, &manifest).await?.then_some(number));
            }
            match self.store.head(&manifest).await {
                Ok(_) => Ok(Some(number)),
                Err(object_store::Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(self.failed(error)),
            }
        };
        let numbers = futures_util::stream::iter(self.numbers(model).await?).map(published);
        numbers.buffered(AT_ONCE).try_filter_map(async |number| Ok(number)).try_collect().await
    }

    /// What a version is.
    ///
    /// # Errors
    /// If there is no such version, no key signed it that must have, or its manifest is damaged, of a newer schema, or describes none
    /// that could be served.
    pub async fn manifest(&self, model: &str, version: u32) -> Result<Manifest> {
        Ok(self.find(model, version).await?.manifest)
    }

    fn parse_manifest(model: &str, version: u32, text: &[u8]) -> Result<Manifest> {
        let bad = |reason: String| {
            let reason = said(&reason);
            RepositoryError::BadManifest { model: model.to_owned(), version, reason }
        };
        let manifest: Manifest = std::str::from_utf8(text)
            .map_err(|error| bad(error.to_string()))
            .and_then(|text| Manifest::from_toml(text).map_err(bad))?;
        if !(1..=SCHEMA).contains(&manifest.schema) {
            return Err(bad(format!("schema {} is not known, this is for schema {SCHEMA}", manifest.schema)));
        }
        if manifest.model != model || manifest.version != version {
            return Err(bad(format!("it says that it is of {}@{}", manifest.model, manifest.version)));
        }
        manifest.check().map_err(bad)?;
        Ok(manifest)
    }

    /// What lies below a directory and comes after `after` in the order of the keys' bytes, in no order.
    async fn list_after(&self, directory: &Key, after: &Key) -> Result<Vec<ObjectMeta>> {
        let listing = self.store.list_with_offset(Some(directory), after);
        listing.try_collect().await.map_err(|error| self.failed(error))
    }

    /// An object's bytes, `None` if there is no such object. One of more than `most` bytes is refused, and not read: whoever can write
    /// here must not fill the memory of those who read.
    pub(crate) async fn read(&self, key: &Key, most: u64) -> Result<Option<Bytes>> {
        if let Some(root) = &self.root {
            return here::read(root, key, most).await;
        }
        let found = match self.store.get(key).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(self.failed(error)),
        };
        let GetResult { meta: ObjectMeta { size, .. }, .. } = &found;
        if *size > most {
            return Err(RepositoryError::TooLarge { key: key.to_string(), bytes: *size, most });
        }
        found.bytes().await.map(Some).map_err(|error| self.failed(error))
    }

    /// Writes an object if there is none of that name: the one primitive that keeps writers apart, on every store. Whether
    /// it did: an answer that was lost on the way is asked for again, and the object that this made is then another's.
    pub(crate) async fn create(&self, key: &Key, bytes: Vec<u8>) -> Result<bool> {
        match self.store.put_opts(key, bytes.into(), PutMode::Create.into()).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
            Err(error) => Err(self.failed(error)),
        }
    }

    fn failed(&self, source: object_store::Error) -> RepositoryError {
        RepositoryError::of_store(&self.url, source)
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
        let listing = self.store.list_with_delimiter(below).await.map_err(|error| self.failed(error))?;
        Ok(listing.common_prefixes.iter().filter_map(|key| key.filename().map(str::to_owned)).collect())
    }
}
