//! The keys file changes while the server runs: by rename, by a swap of links as Kubernetes does it, and for the worse.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use sextant::config::Settings;

use super::{bearer, entry, key};
use crate::support::app::{TestApp, settings, until};

async fn serve(file: &Path) -> TestApp {
    TestApp::fake_with(&Settings { keys_file: Some(file.to_owned()), ..settings() }, |_| ()).await.0
}

async fn status(app: &TestApp, name: &str) -> u16 {
    app.send("GET", "/v1/models", bearer(&key(name)), Vec::new()).await.status
}

/// The lines of `/metrics` that begin so.
async fn lines(app: &TestApp, begin: &str) -> Vec<String> {
    let page = app.send("GET", "/metrics", bearer(&key("watch")), Vec::new()).await;
    page.text().lines().filter(|line| line.starts_with(begin)).map(str::to_owned).collect()
}

fn watch() -> String {
    entry("watch", &["metrics"], "")
}

#[tokio::test]
async fn a_key_comes_and_goes_with_the_file_and_its_series_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("keys.toml");
    let replace = |text: String| {
        fs::write(directory.path().join("new"), text).unwrap();
        fs::rename(directory.path().join("new"), &file).unwrap();
    };
    replace(watch() + &entry("old", &["embed"], ""));
    let app = serve(&file).await;
    assert_eq!((status(&app, "old").await, status(&app, "new").await), (200, 401));
    assert_eq!(lines(&app, r#"sextant_key_requests_total{key="old",status="200"}"#).await.len(), 1);

    replace(watch() + &entry("new", &["embed"], ""));
    until("the new key is good", async || status(&app, "new").await == 200).await;
    assert_eq!(status(&app, "old").await, 401);
    assert_eq!(lines(&app, r#"sextant_key_requests_total{key="old""#).await, [""; 0]);
    assert_eq!(
        lines(&app, r#"sextant_key_reloads_total{outcome="done"}"#).await,
        [r#"sextant_key_reloads_total{outcome="done"} 1"#]
    );
    // A role that is taken away is gone as well.
    replace(watch() + &entry("new", &["admin"], ""));
    until("it is no key for models", async || status(&app, "new").await == 403).await;
}

#[tokio::test]
async fn a_mounted_secret_is_swapped_by_a_link_to_a_directory() {
    let volume = tempfile::tempdir().unwrap();
    let at = |name: &str| volume.path().join(name);
    let publish = |revision: &str, text: String| {
        fs::create_dir(at(revision)).unwrap();
        fs::write(at(revision).join("keys.toml"), text).unwrap();
        symlink(revision, at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
    };
    publish("..1", watch() + &entry("one", &["embed"], ""));
    symlink("..data/keys.toml", at("keys.toml")).unwrap();
    let app = serve(&at("keys.toml")).await;
    assert_eq!(status(&app, "one").await, 200);
    publish("..2", watch() + &entry("two", &["embed"], ""));
    fs::remove_dir_all(at("..1")).unwrap();
    until("the second is good", async || status(&app, "two").await == 200).await;
    assert_eq!(status(&app, "one").await, 401);
}

#[tokio::test]
async fn a_file_that_is_wrong_or_gone_changes_nothing_and_is_counted() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("keys.toml");
    let whole = watch() + &entry("a", &["embed"], "");
    fs::write(&file, &whole).unwrap();
    let app = serve(&file).await;
    let failures = async || -> f64 {
        let line = lines(&app, r#"sextant_key_reloads_total{outcome="failed"}"#).await.remove(0);
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    let half = whole[..whole.len() - 10].to_owned();
    for wrong in [Some(String::new()), Some(half), Some(format!("a:{}", key("a"))), None] {
        let before = failures().await;
        match &wrong {
            Some(text) => fs::write(&file, text).unwrap(),
            None => fs::remove_file(&file).unwrap(),
        }
        until("it is looked at", async || failures().await > before + 1.0).await;
        assert_eq!((status(&app, "a").await, status(&app, "b").await), (200, 401), "{wrong:?}");
        let models = app.get("/v1/models").await;
        assert_eq!(
            models.status, 401,
            "no keys that can be read do not mean that nobody needs one: {wrong:?}"
        );
    }
    fs::write(&file, watch() + &entry("b", &["embed"], "")).unwrap();
    until("the next good one counts", async || status(&app, "b").await == 200).await;
}
