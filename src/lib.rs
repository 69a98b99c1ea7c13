//! Sextant: an embedding server that keeps vectors true.
pub mod batch;
pub mod cli;
pub mod config;
pub mod embed;
pub mod evaluate;
pub mod http;
pub mod engine;
pub mod metrics;
pub mod import;
pub mod repository;
pub mod rollout;
pub mod server;
pub mod telemetry;
pub mod tokenize;
