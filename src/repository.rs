//! Where versions live.

pub mod manifest;
