//! The `sextant` command: argument -> command -> exit code.

use std::process::ExitCode;

use clap::Parser as _;

use sextant::cli::Cli;

fn main() -> ExitCode {
    sextant::cli::run(Cli::parse())
}
