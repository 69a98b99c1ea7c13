//! The integration tests, as one binary: one link instead of one for each file.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "clippy.toml allows them in test functions, not in their helpers"
)]

mod contract;
mod hub;
mod lifecycle;
mod openai;
mod refusals;
mod support;
mod tei;
