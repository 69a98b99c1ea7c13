//! From a checkpoint to a version.

pub mod hub;
