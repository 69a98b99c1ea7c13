//! What Prometheus makes of the counters of several servers is what their states give added up.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use reqwest::Url;
use serde_json::Value;
use sextant::drift::state::State;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::block_in_place;

use super::{ask_each, counted, serve, watchful, with_reference};
use crate::evaluate::sentences;
use crate::support::app::{TestApp, client, until};
use crate::support::skipped;

/// A Prometheus of its own, ended when it is dropped.
struct Prometheus {
    url: String,
    child: Child,
    _data: TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // Errors say that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Prometheus {
    /// One that scrapes `apps`. `None`, and a word about it, on a machine without Prometheus. CI must have it.
    async fn of(apps: &[TestApp]) -> Option<Self> {
        let found = std::env::var_os("PATH").is_some_and(|path| {
            std::env::split_paths(&path).any(|directory| directory.join("prometheus").is_file())
        });
        if !found {
            skipped("no Prometheus to test with: install the package `prometheus`");
            return None;
        }
        let data = tempfile::tempdir().unwrap();
        let targets: Vec<String> = apps.iter().map(|app| app.address.to_string()).collect();
        let config = serde_json::json!({
            "global": { "scrape_interval": "200ms", "evaluation_interval": "200ms" },
            "rule_files": [Path::new(env!("CARGO_MANIFEST_DIR")).join("helm/sextant/files/rules/drift.rules.yaml")],
            "scrape_configs": [{ "job_name": "sextant", "static_configs": [{ "targets": targets }] }],
        });
        let file = data.path().join("prometheus.yml");
        fs::write(&file, config.to_string()).unwrap();
        let address = free_address().await;
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", data.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let prometheus = Self { url: format!("http://{address}"), child, _data: data };
        let ready = format!("{}/-/ready", prometheus.url);
        until("Prometheus is ready", async || {
            client().get(&ready).send().await.is_ok_and(|answer| answer.status() == 200)
        })
        .await;
        Some(prometheus)
    }

    /// The value of an expression with one result, if it has one.
    async fn value(&self, expression: &str) -> Option<f64> {
        let url =
            Url::parse_with_params(&format!("{}/api/v1/query", self.url), [("query", expression)]).unwrap();
        let answer = client().get(url).send().await.unwrap().bytes().await.unwrap();
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(answer["status"], "success", "{answer}");
        answer["data"]["result"][0]["value"][1].as_str()?.parse().ok()
    }
}

/// An address that is free now.
async fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_adds_three_servers_up_as_merging_their_states_does() {
    let directory = block_in_place(with_reference);
    let mut apps = Vec::new();
    for _ in 0..3 {
        apps.push(serve(&directory, watchful()).await);
    }
    let Some(prometheus) = Prometheus::of(&apps).await else { return };
    let mut states = Vec::new();
    for (seed, app) in (40..).zip(&apps) {
        let count = 50 + seed as usize;
        let strange = (0..count / 8).map(|index| "ψ ".repeat(1 + index));
        ask_each(app, sentences(seed, count - count / 8).into_iter().chain(strange).collect()).await;
        let state = counted(app, count as u64).await;
        assert_eq!(app.metric("sextant_drift_unknown_total", &[]).await, (count / 8) as f64);
        states.push(serde_json::from_value::<State>(state).unwrap());
    }
    let merged = State::merge(states).unwrap();
    let statistics = merged.statistics;
    assert!(statistics.inputs_z[2] > 5.0, "of unknown tokens: {statistics:?}");
    let expected = [
        ("sextant:drift_samples:sum{window=\"all\"}", merged.counts.samples as f64),
        ("sextant:drift_log_evidence{window=\"all\",test=\"outside\"}", statistics.log_evidence_outside),
        ("sextant:drift_log_evidence{window=\"all\",test=\"near\"}", statistics.log_evidence_near),
        ("sextant:drift_t_squared{window=\"all\"}", statistics.t_squared),
        ("sextant:drift_shift_z{window=\"all\"}", statistics.shift_z),
    ];
    // Rules are evaluated one after another, on scrapes that are not of one moment.
    for (expression, expected) in expected {
        until(&format!("{expression} is {expected}"), async || {
            let found = prometheus.value(expression).await.unwrap_or(f64::NAN);
            (found - expected).abs() <= 1e-9 * expected.abs().max(1.0)
        })
        .await;
    }
}
