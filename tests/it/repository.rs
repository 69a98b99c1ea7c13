//! What counts as a version, and what is done with directories that no import made.

use std::fs;
use std::path::PathBuf;

use sextant::repository::manifest::{File, Manifest, Precision, Space};
use sextant::repository::{Repository, RepositoryError};
use sextant::rollout::Log;
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
        let repository = support::open(directory.path());
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
        (&|manifest| manifest.dimensions = 0, "its `dimensions` is 0, and must be 1 to 65536"),
        (&|manifest| manifest.max_tokens = 0, "its `max_tokens` is 0, and must be 1 to 1048576"),
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
    for (key, value) in [("precision", "fp8"), ("pooling", "max"), ("graph", "round")] {
        let mut table = toml::Table::try_from(&whole).unwrap();
        table.insert(key.to_owned(), value.into());
        fs::write(models.path("m/versions/1/manifest.toml"), table.to_string()).unwrap();
        let error = models.repository.manifest("m", 1).await.unwrap_err().to_string();
        assert!(error.contains(key) && error.contains(&format!("unknown variant `{value}`")), "{error}");
    }
}

#[tokio::test]
async fn no_name_leads_out_of_a_version_or_means_two_files() {
    let models = Models::new();
    let whole = models.publish("m").await.unwrap();
    for (name, expected) in [
        ("../x", "lies outside"),
        ("..", "lies outside"),
        (".", "lies outside"),
        ("", "lies outside"),
        ("a/../../x", "lies outside"),
        ("a/./x", "lies outside"),
        ("a//x", "lies outside"),
        ("a/", "lies outside"),
        ("/etc/passwd", "lies outside"),
        ("a\\..\\x", "lies outside"),
        ("..\\x", "lies outside"),
        ("a\0b", "a character that not every store keeps"),
        ("a\u{1b}[2Jb", "a character that not every store keeps"),
        ("a%2e%2e", "a character that not every store keeps"),
        ("a\u{2024}\u{2024}", "a character that not every store keeps"),
        ("model.onnx", "it lists the file `model.onnx` twice"),
        ("Model.ONNX", "it lists the file `Model.ONNX` twice"),
        ("manifest.toml", "a name of the repository's own"),
        ("model.onnx/x", "the file `model.onnx` and below it, as if it were a directory, `model.onnx/x`"),
        ("Model.ONNX/a/b", "the file `model.onnx` and below it, as if it were a directory, `model.onnx/a/b`"),
        (&"x".repeat(256), "has a part of more than 255 bytes, which no file system keeps"),
        (&format!("a/{}", "x".repeat(256)), "has a part of more than 255 bytes"),
        ("Claim.json", "a name of the repository's own"),
        ("signatures/0123456789abcdef.sig", "a name of the repository's own"),
    ] {
        models.rewrite(whole.clone(), |manifest| {
            manifest.files.push(File { name: name.to_owned(), ..manifest.files[0].clone() });
        });
        let error = models.repository.manifest("m", 1).await.unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains(['\0', '\u{1b}']), "{name:?}: {error}");
    }
    models.rewrite(whole.clone(), |manifest| {
        manifest.files.push(File { name: "huge".to_owned(), bytes: u64::MAX, ..manifest.files[0].clone() });
    });
    let error = models.repository.manifest("m", 1).await.unwrap_err().to_string();
    assert!(error.ends_with("its files are larger than any disk"), "{error}");
    // As long as names may be, and side by side.
    models.rewrite(whole.clone(), |manifest| {
        for name in [&"x".repeat(255), "a/b", "a/c", "a.b", "a-b/c"] {
            manifest.files.push(File { name: name.to_owned(), ..manifest.files[0].clone() });
        }
    });
    models.repository.manifest("m", 1).await.unwrap();
}

#[tokio::test]
async fn a_model_is_not_looked_for_outside_of_the_repository() {
    let models = Models::new();
    models.publish("m").await.unwrap();
    let inner = Repository::open(models.path("m").to_str().unwrap(), false).unwrap();
    for name in ["../m", "..", "a/../../m", "..\\m", ".", "m\0"] {
        let error = inner.manifest(name, 1).await.unwrap_err();
        assert!(matches!(error, RepositoryError::NoSuchVersion { .. }), "{name:?}: {error}");
        assert!(matches!(inner.versions(name).await, Err(RepositoryError::BadName(_))), "{name:?}");
    }
}

/// A link inside a repository is followed: whoever can make one can write there anyway, and what it leads to counts only if it has the
/// published digest.
#[tokio::test]
async fn a_link_out_of_a_repository_gives_the_published_bytes_or_none() {
    let models = Models::new();
    let whole = models.publish("m").await.unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let (graph, moved) = (models.path("m/versions/1/model.onnx"), elsewhere.path().join("graph"));
    fs::rename(&graph, &moved).unwrap();
    std::os::unix::fs::symlink(&moved, &graph).unwrap();
    models.repository.fetch(&whole).await.unwrap();
    fs::write(&moved, "a secret!!").unwrap();
    // Otherwise the good copy in the cache is used.
    fs::remove_dir_all(support::cache(models.directory.path())).unwrap();
    let error = models.repository.fetch(&whole).await.unwrap_err().to_string();
    assert!(error.contains("`model.onnx` of m@1 is not the one that was published"), "{error}");
    assert!(!error.contains("secret"), "{error}");
}

/// Sparse files: a gigabyte that takes no room, and must take none in memory.
#[tokio::test]
async fn what_no_manifest_and_no_document_has_is_not_read() {
    let models = Models::new();
    let whole = models.publish("m").await.unwrap();
    let huge = |path: &str| fs::File::create(models.path(path)).unwrap().set_len(1 << 30).unwrap();
    let manifest = fs::read(models.path("m/versions/1/manifest.toml")).unwrap();
    huge("m/versions/1/manifest.toml");
    let error = models.repository.manifest("m", 1).await.unwrap_err().to_string();
    let expected = "the manifest of m@1 is damaged: `m/versions/1/manifest.toml` has 1073741824 bytes and is not read: there is \
                    none of more than 4194304";
    assert_eq!(error, expected);
    fs::write(models.path("m/versions/1/manifest.toml"), [b"a = ".as_slice(), &[b'['; 1_000_000]].concat())
        .unwrap();
    let error = models.repository.manifest("m", 1).await.unwrap_err().to_string();
    assert!(error.starts_with("the manifest of m@1 is damaged: ") && error.len() < 400, "{error:.200}");
    // Whatever it says, what is said of it is short and moves no cursor.
    let (long, clear) = ("x".repeat(1_000_000), "\u{1b}[2J\u{202e}a\nb");
    let changes: [&dyn Fn(&mut Manifest); 4] = [
        &|manifest| manifest.model = format!("{clear}{long}"),
        &|manifest| manifest.default_prompt = Some(format!("{clear}{long}")),
        &|manifest| manifest.space = Space(format!("{clear}{long}")),
        &|manifest| manifest.files[0].name = format!("{clear}{long}"),
    ];
    let mut told = Vec::new();
    for change in changes {
        models.rewrite(whole.clone(), change);
        told.push(models.repository.manifest("m", 1).await.unwrap_err().to_string());
    }
    for text in [
        format!("schema = 1\na = {clear}{long}"),
        format!("sha256 = \"{clear}{long}\"\n"),
        format!("a{clear} = 1"),
    ] {
        fs::write(models.path("m/versions/1/manifest.toml"), text).unwrap();
        told.push(models.repository.manifest("m", 1).await.unwrap_err().to_string());
    }
    for told in told {
        assert!(told.starts_with("the manifest of m@1 is damaged: ") && told.len() < 600, "{told:.200}");
        assert!(!told.contains(|c: char| c.is_control() || c == '\u{202e}'), "{told:?}");
    }
    fs::write(models.path("m/versions/1/manifest.toml"), manifest).unwrap();

    fs::create_dir(models.path("m/rollouts")).unwrap();
    let log = Log::open(&models.repository, "m").unwrap();
    let named = |name: &str| format!("{{\"schema\": 1, \"{name}\": 1}}");
    for (number, text, expected) in [
        (1, None, "none of more than 1048576"),
        (2, Some("[".repeat(1_000_000)), "invalid type: sequence"),
        (3, Some(named(&"a".repeat(900_000))), "unknown field `aaa"),
        (4, Some(named(r"\u001b[2Jx")), r"unknown field `\u{1b}[2Jx`"),
    ] {
        let path = format!("m/rollouts/{number:08}.json");
        match text {
            None => huge(&path),
            Some(text) => fs::write(models.path(&path), text).unwrap(),
        }
        let seen = log.current().await.unwrap();
        assert_eq!((seen.good, seen.damaged.len()), (None, number));
        let reason = seen.damaged[0].to_string();
        assert!(reason.contains(expected) && reason.len() < 500, "{reason:.200}");
    }
    // A file that is read into memory has the size that the manifest says, or is not read.
    huge("m/versions/1/MODEL_CARD.md");
    let error = models.repository.read_file(&whole, "MODEL_CARD.md").await.unwrap_err().to_string();
    assert!(error.contains("has 1073741824 bytes and is not read"), "{error}");
}

#[tokio::test]
async fn publishing_leaves_out_nothing_and_reads_back() {
    let models = Models::new();
    let written = models.publish("m").await.unwrap();
    assert_eq!(models.repository.manifest("m", 1).await.unwrap(), written);
    let directory = models.repository.fetch(&written).await.unwrap();
    assert_eq!(fs::read(directory.join("model.onnx")).unwrap(), b"model.onnx");
}
