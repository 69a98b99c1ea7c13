//! The binary: exit codes, one sentence for each failure, and a stop by signal.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::hub::fake::FakeHub;
use crate::support;
use crate::support::app::until;
use crate::support::checkpoint::TinyCheckpoint;
use crate::support::load::Load;

pub fn sextant(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sextant"));
    command.args(arguments);
    // Settings of the machine that runs the tests must not reach them.
    for (name, _) in std::env::vars()
        .filter(|(name, _)| ["SEXTANT_", "HF_", "OTEL_"].iter().any(|own| name.starts_with(own)))
    {
        command.env_remove(name);
    }
    let models = arguments.iter().skip_while(|argument| **argument != "--models").nth(1);
    let cache = match models.map(Path::new).filter(|models| models.is_dir()) {
        Some(models) => support::cache(models),
        None => Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache"),
    };
    command.env("SEXTANT_CACHE_DIR", cache);
    command
}

pub fn run(arguments: &[&str]) -> Output {
    sextant(arguments).output().unwrap()
}

/// The exit code and the text on standard error.
pub fn failure(command: &mut Command) -> (i32, String) {
    let output = command.output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

/// A repository with the model `tiny`, imported by the command.
pub fn imported() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    TinyCheckpoint::bert().write(&directory.path().join("checkpoint"));
    let (checkpoint, models) = (path(&directory, "checkpoint"), path(&directory, "models"));
    let output = run(&["import", &checkpoint, "--models", &models, "--name", "tiny"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("imported tiny@1: fp32, 32 dimensions"), "{text}");
    assert!(text.contains("tiny@1 is the version that serves"), "{text}");
    assert!(text.contains("no prompts: a query is embedded as a document is"), "{text}");
    directory
}

pub fn path(directory: &tempfile::TempDir, name: &str) -> String {
    directory.path().join(name).to_str().unwrap().to_owned()
}

/// A server in a process of its own, killed when it is dropped.
pub struct Server {
    pub child: Child,
    pub address: String,
}

impl Server {
    /// Starts it and waits for the line that says where it listens.
    pub fn start(models: &str, more: &[&str]) -> Self {
        let mut command = sextant(&["serve", "--models", models]);
        command.args(more);
        Self::start_command(command)
    }

    /// The same for a command that lacks only where to listen, and how many sessions to have.
    pub fn start_command(command: Command) -> Self {
        Self::start_telling(command, Stdio::null())
    }

    /// The same, with its log to `log`.
    pub fn start_telling(mut command: Command, log: Stdio) -> Self {
        let mut child = command
            .args(["--listen", "127.0.0.1:0"])
            .args(["--sessions", "2", "--max-batch-tokens", "256", "--lone-threads", "0"])
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines.next().expect("a line before the end").unwrap();
        let address = first.split("http://").nth(1).unwrap().split(". ").next().unwrap().to_owned();
        let curl = lines.next().unwrap().unwrap();
        assert!(curl.contains(&format!("curl http://{address}/v1/embeddings")), "{curl}");
        Self { child, address }
    }

    pub fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap().success());
    }

    pub async fn exit_code(mut self) -> Option<i32> {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < end, "the server does not stop");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_under_load_loses_no_request_and_exits_with_0() {
    let directory = imported();
    let server = Server::start(&path(&directory, "models"), &["--drain-delay", "300ms"]);
    let url = format!("http://{}/v1/embeddings", server.address);
    let body = |_| json!({ "model": "tiny", "input": ["the red house", "a cat sleeps"] });
    let load = Load::start(&url, 16, body);
    until("requests flow", async || load.answered() > 100).await;
    load.expect_a_stop();
    server.signal("TERM");
    load.all_answered().await;
    assert_eq!(server.exit_code().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_stops_an_idle_server() {
    let directory = imported();
    let server = Server::start(&path(&directory, "models"), &["--drain-delay", "0s"]);
    server.signal("INT");
    assert_eq!(server.exit_code().await, Some(0));
}

#[test]
fn metrics_and_health_can_have_their_own_address() {
    let directory = imported();
    let models = path(&directory, "models");
    let printed = run(&[
        "serve",
        "--models",
        &models,
        "--admin-listen",
        "127.0.0.1:9901",
        "--sessions",
        "3",
        "--print-config",
    ]);
    let text = String::from_utf8(printed.stdout).unwrap();
    let table: toml::Table = toml::from_str(&text).unwrap();
    assert_eq!(table["admin_listen"].as_str(), Some("127.0.0.1:9901"));
    assert_eq!(table["sessions"].as_integer(), Some(3));
    assert_eq!(table["models"].as_str(), Some(models.as_str()));
}

#[test]
fn wrong_usage_exits_with_2_and_names_every_mistake() {
    let (code, text) = failure(&mut sextant(&["serve", "--listen", "nowhere", "--sessions", "0"]));
    assert_eq!(code, 2);
    for name in ["`models`", "`listen`", "`sessions`"] {
        assert!(text.contains(name), "{text}");
    }
    assert_eq!(failure(&mut sextant(&["frobnicate"])).0, 2);
    let (code, text) =
        failure(&mut sextant(&["import", ".", "--models", "m", "--name", "n", "--calibrate", "texts.txt"]));
    assert!(code == 2 && text.contains("--precision int8"), "{text}");
    assert_eq!(failure(&mut sextant(&["evaluate", "tiny", "--models", ".", "--sts", "x.csv"])).0, 2);
}

#[test]
fn a_library_that_is_not_there_or_not_one_is_told_in_one_sentence() {
    let directory = imported();
    let models = path(&directory, "models");
    let text_file = path(&directory, "text.so");
    std::fs::write(&text_file, "not a library").unwrap();
    let old = too_old_library(directory.path());
    let other = env!("CARGO_BIN_EXE_sextant").to_owned();
    for (library, expected) in [
        (path(&directory, "none.so"), "no ONNX Runtime library at"),
        (text_file, "cannot be used as the ONNX Runtime library"),
        (old, "1.10.0"),
        (other, "cannot be used as the ONNX Runtime library"),
    ] {
        let serve = ["serve", "--models", &models, "--listen", "127.0.0.1:0", "--onnxruntime", &library];
        let mut by_variable = sextant(&["serve", "--models", &models, "--listen", "127.0.0.1:0"]);
        for command in [&mut sextant(&serve), by_variable.env("ORT_DYLIB_PATH", &library)] {
            let (code, text) = failure(command);
            assert_eq!(code, 1, "{text}");
            assert!(text.starts_with("error: ") && text.trim_end().lines().count() == 1, "{text}");
            assert!(text.contains(expected) && text.contains(&library), "{text}");
        }
    }
}

/// A library that says that it is ONNX Runtime 1.10.
fn too_old_library(directory: &Path) -> String {
    let (source, library) = (directory.join("old.c"), directory.join("libold.so"));
    let code = "static const char* version(void) { return \"1.10.0\"; }\n\
        static const void* api(unsigned v) { (void)v; return 0; }\n\
        static struct { const void* (*a)(unsigned); const char* (*v)(void); } base = { api, version };\n\
        const void* OrtGetApiBase(void) { return &base; }\n";
    std::fs::write(&source, code).unwrap();
    let status =
        Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).status().unwrap();
    assert!(status.success());
    library.to_str().unwrap().to_owned()
}

#[test]
fn a_repository_that_is_not_fit_is_told_in_one_sentence() {
    let directory = imported();
    let empty = path(&directory, "empty");
    std::fs::create_dir(&empty).unwrap();
    let models = path(&directory, "models");
    let flipped = path(&directory, "models/tiny/versions/1/tokenizer.json");
    let mut bytes = std::fs::read(&flipped).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&flipped, bytes).unwrap();
    for (models, expected) in [
        (path(&directory, "none"), "cannot be opened"),
        (empty, "there is no activated version"),
        ("ftp://host/models".to_owned(), "models cannot be kept at"),
        (models, "the file `tokenizer.json` of tiny@1 is not the one that was published"),
    ] {
        let (code, text) = failure(&mut sextant(&["serve", "--models", &models, "--listen", "127.0.0.1:0"]));
        assert_eq!(code, 1, "{text}");
        let errors: Vec<&str> = text.lines().filter(|line| line.starts_with("error: ")).collect();
        assert!(errors.len() == 1 && errors[0].contains(expected), "{text}");
    }
}

#[test]
fn an_import_that_fails_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    TinyCheckpoint::bert().write(&directory.path().join("checkpoint"));
    let weights = directory.path().join("checkpoint/model.safetensors");
    let bytes = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &bytes[..bytes.len() / 2]).unwrap();
    let (checkpoint, models) = (path(&directory, "checkpoint"), path(&directory, "models"));
    let (code, text) = failure(&mut sextant(&["import", &checkpoint, "--models", &models, "--name", "tiny"]));
    assert_eq!(code, 1);
    assert!(text.starts_with("error: ") && text.trim_end().lines().count() == 1, "{text}");
    assert!(!Path::new(&models).exists());
    // Nor are the directories above it, and what was there stays.
    let deep = path(&directory, "a/b/models");
    std::fs::create_dir(directory.path().join("a")).unwrap();
    for models in [&deep, &format!("file://{deep}")] {
        assert_eq!(
            failure(&mut sextant(&["import", &checkpoint, "--models", models, "--name", "tiny"])).0,
            1
        );
        assert_eq!(directory.path().join("a").read_dir().unwrap().count(), 0);
    }
    std::fs::create_dir_all(&deep).unwrap();
    assert_eq!(failure(&mut sextant(&["import", &checkpoint, "--models", &deep, "--name", "tiny"])).0, 1);
    assert_eq!(Path::new(&deep).read_dir().unwrap().count(), 0);
    let (code, text) =
        failure(&mut sextant(&["import", &checkpoint, "--models", &models, "--name", "../up"]));
    assert_eq!(code, 2, "{text}");
}

#[test]
fn a_repository_that_cannot_be_written_is_told_before_any_work() {
    let directory = tempfile::tempdir().unwrap();
    // The checkpoint is not even looked at.
    let checkpoint = path(&directory, "checkpoint");
    std::fs::create_dir(&checkpoint).unwrap();
    let file = path(&directory, "file");
    std::fs::write(&file, "").unwrap();
    let blocked = path(&directory, "models");
    std::fs::create_dir(&blocked).unwrap();
    std::fs::write(path(&directory, "models/tiny"), "").unwrap();
    for (models, expected) in [
        (file.clone(), file.as_str()),
        (format!("{file}/models"), file.as_str()),
        (blocked.clone(), "models/tiny"),
        // Nobody can write there, not even root.
        ("/proc".to_owned(), "/proc/tiny"),
        ("ftp://host/models".to_owned(), "models cannot be kept at"),
    ] {
        let (code, text) =
            failure(&mut sextant(&["import", &checkpoint, "--models", &models, "--name", "tiny"]));
        assert_eq!(code, 1, "{text}");
        assert!(
            text.starts_with("error: ") && text.contains(expected) && !text.contains("config.json"),
            "{text}"
        );
    }
    assert_eq!(Path::new(&blocked).read_dir().unwrap().count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_no_directory_is_told_as_both_things_that_it_could_be() {
    let hub = FakeHub::start().await;
    let directory = tempfile::tempdir().unwrap();
    let (models, cache) = (path(&directory, "models"), path(&directory, "cache"));
    for (source, said) in [
        ("acme/misspelt", "the hub has no model `acme/misspelt`"),
        ("./acme/tiny", "not a hub model id"),
        ("checkpoint", "not a hub model id"),
    ] {
        let mut import = sextant(&["import", source, "--models", &models, "--name", "x", "--cache", &cache]);
        let (code, text) = failure(import.env("HF_ENDPOINT", &hub.url));
        assert_eq!(code, 1, "{text}");
        assert!(text.starts_with(&format!("error: there is no directory `{source}`, and")), "{text}");
        assert!(text.contains(said) && text.trim_end().lines().count() == 1, "{text}");
    }
}

#[test]
fn versions_count_up_and_only_an_activated_one_serves() {
    let directory = imported();
    let (checkpoint, models) = (path(&directory, "checkpoint"), path(&directory, "models"));
    let import = ["import", &checkpoint, "--models", &models, "--name", "tiny", "--precision", "int8"];
    let text = String::from_utf8(run(&import).stdout).unwrap();
    assert!(text.contains("imported tiny@2: int8") && !text.contains("serves"), "{text}");
    let activate = [&import[..], &["--activate", "--reason", "a test"]].concat();
    let (code, text) = failure(&mut sextant(&activate));
    assert_eq!(code, 1);
    assert!(
        text.starts_with("error: tiny@3 is imported, but `tiny` stays as it is: version 3 writes"),
        "{text}"
    );
    let text = String::from_utf8(run(&[&activate[..], &["--force"]].concat()).stdout).unwrap();
    assert!(text.contains("tiny@4 is the version that serves"), "{text}");
    let log = std::fs::read_to_string(path(&directory, "models/tiny/rollouts/00000002.json")).unwrap();
    let rollout: serde_json::Value = serde_json::from_str(&log).unwrap();
    assert_eq!((&rollout["stable"], &rollout["previous"]), (&json!(4), &json!(1)), "{log}");
    assert_eq!(rollout["reason"], "a test");
}
