//! A server whose engine costs nothing, in a process of its own: this benchmark, started again with a hidden measurement.

use std::future::Future;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::thread;
use std::time::Duration;

use clap::Args;
use sextant::batch::Limits;
use sextant::config::Settings;
use sextant::embed::{Embedder, Model};
use sextant::engine::{Batch, EngineError, Vector};
use sextant::http::App;
use sextant::metrics::Metrics;
use sextant::repository::manifest::Manifest;
use sextant::server::{self, Listeners};
use sextant::telemetry;
use sextant::tokenize::Tokenizer;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::PollSemaphore;
use tower::Service;

use crate::Result;

/// Padded tokens of a batch on a GPU: enough that one is busy with it for some milliseconds.
const BATCH_TOKENS: usize = 16_384;
/// Below it two sessions do not share what waits: as for a GPU.
const SMALLEST_SHARE: usize = 2048;
/// One copies while the other computes.
const SESSIONS: usize = 2;
/// As `sextant serve` sets it when it starts: blocks as large as this are mapped by themselves.
const MALLOC: (&str, &str) = ("MALLOC_MMAP_THRESHOLD_", "131072");

/// Serves the model of one version from an engine that computes nothing.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The directory of the version
    version: PathBuf,
    /// How fast the engine is in real tokens a second; 0: it answers at once
    #[arg(long, default_value_t = 0.0)]
    speed: f64,
}

/// How `program`, a build of this benchmark, is started as such a server.
pub(crate) fn command(program: &Path, version: &Path, speed: f64) -> Command {
    let mut command = Command::new(program);
    command.arg("serve-host").arg(version).args(["--speed", &speed.to_string()]);
    command.env(MALLOC.0, MALLOC.1).stdout(Stdio::piped());
    command
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let cores = thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN);
    let settings = Settings {
        models: Some(options.version.display().to_string()),
        listen: Some("127.0.0.1:0".into()),
        max_queue_tokens: Some(4_000_000),
        log: Some("warn".into()),
        ..Settings::default()
    };
    let config = settings.validate(cores)?;
    telemetry::start(config.log_format, &config.log);
    // As many as `sextant serve` has.
    let workers = cores.get().div_ceil(2);
    let mut tokio = tokio::runtime::Builder::new_multi_thread();
    tokio.worker_threads(workers).enable_all().build()?.block_on(async {
        let manifest = std::fs::read_to_string(options.version.join("manifest.toml"))?;
        let manifest = Manifest::from_toml(&manifest)?;
        let tokenizer = Tokenizer::load(&options.version.join("tokenizer.json"), manifest.max_tokens)?;
        let limits = Limits {
            batch_tokens: BATCH_TOKENS,
            sessions: SESSIONS,
            smallest_share: SMALLEST_SHARE,
            ..config.limits
        };
        let (engine, metrics) = (Constant::new(manifest.dimensions, options.speed), Metrics::new()?);
        let model = Model::with_engine(manifest, tokenizer, engine, |_| true, limits, &metrics);
        let embedder = Embedder::new(vec![model], None, config.http.resources())?;
        let app = App::new(embedder.into(), metrics.into(), config.http.clone());
        let listeners = Listeners::bind(&config).await?;
        // As `sextant serve` says it.
        println!("Sextant serves on http://{}. ", listeners.public.local_addr()?);
        server::run(app, &config, listeners, std::future::pending()).await;
        Ok(())
    })
}

/// Gives every row the same unit vector, and holds a session for as long as a device of some speed would.
#[derive(Clone)]
struct Constant {
    vector: Arc<[f32]>,
    /// For each real token of a batch.
    time: Duration,
    free: PollSemaphore,
    reserved: Reserved,
}

/// A permit that a clone leaves behind.
#[derive(Default)]
struct Reserved(Option<OwnedSemaphorePermit>);

impl Clone for Reserved {
    fn clone(&self) -> Self {
        Self(None)
    }
}

impl Constant {
    fn new(dimensions: usize, speed: f64) -> Self {
        let value = 1.0 / (dimensions as f32).sqrt();
        // The sessions have it together.
        let seconds = if speed > 0.0 { SESSIONS as f64 / speed } else { 0.0 };
        Self {
            vector: vec![value; dimensions].into(),
            time: Duration::from_secs_f64(seconds),
            free: PollSemaphore::new(Arc::new(Semaphore::new(SESSIONS))),
            reserved: Reserved::default(),
        }
    }
}

impl Service<Batch> for Constant {
    type Response = Vec<Vector>;
    type Error = EngineError;
    type Future = Pin<Box<dyn Future<Output = std::result::Result<Vec<Vector>, EngineError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<std::result::Result<(), EngineError>> {
        if self.reserved.0.is_none() {
            self.reserved.0 = ready!(self.free.poll_acquire(context));
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, batch: Batch) -> Self::Future {
        let session = self.reserved.0.take();
        let tokens: usize = batch.rows.iter().map(|row| row.len()).sum();
        // Copied, as vectors are out of what a device gives.
        let vectors = batch.rows.iter().map(|_| self.vector.to_vec()).collect();
        let time = self.time.mul_f64(tokens as f64);
        if time.is_zero() {
            return Box::pin(std::future::ready(Ok(vectors)));
        }
        Box::pin(async move {
            tokio::time::sleep(time).await;
            drop(session);
            Ok(vectors)
        })
    }
}
