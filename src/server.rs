//! Builds the application, serves it, and stops without losing a request.

mod accept;
mod activity;
pub mod connection;
pub mod files;
mod models;
mod recheck;
mod signals;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::config::{BackendError, Config};
use crate::drift::follow::{Follower, References};
use crate::embed::{Embedder, ModelError, Resident};
use crate::engine::device::usage::Usage;
use crate::http::{self, App};
use crate::keys::follow::Follower as KeyFollower;
use crate::metrics::{GpuMetrics, Metrics};
use crate::repository::{Repository, RepositoryError};
use crate::rollout::{Damaged, Loader, Room, SharedSecret, Sync};
use crate::tls::{Identity, Shown};
use crate::trace::{ExportError, Tracing};
use accept::{Door, Phase};
pub use signals::stop_signal;

/// Rollouts are looked for so many times as often as drift references, which nobody waits for.
const DRIFT_LOOKS: u32 = 5;

/// Between two looks at the GPUs: a scrape in Prometheus' usual intervals finds a fresh one.
const GPU_LOOKS: Duration = Duration::from_secs(5);

/// What is left of the drain timeout is given to spans on their way, but no more than the second, and no less than the first:
/// where the drain ran out, the spans of those who were answered would be lost for nothing.
const FLUSH: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));

/// Why the server cannot start, or had to give up.
#[derive(Debug, Error)]
pub enum ServeError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The runtime library, or the device.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The repository.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// A model was rolled out, and no document of its log can be read.
    #[error(
        "which version of `{model}` serves cannot be told: {newest}; name one with `sextant rollout --force`"
    )]
    NoGoodDocument {
        /// The model.
        model: String,
        /// The newest document.
        newest: Damaged,
    },
    /// A version cannot be loaded.
    #[error("{version} cannot be served: {source}")]
    Model {
        /// The version.
        version: String,
        /// Why.
        source: ModelError,
    },
    /// Nothing to serve.
    #[error(
        "there is no activated version in `{0}`: import one with `sextant import ... --activate`, or name one that is there with \
         `sextant rollout NAME@N`"
    )]
    NoModels(String),
    /// The default model is not there.
    #[error("the default model `{asked}` is not served; there are: {}", available.join(", "))]
    NoSuchDefault {
        /// What was asked for.
        asked: String,
        /// What there is.
        available: Vec<String>,
    },
    /// The exporter of traces.
    #[error(transparent)]
    Trace(#[from] ExportError),
    /// The tokenizing threads or the metrics.
    #[error("cannot start: {0}")]
    Start(String),
}

/// Bound sockets. The caller makes them, so that a test can have port 0 and learn which one it became.
pub struct Listeners {
    /// For the embedding routes.
    pub public: TcpListener,
    /// For metrics and health, if apart.
    pub admin: Option<TcpListener>,
}

impl Listeners {
    /// Binds the addresses of the configuration.
    ///
    /// # Errors
    /// If one is taken or not of this machine.
    pub async fn bind(config: &Config) -> Result<Self, ServeError> {
        let bind = async |address| {
            TcpListener::bind(address).await.map_err(|source| ServeError::Listen { address, source })
        };
        let public = bind(config.listen).await?;
        let admin = match config.admin_listen {
            Some(address) => Some(bind(address).await?),
            None => None,
        };
        Ok(Self { public, admin })
    }
}

/// Loads the stable version of every model in the repository, each through the gate, and from then on follows their logs. Must be
/// called inside a tokio runtime.
///
/// # Errors
/// If the runtime or the repository cannot be used, or no model can be loaded.
pub async fn load(config: &Config) -> Result<App, ServeError> {
    let backend = config.execution.start()?;
    let mut repository = Repository::open(&config.models, false)?.with_cache(config.cache.clone());
    if let Some(keys) = &config.trusted {
        repository = repository.trusting(keys.clone(), config.cache.clone());
    }
    let metrics = Arc::new(Metrics::new().map_err(|error| ServeError::Start(error.to_string()))?);
    // Before the models, which take their time to load.
    let tracing = config.trace.as_ref().map(|trace| Tracing::start(trace, &metrics)).transpose()?;
    let (wanted, limits, bounds) = (config.wanted, config.limits, config.gate);
    if let Some(usage) = Usage::open(&backend.devices) {
        let gpus = metrics.gpus().map_err(|error| ServeError::Start(error.to_string()))?;
        tokio::spawn(watch_gpus(usage, gpus));
    }
    let references = References::new(config.drift, Arc::clone(&metrics));
    let loader = Loader {
        repository,
        backend,
        wanted,
        limits,
        bounds,
        metrics: Arc::clone(&metrics),
        references: Arc::clone(&references),
        room: Room::default(),
        secret: SharedSecret::default(),
    };
    let found = models::load(&loader).await?;
    found.warn_of_idle();
    let models::Found { models, logs, missing } = found;
    let available: Vec<String> = models.iter().map(|model| model.manifest.model.clone()).collect();
    if models.is_empty() {
        return Err(ServeError::NoModels(config.models.clone()));
    }
    let is_missing = |name: &String| missing.contains_key(name);
    let asked = config.default_model.clone().filter(|name| !is_missing(name));
    let embedder = Embedder::new(models, config.default_model.clone(), config.http.resources())
        .map_err(|error| ServeError::Start(error.to_string()))?;
    let embedder = Arc::new(embedder.without(missing));
    for (name, seen) in &logs {
        if let (Some(resident), Some(rollout)) = (embedder.resident(name), &seen.good) {
            embedder.serve(Resident { aliases: rollout.aliases.clone(), ..resident });
        }
    }
    if let Some(asked) = asked {
        let meant = embedder.real_name(&asked).map_err(|error| ServeError::Start(error.to_string()))?;
        meant.ok_or(ServeError::NoSuchDefault { asked, available })?;
    }
    let repository = loader.repository.clone();
    let interval = config.sync_interval * DRIFT_LOOKS;
    let mut follower = Follower::new(repository, Arc::downgrade(&embedder), references, interval);
    // Before anybody is answered: what is counted from now on should be counted of all.
    follower.look().await;
    tokio::spawn(follower.run());
    if !config.recheck_interval.is_zero() {
        let repository = loader.repository.clone();
        tokio::spawn(recheck::run(repository, Arc::downgrade(&embedder), config.recheck_interval));
    }
    let sync = Sync::new(loader, Arc::downgrade(&embedder), config.sync_interval, config.guard, logs);
    let operator = sync.operator();
    tokio::spawn(sync.run());
    Ok(App::new(embedder, metrics, config.http.clone()).with_operator(operator).with_tracing(tracing))
}

/// Shows how much of the GPUs is used, for as long as the process lives.
async fn watch_gpus(usage: Usage, gpus: GpuMetrics) {
    let usage = Arc::new(usage);
    loop {
        let usage = Arc::clone(&usage);
        // The driver answers in its own time.
        match tokio::task::spawn_blocking(move || usage.read()).await {
            Ok(readings) => gpus.show(&readings),
            Err(_) => return,
        }
        tokio::time::sleep(GPU_LOOKS).await;
    }
}

/// Serves until `shutdown`, then: unready for the drain delay while everything is still answered, then no new
/// connections, then waits for requests in flight until the drain timeout. Returns whether all of them were answered.
pub async fn run(
    app: App,
    config: &Config,
    listeners: Listeners,
    shutdown: impl Future<Output = ()>,
) -> bool {
    app.warn_of_open_keys();
    let (phase, phases) = watch::channel(Phase::Serving);
    // Dropped, it ends all that is in it.
    let mut following = JoinSet::new();
    if let Some(file) = config.keys_file.clone() {
        let (app, keys) = (app.clone(), Arc::clone(app.keys()));
        let tell = move |look| app.keys_looked_at(&look);
        following.spawn(KeyFollower::new(file).run(keys, config.sync_interval, tell));
    }
    let room = files::room_for_connections(1 + u64::from(listeners.admin.is_some()));
    let mut limits = config.connections;
    if room < limits.max_connections {
        tracing::warn!(
            max_connections = room,
            "fewer connections than asked for: the limit of open files is too low"
        );
        limits.max_connections = room;
    }
    let mut serving = Vec::new();
    let mut open = |name, listener, router, identity: &Option<Identity>| {
        let metrics = Arc::new(app.metrics().listener(name));
        let tls = identity.clone().map(|identity| Shown::new(identity, Arc::clone(&metrics)));
        if let Some(shown) = &tls {
            following.spawn(shown.clone().follow(config.sync_interval));
        }
        let door = Door { listener, router, limits, tls, metrics };
        serving.push(tokio::spawn(accept::serve(door, phases.clone())));
    };
    open("public", listeners.public, http::public(&app, listeners.admin.is_none()), &config.tls.public);
    if let Some(listener) = listeners.admin {
        open("admin", listener, http::admin(&app), &config.tls.admin);
    }
    drop(phases);

    shutdown.await;
    tracing::info!(delay = ?config.drain_delay, timeout = ?config.drain_timeout, "stopping");
    app.start_draining();
    tokio::time::sleep(config.drain_delay).await;
    // Receivers live as long as the tasks above.
    let _ = phase.send(Phase::Draining);
    let end = Instant::now() + config.drain_timeout;
    let drained = tokio::time::timeout_at(end, async {
        futures_util::future::join_all(serving).await;
        app.finish_actions().await;
    });
    let drained = drained.await;
    // Not before: a key that is taken back must not be good for those who are still served.
    drop(following);
    app.flush_spans(end.saturating_duration_since(Instant::now()).clamp(FLUSH.0, FLUSH.1)).await;
    match drained {
        Ok(()) => tracing::info!("stopped"),
        Err(_) => tracing::error!("stopped with requests unanswered: the drain timeout is over"),
    }
    drained.is_ok()
}
