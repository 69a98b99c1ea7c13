//! A server with a version on trial, both of them fakes, that follows a real log.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use sextant::config::Settings;
use sextant::drift::follow::{Follower, References};
use sextant::embed::{Candidate, Embedder, Model, Resident};
use sextant::engine::{Batch, EngineError, Vector};
use sextant::http::App;
use sextant::metrics::Metrics;
use sextant::rollout::guard::Watch;
use sextant::rollout::{Change, Loader, Log, Rollout, Room, SharedSecret, Sync, Trial};
use sextant::tokenize::Tokenizer;

use super::app::{TestApp, config, until};
use super::checkpoint::TinyCheckpoint;
use super::fake::Fake;
use crate::repository::Models;
use crate::rollout::{SIGNATURE, begin};

/// By which users are drawn, in the repository.
pub const SECRET: &str = ".trial-secret";

/// Stands in for a version's sessions, and does badly in one way. Every batch runs at once.
#[derive(Clone, Copy)]
pub struct Engine {
    pub takes: Duration,
    /// Whether it cannot run these ids.
    pub fails: fn(&[u32]) -> bool,
    /// Whether it never comes back from these.
    pub hangs: fn(&[u32]) -> bool,
    pub vector: fn(&[u32]) -> Vector,
}

impl Engine {
    /// One that does nothing wrong.
    pub const GOOD: Self =
        Self { takes: Duration::from_millis(2), fails: |_| false, hangs: |_| false, vector: Fake::vector };
}

impl tower::Service<Batch> for Engine {
    type Response = Vec<Vector>;
    type Error = EngineError;
    type Future = Pin<Box<dyn Future<Output = Result<Vec<Vector>, EngineError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), EngineError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, batch: Batch) -> Self::Future {
        let Self { takes, fails, hangs, vector } = *self;
        Box::pin(async move {
            // As much noise as a busy machine has.
            tokio::time::sleep(takes.mul_f64(0.75 + fastrand::f64())).await;
            if batch.rows.iter().any(|row| hangs(row)) {
                std::future::pending::<()>().await;
            }
            if batch.rows.iter().any(|row| fails(row)) {
                return Err(EngineError::Stopped);
            }
            Ok(batch.rows.iter().map(|row| vector(row)).collect())
        })
    }
}

/// The model `m`, with version 1 stable and version 2 on trial.
pub struct OnTrial {
    pub app: TestApp,
    pub models: Models,
}

impl OnTrial {
    pub async fn start(shares: Trial, stable: Engine, candidate: Engine, settings: &Settings) -> Self {
        let models = Models::new();
        models.publish_in("aa").await;
        begin(&models.repository, "m", 1).await;
        let log = Log::open(&models.repository, "m").unwrap();
        log.change(Change::Trial(shares), SIGNATURE).await.unwrap();
        // As in a repository whose trial was begun before there was a secret: the server makes it.
        if shares.canary_percent.is_some() {
            std::fs::remove_file(models.path(SECRET)).unwrap();
        }
        let logs = BTreeMap::from([("m".to_owned(), log.current().await.unwrap())]);

        let checkpoint = tempfile::tempdir().unwrap();
        TinyCheckpoint::bert().write(checkpoint.path());
        let (config, metrics) = (config(settings), Arc::new(Metrics::new().unwrap()));
        let load = async |version, engine| {
            let manifest = models.repository.manifest("m", version).await.unwrap();
            let tokenizer = Tokenizer::load(&checkpoint.path().join("tokenizer.json"), 64).unwrap();
            Model::with_engine(manifest, tokenizer, engine, |_| true, config.limits, &metrics)
        };
        let stable = load(1, stable).await;
        let loaded = Arc::new(load(2, candidate).await);
        let embedder = Arc::new(Embedder::new(vec![stable], None, config.http.resources()).unwrap());
        let series = metrics.trial(&loaded.manifest);
        let (watch, secret) = (Watch::new(config.guard, Instant::now()), SharedSecret::default());
        let candidate = Some(Candidate::new(loaded, shares, 2, watch, secret.clone(), series));
        embedder.serve(Resident { candidate, ..embedder.resident("m").unwrap() });

        let references = References::new(config.drift, Arc::clone(&metrics));
        let loader = Loader {
            repository: models.repository.clone(),
            backend: super::backend(),
            wanted: config.wanted,
            limits: config.limits,
            bounds: config.gate,
            metrics: Arc::clone(&metrics),
            references: Arc::clone(&references),
            room: Room::default(),
            secret: secret.clone(),
        };
        let followed = Arc::downgrade(&embedder);
        let repository = models.repository.clone();
        let follower = Follower::new(repository, followed.clone(), references, config.sync_interval);
        tokio::spawn(follower.run());
        let sync = Sync::new(loader, followed, config.sync_interval, config.guard, logs);
        let app = App::new(embedder, metrics, config.http.clone()).with_operator(sync.operator());
        tokio::spawn(sync.run());
        if shares.canary_percent.is_some() {
            until("the secret is read", async || secret.get().is_some()).await;
        }
        Self { app: TestApp::of(app, config).await, models }
    }

    /// The newest document of the log.
    pub async fn newest(&self) -> Rollout {
        let log = Log::open(&self.models.repository, "m").unwrap();
        log.current().await.unwrap().good.unwrap()
    }
}
