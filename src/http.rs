//! Routes and layers, in the order a request meets them.

mod access;
pub mod admin;
mod answer;
mod audit;
mod beside;
pub mod body;
mod choice;
mod docs;
pub mod encode;
mod error;
mod extract;
#[cfg(test)]
mod fields;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod health;
mod inference;
mod inputs;
mod mistake;
mod observe;
mod openai;
mod parts;
mod request_id;
pub(crate) mod room;
mod slashes;
mod tei;
mod tokens;
mod trace;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::handler::Handler;
use axum::middleware;
use axum::routing::{MethodFilter, on};
use tokio::runtime::{Handle, RuntimeFlavor};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer};

use crate::config::HttpConfig;
use crate::embed::Embedder;
use crate::keys::follow::{Current, Look};
use crate::metrics::Metrics;
use crate::rollout::Operator;
use crate::trace::Tracing;
use body::Intake;

/// Bytes of JSON that are read or written on an async thread: about a quarter of a millisecond. More would keep everybody
/// else's requests waiting.
const MUCH_JSON: usize = 1 << 17;

/// Does work on about `bytes` of JSON: much of it not in the way of the other requests of this thread.
fn beside_others<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    let can_step_aside = Handle::current().runtime_flavor() == RuntimeFlavor::MultiThread;
    if bytes > MUCH_JSON && can_step_aside { tokio::task::block_in_place(work) } else { work() }
}

/// What every handler can see.
#[derive(Clone)]
pub struct App(Arc<State>);

struct State {
    embedder: Arc<Embedder>,
    metrics: Arc<Metrics>,
    config: HttpConfig,
    /// Makes changes of what is served, if a repository is followed.
    operator: Option<Operator>,
    /// Makes spans of requests, if there is a collector for them.
    tracing: Option<Tracing>,
    docs: docs::Files,
    /// Places for embedding requests, and room for their bodies.
    intake: Intake,
    /// Room for answers without vectors.
    beside: beside::Beside,
    draining: AtomicBool,
    /// Who may ask.
    keys: Arc<Current>,
    ledger: audit::Ledger,
}

impl App {
    /// An application that serves what `embedder` has.
    pub fn new(embedder: Arc<Embedder>, metrics: Arc<Metrics>, config: HttpConfig) -> Self {
        let intake = Intake::new(&config);
        let (operator, tracing, docs, draining) = (None, None, docs::Files::new(), AtomicBool::new(false));
        let keys = Arc::new(Current::new(config.keys.clone()));
        metrics.keys.prepare(keys.get().names());
        let (beside, ledger) = (beside::Beside::default(), audit::Ledger::default());
        Self(Arc::new(State {
            embedder,
            metrics,
            config,
            operator,
            tracing,
            docs,
            intake,
            beside,
            draining,
            keys,
            ledger,
        }))
    }

    /// The same with routes that change what is served. Only before the application is cloned.
    pub fn with_operator(mut self, operator: Operator) -> Self {
        if let Some(state) = Arc::get_mut(&mut self.0) {
            state.operator = Some(operator);
        }
        self
    }

    /// The same with traces of its requests. Only before the application is cloned.
    pub fn with_tracing(mut self, tracing: Option<Tracing>) -> Self {
        if let Some(state) = Arc::get_mut(&mut self.0) {
            state.tracing = tracing;
        }
        self
    }

    /// Sends what there is of spans to the collector, for `patience` at most. Those of later requests are dropped.
    pub(crate) async fn flush_spans(&self, patience: Duration) {
        if let Some(tracing) = &self.0.tracing {
            tracing.flush(patience).await;
        }
    }

    /// Waits for what administrators have asked for and not waited for. Only when nobody can ask any more.
    pub(crate) async fn finish_actions(&self) {
        self.0.ledger.finished().await;
    }

    /// From now on not ready, and every answer asks its client to leave the connection.
    pub fn start_draining(&self) {
        self.0.draining.store(true, Ordering::Relaxed);
    }

    /// The keys that are in force.
    pub fn keys(&self) -> &Arc<Current> {
        &self.0.keys
    }

    /// Tells and counts what a look at the keys file led to.
    pub fn keys_looked_at(&self, look: &Look) {
        audit::keys(look);
        if matches!(look, Look::Changed { .. }) {
            self.warn_of_open_keys();
        }
        self.0.metrics.keys.looked_at(look, self.0.keys.get().names());
    }

    /// Warns of keys that are for every model only because their entries say nothing of models: a cut entry looks the same.
    pub(crate) fn warn_of_open_keys(&self) {
        let keys = self.0.keys.get();
        let names: Vec<&str> = keys.without_models().collect();
        if !names.is_empty() {
            tracing::warn!(
                keys = names.join(" "),
                "these keys are for every model, because their entries do not say for which: say `models = [\"*\"]` if that is meant"
            );
        }
    }

    /// A model to show in an example: the default, or the first.
    pub fn example_model(&self) -> Option<String> {
        let embedder = &self.0.embedder;
        let model = embedder.resolve(None).ok().or_else(|| embedder.models().into_iter().next());
        model.map(|model| model.manifest.model.clone())
    }

    /// Where what happens is counted.
    pub(crate) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Relaxed)
    }
}

/// The routes of the public listener, with those of the operators where they have no listener of their own.
pub fn public(app: &App, with_operations: bool) -> Router {
    let routes = if with_operations { embedding().merge(operations()) } else { embedding() };
    routes.into_router(app)
}

/// The routes of the operators' own listener.
pub fn admin(app: &App) -> Router {
    operations().into_router(app)
}

/// Every route there is, as method and path.
pub fn known_routes() -> Vec<(&'static str, &'static str)> {
    embedding().merge(operations()).known
}

fn embedding() -> Routes {
    Routes::new()
        .post("/v1/embeddings", openai::create_embeddings)
        .get("/v1/models", openai::list_models)
        .get("/v1/models/{model}", openai::show_model)
        .post("/", tei::embed)
        .post("/embed", tei::embed)
        .post("/embed_all", tei::embed_all)
        .post("/similarity", tei::similarity)
        .post("/tokenize", tokens::tokenize)
        .post("/decode", tokens::decode)
        .post("/rerank", tei::other_task)
        .post("/predict", tei::other_task)
        .post("/embed_sparse", tei::other_task)
        .get("/info", tei::info)
        .get("/health", health::health)
        .get("/v2", inference::server)
        .get("/v2/health/live", inference::live)
        .get("/v2/health/ready", inference::ready)
        .get("/v2/models/{model}", inference::model)
        .get("/v2/models/{model}/ready", inference::model_ready)
        .post("/v2/models/{model}/infer", inference::infer)
        .get("/v2/models/{model}/versions/{version}", inference::model)
        .get("/v2/models/{model}/versions/{version}/ready", inference::model_ready)
        .post("/v2/models/{model}/versions/{version}/infer", inference::infer)
        .post("/v2/repository/index", inference::index)
        .get("/openapi.yaml", health::openapi)
        .get("/docs", docs::page)
        .get("/docs/{file}", docs::file)
}

fn operations() -> Routes {
    Routes::new()
        .get("/livez", health::livez)
        .get("/readyz", health::readyz)
        .get("/metrics", health::metrics)
        .get("/admin/v1/models", admin::list)
        .get("/admin/v1/models/{model}", admin::show)
        .get("/admin/v1/models/{model}/rollouts", admin::history)
        .get("/admin/v1/models/{model}/drift", admin::drift)
        .post("/admin/v1/models/{model}/rollout", admin::rollout)
        .post("/admin/v1/models/{model}/promote", admin::promote)
        .post("/admin/v1/models/{model}/rollback", admin::rollback)
        .post("/admin/v1/models/{model}/retire", admin::retire)
        .post("/admin/v1/models/{model}/alias", admin::alias)
        .post("/admin/v1/models/{model}/verify", admin::verify)
}

/// A router that remembers its routes: for the metrics, which have them all from the start, and for the test that holds
/// them against `openapi.yaml`.
struct Routes {
    router: Router<App>,
    known: Vec<(&'static str, &'static str)>,
}

impl Routes {
    fn new() -> Self {
        Self { router: Router::new(), known: Vec::new() }
    }

    fn get<H: Handler<T, App>, T: 'static>(self, path: &'static str, handler: H) -> Self {
        self.add("GET", MethodFilter::GET, path, handler)
    }

    fn post<H: Handler<T, App>, T: 'static>(self, path: &'static str, handler: H) -> Self {
        self.add("POST", MethodFilter::POST, path, handler)
    }

    fn add<H: Handler<T, App>, T: 'static>(
        mut self,
        method: &'static str,
        filter: MethodFilter,
        path: &'static str,
        handler: H,
    ) -> Self {
        self.known.push((method, path));
        Self { router: self.router.route(path, on(filter, handler)), known: self.known }
    }

    fn merge(mut self, other: Self) -> Self {
        self.known.extend(other.known);
        Self { router: self.router.merge(other.router), known: self.known }
    }

    fn into_router(self, app: &App) -> Router {
        for (method, path) in &self.known {
            app.0.metrics.prepare_route(path, method);
        }
        let router = self
            .router
            .fallback(error::not_found)
            // The innermost layer runs last before the handler; read from the bottom up.
            .layer(DefaultBodyLimit::max(app.0.config.max_body_bytes))
            // While the body is read; the batcher's admission is the second gate.
            .layer(middleware::from_fn_with_state(app.clone(), body::receive))
            // A panic is a bug, and costs its own request only.
            .layer(CatchPanicLayer::custom(error::panicked))
            // Before anything of the body is read, and before there is a place to take.
            .layer(middleware::from_fn_with_state(app.clone(), access::check))
            // A client without a certificate is not even told whether its key is known, where those are asked for.
            .layer(middleware::from_fn(admin::certified))
            // Outside of both, to tell of those who were denied, too.
            .layer(middleware::from_fn_with_state(app.clone(), audit::audit))
            // Every refusal, a handler's or the framework's, becomes the envelope of the path's dialect.
            .layer(middleware::from_fn(error::envelope))
            // Counts and logs each answer once, whatever made it.
            .layer(middleware::from_fn_with_state(app.clone(), observe::observe));
        // Where nobody asked for traces a request does not even pass the layer.
        let router = match app.0.tracing {
            Some(_) => router.layer(middleware::from_fn_with_state(app.clone(), trace::trace)),
            None => router,
        };
        let router = router
            // First, so that every log line and every answer can name the request.
            .layer(PropagateRequestIdLayer::x_request_id())
            .layer(SetRequestIdLayer::x_request_id(MakeRequestUuid))
            .layer(middleware::map_request(request_id::plain))
            .with_state(app.clone());
        slashes::in_one_part(router, self.known.into_iter().map(|(_, path)| path))
    }
}
