//! The cache of a bucket's versions, which several processes share.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use sextant::repository::manifest::Manifest;
use sextant::repository::{Repository, RepositoryError};
use tempfile::TempDir;
use tokio::sync::Semaphore;

use crate::repository::stage;
use crate::support::app::until;
use crate::support::manifest;
use crate::support::s3::{Bucket, Fault};

/// The size of the file that tells the versions here apart.
const BYTES: usize = 100_000;

/// What is in the cache but its locks, sorted.
pub fn names(cache: &TempDir) -> Vec<String> {
    let entries = cache.path().read_dir().unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| !name.ends_with(".lock"));
    names.sort();
    names
}

/// The versions in the cache, as `m@1`.
fn kept(cache: &TempDir) -> Vec<String> {
    names(cache).iter().map(|name| name.split('-').next().unwrap().to_owned()).collect()
}

/// Publishes a version like no other.
async fn publish(repository: &Repository) -> Manifest {
    static COUNT: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(0);
    let (stage, byte) = (stage(), COUNT.fetch_add(1, std::sync::atomic::Ordering::SeqCst));
    fs::write(stage.path().join("model.onnx.data"), vec![byte; BYTES]).unwrap();
    repository.publish(stage.path(), manifest("m", 8)).await.unwrap()
}

#[tokio::test]
async fn the_least_recently_used_make_room_and_none_that_is_in_use() {
    let Some(bucket) = Bucket::new().await else { return };
    let cache = tempfile::tempdir().unwrap();
    let repository = bucket.bounded(&cache, 250_000);
    let mut versions = Vec::new();
    for _ in 0..4 {
        versions.push(publish(&repository).await);
    }
    for index in [0, 1, 0, 2] {
        repository.fetch(&versions[index]).await.unwrap();
    }
    assert_eq!(kept(&cache), ["m@1", "m@3"], "m@2 was not used for longest");
    // In use by this process, as far as the locks can tell by another.
    let first = repository.fetch(&versions[0]).await.unwrap();
    let third = repository.fetch(&versions[2]).await.unwrap();
    let fourth = repository.fetch(&versions[3]).await.unwrap();
    assert_eq!(kept(&cache), ["m@1", "m@3", "m@4"]);
    for directory in [&first, &third, &fourth] {
        assert_eq!(fs::metadata(directory.join("model.onnx.data")).unwrap().len(), BYTES as u64);
    }
    // The end of a use is a use.
    drop(third);
    drop(first);
    repository.fetch(&versions[3]).await.unwrap();
    repository.fetch(&versions[1]).await.unwrap();
    assert_eq!(kept(&cache), ["m@2", "m@4"]);
    drop(fourth);
    // A bound that nothing fits into still lets a version be used.
    let small = bucket.bounded(&cache, 0);
    let fetched = small.fetch(&versions[0]).await.unwrap();
    assert!(fetched.join("model.onnx").is_file());
    assert_eq!(kept(&cache), ["m@1"]);
}

#[tokio::test]
async fn a_file_damaged_in_the_cache_is_fetched_again_and_no_other() {
    let Some(bucket) = Bucket::new().await else { return };
    let cache = tempfile::tempdir().unwrap();
    let repository = bucket.repository(&cache);
    let version = publish(&repository).await;
    // Whoever uses it meanwhile is not disturbed.
    let used = repository.fetch(&version).await.unwrap();
    let damaged = used.join("model.onnx.data");
    let good = fs::read(&damaged).unwrap();
    let damage: [&dyn Fn(); 3] = [
        &|| {
            let mut bytes = good.clone();
            bytes[BYTES / 2] ^= 1;
            fs::write(&damaged, bytes).unwrap();
        },
        &|| fs::write(&damaged, &good[..7]).unwrap(),
        &|| fs::remove_file(&damaged).unwrap(),
    ];
    for (index, damage) in damage.iter().enumerate() {
        damage();
        let mended = repository.fetch(&version).await.unwrap();
        assert!(fs::read(mended.join("model.onnx.data")).unwrap() == good);
        assert_eq!(bucket.seen("GET", "/model.onnx.data"), index + 2);
        assert_eq!(bucket.seen("GET", "/model.onnx"), 1);
        assert_eq!(kept(&cache), ["m@1"], "nothing is left on the way");
    }
    // Damaged here and in the bucket.
    fs::write(&damaged, "").unwrap();
    bucket.put("m/versions/1/model.onnx.data", b"as bad").await;
    let error = repository.fetch(&version).await.unwrap_err();
    assert!(matches!(&error, RepositoryError::BadFile { file, .. } if file == "model.onnx.data"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_second_waits_and_nobody_sees_half_a_version() {
    let Some(bucket) = Bucket::new().await else { return };
    let cache = tempfile::tempdir().unwrap();
    let version = publish(&bucket.repository(&cache)).await;
    let shut = Arc::new(Semaphore::new(0));
    bucket.fault("/model.onnx.data", [Fault::Hold(Arc::clone(&shut))]);
    // Not clones: each has its own locks, as two processes have.
    let fetches: Vec<_> = (0..4)
        .map(|_| {
            let (repository, version) = (bucket.repository(&cache), version.clone());
            tokio::spawn(async move { repository.fetch(&version).await.unwrap().to_owned() })
        })
        .collect();
    let half = || -> Option<PathBuf> {
        let incoming = names(&cache).into_iter().find(|name| name.starts_with(".incoming-m@1-"))?;
        let half = cache.path().join(incoming).join("model.onnx.data");
        (fs::metadata(&half).ok()?.len() > 0).then_some(half)
    };
    until("half of the file is there", async || half().is_some()).await;
    assert!(names(&cache).iter().all(|name| name.starts_with('.')), "{:?}", names(&cache));
    // Another version need not wait for this one, nor take what is on its way for a dead process's.
    let other = publish(&bucket.repository(&cache)).await;
    bucket.bounded(&cache, 0).fetch(&other).await.unwrap();
    assert!(half().is_some());
    assert!(fetches.iter().all(|fetch| !fetch.is_finished()));
    shut.close();
    for fetch in fetches {
        assert_eq!(fs::metadata(fetch.await.unwrap().join("model.onnx.data")).unwrap().len(), BYTES as u64);
    }
    assert_eq!(bucket.seen("GET", "1/model.onnx.data"), 1, "fetched for all of them at once");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_dead_left_goes_and_a_fetch_that_was_dropped_is_no_hindrance() {
    let Some(bucket) = Bucket::new().await else { return };
    let cache = tempfile::tempdir().unwrap();
    let repository = bucket.repository(&cache);
    let version = publish(&repository).await;
    for left in [".incoming-old@1-0123", ".removed-old@2-4567"] {
        fs::create_dir_all(cache.path().join(left).join("deeper")).unwrap();
        fs::write(cache.path().join(left).join("deeper/model.onnx"), "half").unwrap();
    }
    // What is nobody's stays.
    fs::write(cache.path().join("notes.txt"), "mine").unwrap();
    bucket.fault("/model.onnx.data", [Fault::Hold(Arc::new(Semaphore::new(0)))]);
    {
        let fetch = repository.fetch(&version);
        tokio::pin!(fetch);
        let begun = until("it has begun", async || bucket.seen("GET", "/model.onnx.data") > 0);
        tokio::select! {
            _ = &mut fetch => panic!("half of a file was enough"),
            () = begun => {}
        }
    }
    assert!(names(&cache).iter().any(|name| name.starts_with(".incoming-m@1-")), "{:?}", names(&cache));
    repository.fetch(&version).await.unwrap();
    assert_eq!(kept(&cache), ["m@1", "notes.txt"]);
}

#[tokio::test]
async fn versions_of_two_buckets_with_one_name_are_two() {
    let (Some(bucket), Some(other)) = (Bucket::new().await, Bucket::new().await) else { return };
    let cache = tempfile::tempdir().unwrap();
    let (left, right) = (bucket.repository(&cache), other.repository(&cache));
    let (left_version, right_version) = (publish(&left).await, publish(&right).await);
    let (left, right) =
        (left.fetch(&left_version).await.unwrap(), right.fetch(&right_version).await.unwrap());
    assert_ne!(
        fs::read(left.join("model.onnx.data")).unwrap(),
        fs::read(right.join("model.onnx.data")).unwrap()
    );
    assert_eq!(kept(&cache), ["m@1", "m@1"]);
}

#[tokio::test]
async fn a_cache_that_cannot_be_written_is_told_with_the_way_out() {
    let Some(bucket) = Bucket::new().await else { return };
    let cache = tempfile::tempdir().unwrap();
    let version = publish(&bucket.repository(&cache)).await;
    let file = cache.path().join("file");
    fs::write(&file, "").unwrap();
    let settings = sextant::repository::CacheSettings::new(Some(file.join("deeper")), None);
    let error = bucket.repository(&cache).with_cache(settings).fetch(&version).await.unwrap_err().to_string();
    assert!(error.contains(file.to_str().unwrap()) && error.contains("`--cache-dir`"), "{error}");
}
