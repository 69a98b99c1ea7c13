//! Sextant: an embedding server that keeps vectors true.
pub mod engine;
pub mod import;
pub mod repository;
pub mod tokenize;
