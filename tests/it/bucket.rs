//! Repositories in a bucket, against an S3 server: published, listed, fetched and served as from a directory.

mod cache;
mod command;

use std::fs;

use sextant::repository::RepositoryError;
use sextant::rollout::{Change, Log, Signature};

use crate::repository::stage;
use crate::support::manifest;
use crate::support::s3::{Bucket, Fault};

/// Larger than one part of an upload, which has 10 MiB.
const LARGE: usize = 25 << 20;

#[tokio::test]
async fn what_is_published_is_listed_and_comes_back_as_it_was() {
    let Some(bucket) = Bucket::new().await else { return };
    let (cache, stage) = (tempfile::tempdir().unwrap(), stage());
    let large: Vec<u8> =
        (0..LARGE as u32).map(|place| (place.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    fs::write(stage.path().join("model.onnx.data"), &large).unwrap();
    fs::create_dir(stage.path().join("more")).unwrap();
    fs::write(stage.path().join("more/a file.txt"), "deeper").unwrap();
    let repository = bucket.repository(&cache);
    assert_eq!(repository.models().await.unwrap(), Vec::<String>::new());
    let written = repository.publish(stage.path(), manifest("m", 8)).await.unwrap();
    assert!(bucket.seen("POST", "model.onnx.data") > 0, "it was sent in one part");
    assert_eq!(repository.models().await.unwrap(), ["m"]);
    assert_eq!(repository.versions("m").await.unwrap(), [1]);
    assert_eq!(repository.manifest("m", 1).await.unwrap(), written);
    let fetched = repository.fetch(&written).await.unwrap();
    assert!(fs::read(fetched.join("model.onnx.data")).unwrap() == large);
    assert_eq!(fs::read(fetched.join("more/a file.txt")).unwrap(), b"deeper");
    assert_eq!(fs::read(fetched.join("model.onnx")).unwrap(), b"model.onnx");
    // Once more, from the cache.
    drop(fetched);
    repository.fetch(&written).await.unwrap();
    assert_eq!(bucket.seen("GET", "/model.onnx"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn publishers_at_once_get_different_numbers() {
    let Some(bucket) = Bucket::new().await else { return };
    let cache = tempfile::tempdir().unwrap();
    let publish = |_| {
        let repository = bucket.repository(&cache);
        tokio::spawn(
            async move { repository.publish(stage().path(), manifest("m", 8)).await.unwrap().version },
        )
    };
    let published = futures_util::future::join_all((0..8).map(publish)).await;
    let mut numbers: Vec<u32> = published.into_iter().map(Result::unwrap).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(bucket.repository(&cache).versions("m").await.unwrap(), numbers);
}

#[tokio::test(flavor = "multi_thread")]
async fn rollouts_at_once_make_one_log_without_a_gap() {
    let Some(bucket) = Bucket::new().await else { return };
    let cache = tempfile::tempdir().unwrap();
    let repository = bucket.repository(&cache);
    for _ in 0..8 {
        repository.publish(stage().path(), manifest("m", 8)).await.unwrap();
    }
    let activate = |index: u32| {
        let repository = repository.clone();
        tokio::spawn(async move {
            let by = format!("operator {index}");
            let signature =
                Signature { by: &by, at: "2026-01-01T00:00:00Z", reason: "a race", ..Signature::default() };
            let change = Change::Rollout { version: index + 1, force: false };
            Log::open(&repository, "m").unwrap().change(change, signature).await.unwrap()
        })
    };
    let made = futures_util::future::join_all((0..8).map(activate)).await;
    let mut made: Vec<_> = made.into_iter().map(Result::unwrap).collect();
    made.sort_by_key(|rollout| rollout.number);
    for (index, rollout) in made.iter().enumerate() {
        assert_eq!(rollout.number, index as u64 + 1);
        let before = index.checked_sub(1).map(|before| made[before].stable);
        assert_eq!(rollout.previous, before, "it was written over what it had not read");
    }
    let log = Log::open(&repository, "m").unwrap();
    assert_eq!(log.current().await.unwrap().good.as_ref(), made.last());
}

#[tokio::test]
async fn half_a_version_is_never_listed_and_its_number_is_spent() {
    let Some(bucket) = Bucket::new().await else { return };
    let cache = tempfile::tempdir().unwrap();
    let repository = bucket.repository(&cache);
    bucket.put("m/versions/1/claim.json", b"{}").await;
    bucket.put("m/versions/1/model.onnx", b"model.onnx").await;
    // As a console makes a folder, and what is no version's.
    bucket.put("m/versions/7/", b"").await;
    bucket.put("m/versions/x/manifest.toml", b"").await;
    assert_eq!(repository.versions("m").await.unwrap(), Vec::<u32>::new());
    let error = repository.manifest("m", 1).await.unwrap_err();
    assert!(matches!(error, RepositoryError::NoSuchVersion { .. }), "{error}");
    let written = repository.publish(stage().path(), manifest("m", 8)).await.unwrap();
    assert_eq!(written.version, 8);
    bucket.delete(&format!("m/versions/{}/manifest.toml", written.version)).await;
    assert_eq!(repository.versions("m").await.unwrap(), Vec::<u32>::new());
}

#[tokio::test]
async fn what_the_bucket_has_wrong_is_told_by_name_and_never_kept() {
    let Some(bucket) = Bucket::new().await else { return };
    let cache = tempfile::tempdir().unwrap();
    let repository = bucket.repository(&cache);
    let written = repository.publish(stage().path(), manifest("m", 8)).await.unwrap();
    let key = "m/versions/1/tokenizer.json";
    for (bytes, reason) in [
        (&b"tokenizer.jsoN"[..], "expected 14 bytes with SHA-256"),
        (b"", "found 0 with"),
        (b"tokenizer.json and more", "expected 14 bytes, found more"),
    ] {
        bucket.put(key, bytes).await;
        let before = bucket.seen("GET", key);
        let error = repository.fetch(&written).await.unwrap_err();
        assert_eq!(bucket.seen("GET", key) - before, 2, "asked for once more");
        let RepositoryError::BadFile { ref file, ref version, .. } = error else { panic!("{error}") };
        assert_eq!((file.as_str(), version.as_str()), ("tokenizer.json", "m@1"));
        assert!(error.to_string().contains(reason), "{error}");
        assert_eq!(cache::names(&cache), Vec::<String>::new());
    }
    bucket.delete(key).await;
    let error = repository.fetch(&written).await.unwrap_err().to_string();
    assert!(
        error.contains("`tokenizer.json` of m@1") && error.ends_with("it is not in the repository"),
        "{error}"
    );
    // A slip on the way, and a store out of breath, are none.
    bucket.put(key, b"tokenizer.json").await;
    bucket.fault(key, [Fault::Flip]);
    bucket.fault("/model.onnx", [Fault::Status(503)]);
    let before = bucket.seen("GET", "/model.onnx");
    let fetched = repository.fetch(&written).await.unwrap();
    assert_eq!(fs::read(fetched.join("tokenizer.json")).unwrap(), b"tokenizer.json");
    assert_eq!(bucket.seen("GET", "/model.onnx") - before, 2);
}
