//! `sextant verify`.

use std::num::NonZeroUsize;
use std::thread;

use clap::Args;

use super::arguments::{Execution, VersionName};
use super::cache::{Cache, Trust};
use super::target::{Place, Target};
use super::{Failure, NOT_PASSED, print_line};
use crate::config::GateSettings;
use crate::engine::Wanted;
use crate::repository::Repository;
use crate::rollout::gate::{self, GateReport};

#[derive(Debug, Args)]
pub(super) struct Verify {
    /// The version, as minilm@2
    version: VersionName,
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    cache: Cache,
    #[command(flatten)]
    trust: Trust,
    /// Print the checks as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    gate: GateSettings,
    #[command(flatten)]
    execution: Execution,
}

impl Verify {
    pub(super) fn run(self) -> Result<(), Failure> {
        let VersionName { model, version } = &self.version;
        let report = match self.target.open()? {
            Place::Repository(repository) => self.here(repository)?,
            // With its own bounds and library, beside what it serves.
            Place::Server(server) => {
                self.trust.refuse_beside_server()?;
                let asked = serde_json::json!({ "version": version });
                tokio::runtime::Runtime::new()?.block_on(server.post(&[model, "verify"], &asked))?
            }
        };
        print_line(&if self.json { serde_json::to_string_pretty(&report)? } else { report.to_string() })?;
        if report.passed {
            return Ok(());
        }
        let message = format!("{} does not pass the gate: {}", report.version, report.failures());
        Err(Failure { message, code: NOT_PASSED })
    }

    fn here(&self, repository: Repository) -> Result<GateReport, Failure> {
        let VersionName { model, version } = &self.version;
        let bounds = self.gate.validate().map_err(|mistakes| Failure::usage(mistakes.join("\n")))?;
        let backend = self.execution.start()?;
        let repository = self.trust.over(repository, self.cache.settings())?;
        let wanted = Wanted::one_session(thread::available_parallelism().unwrap_or(NonZeroUsize::MIN));
        let verified = gate::verify(&repository, model, *version, &backend, wanted, bounds);
        Ok(tokio::runtime::Runtime::new()?.block_on(verified)?)
    }
}
