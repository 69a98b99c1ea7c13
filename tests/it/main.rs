//! The integration tests, as one binary: the runtime library is loaded once, and linking is paid once.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "clippy.toml allows them in test functions, not in their helpers"
)]

mod admin;
mod batching;
mod bench;
mod bucket;
mod command;
mod contract;
mod device;
mod docs;
mod drift;
mod engine;
mod evaluate;
mod fairness;
mod faults;
mod files;
mod gate;
mod hub;
mod import;
mod inference;
mod keys;
mod lifecycle;
mod limits;
mod liveness;
mod missing;
mod names;
mod openai;
// It needs a device that is always full.
#[cfg(target_os = "linux")]
mod output;
mod parsing;
mod readme;
mod refusals;
mod repository;
mod rollout;
mod security;
mod signed;
mod support;
mod tei;
mod tls;
mod tokens;
mod trace;
mod trial;
mod weights;
