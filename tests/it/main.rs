//! The integration tests, as one binary: one link instead of one for each file.
#![expect(clippy::unwrap_used, reason = "clippy.toml allows it in test functions, not in their helpers")]

mod hub;
