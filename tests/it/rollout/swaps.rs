//! Many changes in a row while many ask: no request fails, and no vector is another version's.

use serde_json::json;

use super::sync::{Tiny, Watch, ask};
use crate::support::app::TestApp;
use crate::support::distance;

const CLIENTS: usize = 64;
const CHANGES: usize = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_hundred_changes_under_64_clients_fail_no_request_and_mix_no_vectors() {
    let tiny = Tiny::new();
    // int8 in the space of fp32: other vectors, and allowed without force.
    tiny.import("tiny", &["--precision", "int8", "--claim-space-of", "1"]);
    let app = TestApp::repository(&tiny.models()).await;
    let watch = Watch::start(&app, CLIENTS);
    let change = async |action: &str, body: serde_json::Value| {
        let answer = app.post(&format!("/admin/v1/models/tiny/{action}"), body).await;
        assert_eq!(answer.status, 200, "{action}: {}", answer.text());
    };
    for round in 0..CHANGES {
        // To one that must be loaded, to one that is at hand, back to it, and a rollback, which unloads it.
        let expected = match round % 4 {
            0 | 2 => 3,
            _ => 1,
        };
        match round % 4 {
            3 => change("rollback", json!({ "reason": "x" })).await,
            _ => change("rollout", json!({ "version": expected, "reason": "x" })).await,
        }
        assert_eq!(ask(&app, "tiny").await, (200, format!("tiny@{expected}")), "round {round}: at once");
    }
    let vectors = watch.stop().await;
    assert!(
        distance(&vectors["tiny@1"], &vectors["tiny@3"]) > 1e-4,
        "which they could be mistaken for each other"
    );
    assert_eq!(vectors.len(), 2);
    assert_eq!(app.metric("sextant_rollout_generation", &["tiny"]).await, (1 + CHANGES) as f64);
    assert!(app.stop().await);
}
