//! The `sextant` command: argument -> command -> exit code.

use std::process::ExitCode;

use clap::Parser as _;

use sextant::cli::Cli;
use sextant::engine::runtime;

#[expect(
    unsafe_code,
    reason = "the environment can only be changed while one thread runs, which is here alone"
)]
fn main() -> ExitCode {
    // SAFETY: the process has started no thread yet.
    unsafe { runtime::disable_telemetry() };
    sextant::cli::run(Cli::parse())
}
