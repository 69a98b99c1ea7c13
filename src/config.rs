//! What the server is told: flags, environment and file become one validated [`Config`]. Nothing past it sees the flags.

mod check;
mod connections;
mod drift;
mod execution;
mod gate;
mod guard;
mod health;
mod print;
mod settings;
mod tls;
mod trace;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use crate::batch::Limits;
use crate::drift::monitor;
use crate::embed::Resources;
use crate::engine::Wanted;
use crate::http::body;
use crate::keys::Keys;
use crate::repository::CacheSettings;
use crate::repository::signing::TrustedKeys;
use crate::rollout::gate::Bounds;
use crate::rollout::guard::Rules;
use crate::rollout::is_alias;
use crate::server::connection;
use crate::telemetry::LogFormat;
use crate::tokenize::Truncate;
use crate::trace::TraceConfig;
use check::Check;
pub use connections::ConnectionsSettings;
pub use drift::DriftSettings;
pub use execution::{BackendError, Execution};
pub use gate::GateSettings;
pub use guard::GuardSettings;
pub use settings::{Auto, Count, Settings};
pub use tls::{Tls, TlsSettings};

/// Where to serve, and how long `/livez` waits for an inference, if nothing is said.
const LISTEN: &str = "127.0.0.1:8080";
const DEADLINE: &str = "10s";

/// Why there is no configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file `{}`: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// The file is not TOML, or has keys that are not settings.
    #[error("the configuration file `{}` is wrong: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What and where.
        source: toml::de::Error,
    },
    /// Values that cannot be: all of them.
    #[error("{}", .0.join("\n"))]
    Invalid(Vec<String>),
}

/// How the server runs.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the models are.
    pub models: String,
    /// Where versions are kept while they are used.
    pub cache: CacheSettings,
    /// Of which one must have signed a version, if that is required.
    pub trusted: Option<TrustedKeys>,
    /// Address of the embedding routes.
    pub listen: SocketAddr,
    /// The keys file, to follow it.
    pub keys_file: Option<PathBuf>,
    /// The text of one in its place.
    pub keys_text: Option<String>,
    /// Address of metrics and health, if not the same.
    pub admin_listen: Option<SocketAddr>,
    /// What sessions run on.
    pub execution: Execution,
    /// Sessions and threads of each model, where they are not to be measured.
    pub wanted: Wanted,
    /// Of the queue.
    pub limits: Limits,
    /// What a version must show before it serves.
    pub gate: Bounds,
    /// What a canary must keep.
    pub guard: Rules,
    /// How drift is watched.
    pub drift: monitor::Settings,
    /// What connections may take.
    pub connections: connection::Limits,
    /// What the listeners show.
    pub tls: Tls,
    /// What the HTTP layer needs.
    pub http: HttpConfig,
    /// Served on after a stop signal, unready.
    pub drain_delay: Duration,
    /// Given to requests in flight after that.
    pub drain_timeout: Duration,
    /// The model that answers requests that name none.
    pub default_model: Option<String>,
    /// Between two looks at the rollout logs.
    pub sync_interval: Duration,
    /// Between two looks at the files of loaded versions, 0 for none.
    pub recheck_interval: Duration,
    /// Where spans go, if anywhere.
    pub trace: Option<TraceConfig>,
    /// Form of the logs.
    pub log_format: LogFormat,
    /// Which logs.
    pub log: String,
}

/// What the HTTP layer needs to know.
#[derive(Debug, Clone)]
pub struct HttpConfig {
    /// Embedding requests at once.
    pub max_requests: usize,
    /// Inputs of a request.
    pub max_inputs: usize,
    /// Bytes of a text; of all texts together where they are only tokenized.
    pub max_input_bytes: usize,
    /// Bytes of a body.
    pub max_body_bytes: usize,
    /// Of all bodies.
    pub bodies: body::Limits,
    /// For requests that do not say.
    pub truncate: Option<Truncate>,
    /// How long an inference may take before the process counts as dead.
    pub liveness_deadline: Duration,
    /// Threads that tokenize.
    pub tokenize_threads: usize,
    /// Of the vector cache, 0 for none.
    pub cache_bytes: usize,
    /// Who may ask; nobody needs a key if there is none.
    pub keys: Keys,
}

impl Settings {
    /// Checks every value and fills in the defaults for a machine with `cores`.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] with all mistakes at once.
    pub fn validate(&self, cores: NonZeroUsize) -> Result<Config, ConfigError> {
        let mut check = Check::default();
        let wanted = Wanted {
            sessions: check.count("sessions", self.sessions),
            threads: check.count("threads", self.threads.map(Count::Of)),
            batch_tokens: check.count("max_batch_tokens", self.max_batch_tokens),
            lone_threads: match self.lone_threads {
                Some(Count::Of(threads)) => Some(threads),
                Some(Count::Auto(_)) | None => None,
            },
            ..Wanted::measured(cores)
        };
        let max_body_bytes = check.positive("max_body_bytes", self.max_body_bytes, 32 << 20).get();
        let (connections, bodies) = self.connections.validate(max_body_bytes).unwrap_or_else(|mistakes| {
            check.mistakes.extend(mistakes);
            (connection::Limits::DEFAULT, body::Limits::DEFAULT)
        });
        let config = Config {
            models: self.models.clone().unwrap_or_else(|| check.missing("models", "--models URL")),
            cache: CacheSettings::new(self.cache_dir.clone(), self.cache_dir_bytes),
            trusted: self.require_signed.as_deref().and_then(|file| {
                let told = |mistake| check.mistakes.push(format!("`require_signed`: {mistake}"));
                TrustedKeys::read(file).map_err(told).ok()
            }),
            listen: check.parse("listen", self.listen.as_deref(), LISTEN),
            admin_listen: self
                .admin_listen
                .as_deref()
                .map(|given| check.parse("admin_listen", Some(given), "127.0.0.1:0")),
            keys_file: self.keys_file.clone(),
            keys_text: self.keys.clone(),
            execution: Execution {
                onnxruntime: self.onnxruntime.clone(),
                device: check.device(self.device.as_deref()),
                device_memory: check.count("device_memory", self.device_memory),
                tensorrt_cache: self.tensorrt_cache.clone(),
            },
            wanted,
            limits: check.limits(self.max_queue_tokens, self.bulk_share),
            gate: self.gate.validate().unwrap_or_else(|mistakes| {
                check.mistakes.extend(mistakes);
                Bounds::DEFAULT
            }),
            guard: self.guard.validate().unwrap_or_else(|mistakes| {
                check.mistakes.extend(mistakes);
                Rules::DEFAULT
            }),
            drift: self.drift.validate().unwrap_or_else(|mistakes| {
                check.mistakes.extend(mistakes);
                monitor::Settings::DEFAULT
            }),
            connections,
            tls: self.tls.validate(self.admin_listen.is_some()).unwrap_or_else(|mistakes| {
                check.mistakes.extend(mistakes);
                Tls::default()
            }),
            http: HttpConfig {
                max_requests: check.positive("max_requests", self.max_requests, 4096).get(),
                max_inputs: check.positive("max_inputs", self.max_inputs, 2048).get(),
                max_input_bytes: check.positive("max_input_bytes", self.max_input_bytes, 1 << 20).get(),
                max_body_bytes,
                bodies,
                truncate: match self.truncate.as_deref() {
                    None => None,
                    Some("end") => Some(Truncate::End),
                    Some("start") => Some(Truncate::Start),
                    Some("error") => Some(Truncate::Error),
                    Some(other) => check.wrong("truncate", other, "end, start or error"),
                },
                liveness_deadline: check.time(
                    "liveness_deadline",
                    self.liveness_deadline.as_deref(),
                    DEADLINE,
                ),
                tokenize_threads: cores.get(),
                cache_bytes: self.cache_bytes.unwrap_or(0),
                keys: check.keys(self.keys_file.as_deref(), self.keys.as_deref()),
            },
            drain_delay: check.time("drain_delay", self.drain_delay.as_deref(), "1s"),
            drain_timeout: check.time("drain_timeout", self.drain_timeout.as_deref(), "30s"),
            default_model: self.default_model.clone(),
            sync_interval: check.period("sync_interval", self.sync_interval.as_deref(), "2s"),
            recheck_interval: check.time("recheck_interval", self.recheck_interval.as_deref(), "10m"),
            trace: check.trace(self),
            log_format: match self.log_format.as_deref().unwrap_or("text") {
                "text" => LogFormat::Text,
                "json" => LogFormat::Json,
                other => check.wrong("log_format", other, "text or json"),
            },
            log: self.log.clone().unwrap_or_else(|| "info".to_owned()),
        };
        if let Some(name) = config.default_model.as_deref().filter(|name| !is_alias(name)) {
            check.mistakes.push(format!("`default_model` is {name:?}, neither a model's name nor an alias"));
        }
        if let Err(error) = config.log.parse::<tracing_subscriber::EnvFilter>() {
            check.mistakes.push(format!("`log` is `{}`: {error}", config.log));
        }
        if check.mistakes.is_empty() { Ok(config) } else { Err(ConfigError::Invalid(check.mistakes)) }
    }
}

impl HttpConfig {
    /// The part that the embedder needs.
    pub fn resources(&self) -> Resources {
        Resources {
            tokenize_threads: self.tokenize_threads,
            max_input_bytes: self.max_input_bytes,
            cache_bytes: self.cache_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CORES: NonZeroUsize = NonZeroUsize::new(4).unwrap();

    fn settings(toml: &str) -> Settings {
        toml::from_str(toml).unwrap()
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let error = settings("listen = 'here'\nsessions = 0\ndrain_timeout = 'soon'\ntruncate = 'middle'\nsync_interval = '0s'")
            .validate(CORES)
            .unwrap_err();
        let ConfigError::Invalid(mistakes) = error else { panic!("{error}") };
        let named = ["sessions", "models", "listen", "truncate", "drain_timeout", "sync_interval"];
        assert_eq!(mistakes.len(), named.len(), "{mistakes:?}");
        for (mistake, name) in mistakes.iter().zip(named) {
            assert!(mistake.starts_with(&format!("`{name}`")), "{mistake}");
        }
    }

    #[test]
    fn flags_go_over_the_file_and_the_file_over_defaults() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("sextant.toml");
        std::fs::write(&file, "models = 'a'\nlisten = '127.0.0.1:1'\nsessions = 2").unwrap();
        let given = Settings { listen: Some("127.0.0.1:2".into()), ..Settings::default() };
        let config = given.over_file(Some(&file)).unwrap().validate(CORES).unwrap();
        assert_eq!(config.models, "a");
        assert_eq!(config.listen.port(), 2);
        assert_eq!(config.wanted.sessions, NonZeroUsize::new(2));
        assert_eq!((config.wanted.threads, config.wanted.batch_tokens), (None, None), "measured");
        assert_eq!(config.drain_timeout, Duration::from_secs(30));
    }

    #[test]
    fn one_bound_of_the_gate_goes_over_the_file_and_leaves_the_others() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("sextant.toml");
        std::fs::write(&file, "models = 'a'\n[gate]\nmin_claim_cosine = 0.5\nmin_claim_overlap = 0.25")
            .unwrap();
        let gate = GateSettings { min_claim_overlap: Some(0.75), ..GateSettings::default() };
        let given = Settings { gate, ..Settings::default() };
        let config = given.over_file(Some(&file)).unwrap().validate(CORES).unwrap();
        let expected = Bounds { min_claim_cosine: 0.5, min_claim_overlap: 0.75, ..Bounds::DEFAULT };
        assert_eq!(config.gate, expected);
        let config = Settings::default().over_file(Some(&file)).unwrap().validate(CORES).unwrap();
        assert_eq!(config.gate.min_claim_overlap, 0.25);
        let error =
            settings("models = 'a'\n[gate]\nmax_length_difference = 7.0").validate(CORES).unwrap_err();
        assert_eq!(error.to_string(), "`gate.max_length_difference` is `7`: expected 0 to 1");
    }

    #[test]
    fn an_unknown_key_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("sextant.toml");
        std::fs::write(&file, "lisen = '127.0.0.1:1'").unwrap();
        let error = Settings::default().over_file(Some(&file)).unwrap_err().to_string();
        assert!(error.contains("lisen"), "{error}");
    }
}
