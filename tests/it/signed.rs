//! Signatures over manifests: who is let in, and what is told of the others.

mod commands;
mod serving;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use sextant::repository::signing::{SigningKey, TrustedKeys};
use sextant::repository::{CacheSettings, Distrust, Repository, RepositoryError};
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

    models.repository.sign("m", 1, &keys.key("stranger")).await.unwrap();
    assert_eq!(distrust(&trusting).await, Distrust::UnknownKeys(vec![keys.id("stranger")]));

    models.repository.sign("m", 1, &keys.key("release")).await.unwrap();
    let (manifest, signer) = trusting.signed_manifest("m", 1).await.unwrap();
    assert_eq!((manifest.version, signer.unwrap().name.as_str()), (1, "release"));
    // Once more is no mistake.
    models.repository.sign("m", 1, &keys.key("release")).await.unwrap();
    let mut both = [keys.id("release"), keys.id("stranger")];
    both.sort();
    assert_eq!(models.repository.signatures("m", 1).await.unwrap(), both);
    // Nobody else has to care.
    assert_eq!(models.repository.signed_manifest("m", 1).await.unwrap().1, None);
}

#[tokio::test]
async fn whatever_is_changed_of_what_was_signed_is_told() {
    let (models, keys, cache) = (published().await, Keys::new(), tempfile::tempdir().unwrap());
    let trusting = keys.over(&models, &["release"], &cache);
    models.repository.sign("m", 1, &keys.key("release")).await.unwrap();
    let signature = models.path(&format!("m/versions/1/signatures/{}.sig", keys.id("release")));
    let good = fs::read(&signature).unwrap();
    assert_eq!(good.len(), 64);
    let trusted = TrustedKeys::read(&keys.public(&["release"])).unwrap();
    let mismatch = Distrust::Mismatch(trusted.keys()[0].clone());
    for bad in [&[][..], &good[..63], &[0; 64], &[1; 65], &[0; 100_000]] {
        fs::write(&signature, bad).unwrap();
        assert_eq!(distrust(&trusting).await, mismatch);
        let blocked = models.repository.sign("m", 1, &keys.key("release")).await.unwrap_err().to_string();
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
async fn a_file_that_is_changed_after_its_check_is_not_what_is_loaded() {
    let (models, keys, cache) = (published().await, Keys::new(), tempfile::tempdir().unwrap());
    let trusting = keys.over(&models, &["release"], &cache);
    models.repository.sign("m", 1, &keys.key("release")).await.unwrap();
    let manifest = trusting.manifest("m", 1).await.unwrap();
    let fetched = trusting.fetch(&manifest).await.unwrap();
    assert!(fetched.starts_with(cache.path().canonicalize().unwrap()) || fetched.starts_with(cache.path()));
    fs::write(models.path("m/versions/1/model.onnx"), "another graph").unwrap();
    assert_eq!(fs::read(fetched.join("model.onnx")).unwrap(), b"model.onnx");
    drop(fetched);
    // The cache has it as it was signed; without, there is only what is not.
    trusting.fetch(&manifest).await.unwrap();
    fs::write(cache_file(&cache, "model.onnx"), "another graph").unwrap();
    let error = trusting.fetch(&manifest).await.unwrap_err().to_string();
    assert!(error.contains("`model.onnx` of m@1 is not the one that was published"), "{error}");
}

fn cache_file(cache: &TempDir, name: &str) -> PathBuf {
    let entries = fs::read_dir(cache.path()).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.is_dir()).map(|path| path.join(name)).find(|path| path.exists()).unwrap()
}

#[tokio::test]
async fn a_cache_that_others_can_write_is_not_trusted() {
    let (models, keys, cache) = (published().await, Keys::new(), tempfile::tempdir().unwrap());
    let trusting = keys.over(&models, &["release"], &cache);
    models.repository.sign("m", 1, &keys.key("release")).await.unwrap();
    let manifest = trusting.manifest("m", 1).await.unwrap();
    for mode in [0o777, 0o1777, 0o770, 0o702] {
        fs::set_permissions(cache.path(), fs::Permissions::from_mode(mode)).unwrap();
        let error = trusting.fetch(&manifest).await.unwrap_err();
        assert!(matches!(error, RepositoryError::SharedCache { .. }), "{mode:o}: {error}");
        assert!(
            error.to_string().contains("chmod 700") && error.to_string().contains("`--cache-dir`"),
            "{error}"
        );
    }
    fs::set_permissions(cache.path(), fs::Permissions::from_mode(0o755)).unwrap();
    trusting.fetch(&manifest).await.unwrap();
}
