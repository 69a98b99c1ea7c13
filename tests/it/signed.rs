//! Signatures over manifests: who is let in, and what is told of the others.

mod cache;
mod commands;
mod serving;

use std::fs;
use std::path::PathBuf;

use sextant::repository::manifest::Manifest;
use sextant::repository::signing::{SigningKey, TrustedKeys};
use sextant::repository::{CacheSettings, Distrust, KeyIds, Repository, RepositoryError};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::repository::{Models, stage};
use crate::support::manifest;

/// Keys in files.
pub struct Keys {
    directory: TempDir,
}

impl Keys {
    pub fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    /// The file of the private key of that name, made if it is not there.
    pub fn private(&self, name: &str) -> PathBuf {
        let path = self.directory.path().join(format!("{name}.pem"));
        if !path.exists() {
            SigningKey::create(&path).unwrap();
        }
        path
    }

    pub fn key(&self, name: &str) -> SigningKey {
        SigningKey::read(&self.private(name)).unwrap()
    }

    /// A file with the public keys of these names.
    pub fn public(&self, names: &[&str]) -> PathBuf {
        let keys = names.iter().map(|name| format!("# {name}\n{}", self.key(name).public().to_pem()));
        let path = self.directory.path().join(format!("{}.pub", names.join("+")));
        fs::write(&path, keys.collect::<String>()).unwrap();
        path
    }

    /// `models`, which gives nothing that none of these signed.
    fn over(&self, models: &Models, names: &[&str], cache: &TempDir) -> Repository {
        let trusted = TrustedKeys::read(&self.public(names)).unwrap();
        models.repository.clone().trusting(trusted, cached(cache))
    }

    fn id(&self, name: &str) -> String {
        self.key(name).public().id
    }
}

fn cached(cache: &TempDir) -> CacheSettings {
    CacheSettings::new(Some(cache.path().to_owned()), None)
}

/// A repository with a version `m@1` that is no model.
async fn published() -> Models {
    let models = Models::new();
    models.repository.publish(stage().path(), manifest("m", 8)).await.unwrap();
    models
}

/// Why `m@1` is not trusted.
async fn distrust(repository: &Repository) -> Distrust {
    match repository.manifest("m", 1).await.unwrap_err() {
        RepositoryError::NotTrusted { reason, .. } => reason,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_version_is_given_if_one_of_the_trusted_keys_signed_it() {
    let (models, keys, cache) = (published().await, Keys::new(), tempfile::tempdir().unwrap());
    let trusting = keys.over(&models, &["old", "release"], &cache);
    assert_eq!(distrust(&trusting).await, Distrust::Unsigned);
    let error = trusting.manifest("m", 1).await.unwrap_err().to_string();
    assert!(error.starts_with("m@1 is not signed as this place requires: it has no signature; "), "{error}");

    models.repository.sign("m", 1, &keys.key("stranger"), None).await.unwrap();
    assert_eq!(distrust(&trusting).await, Distrust::UnknownKeys(KeyIds(vec![keys.id("stranger")])));

    models.repository.sign("m", 1, &keys.key("release"), None).await.unwrap();
    let found = trusting.find("m", 1).await.unwrap();
    assert_eq!((found.manifest.version, found.signer.unwrap().name.as_str()), (1, "release"));
    // Once more is no mistake.
    models.repository.sign("m", 1, &keys.key("release"), None).await.unwrap();
    let mut both = vec![keys.id("release"), keys.id("stranger")];
    both.sort();
    assert_eq!(models.repository.signatures("m", 1).await.unwrap(), KeyIds(both));
    // Nobody else has to care.
    assert_eq!(models.repository.find("m", 1).await.unwrap().signer, None);
}

#[tokio::test]
async fn whatever_is_changed_of_what_was_signed_is_told() {
    let (models, keys, cache) = (published().await, Keys::new(), tempfile::tempdir().unwrap());
    let trusting = keys.over(&models, &["release"], &cache);
    models.repository.sign("m", 1, &keys.key("release"), None).await.unwrap();
    let signature = models.path(&format!("m/versions/1/signatures/{}.sig", keys.id("release")));
    let good = fs::read(&signature).unwrap();
    assert_eq!(good.len(), 64);
    let trusted = TrustedKeys::read(&keys.public(&["release"])).unwrap();
    let mismatch = Distrust::Mismatch(trusted.keys()[0].clone());
    for bad in [&[][..], &good[..63], &[0; 64], &[1; 65], &[0; 100_000]] {
        fs::write(&signature, bad).unwrap();
        assert_eq!(distrust(&trusting).await, mismatch);
        let blocked =
            models.repository.sign("m", 1, &keys.key("release"), None).await.unwrap_err().to_string();
        assert!(blocked.contains(".sig` cannot be written") && blocked.contains("remove it"), "{blocked}");
    }
    for bit in [0, 300, 511] {
        let mut flipped = good.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        fs::write(&signature, flipped).unwrap();
        assert_eq!(distrust(&trusting).await, mismatch);
    }
    fs::write(&signature, &good).unwrap();
    trusting.manifest("m", 1).await.unwrap();

    // A manifest with a seal of its own, as whoever can write the repository can make one.
    let path = models.path("m/versions/1/manifest.toml");
    let sealed = fs::read(&path).unwrap();
    let mut other = models.repository.manifest("m", 1).await.unwrap();
    other.licence = "another".to_owned();
    fs::write(&path, other.to_toml().unwrap()).unwrap();
    models.repository.manifest("m", 1).await.unwrap();
    assert_eq!(distrust(&trusting).await, mismatch);
    // The same fields in other bytes are not what was signed either.
    fs::write(&path, [&sealed[..], b"\n"].concat()).unwrap();
    assert_eq!(distrust(&trusting).await, mismatch);
    fs::write(&path, &sealed).unwrap();
    trusting.manifest("m", 1).await.unwrap();

    // The signature of another version is none of this one.
    models.repository.publish(stage().path(), manifest("m", 8)).await.unwrap();
    fs::create_dir(models.path("m/versions/2/signatures")).unwrap();
    fs::copy(&signature, models.path("m/versions/2/signatures").join(signature.file_name().unwrap()))
        .unwrap();
    let error = trusting.manifest("m", 2).await.unwrap_err().to_string();
    assert!(
        error.contains("m@2")
            && error.contains("the signature by release (")
            && error.contains("does not match"),
        "{error}"
    );
}

#[tokio::test]
async fn what_is_signed_is_what_was_made_or_looked_at_and_no_other() {
    let (models, keys, cache) = (published().await, Keys::new(), tempfile::tempdir().unwrap());
    let trusting = keys.over(&models, &["release"], &cache);
    let made = models.repository.find("m", 1).await.unwrap();
    // Somebody who can write the repository puts another in its place before it is signed.
    let path = models.path("m/versions/1/manifest.toml");
    let published = fs::read(&path).unwrap();
    assert_eq!(made.sha256, hex::encode(Sha256::digest(&published)));
    let other = Manifest { licence: "another".to_owned(), ..made.manifest.clone() };
    fs::write(&path, other.to_toml().unwrap()).unwrap();
    let signed = models.repository.sign("m", 1, &keys.key("release"), Some(&made.sha256)).await;
    let error = signed.unwrap_err().to_string();
    let other = models.repository.find("m", 1).await.unwrap().sha256;
    assert!(error.contains(&format!("has the SHA-256 {other}, and not {}", made.sha256)), "{error}");
    assert_eq!(distrust(&trusting).await, Distrust::Unsigned);

    models.repository.sign_published(&made.manifest, &keys.key("release")).await.unwrap();
    assert!(matches!(distrust(&trusting).await, Distrust::Mismatch(_)));
    fs::write(&path, published).unwrap();
    assert_eq!(trusting.find("m", 1).await.unwrap().manifest, made.manifest);
    let again = models.repository.sign("m", 1, &keys.key("release"), Some(&made.sha256)).await.unwrap();
    assert_eq!(again, made.sha256);
}

/// Whoever can write the repository can fill that directory.
#[tokio::test]
async fn of_what_lies_among_the_signatures_only_few_names_of_keys_are_told() {
    let (models, keys, cache) = (published().await, Keys::new(), tempfile::tempdir().unwrap());
    let trusting = keys.over(&models, &["release"], &cache);
    let directory = models.path("m/versions/1/signatures");
    fs::create_dir_all(directory.join("deep")).unwrap();
    let long = "0".repeat(200);
    for name in ["x.sig", "0123456789ABCDEF.sig", "0123456789abcdef", "deep/0123456789abcdef.sig", &long] {
        fs::write(directory.join(name), "").unwrap();
    }
    assert_eq!(distrust(&trusting).await, Distrust::Unsigned);
    for number in 0..20 {
        fs::write(directory.join(format!("{number:016x}.sig")), "").unwrap();
    }
    let told = distrust(&trusting).await.to_string();
    assert!(told.ends_with(", 0000000000000006, 0000000000000007 and 12 more"), "{told}");
    models.repository.sign("m", 1, &keys.key("release"), None).await.unwrap();
    trusting.manifest("m", 1).await.unwrap();
}
