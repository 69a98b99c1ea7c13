//! Files of a version that serves, and what is in their place when somebody else has changed them.

mod abandoned;
mod private;
mod stop;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::command::{Server, imported, path, sextant};
use crate::support;
use crate::support::app::{client, until};

fn make_fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// The directory of `tiny@1` in the cache of the repository in `models`.
fn copy_of_tiny(models: &str) -> PathBuf {
    let mut entries =
        support::cache(Path::new(models)).read_dir().unwrap().map(|entry| entry.unwrap().path());
    let is_version =
        |path: &PathBuf| path.is_dir() && path.file_name().unwrap().to_str().unwrap().starts_with("tiny@1-");
    entries.find(is_version).unwrap()
}

/// A server in a process of its own that looks at its files all the time.
struct Watched {
    server: Server,
    client: reqwest::Client,
    log: PathBuf,
}

impl Watched {
    fn start(models: &str, log: PathBuf) -> Self {
        let mut command = sextant(&["serve", "--models", models, "--log-format", "json"]);
        command.args(["--recheck-interval", "10ms", "--drain-delay", "0s"]);
        let server = Server::start_telling(command, File::create(&log).unwrap().into());
        Self { server, client: client(), log }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.server.address)
    }

    /// The version that answers, and the vector of a text.
    async fn answer(&self) -> (String, Value) {
        let body = json!({ "model": "tiny", "input": "the red house" }).to_string();
        let request = self.client.post(self.url("/v1/embeddings")).body(body);
        let answer = request.header("content-type", "application/json").send().await.unwrap();
        let version = answer.headers()["x-sextant-version"].to_str().unwrap().to_owned();
        let answer: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        (version, answer["data"][0]["embedding"].clone())
    }

    /// The files of `tiny@1` that are not as published, as the metrics have them.
    async fn changed(&self) -> u32 {
        let text = self.client.get(self.url("/metrics")).send().await.unwrap().text().await.unwrap();
        let series = "sextant_files_changed{model=\"tiny\",version=\"1\"} ";
        text.lines().find_map(|line| line.strip_prefix(series)).unwrap().parse().unwrap()
    }

    /// What the log says of files that were changed: `files` of each line.
    fn told(&self) -> Vec<String> {
        let lines = fs::read_to_string(&self.log).unwrap();
        // The last one may be half written.
        let lines = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let files = lines.filter_map(|line| Some(line.get("files")?.as_str()?.to_owned()));
        files.collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_files_of_a_served_version_change_no_vector_and_raise_an_alarm() {
    let directory = imported();
    let models = path(&directory, "models");
    let watched = Watched::start(&models, directory.path().join("log"));
    let before = watched.answer().await;
    assert_eq!((before.0.as_str(), watched.changed().await), ("tiny@1", 0));
    let weights = directory.path().join("models/tiny/versions/1/model.onnx.data");
    let whole = fs::read(&weights).unwrap();
    let elsewhere = directory.path().join("elsewhere");
    let changes: [&dyn Fn(); 5] = [
        // In place: the file that a process has mapped is this one.
        &|| {
            let mut file = File::options().write(true).open(&weights).unwrap();
            std::io::Write::write_all(&mut file, &vec![0x3f; whole.len()]).unwrap();
        },
        // Reading a page beyond the end of a mapped file ends the process with SIGBUS.
        &|| File::options().write(true).open(&weights).unwrap().set_len(0).unwrap(),
        &|| {
            fs::write(&elsewhere, vec![0; whole.len()]).unwrap();
            fs::rename(&elsewhere, &weights).unwrap();
        },
        &|| fs::remove_file(&weights).unwrap(),
        &|| {
            let _missing = fs::remove_file(&weights);
            make_fifo(&weights);
        },
    ];
    for (index, change) in changes.iter().enumerate() {
        change();
        until("the alarm is raised", async || watched.changed().await == 1).await;
        assert_eq!(watched.answer().await, before, "after change {index}");
        let _missing = fs::remove_file(&weights);
        fs::write(&weights, &whole).unwrap();
        until("the alarm ends", async || watched.changed().await == 0).await;
    }
    // A look may fall between two steps of a change, but each alarm names the one file.
    let told = watched.told();
    assert!(told.len() >= changes.len() && told.iter().all(|files| files == "model.onnx.data"), "{told:?}");

    // The manifest, and the private copy.
    let manifest = directory.path().join("models/tiny/versions/1/manifest.toml");
    let published = fs::read(&manifest).unwrap();
    fs::write(&manifest, "schema = 1").unwrap();
    until("the alarm is raised", async || watched.changed().await == 1).await;
    fs::write(&manifest, published).unwrap();
    until("the alarm ends", async || watched.changed().await == 0).await;
    fs::write(copy_of_tiny(&models).join("config.json"), "{}").unwrap();
    until("the alarm is raised", async || watched.changed().await == 1).await;
    until("it is told", async || watched.told().last().is_some_and(|files| files == "config.json")).await;
    assert_eq!(watched.answer().await, before);
    watched.server.signal("TERM");
    assert_eq!(watched.server.exit_code().await, Some(0));
}
