//! Signatures in the repository, `versions/<n>/signatures/<key id>.sig`: 64 bytes over the very bytes of `manifest.toml`, which has the
//! digest of every other file of the version.

use std::fmt;

use object_store::path::Path as Key;

use super::layout::{MANIFEST, key};
use super::manifest::Manifest;
use super::signing::{PublicKey, SIGNATURE_BYTES, SigningKey, TrustedKeys};
use super::{CacheSettings, Files, MANIFEST_BYTES, Repository, RepositoryError, Result};

const DIRECTORY: &str = "signatures";
const EXTENSION: &str = ".sig";

/// Why a manifest is not trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Distrust {
    /// Nobody signed it.
    Unsigned,
    /// Others signed it; the ids of their keys.
    UnknownKeys(Vec<String>),
    /// What lies there as the signature of this key is none over this manifest.
    Mismatch(PublicKey),
}

impl fmt::Display for Distrust {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsigned => formatter.write_str("it has no signature"),
            Self::UnknownKeys(ids) => {
                write!(formatter, "it is signed by no key that is trusted, only by {}", ids.join(", "))
            }
            Self::Mismatch(key) => write!(formatter, "the signature by {key} does not match its manifest"),
        }
    }
}

impl Repository {
    /// The same that gives no manifest which none of `keys` signed. Versions of a directory are copied to the cache then, as those of a
    /// bucket: whoever can write the directory could change a file after its digest was checked.
    #[must_use]
    pub fn trusting(mut self, keys: TrustedKeys, cache: CacheSettings) -> Self {
        self.trusted = Some(keys);
        self.files = Files::Cached(cache);
        self
    }

    /// Signs the manifest of a version. A signature by the same key that is there already stays, if it is good.
    ///
    /// # Errors
    /// If there is no such version, its manifest is damaged, something else has the signature's name, or the repository fails.
    pub async fn sign(&self, model: &str, version: u32, signer: &SigningKey) -> Result<Manifest> {
        let text = self.manifest_text(model, version).await?;
        let manifest = Self::parse_manifest(model, version, &text)?;
        let public = signer.public();
        let place = signature_key(model, version, &public);
        if !self.create(&place, signer.sign(&text)).await?
            && !self.is_signed_by(model, version, &text, &public).await?
        {
            return Err(RepositoryError::SignatureBlocked { key: place.to_string() });
        }
        Ok(manifest)
    }

    /// The ids of the keys whose signatures lie beside a manifest, good or not, sorted.
    ///
    /// # Errors
    /// If the repository fails.
    pub async fn signatures(&self, model: &str, version: u32) -> Result<Vec<String>> {
        let directory = key(model, version, DIRECTORY);
        let objects = self.list_after(&directory, &directory).await?;
        let id = |key: &Key| Some(key.filename()?.strip_suffix(EXTENSION)?.to_owned());
        let mut ids: Vec<String> = objects.iter().filter_map(|object| id(&object.location)).collect();
        ids.sort();
        Ok(ids)
    }

    /// The trusted key that signed `text`, the manifest of that version; none where no signature is required.
    ///
    /// # Errors
    /// [`RepositoryError::NotTrusted`] if none did; or the repository fails.
    pub(super) async fn check_signature(
        &self,
        model: &str,
        version: u32,
        text: &[u8],
    ) -> Result<Option<PublicKey>> {
        let Some(trusted) = &self.trusted else { return Ok(None) };
        let ids = self.signatures(model, version).await?;
        let mut distrust =
            if ids.is_empty() { Distrust::Unsigned } else { Distrust::UnknownKeys(ids.clone()) };
        for public in trusted.keys().iter().filter(|public| ids.contains(&public.id)) {
            if self.is_signed_by(model, version, text, public).await? {
                return Ok(Some(public.clone()));
            }
            distrust = Distrust::Mismatch(public.clone());
        }
        Err(RepositoryError::NotTrusted { model: model.to_owned(), version, reason: distrust })
    }

    async fn is_signed_by(&self, model: &str, version: u32, text: &[u8], public: &PublicKey) -> Result<bool> {
        match self.read(&signature_key(model, version, public), SIGNATURE_BYTES as u64).await {
            Ok(signature) => Ok(signature.is_some_and(|signature| public.verifies(text, &signature))),
            Err(RepositoryError::TooLarge { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The bytes of a manifest as they lie there.
    pub(super) async fn manifest_text(&self, model: &str, version: u32) -> Result<bytes::Bytes> {
        match self.read(&key(model, version, MANIFEST), MANIFEST_BYTES).await {
            Ok(Some(text)) => Ok(text),
            Ok(None) => {
                // A bucket that is not there has no objects either, and should be told from one that is.
                self.directories(None).await?;
                Err(RepositoryError::NoSuchVersion { model: model.to_owned(), version })
            }
            Err(error @ RepositoryError::TooLarge { .. }) => Err(RepositoryError::BadManifest {
                model: model.to_owned(),
                version,
                reason: error.to_string(),
            }),
            Err(error) => Err(error),
        }
    }
}

fn signature_key(model: &str, version: u32, public: &PublicKey) -> Key {
    key(model, version, &format!("{DIRECTORY}/{}{EXTENSION}", public.id))
}
