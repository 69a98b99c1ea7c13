//! What was given, before anything of it is checked: as flags, as `SEXTANT_*` variables, as keys of the TOML file.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::{Deserialize, Serialize};

use super::{ConfigError, ConnectionsSettings, DriftSettings, GateSettings, GuardSettings, TlsSettings};

/// Settings as given, all optional: as flags, as `SEXTANT_*` variables, as keys of the TOML file.
#[derive(Debug, Clone, Default, Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Directory of the models, or a bucket: s3://bucket/prefix, gs://bucket/prefix, az://container/prefix
    #[arg(long, value_name = "URL", env = "SEXTANT_MODELS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub models: Option<String>,
    /// Where private copies of versions are kept; processes of one user may share it [default: sextant in the user's cache directory]
    #[arg(long, value_name = "DIR", env = "SEXTANT_CACHE_DIR")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_dir: Option<PathBuf>,
    /// What they may take there, in bytes; those in use may take more [default: 21474836480, 20 GiB]
    #[arg(long, value_name = "BYTES", env = "SEXTANT_CACHE_DIR_BYTES")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_dir_bytes: Option<u64>,
    /// Public keys in PEM: a version is only loaded if one of them signed it [default: none, any version is]
    #[arg(long, value_name = "FILE", env = "SEXTANT_REQUIRE_SIGNED")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub require_signed: Option<PathBuf>,
    /// Address to serve on [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS", env = "SEXTANT_LISTEN")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<String>,
    /// Own address for /metrics, the health routes and /admin [default: the same]
    #[arg(long, value_name = "ADDRESS", env = "SEXTANT_ADMIN_LISTEN")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin_listen: Option<String>,
    /// Keys, without which nobody gets anything but /livez and /readyz; read again when it changes, see `sextant key`
    /// [default: none, and only this machine may use /admin]
    #[arg(long, value_name = "FILE", env = "SEXTANT_KEYS_FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keys_file: Option<PathBuf>,
    /// The text of such a file, where there is an environment and no file; not read again
    #[arg(long, value_name = "TOML", env = "SEXTANT_KEYS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keys: Option<String>,
    /// The ONNX Runtime library [default: looked for]
    #[arg(long, value_name = "FILE", env = "SEXTANT_ONNXRUNTIME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub onnxruntime: Option<PathBuf>,
    /// What runs the models: auto (the first GPU by CUDA if it works, the CPU elsewhere), cpu, cuda or cuda:N, tensorrt or tensorrt:N, or several GPUs as
    /// cuda:0,cuda:1 [default: auto]
    #[arg(long, value_name = "DEVICE", env = "SEXTANT_DEVICE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Most memory of a GPU that a session takes beside CUDA's own, in bytes, or auto: as much as there is [default: auto]
    #[arg(long, value_name = "BYTES", env = "SEXTANT_DEVICE_MEMORY")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_memory: Option<Count>,
    /// Directory for what TensorRT compiles, which is code that is run: nobody else may write there [default: none, it compiles at each load]
    #[arg(long, value_name = "DIR", env = "SEXTANT_TENSORRT_CACHE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tensorrt_cache: Option<PathBuf>,
    /// Model that answers requests that name none [default: the only one]
    #[arg(long, value_name = "NAME", env = "SEXTANT_DEFAULT_MODEL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_model: Option<String>,
    /// How often to look for changes of the versions that serve [default: 2s]
    #[arg(long, value_name = "TIME", env = "SEXTANT_SYNC_INTERVAL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sync_interval: Option<String>,
    /// How often to look whether the files of loaded versions are still as published, 0s for never [default: 10m]
    #[arg(long, value_name = "TIME", env = "SEXTANT_RECHECK_INTERVAL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recheck_interval: Option<String>,
    /// What to do with an input that is too long: end, start (cut there) or error [default: as the model was made, mostly the end]
    #[arg(long, value_name = "HOW", env = "SEXTANT_TRUNCATE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub truncate: Option<String>,
    /// Sessions of each model, or auto: measured when it is loaded [default: auto]
    #[arg(long, value_name = "N", env = "SEXTANT_SESSIONS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sessions: Option<Count>,
    /// Threads of each session [default: cores / sessions]
    #[arg(long, value_name = "N", env = "SEXTANT_THREADS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<usize>,
    /// Threads of one more session for a request that comes alone, 0 for none, or auto: measured too [default: auto]
    #[arg(long, value_name = "N", env = "SEXTANT_LONE_THREADS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lone_threads: Option<Count>,
    /// Most tokens of a batch, padding included, or auto: measured too [default: auto]
    #[arg(long, value_name = "N", env = "SEXTANT_MAX_BATCH_TOKENS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_batch_tokens: Option<Count>,
    /// Most tokens that wait; a caller that holds four times what is free gets 429 [default: 262144]
    #[arg(long, value_name = "N", env = "SEXTANT_MAX_QUEUE_TOKENS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_queue_tokens: Option<usize>,
    /// Share of the tokens that run while interactive requests wait that is of bulk requests, 0 to 0.5 [default: 0.05]
    #[arg(long, value_name = "SHARE", env = "SEXTANT_BULK_SHARE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bulk_share: Option<f64>,
    /// Memory for vectors of inputs that come again, in bytes [default: 0, none]
    #[arg(long, value_name = "BYTES", env = "SEXTANT_CACHE_BYTES")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_bytes: Option<usize>,
    /// Most embedding requests at once before they get 429 [default: 4096]
    #[arg(long, value_name = "N", env = "SEXTANT_MAX_REQUESTS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_requests: Option<usize>,
    /// Most inputs of a request [default: 2048]
    #[arg(long, value_name = "N", env = "SEXTANT_MAX_INPUTS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_inputs: Option<usize>,
    /// Longest text of a request, in bytes [default: 1048576]
    #[arg(long, value_name = "BYTES", env = "SEXTANT_MAX_INPUT_BYTES")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_input_bytes: Option<usize>,
    /// Largest body of a request, in bytes [default: 33554432]
    #[arg(long, value_name = "BYTES", env = "SEXTANT_MAX_BODY_BYTES")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_body_bytes: Option<usize>,
    /// After a stop signal: how long to serve on, unready, so that balancers look away [default: 1s]
    #[arg(long, value_name = "TIME", env = "SEXTANT_DRAIN_DELAY")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain_delay: Option<String>,
    /// After that: how long requests in flight may take [default: 30s]
    #[arg(long, value_name = "TIME", env = "SEXTANT_DRAIN_TIMEOUT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain_timeout: Option<String>,
    /// How long /livez waits for an inference; batches that took longer when they were measured may run on [default: 10s]
    #[arg(long, value_name = "TIME", env = "SEXTANT_LIVENESS_DEADLINE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub liveness_deadline: Option<String>,
    /// Collector of traces, as http://collector:4318 [default: none, no traces are made]
    #[arg(long, value_name = "URL", env = "SEXTANT_OTLP_ENDPOINT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp_endpoint: Option<String>,
    /// Whether that is the whole route for traces, as a variable of OpenTelemetry's has it. No flag: it is for the file that
    /// `--print-config` writes
    #[arg(skip)]
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub otlp_endpoint_is_route: bool,
    /// How to speak to it: http (with protobuf) or grpc [default: http]
    #[arg(long, value_name = "PROTOCOL", env = "SEXTANT_OTLP_PROTOCOL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp_protocol: Option<String>,
    /// Share of requests to trace, 0 to 1, where the caller has not decided [default: 1]
    #[arg(long, value_name = "SHARE", env = "SEXTANT_TRACE_SAMPLE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_sample: Option<f64>,
    /// Logs as text or json [default: text]
    #[arg(long, value_name = "FORMAT", env = "SEXTANT_LOG_FORMAT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_format: Option<String>,
    /// Which logs: error, warn, info, debug, trace, or a tracing filter [default: info]
    #[arg(long, value_name = "FILTER", env = "SEXTANT_LOG")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
    /// What a version must show before it serves
    #[command(flatten)]
    #[serde(default, skip_serializing_if = "GateSettings::is_empty")]
    pub gate: GateSettings,
    /// What a canary must keep
    #[command(flatten)]
    #[serde(default, skip_serializing_if = "GuardSettings::is_empty")]
    pub guard: GuardSettings,
    /// How drift is watched
    #[command(flatten)]
    #[serde(default, skip_serializing_if = "DriftSettings::is_empty")]
    pub drift: DriftSettings,
    /// What connections and bodies may take
    #[command(flatten)]
    #[serde(default, skip_serializing_if = "ConnectionsSettings::is_empty")]
    pub connections: ConnectionsSettings,
    /// What the listeners show
    #[command(flatten)]
    #[serde(default, skip_serializing_if = "TlsSettings::is_empty")]
    pub tls: TlsSettings,
}

/// A number, or the word `auto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a whole number, or \"auto\"")]
pub enum Count {
    /// So many.
    Of(usize),
    /// As many as are best here.
    Auto(Auto),
}

/// The word `auto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Auto {
    /// `auto`
    Auto,
}

impl std::str::FromStr for Count {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto(Auto::Auto)),
            _ => text.parse().map(Self::Of).map_err(|_| "expected a whole number, or auto".to_owned()),
        }
    }
}

impl Settings {
    /// These settings over those of the TOML file at `path`.
    ///
    /// # Errors
    /// If the file cannot be read or is wrong.
    pub fn over_file(self, path: Option<&Path>) -> Result<Self, ConfigError> {
        let Some(path) = path else { return Ok(self) };
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        let wrong = |source| ConfigError::File { path: path.to_owned(), source };
        // Read as settings first, so that a wrong key is named with its place in the file.
        let _: Self = toml::from_str(&text).map_err(wrong)?;
        let mut table: toml::Table = toml::from_str(&text).map_err(wrong)?;
        // Only what was given is written by the `skip_serializing_if`s, so only that goes over the file.
        let given =
            toml::Table::try_from(&self).map_err(|error| ConfigError::Invalid(vec![error.to_string()]))?;
        lay_over(&mut table, given);
        table.try_into().map_err(wrong)
    }
}

/// Puts what is `given` over `table`; of a table within it only the keys that are given.
fn lay_over(table: &mut toml::Table, given: toml::Table) {
    for (key, value) in given {
        if let toml::Value::Table(above) = &value
            && let Some(toml::Value::Table(below)) = table.get_mut(&key)
        {
            below.extend(above.clone());
        } else {
            table.insert(key, value);
        }
    }
}
