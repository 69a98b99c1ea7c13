//! Everything that needs ONNX Runtime or more than one module, in one binary: the library is loaded once, and linking is
//! paid once.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking, its helpers included"
)]

mod import;
mod support;
