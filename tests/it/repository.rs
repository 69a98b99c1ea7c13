//! What counts as a version, and what is done with directories that no import made.

use std::fs;
use std::path::PathBuf;

use sextant::repository::manifest::{File, Manifest, Precision, Space};
use sextant::repository::{Repository, RepositoryError};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::support;

/// A repository on disk.
pub struct Models {
    pub directory: TempDir,
    pub repository: Repository,
}

impl Models {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let repository = Repository::open(directory.path().to_str().unwrap(), true).unwrap();
        Self { directory, repository }
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    /// Publishes files that are no model, and are all there.
    async fn publish(&self, model: &str) -> Result<Manifest, RepositoryError> {
        self.repository.publish(stage().path(), support::manifest(model, 8)).await
    }

    /// Publishes versions of `m`, counted from 1, whose spaces begin with these digits.
    pub async fn publish_in(&self, spaces: &str) {
        for space in spaces.chars() {
            let space = Space(format!("{space}123456789abcdef"));
            let manifest = Manifest { space, ..support::manifest("m", 8) };
            self.repository.publish(stage().path(), manifest).await.unwrap();
        }
    }

    /// Writes the manifest of version 1 anew.
    fn rewrite(&self, mut manifest: Manifest, change: impl FnOnce(&mut Manifest)) {
        change(&mut manifest);
        fs::write(self.path("m/versions/1/manifest.toml"), toml::to_string(&manifest).unwrap()).unwrap();
    }
}

/// A directory with the files that every version has.
pub fn stage() -> TempDir {
    let stage = tempfile::tempdir().unwrap();
    for name in ["model.onnx", "tokenizer.json", "MODEL_CARD.md"] {
        fs::write(stage.path().join(name), name).unwrap();
    }
    stage
}

#[tokio::test]
async fn only_numbers_as_they_are_written_are_versions() {
    let models = Models::new();
    models.publish("m").await.unwrap();
    for name in ["+1", "01", "0", "007", "-1", "1 ", "4294967296", "x"] {
        let directory = models.path("m/versions").join(name);
        fs::create_dir(&directory).unwrap();
        fs::copy(models.path("m/versions/1/manifest.toml"), directory.join("manifest.toml")).unwrap();
    }
    assert_eq!(models.repository.versions("m").await.unwrap(), [1]);
    assert_eq!(models.publish("m").await.unwrap().version, 2);
    assert_eq!(models.repository.versions("m").await.unwrap(), [1, 2]);
}

#[tokio::test]
async fn numbers_end_and_do_not_begin_again() {
    let models = Models::new();
    fs::create_dir_all(models.path("m/versions/4294967294")).unwrap();
    assert_eq!(models.publish("m").await.unwrap().version, u32::MAX);
    let error = models.publish("m").await.unwrap_err();
    assert!(matches!(error, RepositoryError::NoNumberLeft(_)), "{error}");
    assert!(error.to_string().contains("4294967295"), "{error}");
    fs::create_dir_all(models.path("n/versions/4294967295")).unwrap();
    assert!(matches!(models.publish("n").await, Err(RepositoryError::NoNumberLeft(_))));
    assert!(!models.path("n/versions/0").exists());
}

#[tokio::test]
async fn a_version_lacks_no_file_that_it_must_have() {
    let models = Models::new();
    let whole = models.publish("m").await.unwrap();
    models.repository.fetch(&whole).await.unwrap();
    for name in ["model.onnx", "tokenizer.json", "MODEL_CARD.md"] {
        models.rewrite(whole.clone(), |manifest| manifest.files.retain(|file| file.name != name));
        let error = models.repository.manifest("m", 1).await.unwrap_err().to_string();
        assert_eq!(
            error,
            format!("the manifest of m@1 is damaged: it lists no `{name}`, which every version has")
        );
        // With the right digest of nothing.
        models.rewrite(whole.clone(), |manifest| {
            let file = manifest.files.iter_mut().find(|file| file.name == name).unwrap();
            *file = File { bytes: 0, sha256: hex::encode(Sha256::digest([])), name: name.to_owned() };
        });
        let error = models.repository.manifest("m", 1).await.unwrap_err().to_string();
        assert!(error.ends_with(&format!("its `{name}` is empty")), "{error}");

        // Nor can it be published, or cost a number.
        let stage = stage();
        fs::write(stage.path().join(name), "").unwrap();
        let publish = async || models.repository.publish(stage.path(), support::manifest("n", 8)).await;
        let error = publish().await.unwrap_err().to_string();
        assert!(error.ends_with(&format!("its `{name}` is empty")), "{error}");
        fs::remove_file(stage.path().join(name)).unwrap();
        let error = publish().await.unwrap_err().to_string();
        assert!(error.contains("no version of `n` to publish") && error.contains(name), "{error}");
        assert!(!models.path("n").exists());
    }
    let none = Manifest { files: Vec::new(), ..whole };
    assert!(models.repository.fetch(&none).await.is_err());
}

#[tokio::test]
async fn figures_that_cannot_be_are_refused_by_name() {
    let models = Models::new();
    let whole = models.publish("m").await.unwrap();
    let a = || Some("a".to_owned());
    type Change<'a> = &'a dyn Fn(&mut Manifest);
    let cases: [(Change<'_>, &str); 11] = [
        (&|manifest| manifest.dimensions = 0, "its `dimensions` is 0"),
        (&|manifest| manifest.max_tokens = 0, "its `max_tokens` is 0"),
        (&|manifest| manifest.matryoshka_dimensions = vec![4, 0], "`matryoshka_dimensions` has 0"),
        (&|manifest| manifest.matryoshka_dimensions = vec![9], "has 9, which is not between 1 and 8"),
        (&|manifest| manifest.precision = Precision::Mixed, "its precision mixed"),
        (
            &|manifest| manifest.default_prompt = a(),
            "its `default_prompt` is `a`, which is none of its prompts",
        ),
        (&|manifest| manifest.default_query_prompt = a(), "its `default_query_prompt` is `a`"),
        (&|manifest| manifest.default_document_prompt = a(), "its `default_document_prompt` is `a`"),
        (&|manifest| manifest.space = Space(String::new()), "its space is \"\""),
        (
            &|manifest| manifest.files.push(manifest.files[0].clone()),
            "it lists the file `MODEL_CARD.md` twice",
        ),
        (&|manifest| manifest.files[0].name.insert_str(0, "../"), "`MODEL_CARD.md`"),
    ];
    for (change, expected) in cases {
        models.rewrite(whole.clone(), change);
        let error = models.repository.manifest("m", 1).await.unwrap_err().to_string();
        assert!(error.starts_with("the manifest of m@1 is damaged: ") && error.contains(expected), "{error}");
    }
    models.rewrite(whole.clone(), |manifest| {
        manifest.files.push(File { name: "../x".to_owned(), ..manifest.files[0].clone() });
    });
    let error = models.repository.manifest("m", 1).await.unwrap_err().to_string();
    assert!(error.contains("`../x` lies outside"), "{error}");
    for (key, value) in [("precision", "fp8"), ("pooling", "max"), ("graph", "round")] {
        let mut table = toml::Table::try_from(&whole).unwrap();
        table.insert(key.to_owned(), value.into());
        fs::write(models.path("m/versions/1/manifest.toml"), table.to_string()).unwrap();
        let error = models.repository.manifest("m", 1).await.unwrap_err().to_string();
        assert!(error.contains(key) && error.contains(&format!("unknown variant `{value}`")), "{error}");
    }
}

#[tokio::test]
async fn publishing_leaves_out_nothing_and_reads_back() {
    let models = Models::new();
    let written = models.publish("m").await.unwrap();
    assert_eq!(models.repository.manifest("m", 1).await.unwrap(), written);
    let directory = models.repository.fetch(&written).await.unwrap();
    assert_eq!(fs::read(directory.join("model.onnx")).unwrap(), b"model.onnx");
}
