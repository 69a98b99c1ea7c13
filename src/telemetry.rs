//! Logs, on standard error. Bodies, keys and texts never reach them.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;

/// Form of the logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for machines.
    Json,
}

/// Starts logging for the process. A second call changes nothing.
///
/// `filter` is a level or a list of `target=level`; one that cannot be read lets `info` through.
pub fn start(format: LogFormat, filter: &str) {
    // The runtime's own warnings on graph optimisation are for its developers; a store's retries say no more than what comes of them.
    // What administrators do is told at every level: who wants less says audit=off.
    let filter = EnvFilter::try_new(format!("ort=error,object_store=warn,audit=info,{filter}"))
        .unwrap_or_else(|_| EnvFilter::new("info"));
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        // Told by `eprintln!`, which panics where standard error itself is what fails.
        .log_internal_errors(false)
        .with_target(false);
    let _ = match format {
        LogFormat::Text => logs.try_init(),
        // The one span there is, a traced request with its `trace_id`, need not be told twice.
        LogFormat::Json => logs.json().flatten_event(true).with_span_list(false).try_init(),
    };
}
