//! GPUs where there is none: what the binary says of devices that cannot be had, what auto does then, and what callers get when a device
//! runs out of memory or is lost.

mod missing;
mod unpadded;

use serde_json::json;

use crate::command::{Server, imported, path, sextant};
use crate::support::app::{TestApp, until};

#[tokio::test(flavor = "multi_thread")]
async fn only_the_input_for_which_memory_does_not_suffice_is_refused() {
    let (app, fake) = TestApp::fake().await;
    let embed = async |input: serde_json::Value| {
        app.post("/v1/embeddings", json!({ "model": "tiny", "input": input })).await
    };
    let words = |count: usize| vec!["cat"; count].join(" ");
    let before = embed(json!([words(6), words(7), words(5), words(6)])).await.json();
    fake.have_memory_for(16);
    let split = embed(json!([words(6), words(7), words(5), words(6)])).await;
    assert_eq!((split.status, split.json()), (200, before), "the same vectors, in smaller batches");
    let of = &["model=\"tiny\"", "version=\"1\""];
    assert!(app.metric("sextant_out_of_memory_total", of).await >= 1.0);
    let (large, small) = tokio::join!(embed(json!(words(20))), embed(json!(words(3))));
    assert_eq!((large.status, small.status), (503, 200));
    assert!(large.text().contains("memory of the device does not suffice"), "{}", large.text());
    assert_eq!(app.get("/livez").await.status, 200, "others are answered");
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_device_is_lost_requests_get_503_and_livez_fails() {
    let (app, fake) = TestApp::fake().await;
    fake.lose();
    for input in [json!("cat"), json!(["cat", "dog"])] {
        let answer = app.post("/v1/embeddings", json!({ "model": "tiny", "input": input })).await;
        assert_eq!(answer.status, 503);
        assert!(answer.text().contains("`cuda:0` is lost"), "{}", answer.text());
    }
    until("livez fails", async || app.get("/livez").await.status == 503).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_version_runs_is_told() {
    let directory = imported();
    let mut command = sextant(&["serve", "--models", &path(&directory, "models"), "--device", "cpu"]);
    let log = std::fs::File::create(directory.path().join("log")).unwrap();
    command.env("SEXTANT_LOG_FORMAT", "json");
    let server = Server::start_telling(command, log.into());
    let client = crate::support::app::client();
    let get = async |path: &str| {
        let answer = client.get(format!("http://{}{path}", server.address)).send().await.unwrap();
        answer.text().await.unwrap()
    };
    let ready: serde_json::Value = serde_json::from_str(&get("/readyz").await).unwrap();
    let placement = &ready["placement"]["tiny@1"];
    assert_eq!(placement["devices"], json!(["cpu"]));
    let nodes = placement["nodes"]["CPUExecutionProvider"].as_u64().unwrap();
    assert!(nodes > 20 && placement["nodes"].as_object().unwrap().len() == 1, "{ready}");
    let metrics = get("/metrics").await;
    let series = "sextant_engine_nodes{model=\"tiny\",provider=\"CPUExecutionProvider\",version=\"1\"}";
    assert!(metrics.contains(&format!("{series} {nodes}\n")), "{metrics}");
    assert!(metrics.contains("provider=\"cpu\"") && !metrics.contains("sextant_gpu_"), "{metrics}");
    let log = std::fs::read_to_string(directory.path().join("log")).unwrap();
    let loaded = log.lines().find(|line| line.contains("\"loaded\"")).unwrap();
    assert!(loaded.contains("\"devices\":\"cpu\"") && loaded.contains("CPUExecutionProvider"), "{loaded}");
}
