//! Sextant: an embedding server that keeps vectors true.
pub mod batch;
pub mod config;
pub mod embed;
pub mod engine;
pub mod metrics;
pub mod repository;
pub mod rollout;
pub mod telemetry;
pub mod tokenize;
