//! Which weights are fetched: those that the import then uses, and no others.

use std::fs;
use std::path::Path;

use serde_json::json;
use sextant::import::hub::{HubError, Snapshot, Wanted};
use sextant::import::{Request, stage};
use sextant::repository::manifest::{Graph, Manifest, Source};

use super::fake::{COMMIT, FakeHub, ID, WEIGHTS, config};
use super::{Client, Fault, files};
use crate::support::checkpoint::TinyCheckpoint;
use crate::support::export::TinyExport;
use crate::support::{edit_json, runtime};

/// A hub whose model is the checkpoint in `directory`.
async fn hub_of(directory: &Path) -> FakeHub {
    let hub = FakeHub::start().await;
    for name in [WEIGHTS, "README.md", "config.json", "tokenizer.json", "1_Pooling/config.json"] {
        hub.remove(name);
    }
    for name in files(directory) {
        let content = fs::read(directory.join(&name)).unwrap();
        match name.contains(".onnx") || name.contains("table") || name == WEIGHTS {
            true => hub.put_large(&name, content),
            false => hub.put(&name, content),
        }
    }
    hub
}

async fn fetch(client: &Client, graph: Option<Graph>) -> Result<Snapshot, HubError> {
    client
        .hub
        .fetch(ID, "main", client.cache.path(), Wanted { graph, ..Wanted::default() }, |_, _, _| {})
        .await
}

/// Names of the files that were downloaded.
fn downloaded(server: &FakeHub) -> Vec<String> {
    let prefix = format!("/{ID}/resolve/{COMMIT}/");
    server.downloads().iter().map(|seen| seen.uri.strip_prefix(&prefix).unwrap().to_owned()).collect()
}

fn import(directory: &Path, graph: Option<Graph>) -> Manifest {
    let source = Source::Directory { name: "tiny".to_owned() };
    let request = Request { graph, ..Request::new(directory, "tiny", source, "now".to_owned()) };
    let into = tempfile::tempdir().unwrap();
    stage(&request, into.path(), runtime(), &|_| {}).unwrap().manifest
}

/// A checkpoint with safetensors and an export whose weights lie in a file that no convention names.
fn both(architecture: &str) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let bert = TinyCheckpoint::bert();
    bert.write(directory.path());
    edit_json(&directory.path().join("config.json"), |config| config["model_type"] = json!(architecture));
    fs::create_dir(directory.path().join("onnx")).unwrap();
    let export = TinyExport { location: "weights/table.bin", ..TinyExport::new(bert.vocabulary().len()) };
    export.write(&directory.path().join("onnx"));
    directory
}

#[tokio::test]
async fn weights_are_those_that_the_import_uses() {
    let export = ["onnx/model.onnx", "onnx/weights/table.bin"];
    for (architecture, asked, made, wanted) in [
        ("bert", None, Graph::Packed, &[WEIGHTS][..]),
        ("bert", Some(Graph::Packed), Graph::Packed, &[WEIGHTS]),
        ("bert", Some(Graph::Padded), Graph::Padded, &export),
        // An encoder that cannot be compiled is taken over, whatever weights lie beside its export.
        ("mpnet", None, Graph::Padded, &export),
        ("mpnet", Some(Graph::Padded), Graph::Padded, &export),
    ] {
        let directory = both(architecture);
        let server = hub_of(directory.path()).await;
        let client = Client::new(&server);
        let snapshot = fetch(&client, asked).await.unwrap();
        let downloaded = downloaded(&server);
        assert_eq!(downloaded[0], "config.json", "it decides");
        assert_eq!(&downloaded[downloaded.len() - wanted.len()..], wanted, "{architecture} {asked:?}");
        assert_eq!(downloaded.len(), 6 + wanted.len(), "{downloaded:?}");
        let (fetched, local) = (import(&snapshot.directory, asked), import(directory.path(), asked));
        assert_eq!(fetched.graph, made);
        assert_eq!(fetched.space, local.space, "where a checkpoint comes from shapes no vector");
        fetch(&client, asked).await.unwrap();
        assert_eq!(server.downloads().len(), downloaded.len(), "a second fetch downloads nothing");
    }
}

#[tokio::test]
async fn what_another_import_has_left_in_the_cache_changes_nothing() {
    let directory = both("bert");
    let server = hub_of(directory.path()).await;
    let client = Client::new(&server);
    fetch(&client, Some(Graph::Padded)).await.unwrap();
    let snapshot = fetch(&client, None).await.unwrap();
    assert_eq!(import(&snapshot.directory, None).graph, Graph::Packed);
    assert_eq!(import(&snapshot.directory, Some(Graph::Padded)).graph, Graph::Padded);
}

#[tokio::test]
async fn data_of_a_graph_is_resumed_and_checked_as_any_file() {
    let directory = both("mpnet");
    let server = hub_of(directory.path()).await;
    let data = "onnx/weights/table.bin";
    server.fail(data, [Fault::Cut(5_000)]);
    let client = Client::new(&server);
    fetch(&client, None).await.unwrap();
    assert_eq!(server.ranges(data), [None, Some("bytes=5000-".to_owned())]);
    server.fail(data, [Fault::Flip]);
    let refusal = fetch(&Client::new(&server), None).await.unwrap_err();
    assert!(matches!(refusal, HubError::Mismatch { .. }), "{refusal}");
}

#[tokio::test]
async fn what_cannot_be_imported_costs_no_weights() {
    let refused = async |server: &FakeHub, asked| {
        let refusal = fetch(&Client::new(server), asked).await.unwrap_err().to_string();
        (refusal, downloaded(server))
    };
    // The fake's own model has weights and no export.
    let server = FakeHub::start().await;
    let (refusal, fetched) = refused(&server, Some(Graph::Padded)).await;
    assert!(refusal.contains("has no `model.onnx`") && refusal.contains("--graph padded"), "{refusal}");
    assert_eq!(fetched, ["config.json"]);

    let server = FakeHub::start().await;
    server.put("config.json", config("mpnet"));
    let (refusal, fetched) = refused(&server, None).await;
    assert!(refusal.contains("compiling the architecture `mpnet` is not supported"), "{refusal}");
    assert_eq!(fetched, ["config.json"]);

    let server = FakeHub::start().await;
    server.remove(WEIGHTS);
    server.put("model.onnx", b"x".to_vec());
    let (refusal, fetched) = refused(&server, Some(Graph::Packed)).await;
    assert!(
        refusal.contains("has no `model.safetensors`") && refusal.contains("--graph packed"),
        "{refusal}"
    );
    assert_eq!(fetched, ["config.json"]);

    let directory = both("mpnet");
    let server = hub_of(directory.path()).await;
    server.remove("onnx/weights/table.bin");
    let (refusal, _) = refused(&server, None).await;
    assert!(refusal.contains("has no `onnx/weights/table.bin`"), "{refusal}");
    server.put("onnx/model.onnx", b"\xff\xff\xff\xff no graph".to_vec());
    let (refusal, _) = refused(&server, None).await;
    assert!(refusal.contains("onnx/model.onnx` is not usable"), "{refusal}");
    server.put("config.json", b"{\"half\":".to_vec());
    let (refusal, _) = refused(&server, None).await;
    assert!(refusal.contains("config.json` is not usable"), "{refusal}");
}
