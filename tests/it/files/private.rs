//! Versions are loaded from a private copy, also where the repository is a directory.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;

use sextant::repository::RepositoryError;
use sextant::rollout::Log;

use super::make_fifo;
use crate::command::{failure, imported, path, sextant};
use crate::repository::{Models, stage};
use crate::support::{self, manifest, skipped};

#[tokio::test]
async fn a_version_of_a_directory_is_a_private_copy_that_processes_share() {
    let models = Models::new();
    let stage = stage();
    fs::create_dir(stage.path().join("more")).unwrap();
    fs::write(stage.path().join("more/a.txt"), "deeper").unwrap();
    let version = models.repository.publish(stage.path(), manifest("m", 8)).await.unwrap();
    let fetched = models.repository.fetch(&version).await.unwrap();
    assert!(fetched.starts_with(support::cache(models.directory.path()).canonicalize().unwrap()));
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    for directory in [fetched.parent().unwrap(), &fetched, &fetched.join("more")] {
        assert_eq!(mode(directory), 0o700, "{}", directory.display());
    }
    for file in ["model.onnx", "tokenizer.json", "more/a.txt"] {
        let (copy, own) = (fetched.join(file), models.path("m/versions/1").join(file));
        assert_eq!((fs::read(&copy).unwrap(), mode(&copy)), (fs::read(&own).unwrap(), 0o600));
        let number = |path| fs::metadata(path).unwrap().ino();
        assert_ne!(number(&copy), number(&own), "a second name of one file is changed with it");
    }
    // Not a clone: it has its own locks, as another process has.
    let number = fs::metadata(fetched.join("model.onnx")).unwrap().ino();
    let again = support::open(models.directory.path()).fetch(&version).await.unwrap();
    assert_eq!((&*again, fs::metadata(again.join("model.onnx")).unwrap().ino()), (&*fetched, number));
    // The copy is good, whatever the directory has by now; a check of the version says what it has.
    fs::write(models.path("m/versions/1/model.onnx"), "another graph").unwrap();
    models.repository.fetch(&version).await.unwrap();
    let error = models.repository.check_own_files(&version).await.unwrap_err();
    assert!(matches!(&error, RepositoryError::BadFile { file, .. } if file == "model.onnx"), "{error}");
}

#[tokio::test]
async fn what_is_no_regular_file_is_refused_and_not_waited_for() {
    let models = Models::new();
    models.publish_in("01").await;
    let whole = models.repository.manifest("m", 1).await.unwrap();
    let replace = |file: &str| {
        fs::remove_file(models.path(file)).unwrap();
        make_fifo(&models.path(file));
    };
    replace("m/versions/1/model.onnx");
    let error = models.repository.fetch(&whole).await.unwrap_err().to_string();
    assert!(error.contains("`model.onnx` of m@1") && error.contains("it is no regular file"), "{error}");
    replace("m/versions/2/manifest.toml");
    assert_eq!(models.repository.versions("m").await.unwrap(), [1, 2]);
    let error = models.repository.manifest("m", 2).await.unwrap_err().to_string();
    assert_eq!(error, "the manifest of m@2 is damaged: `m/versions/2/manifest.toml` is no regular file");
    fs::create_dir(models.path("m/rollouts")).unwrap();
    make_fifo(&models.path("m/rollouts/00000001.json"));
    let seen = Log::open(&models.repository, "m").unwrap().current().await.unwrap();
    assert_eq!((seen.good, seen.damaged), (None, Vec::new()), "as if there were none of that name");
}

/// Without a home the cache is in the temporary directory, which is everybody's.
#[test]
fn without_a_home_the_cache_is_this_users_own_or_refused() {
    let directory = imported();
    let (models, temporary) = (path(&directory, "models"), directory.path().join("tmp"));
    fs::create_dir(&temporary).unwrap();
    fs::set_permissions(&temporary, Permissions::from_mode(0o1777)).unwrap();
    let user = fs::metadata(&temporary).unwrap().uid();
    let verify = || {
        let mut command = sextant(&["verify", "tiny@1", "--models", &models]);
        command.env_remove("SEXTANT_CACHE_DIR").env_remove("XDG_CACHE_HOME").env_remove("HOME");
        command.env("TMPDIR", &temporary);
        command
    };
    assert!(verify().output().unwrap().status.success());
    let cache = temporary.join(format!("sextant-{user}"));
    assert_eq!(fs::metadata(&cache).unwrap().mode() & 0o777, 0o700);
    let refused = || {
        let (code, text) = failure(&mut verify());
        assert_eq!(code, 1, "{text}");
        for said in [cache.to_str().unwrap(), "chmod 700", "`--cache-dir`"] {
            assert!(text.contains(said), "{text}");
        }
    };
    fs::set_permissions(&cache, Permissions::from_mode(0o777)).unwrap();
    refused();
    fs::set_permissions(&cache, Permissions::from_mode(0o700)).unwrap();
    if chown(&cache, Some(65534), None).is_err() {
        return skipped("only root can give a directory to another user");
    }
    refused();
}
