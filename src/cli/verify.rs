//! `sextant verify`.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::thread;

use clap::Args;

use super::arguments::{Models, VersionName};
use super::cache::Cache;
use super::{Failure, print_line};
use crate::batch::Limits;
use crate::config::GateSettings;
use crate::engine::{Runtime, Wanted};
use crate::rollout::gate;

/// The exit code of a version that may not serve.
const NOT_PASSED: u8 = 3;

#[derive(Debug, Args)]
pub(super) struct Verify {
    /// The version, as minilm@2
    version: VersionName,
    #[command(flatten)]
    models: Models,
    #[command(flatten)]
    cache: Cache,
    /// Print the checks as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    gate: GateSettings,
    /// The ONNX Runtime library [default: looked for]
    #[arg(long, value_name = "FILE", env = "SEXTANT_ONNXRUNTIME")]
    onnxruntime: Option<PathBuf>,
}

impl Verify {
    pub(super) fn run(self) -> Result<(), Failure> {
        let VersionName { model, version } = &self.version;
        let bounds = self.gate.validate().map_err(|mistakes| Failure::usage(mistakes.join("\n")))?;
        let runtime = Runtime::load(self.onnxruntime.as_deref())?;
        let repository = self.models.open()?.with_cache(self.cache.settings());
        // One session with all threads: nothing is measured but what the gate measures.
        let wanted = Wanted {
            cores: thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            sessions: Some(NonZeroUsize::MIN),
            threads: None,
            batch_tokens: NonZeroUsize::new(Limits::default().batch_tokens),
            lone_threads: Some(0),
        };
        let verified = gate::verify(&repository, model, *version, runtime, wanted, bounds);
        let report = tokio::runtime::Runtime::new()?.block_on(verified)?;
        print_line(&if self.json { serde_json::to_string_pretty(&report)? } else { report.to_string() })?;
        if report.passed {
            return Ok(());
        }
        let message = format!("{} does not pass the gate: {}", report.version, report.failures());
        Err(Failure { message, code: NOT_PASSED })
    }
}
