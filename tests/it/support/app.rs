//! A server on a port of its own, and answers that are held against the contract.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::{Duration, Instant};

use reqwest::header::HeaderMap;
use serde_json::Value;
use sextant::config::{Config, Count, Settings};
use sextant::embed::{Embedder, Model};
use sextant::http::App;
use sextant::metrics::Metrics;
use sextant::server::{self, Listeners};
use sextant::tokenize::Tokenizer;
use sextant::trace::Tracing;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::checkpoint::TinyCheckpoint;
use super::contract;
use super::fake::{self, Fake};
use crate::support;

/// Settings with which a test is quick.
pub fn settings() -> Settings {
    Settings {
        models: Some("unused".into()),
        // Measuring is for machines that have nothing else to do.
        sessions: Some(Count::Of(2)),
        max_batch_tokens: Some(Count::Of(256)),
        lone_threads: Some(Count::Of(2)),
        drain_delay: Some("0s".into()),
        drain_timeout: Some("10s".into()),
        // A busy machine must not make a live engine late; a held one is asked for by tests that say a shorter one.
        liveness_deadline: Some("10s".into()),
        sync_interval: Some("50ms".into()),
        ..Settings::default()
    }
}

/// A running server. Dropping it does not stop it: the test's runtime does.
pub struct TestApp {
    pub address: SocketAddr,
    /// Of the operators' own listener, if the settings have one.
    pub admin: Option<SocketAddr>,
    client: reqwest::Client,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<bool>,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }
}

impl TestApp {
    /// Serves the model `tiny` from a fake engine.
    pub async fn fake() -> (Self, Fake) {
        Self::fake_with(&settings(), |_| ()).await
    }

    /// The same with other settings, or another manifest.
    pub async fn fake_with(
        settings: &Settings,
        change: impl FnOnce(&mut sextant::repository::manifest::Manifest),
    ) -> (Self, Fake) {
        let (app, config, fake) = fake_app(settings, change);
        (Self::of(app, config).await, fake)
    }

    /// Serves the activated versions of a repository.
    pub async fn repository(models: &Path) -> Self {
        Self::with(&Settings { models: Some(models.to_str().unwrap().into()), ..settings() }).await
    }

    /// Serves as the settings say.
    pub async fn with(settings: &Settings) -> Self {
        let config = config(settings);
        let app = server::load(&config).await.unwrap();
        Self::of(app, config).await
    }

    /// Serves an application that the test put together.
    pub async fn of(app: App, config: Config) -> Self {
        let public = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listener = match config.admin_listen {
            Some(address) => Some(TcpListener::bind(address).await.unwrap()),
            None => None,
        };
        let address = public.local_addr().unwrap();
        let admin = listener.as_ref().map(|listener| listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(async move {
            let listeners = Listeners { public, admin: listener };
            server::run(app, &config, listeners, async { drop(stopped.await) }).await
        });
        Self { address, admin, client: client(), stop: Some(stop), running }
    }

    /// Asks it to stop, and waits. Whether every request was answered.
    pub async fn stop(mut self) -> bool {
        self.stop.take();
        self.running.await.unwrap()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, HeaderMap::new(), Vec::new()).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.send("POST", path, HeaderMap::new(), serde_json::to_vec(&body).unwrap()).await
    }

    /// Sends `body` as JSON, and holds the answer against `openapi.yaml`, if the document has the path.
    pub async fn send(&self, method: &str, path: &str, headers: HeaderMap, body: Vec<u8>) -> Answer {
        let mut request =
            self.client.request(method.parse().unwrap(), self.url(path)).headers(headers.clone());
        if !body.is_empty() && !headers.contains_key("content-type") {
            request = request.header("content-type", "application/json");
        }
        let response = request.body(body).send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let answer = Answer { status, headers, body: response.bytes().await.unwrap().to_vec() };
        let route = contract::route(path.split_once('?').map_or(path, |(path, _)| path));
        let known = &contract::document()["paths"][route];
        // A wrong method is documented with the right one.
        let documented = if known[method.to_lowercase()].is_object() { Some(method) } else { None };
        let method =
            documented.or_else(|| ["GET", "POST"].into_iter().find(|m| known[m.to_lowercase()].is_object()));
        if let Some(method) = method {
            contract::check(method, route, answer.status, &answer.headers, &answer.body);
        }
        answer
    }

    /// The value of the metric's one series whose labels have all of `labels`.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let answer = self.get("/metrics").await;
        let line = answer.text().lines().find(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
                && labels.iter().all(|label| line.contains(label))
        });
        let line = line.unwrap_or_else(|| panic!("no metric {name} {labels:?}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }
}

/// An application with the model `tiny` from a fake engine, for tests that need no socket.
pub fn fake_app(
    settings: &Settings,
    change: impl FnOnce(&mut sextant::repository::manifest::Manifest),
) -> (App, Config, Fake) {
    let directory = tempfile::tempdir().unwrap();
    let checkpoint = TinyCheckpoint::bert();
    checkpoint.write(directory.path());
    let mut manifest = super::manifest("tiny", fake::DIMENSIONS);
    change(&mut manifest);
    let tokenizer = Tokenizer::load(&directory.path().join("tokenizer.json"), manifest.max_tokens).unwrap();
    let (config, metrics, fake) = (config(settings), Metrics::new().unwrap(), Fake::new());
    let model = Model::with_engine(manifest, tokenizer, fake.clone(), |_| true, config.limits, &metrics);
    let embedder = Embedder::new(vec![model], None, config.http.resources()).unwrap();
    let tracing = config.trace.as_ref().map(|trace| Tracing::start(trace, &metrics).unwrap());
    let app = App::new(embedder.into(), metrics.into(), config.http.clone()).with_tracing(tracing);
    (app, config, fake)
}

pub fn config(settings: &Settings) -> Config {
    let beside = || Some(support::cache(Path::new(settings.models.as_deref()?)));
    let settings = Settings { cache_dir: settings.cache_dir.clone().or_else(beside), ..settings.clone() };
    settings.validate(NonZeroUsize::new(2).unwrap()).unwrap()
}

pub fn client() -> reqwest::Client {
    client_from(None::<IpAddr>)
}

/// A client at another address of this machine, which is another caller where there are no keys.
pub fn client_from(address: impl Into<Option<IpAddr>>) -> reqwest::Client {
    // An error says that another test has done it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = reqwest::Client::builder().no_proxy().local_address(address);
    builder.timeout(Duration::from_secs(60)).build().unwrap()
}

/// Waits until `holds`, or fails the test with `what`.
pub async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let end = Instant::now() + Duration::from_secs(60);
    while !holds().await {
        assert!(Instant::now() < end, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
