//! Signatures in the repository, `versions/<n>/signatures/<key id>.sig`: 64 bytes over the very bytes of `manifest.toml`, which has the
//! digest of every other file of the version.

use std::fmt;

use object_store::ObjectStore as _;
use object_store::path::Path as Key;
use sha2::{Digest, Sha256};

use super::layout::{MANIFEST, key};
use super::manifest::Manifest;
use super::signing::{PublicKey, SIGNATURE_BYTES, SigningKey, TrustedKeys};
use super::{CacheSettings, MANIFEST_BYTES, Repository, RepositoryError, Result};

const DIRECTORY: &str = "signatures";
const EXTENSION: &str = ".sig";

/// Keys that an error names: whoever can write here can put any number of signatures here.
const MOST_NAMED: usize = 8;

/// A manifest as it lies in the repository.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// What it says.
    pub manifest: Manifest,
    /// SHA-256 of its bytes, hexadecimal: what `sextant sign --sha256` takes.
    pub sha256: String,
    /// The trusted key that signed it, where one must have.
    pub signer: Option<PublicKey>,
}

/// Why a manifest is not trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Distrust {
    /// Nobody signed it.
    Unsigned,
    /// Others signed it.
    UnknownKeys(KeyIds),
    /// What lies there as the signature of this key is none over this manifest.
    Mismatch(PublicKey),
}

impl fmt::Display for Distrust {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsigned => formatter.write_str("it has no signature"),
            Self::UnknownKeys(ids) => {
                write!(formatter, "it is signed by no key that is trusted, only by {ids}")
            }
            Self::Mismatch(key) => write!(formatter, "the signature by {key} does not match its manifest"),
        }
    }
}

/// Whose signatures lie beside a manifest, good or not: the ids of their keys, sorted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyIds(pub Vec<String>);

impl fmt::Display for KeyIds {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(ids) = self;
        let named = &ids[..ids.len().min(MOST_NAMED)];
        formatter.write_str(&named.join(", "))?;
        match ids.len() - named.len() {
            0 => Ok(()),
            more => write!(formatter, " and {more} more"),
        }
    }
}

impl Repository {
    /// The same that gives no manifest which none of `keys` signed, and keeps versions as `cache` says. Nobody but root and this user may
    /// be able to put another directory in the cache's place then.
    #[must_use]
    pub fn trusting(mut self, keys: TrustedKeys, cache: CacheSettings) -> Self {
        self.trusted = Some(keys);
        self.cache = cache;
        self
    }

    /// Signs the manifest of a version as it lies there and returns its SHA-256. Where `expected` is given, it must be that. A signature
    /// by the same key that is there already stays, if it is good.
    ///
    /// # Errors
    /// If there is no such version, its manifest is damaged or another, something else has the signature's name, or the repository fails.
    pub async fn sign(
        &self,
        model: &str,
        version: u32,
        signer: &SigningKey,
        expected: Option<&str>,
    ) -> Result<String> {
        let text = self.manifest_text(model, version).await?;
        let found = sha256(&text);
        if let Some(expected) = expected.filter(|expected| *expected != found) {
            let (model, expected) = (model.to_owned(), expected.to_owned());
            return Err(RepositoryError::OtherManifest { model, version, found, expected });
        }
        Self::parse_manifest(model, version, &text)?;
        self.put_signature(model, version, &text, signer).await?;
        Ok(found)
    }

    /// Signs what [`publish`](Self::publish) wrote and returned. What lies there by now is not asked: it may be another's.
    ///
    /// # Errors
    /// If something else has the signature's name, or the repository fails.
    pub async fn sign_published(&self, manifest: &Manifest, signer: &SigningKey) -> Result<()> {
        let text = manifest.to_toml().map_err(|error| RepositoryError::BadManifest {
            model: manifest.model.clone(),
            version: manifest.version,
            reason: error.to_string(),
        })?;
        self.put_signature(&manifest.model, manifest.version, text.as_bytes(), signer).await
    }

    async fn put_signature(&self, model: &str, version: u32, text: &[u8], signer: &SigningKey) -> Result<()> {
        let public = signer.public();
        let place = signature_key(model, version, &public);
        if self.create(&place, signer.sign(text)).await?
            || self.signature_by(model, version, text, &public).await? == Some(true)
        {
            return Ok(());
        }
        Err(RepositoryError::SignatureBlocked { key: place.to_string() })
    }

    /// Whose signatures lie beside a manifest.
    ///
    /// # Errors
    /// If the repository fails.
    pub async fn signatures(&self, model: &str, version: u32) -> Result<KeyIds> {
        let directory = key(model, version, DIRECTORY);
        let listing =
            self.store.list_with_delimiter(Some(&directory)).await.map_err(|error| self.failed(error))?;
        let id =
            |key: &Key| key.filename()?.strip_suffix(EXTENSION).filter(|id| is_key_id(id)).map(str::to_owned);
        let mut ids: Vec<String> = listing.objects.iter().filter_map(|object| id(&object.location)).collect();
        ids.sort();
        Ok(KeyIds(ids))
    }

    /// The trusted key that signed `text`, the manifest of that version; none where no signature is required.
    ///
    /// # Errors
    /// [`RepositoryError::NotTrusted`] if none did; or the repository fails.
    async fn check_signature(&self, model: &str, version: u32, text: &[u8]) -> Result<Option<PublicKey>> {
        let Some(trusted) = &self.trusted else { return Ok(None) };
        let mut mismatch = None;
        for public in trusted.keys() {
            match self.signature_by(model, version, text, public).await? {
                Some(true) => return Ok(Some(public.clone())),
                Some(false) => mismatch = Some(Distrust::Mismatch(public.clone())),
                None => {}
            }
        }
        let reason = match mismatch {
            Some(mismatch) => mismatch,
            None => match self.signatures(model, version).await? {
                KeyIds(ids) if ids.is_empty() => Distrust::Unsigned,
                ids => Distrust::UnknownKeys(ids),
            },
        };
        Err(RepositoryError::NotTrusted { model: model.to_owned(), version, reason })
    }

    /// Whether the signature by this key is one over `text`; none if there is no such signature.
    async fn signature_by(
        &self,
        model: &str,
        version: u32,
        text: &[u8],
        public: &PublicKey,
    ) -> Result<Option<bool>> {
        match self.read(&signature_key(model, version, public), SIGNATURE_BYTES as u64).await {
            Ok(signature) => Ok(signature.map(|signature| public.verifies(text, &signature))),
            Err(RepositoryError::TooLarge { .. } | RepositoryError::NotAFile { .. }) => Ok(Some(false)),
            Err(error) => Err(error),
        }
    }

    /// What a version is, and how its manifest lies there.
    ///
    /// # Errors
    /// As [`manifest`](Self::manifest).
    pub async fn find(&self, model: &str, version: u32) -> Result<Found> {
        let text = self.manifest_text(model, version).await?;
        // Before anything of it is believed, and on the very bytes that are read below.
        let signer = self.check_signature(model, version, &text).await?;
        Ok(Found { manifest: Self::parse_manifest(model, version, &text)?, sha256: sha256(&text), signer })
    }

    /// The bytes of a manifest as they lie there.
    async fn manifest_text(&self, model: &str, version: u32) -> Result<bytes::Bytes> {
        match self.read(&key(model, version, MANIFEST), MANIFEST_BYTES).await {
            Ok(Some(text)) => Ok(text),
            Ok(None) => {
                // A bucket that is not there has no objects either, and should be told from one that is.
                self.directories(None).await?;
                Err(RepositoryError::NoSuchVersion { model: model.to_owned(), version })
            }
            Err(error @ (RepositoryError::TooLarge { .. } | RepositoryError::NotAFile { .. })) => {
                Err(RepositoryError::BadManifest {
                    model: model.to_owned(),
                    version,
                    reason: error.to_string(),
                })
            }
            Err(error) => Err(error),
        }
    }
}

fn signature_key(model: &str, version: u32, public: &PublicKey) -> Key {
    key(model, version, &format!("{DIRECTORY}/{}{EXTENSION}", public.id))
}

fn is_key_id(text: &str) -> bool {
    text.len() == 16 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn sha256(text: &[u8]) -> String {
    hex::encode(Sha256::digest(text))
}
