//! Rollouts and rollbacks under load: memory, how soon a rollback is seen, and every vector by value.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use futures_util::future::join_all;
use serde::Serialize;
use serde_json::json;

use crate::client::Client;
use crate::models::Model;
use crate::server::{Server, runtime};
use crate::statistics::median;
use crate::texts::Kind;
use crate::{Result, Run};

const CLIENTS: usize = 64;
/// Texts that the clients send over and over.
const TEXTS: usize = 256;
/// Load on both versions before the changes.
const BEFORE: Duration = Duration::from_secs(10);
const SAMPLE: Duration = Duration::from_millis(200);
/// A vector of the same version is not further from itself than that.
const SAME: f32 = 1e-5;

/// Rollouts and rollbacks between fp32 and int8 under load
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How many changes
    #[arg(long, default_value_t = 200)]
    changes: usize,
}

/// Everything that was found.
#[derive(Debug, Serialize)]
pub(crate) struct Figures {
    changes: usize,
    requests: u64,
    /// Requests that failed, or whose vector was not that of the version in the header.
    wrong: u64,
    /// With both versions loaded and under load, before the changes.
    memory_mb_two_versions: f64,
    memory_mb_most: f64,
    memory_mb_end: f64,
    /// From the answer to a rollback to the first answer by the version that it went back to.
    rollback_ms_median: f64,
    rollback_ms_most: f64,
    /// How long such a call takes.
    rollback_call_ms_median: f64,
}

/// What the clients share.
struct Shared {
    client: Client,
    texts: Vec<String>,
    /// By version, one for each text.
    vectors: BTreeMap<String, Vec<Vec<f32>>>,
    /// When each version was first seen since the last change began.
    seen: Mutex<BTreeMap<String, Instant>>,
    done: AtomicBool,
    requests: AtomicU64,
    wrong: AtomicU64,
}

pub(crate) fn measure(run: &Run, options: &Options) -> Result<Figures> {
    let directory = tempfile::Builder::new().prefix("sextant-swaps-").tempdir()?;
    let model = Model::two_versions(directory.path())?;
    let server = Server::start(&model, &run.serve)?;
    let texts = run.texts(Kind::Mixed)?.texts.into_iter().take(TEXTS).map(|text| text.text).collect();
    runtime()?.block_on(change_under_load(&server, &model.precision, texts, options.changes))
}

async fn change_under_load(
    server: &Server,
    model: &str,
    texts: Vec<String>,
    changes: usize,
) -> Result<Figures> {
    let client = Client::new(server)?;
    client.change(model, "rollout", &json!({ "version": 2, "reason": "a benchmark" })).await?;
    let mut vectors = BTreeMap::new();
    for version in [1, 2].map(|number| format!("{model}@{number}")) {
        let mut of_version = Vec::new();
        for text in &texts {
            of_version.extend(client.embed(&version, &[text]).await?.1);
        }
        vectors.insert(version, of_version);
    }
    let (seen, done) = (Mutex::default(), AtomicBool::new(false));
    let (requests, wrong) = (AtomicU64::new(0), AtomicU64::new(0));
    let shared = Shared { client, texts, vectors, seen, done, requests, wrong };
    let clients = join_all((0..CLIENTS).map(|index| ask(&shared, model, index)));
    let (_, changed) = tokio::join!(clients, async {
        let changed = change(server, &shared, model, changes).await;
        shared.done.store(true, Ordering::Relaxed);
        changed
    });
    let Changed { two_versions, most, after, calls } = changed?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let most_after = after.iter().copied().fold(0.0, f64::max);
    Ok(Figures {
        changes,
        requests: shared.requests.into_inner(),
        wrong: shared.wrong.into_inner(),
        memory_mb_two_versions: two_versions / 1e6,
        memory_mb_most: most / 1e6,
        memory_mb_end: server.memory()? / 1e6,
        rollback_ms_median: median(&after),
        rollback_ms_most: most_after,
        rollback_call_ms_median: median(&calls),
    })
}

/// A client that asks until it is told to stop.
async fn ask(shared: &Shared, model: &str, index: usize) {
    for number in (0..shared.texts.len()).cycle().skip(index * 31) {
        if shared.done.load(Ordering::Relaxed) {
            return;
        }
        let answer = shared.client.embed(model, &[&shared.texts[number]]).await;
        shared.requests.fetch_add(1, Ordering::Relaxed);
        let is_right = answer.is_ok_and(|(version, vectors)| {
            let expected = shared.vectors.get(&version).map(|vectors| &vectors[number]);
            if let Ok(mut seen) = shared.seen.lock() {
                seen.entry(version).or_insert_with(Instant::now);
            }
            expected.is_some_and(|expected| {
                vectors[0].iter().zip(expected).all(|(value, expected)| (value - expected).abs() <= SAME)
            })
        });
        shared.wrong.fetch_add(u64::from(!is_right), Ordering::Relaxed);
    }
}

struct Changed {
    two_versions: f64,
    most: f64,
    /// Milliseconds.
    after: Vec<f64>,
    calls: Vec<f64>,
}

async fn change(server: &Server, shared: &Shared, model: &str, changes: usize) -> Result<Changed> {
    tokio::time::sleep(BEFORE).await;
    let two_versions = server.memory()?;
    let (mut most, mut after, mut calls) = (two_versions, Vec::new(), Vec::new());
    let mut sampled = Instant::now();
    for number in 0..changes {
        // Version 2 serves and 1 is at hand: back to it, which unloads 2; forth, which loads it; and two swaps.
        let (action, body, version) = match number % 4 {
            0 => ("rollback", json!({ "reason": "a benchmark" }), 1),
            2 => ("rollout", json!({ "version": 1, "reason": "a benchmark" }), 1),
            _ => ("rollout", json!({ "version": 2, "reason": "a benchmark" }), 2),
        };
        if let Ok(mut seen) = shared.seen.lock() {
            seen.clear();
        }
        let called = Instant::now();
        shared.client.change(model, action, &body).await?;
        let returned = Instant::now();
        let version = format!("{model}@{version}");
        let seen = loop {
            if let Some(seen) = shared.seen.lock().ok().and_then(|seen| seen.get(&version).copied()) {
                break seen;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        if action == "rollback" {
            after.push(seen.saturating_duration_since(returned).as_secs_f64() * 1e3);
            calls.push((returned - called).as_secs_f64() * 1e3);
        }
        if sampled.elapsed() >= SAMPLE {
            (most, sampled) = (most.max(server.memory()?), Instant::now());
        }
    }
    Ok(Changed { two_versions, most, after, calls })
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { changes, requests, wrong, memory_mb_two_versions: two, .. } = self;
        writeln!(
            f,
            "{changes} changes under {CLIENTS} clients: {requests} requests, {wrong} failed or with another vector"
        )?;
        writeln!(
            f,
            "memory: two versions {two:.0} MB, at most {:.0} MB ({:.2}), {:.0} MB at the end ({:.2})",
            self.memory_mb_most,
            self.memory_mb_most / two,
            self.memory_mb_end,
            self.memory_mb_end / two
        )?;
        write!(
            f,
            "rollback: the call takes {:.1} ms, the first answer comes {:.1} ms after it, {:.1} at most",
            self.rollback_call_ms_median, self.rollback_ms_median, self.rollback_ms_most
        )
    }
}
