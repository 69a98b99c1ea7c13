//! The cache of signed versions: nobody else may change what was checked.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};

use sextant::repository::manifest::Manifest;
use sextant::repository::signing::TrustedKeys;
use sextant::repository::{CacheSettings, Repository, RepositoryError};
use tempfile::TempDir;

use super::{Keys, published};
use crate::repository::Models;
use crate::support::skipped;

/// A signed version, and a directory to put the cache into.
struct Signed {
    models: Models,
    trusted: TrustedKeys,
    manifest: Manifest,
    directory: TempDir,
}

impl Signed {
    async fn new() -> Self {
        let (models, keys) = (published().await, Keys::new());
        models.repository.sign("m", 1, &keys.key("release"), None).await.unwrap();
        let manifest = models.repository.manifest("m", 1).await.unwrap();
        let trusted = TrustedKeys::read(&keys.public(&["release"])).unwrap();
        Self { models, trusted, manifest, directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn cached(&self, directory: &Path) -> Repository {
        let settings = CacheSettings::new(Some(directory.to_owned()), None);
        self.models.repository.clone().trusting(self.trusted.clone(), settings)
    }

    /// The directory of the version's files, once it is in the cache there.
    async fn fetched(&self, directory: &Path) -> PathBuf {
        self.cached(directory).fetch(&self.manifest).await.unwrap().to_owned()
    }

    async fn refused(&self, directory: &Path) {
        let error = self.cached(directory).fetch(&self.manifest).await.unwrap_err();
        assert!(matches!(error, RepositoryError::SharedCache { .. }), "{error}");
        let error = error.to_string();
        for said in ["empty it", "chmod 700", "`--cache-dir`"] {
            assert!(error.contains(said), "{error}");
        }
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[tokio::test]
async fn a_file_that_is_changed_after_its_check_is_not_what_is_loaded() {
    let signed = Signed::new().await;
    let fetched = signed.fetched(&signed.path("cache")).await;
    assert!(fetched.starts_with(signed.path("cache").canonicalize().unwrap()));
    let published = signed.models.path("m/versions/1/model.onnx");
    fs::write(&published, "another graph").unwrap();
    assert_eq!(fs::read(fetched.join("model.onnx")).unwrap(), b"model.onnx");
    // The cache has it as it was signed; without, there is only what is not.
    signed.fetched(&signed.path("cache")).await;
    fs::write(fetched.join("model.onnx"), "another graph").unwrap();
    let error = signed.cached(&signed.path("cache")).fetch(&signed.manifest).await.unwrap_err().to_string();
    assert!(error.contains("`model.onnx` of m@1 is not the one that was published"), "{error}");
}

#[tokio::test]
async fn a_cache_that_others_can_write_is_not_trusted() {
    let signed = Signed::new().await;
    let cache = signed.path("cache");
    fs::create_dir(&cache).unwrap();
    for mode in [0o777, 0o1777, 0o770, 0o702] {
        set_mode(&cache, mode);
        signed.refused(&cache).await;
        assert_eq!(
            fs::read_dir(&cache).unwrap().count(),
            0,
            "nothing is made in a directory that is refused"
        );
    }
    // By a link as well: what it leads to counts.
    symlink(&cache, signed.path("link")).unwrap();
    signed.refused(&signed.path("link")).await;
    set_mode(&cache, 0o755);
    let fetched = signed.fetched(&signed.path("link")).await;
    assert!(
        fetched.starts_with(cache.canonicalize().unwrap()),
        "{fetched:?}: whoever can change the link cannot change this"
    );
    assert_eq!(signed.fetched(&cache).await, fetched);
    // The root of a pod's volume, in which the cache is a folder of the server's own.
    let volume = signed.path("volume");
    fs::create_dir(&volume).unwrap();
    set_mode(&volume, 0o2777);
    signed.fetched(&volume.join("versions")).await;
    assert_eq!(fs::metadata(volume.join("versions")).unwrap().mode() & 0o777, 0o700);
}

#[tokio::test]
async fn what_others_left_in_the_cache_is_not_used() {
    let signed = Signed::new().await;
    let cache = signed.path("cache");
    let fetched = signed.fetched(&cache).await;
    let graph = fetched.join("model.onnx");
    let number = || fs::symlink_metadata(&graph).unwrap().ino();
    let before = number();
    signed.fetched(&cache).await;
    assert_eq!(number(), before);

    // The published bytes, that can be changed by another name or by others.
    fs::hard_link(&graph, signed.path("second")).unwrap();
    signed.fetched(&cache).await;
    assert_ne!(number(), before);
    fs::remove_file(&graph).unwrap();
    symlink(signed.path("second"), &graph).unwrap();
    signed.fetched(&cache).await;
    assert!(fs::symlink_metadata(&graph).unwrap().is_file());
    let before = number();
    set_mode(&graph, 0o666);
    signed.fetched(&cache).await;
    assert_ne!(number(), before);
    assert_eq!(fs::metadata(&graph).unwrap().mode() & 0o777, 0o600);

    // What is put into a directory of others can be replaced.
    set_mode(&fetched, 0o777);
    signed.refused(&cache).await;
    set_mode(&fetched, 0o700);
    fs::rename(&fetched, signed.path("away")).unwrap();
    symlink(signed.path("away"), &fetched).unwrap();
    signed.refused(&cache).await;
    fs::remove_file(&fetched).unwrap();
    signed.fetched(&cache).await;
}

#[tokio::test]
async fn what_belongs_to_another_user_is_not_used() {
    let signed = Signed::new().await;
    let (home, nobody) = (signed.path("home"), Some(65534));
    let cache = home.join("cache");
    let fetched = signed.fetched(&cache).await;
    let graph = fetched.join("model.onnx");
    if chown(&graph, nobody, None).is_err() {
        return skipped("only root can give a file to another user");
    }
    signed.fetched(&cache).await;
    assert_eq!(fs::metadata(&graph).unwrap().uid(), 0);
    for theirs in [&fetched, &cache, &home] {
        chown(theirs, nobody, None).unwrap();
        signed.refused(&cache).await;
        chown(theirs, Some(0), None).unwrap();
    }
    signed.fetched(&cache).await;
}
