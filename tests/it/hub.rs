//! Fetching a checkpoint from a hub, against a local one that fails as real ones do.

pub mod fake;
mod weights;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sextant::import::hub::{Hub, HubError, Patience, Snapshot, Wanted};
use tempfile::TempDir;

use self::fake::{COMMIT, FakeHub, Fault, ID, WEIGHTS};

/// As in production, in milliseconds.
const PATIENCE: Patience = Patience {
    connect: Duration::from_secs(5),
    stall: Duration::from_secs(5),
    attempts: 4,
    backoff: Duration::from_millis(1),
    retry_after: Duration::from_secs(1),
};

/// Files of the fake model that are needed and not empty; an empty one is asked for by nobody.
const DOWNLOADS: usize = 4;

const TOKEN: &str = "hf_tellNobody";

/// A client with a cache of its own.
struct Client {
    hub: Hub,
    cache: TempDir,
}

impl Client {
    fn new(server: &FakeHub) -> Self {
        Self::with(server, None, PATIENCE)
    }

    fn with(server: &FakeHub, token: Option<&str>, patience: Patience) -> Self {
        let hub = Hub::new(&server.url, token, patience).unwrap();
        Self { hub, cache: tempfile::tempdir().unwrap() }
    }

    async fn fetch(&self) -> Result<Snapshot, HubError> {
        self.hub.fetch(ID, "main", self.cache.path(), Wanted::default(), |_, _, _| {}).await
    }

    async fn refusal(&self) -> String {
        self.fetch().await.unwrap_err().to_string()
    }

    /// Where a file is, or will be.
    fn path(&self, name: &str) -> PathBuf {
        self.cache.path().join("acme--tiny").join(COMMIT).join(name)
    }
}

/// Relative paths of all files below `directory`, sorted.
fn files(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut pending = vec![directory.to_owned()];
    while let Some(next) = pending.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => pending.push(path),
                false => found.push(path.strip_prefix(directory).unwrap().to_str().unwrap().to_owned()),
            }
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn the_files_an_import_needs_arrive_and_no_others() {
    let server = FakeHub::start().await;
    let client = Client::new(&server);
    let snapshot = client.fetch().await.unwrap();
    assert_eq!(
        snapshot,
        Snapshot { directory: client.path(""), id: ID.to_owned(), revision: COMMIT.to_owned() }
    );
    let expected = ["1_Pooling/config.json", "README.md", "config.json", WEIGHTS, "tokenizer.json"];
    assert_eq!(files(&snapshot.directory), expected);
    for name in expected {
        assert_eq!(fs::read(snapshot.directory.join(name)).unwrap(), server.content(name), "{name}");
    }
}

#[tokio::test]
async fn a_second_fetch_downloads_nothing() {
    let server = FakeHub::start().await;
    let client = Client::new(&server);
    client.fetch().await.unwrap();
    let first = server.downloads().len();
    client.fetch().await.unwrap();
    assert_eq!((first, server.downloads().len()), (DOWNLOADS, DOWNLOADS));
}

#[tokio::test]
async fn two_fetches_at_once_download_each_file_once() {
    let server = FakeHub::start().await;
    let client = Client::new(&server);
    let (one, other) = tokio::join!(client.fetch(), client.fetch());
    assert_eq!(one.unwrap(), other.unwrap());
    assert_eq!(server.downloads().len(), DOWNLOADS);
}

#[tokio::test]
async fn a_branch_with_slashes_is_asked_for_as_one_segment() {
    let server = FakeHub::start().await;
    let client = Client::new(&server);
    client.hub.fetch(ID, "refs/pr/1", client.cache.path(), Wanted::default(), |_, _, _| {}).await.unwrap();
    assert_eq!(server.seen()[0].uri, "/api/models/acme/tiny/revision/refs%2Fpr%2F1?blobs=true");
}

#[tokio::test]
async fn bad_ids_and_revisions_are_refused_before_any_request() {
    let server = FakeHub::start().await;
    let client = Client::new(&server);
    for (id, revision) in [("tiny", "main"), ("../tiny", "main"), (ID, "../x"), (ID, "a b")] {
        assert!(
            client
                .hub
                .fetch(id, revision, client.cache.path(), Wanted::default(), |_, _, _| {})
                .await
                .is_err()
        );
    }
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn a_cut_connection_is_continued_where_it_broke() {
    let server = FakeHub::start().await;
    server.fail(WEIGHTS, [Fault::Cut(30_000), Fault::Cut(20_000)]);
    let client = Client::new(&server);
    let heard = std::sync::Mutex::new(Vec::new());
    let progress = |file: &str, done, total| {
        if file == WEIGHTS {
            heard.lock().unwrap().push((done, total));
        }
    };
    client.hub.fetch(ID, "main", client.cache.path(), Wanted::default(), progress).await.unwrap();
    assert_eq!(
        server.ranges(WEIGHTS),
        [None, Some("bytes=30000-".to_owned()), Some("bytes=50000-".to_owned())]
    );
    assert_eq!(fs::read(client.path(WEIGHTS)).unwrap(), server.content(WEIGHTS));
    let heard = heard.into_inner().unwrap();
    let size = server.content(WEIGHTS).len() as u64;
    assert_eq!((heard.first(), heard.last()), (Some(&(0, size)), Some(&(size, size))));
    assert!(heard.is_sorted());
}

#[tokio::test]
async fn what_an_earlier_run_left_is_continued() {
    let server = FakeHub::start().await;
    server.fail(WEIGHTS, vec![Fault::Cut(10_000); 4]);
    let client = Client::new(&server);
    let error = client.refusal().await;
    assert!(error.contains("`model.safetensors`") && error.contains("run again"), "{error}");
    assert!(client.path("model.safetensors.part").exists());
    assert!(!client.path(WEIGHTS).exists(), "it gets its name when it is checked");
    client.fetch().await.unwrap();
    assert_eq!(server.ranges(WEIGHTS).last().unwrap().as_deref(), Some("bytes=40000-"));
    assert_eq!(fs::read(client.path(WEIGHTS)).unwrap(), server.content(WEIGHTS));
    assert!(!client.path("model.safetensors.part").exists());
}

#[tokio::test]
async fn progress_keeps_the_attempts_from_running_out() {
    let server = FakeHub::start().await;
    server.put_large(WEIGHTS, vec![7; 6 << 20]);
    server.fail(WEIGHTS, vec![Fault::Cut((1 << 20) + 1); 5]);
    let client = Client::new(&server);
    client.fetch().await.unwrap();
    assert_eq!(server.ranges(WEIGHTS).len(), 6);
}

#[tokio::test]
async fn servers_that_cannot_continue_are_asked_for_all_of_it() {
    for fault in [Fault::NoRange, Fault::Status(416, ""), Fault::WrongRange] {
        let server = FakeHub::start().await;
        server.fail(WEIGHTS, [Fault::Cut(30_000), fault.clone()]);
        let client = Client::new(&server);
        client.fetch().await.unwrap();
        assert_eq!(fs::read(client.path(WEIGHTS)).unwrap(), server.content(WEIGHTS), "{fault:?}");
    }
}

#[tokio::test]
async fn leftovers_of_any_length_do_no_harm() {
    let server = FakeHub::start().await;
    let content = server.content(WEIGHTS);
    let client = Client::new(&server);
    fs::create_dir_all(client.path("")).unwrap();
    let part = client.path("model.safetensors.part");

    // Of another file: the digest tells, and the next run starts afresh.
    fs::write(&part, b"something else").unwrap();
    let error = client.fetch().await.unwrap_err();
    assert!(matches!(error, HubError::Mismatch { .. }), "{error}");
    assert!(!part.exists());

    // Too long: of no use.
    fs::write(&part, vec![0; content.len() + 1]).unwrap();
    client.fetch().await.unwrap();
    assert_eq!(server.ranges(WEIGHTS), [Some("bytes=14-".to_owned()), None]);

    // Complete, and the run ended before it was renamed.
    fs::rename(client.path(WEIGHTS), &part).unwrap();
    client.fetch().await.unwrap();
    assert_eq!(server.ranges(WEIGHTS).len(), 2);
    assert_eq!(fs::read(client.path(WEIGHTS)).unwrap(), content);
}

#[tokio::test]
async fn a_file_changed_on_disk_is_fetched_again() {
    let server = FakeHub::start().await;
    let client = Client::new(&server);
    client.fetch().await.unwrap();
    let content = server.content("config.json");
    fs::write(client.path("config.json"), vec![b'x'; content.len()]).unwrap();
    client.fetch().await.unwrap();
    assert_eq!(fs::read(client.path("config.json")).unwrap(), content);
}

#[tokio::test]
async fn wrong_bytes_are_refused_with_both_digests_and_deleted() {
    for name in ["config.json", WEIGHTS] {
        let server = FakeHub::start().await;
        server.fail(name, [Fault::Flip]);
        let client = Client::new(&server);
        let error = client.fetch().await.unwrap_err();
        let HubError::Mismatch { file, expected, found } = &error else { panic!("{error}") };
        assert_eq!((file.as_str(), expected), (name, &server.digest(name)));
        assert_ne!(expected, found);
        assert!(!client.path(name).exists() && !client.path(&format!("{name}.part")).exists());
        client.fetch().await.unwrap();
    }
}

#[tokio::test]
async fn wrong_lengths_are_refused_and_deleted() {
    // Announced, or only found out while reading.
    for fault in [Fault::Longer { announced: true }, Fault::Longer { announced: false }] {
        let server = FakeHub::start().await;
        server.fail(WEIGHTS, [fault]);
        let client = Client::new(&server);
        let error = client.fetch().await.unwrap_err();
        assert!(matches!(error, HubError::Mismatch { .. }), "{error}");
        assert!(!client.path("model.safetensors.part").exists());
    }
}

#[tokio::test]
async fn passing_troubles_of_the_server_are_waited_out() {
    let server = FakeHub::start().await;
    server.fail("/api/", [Fault::Status(500, ""), Fault::Cut(20)]);
    server.fail("config.json", [Fault::Status(500, ""), Fault::Status(503, "")]);
    server.fail(WEIGHTS, [Fault::Status(429, "0"), Fault::Status(429, "soon")]);
    Client::new(&server).fetch().await.unwrap();
}

#[tokio::test]
async fn lasting_troubles_of_the_server_are_not() {
    let server = FakeHub::start().await;
    server.fail("/api/", vec![Fault::Status(502, ""); 4]);
    let error = Client::new(&server).refusal().await;
    assert!(error.contains("502") && error.contains("try again later"), "{error}");
    assert_eq!(server.seen().len(), 4);

    let server = FakeHub::start().await;
    server.fail(WEIGHTS, [Fault::Status(429, "3600")]);
    assert!(Client::new(&server).refusal().await.contains("3600 s"));

    let nobody = FakeHub::stopped().await;
    let error = Client::new(&nobody).refusal().await;
    assert!(error.contains("127.0.0.1") && error.contains("refused"), "{error}");
}

#[tokio::test]
async fn a_server_that_falls_silent_is_left() {
    let server = FakeHub::start().await;
    server.fail(WEIGHTS, [Fault::Stall, Fault::Stall]);
    let patience = Patience { stall: Duration::from_millis(60), attempts: 2, ..PATIENCE };
    let error = Client::with(&server, None, patience).refusal().await;
    assert!(error.contains("timed out"), "{error}");
    // One that only paused is continued.
    server.fail(WEIGHTS, [Fault::Stall]);
    Client::with(&server, None, patience).fetch().await.unwrap();
}

#[tokio::test]
async fn refusals_of_the_hub_say_what_to_do() {
    let cases: [(Fault, Option<&str>, &[&str]); 6] = [
        (
            Fault::Status(404, ""),
            None,
            &["model `acme/tiny` at revision `main`", "check the name", "set HF_TOKEN"],
        ),
        (Fault::Status(404, ""), Some(TOKEN), &["check the name and `--revision`"]),
        (Fault::Status(401, ""), None, &["anonymous", "set HF_TOKEN"]),
        (Fault::Status(401, ""), Some(TOKEN), &["token is valid"]),
        (
            Fault::Gated,
            None,
            &["set HF_TOKEN", "accept the model's licence at http://127.0.0.1:", "/acme/tiny"],
        ),
        (Fault::Status(403, ""), Some(TOKEN), &["accept the model's licence"]),
    ];
    for (fault, token, said) in cases {
        let server = FakeHub::start().await;
        server.fail("/api/", [fault]);
        let error = Client::with(&server, token, PATIENCE).fetch().await.unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(said.iter().all(|part| shown.contains(part)) && !shown.contains(TOKEN), "{shown}");
        assert_eq!(server.seen().len(), 1, "no second attempt: {shown}");
    }
}

#[tokio::test]
async fn the_token_goes_to_the_hub_and_nowhere_else() {
    let elsewhere = FakeHub::start().await;
    let server = FakeHub::start().await;
    let target = format!("{}/{ID}/resolve/{COMMIT}/{WEIGHTS}?signature=x", elsewhere.url);
    server.fail(WEIGHTS, vec![Fault::Redirect(target); 2]);
    elsewhere.fail(WEIGHTS, [Fault::Cut(30_000)]);
    server.fail("config.json", [Fault::Redirect(format!("/{ID}/resolve/{COMMIT}/config.json"))]);
    Client::with(&server, Some(TOKEN), PATIENCE).fetch().await.unwrap();

    let bearer = Some(format!("Bearer {TOKEN}"));
    // The list and the files, one of them again because it broke, one because it was redirected within the hub.
    assert_eq!(server.seen().len(), 1 + DOWNLOADS + 2);
    assert!(server.seen().iter().all(|request| request.authorization == bearer));
    assert!(elsewhere.seen().iter().all(|request| request.authorization.is_none()));
    assert_eq!(
        elsewhere.ranges(WEIGHTS),
        [None, Some("bytes=30000-".to_owned())],
        "ranges outlive a redirect"
    );
}

#[tokio::test]
async fn signed_addresses_stay_out_of_messages() {
    let server = FakeHub::start().await;
    let signed = format!("/{ID}/resolve/{COMMIT}/{WEIGHTS}?signature=secret");
    server.fail(WEIGHTS, vec![Fault::Redirect(signed); 20]);
    let error = Client::new(&server).fetch().await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
}

#[tokio::test]
async fn names_that_leave_the_cache_are_refused() {
    for name in ["../evil", "/tmp/evil", "a\\evil", "a/../../evil", "evil\0"] {
        let server = FakeHub::start().await;
        server.put(name, b"x".to_vec());
        let client = Client::new(&server);
        let error = client.refusal().await;
        assert!(error.contains("no safe file name"), "{error}");
        assert!(files(client.cache.path()).is_empty() && server.downloads().is_empty());
    }
}

#[tokio::test]
async fn weights_that_cannot_be_imported_are_refused_before_any_download() {
    for (there, said) in [
        ("model.safetensors.index.json", "several shards"),
        ("pytorch_model.bin", "a pickle"),
        ("model.gguf", "no `model.safetensors`"),
    ] {
        let server = FakeHub::start().await;
        server.remove(WEIGHTS);
        server.put(there, b"x".to_vec());
        let error = Client::new(&server).refusal().await;
        assert!(error.contains(said) && error.contains("model.onnx"), "{error}");
        assert!(server.downloads().is_empty());
    }
}

#[tokio::test]
async fn an_answer_that_is_no_list_is_refused() {
    let server = FakeHub::start().await;
    server.fail("/api/", [Fault::Page]);
    assert!(Client::new(&server).refusal().await.contains("HF_ENDPOINT"));
}

#[tokio::test]
async fn a_cache_that_cannot_be_written_is_named() {
    let server = FakeHub::start().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let hub = Hub::new(&server.url, None, PATIENCE).unwrap();
    let error =
        hub.fetch(ID, "main", file.path(), Wanted::default(), |_, _, _| {}).await.unwrap_err().to_string();
    assert!(error.contains(file.path().to_str().unwrap()), "{error}");
}
