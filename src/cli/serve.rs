//! `sextant serve`.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;

use super::{Failure, eprint_line, print_line};
use crate::config::{Config, Settings};
use crate::exit;
use crate::memory;
use crate::server::{self, Listeners};
use crate::telemetry;

/// Given, after the drain, to threads that block: a version that is being loaded, or a disk that does not answer. Nobody waits for what they
/// do, and no thread can be stopped from outside.
const LAST_WORK: Duration = Duration::from_millis(500);

#[derive(Debug, Args)]
pub(super) struct Serve {
    /// TOML file with any of these settings; flags and SEXTANT_* variables go over it
    #[arg(long, value_name = "FILE", env = "SEXTANT_CONFIG")]
    config: Option<PathBuf>,
    /// Print the configuration that results, as TOML, and stop
    #[arg(long)]
    print_config: bool,
    #[command(flatten)]
    settings: Settings,
}

impl Serve {
    pub(super) fn run(self) -> Result<(), Failure> {
        memory::map_large_blocks();
        let cores = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let settings = self.settings.over_file(self.config.as_deref()).map_err(Failure::usage)?;
        let settings = settings.over_standard(|name| std::env::var(name).ok()).map_err(Failure::usage)?;
        let config = settings.validate(cores).map_err(Failure::usage)?;
        if self.print_config {
            return print_line(config.to_toml()?.trim_end());
        }
        telemetry::start(config.log_format, &config.log);
        server::files::raise_limit();
        // Half of the processors carry requests: the sessions need all, and at saturation every change between threads takes
        // its time from them.
        let workers = cores.get().div_ceil(2);
        let mut tokio = tokio::runtime::Builder::new_multi_thread();
        let tokio = tokio.worker_threads(workers).enable_all().build()?;
        let served = tokio.block_on(serve(config));
        let begun = Instant::now();
        tokio.shutdown_timeout(LAST_WORK);
        if begun.elapsed() < LAST_WORK {
            return served;
        }
        tracing::info!("ending beside work that is not waited for, as the load of a version");
        let Err(failure) = served else { exit::at_once(0) };
        eprint_line("error", &failure.message);
        exit::at_once(failure.code)
    }
}

async fn serve(config: Config) -> Result<(), Failure> {
    let stop = server::stop_signal()?;
    // Before the models are loaded: a port that is taken should not cost that time.
    let listeners = Listeners::bind(&config).await?;
    let address = listeners.public.local_addr()?;
    tokio::spawn(memory::peak::give_back_after_peaks());
    tokio::pin!(stop);
    let app = tokio::select! {
        app = server::load(&config) => app?,
        () = &mut stop => return Ok(()),
    };
    let scheme = if config.tls.public.is_some() { "https" } else { "http" };
    if let Some(model) = app.example_model() {
        let greeting = print_line(&format!(
            "Sextant serves on {scheme}://{address}. Try:\n  curl {scheme}://{address}/v1/embeddings -H 'content-type: application/json' \
             -d '{{\"model\": \"{model}\", \"input\": \"Hello, world\"}}'"
        ));
        // No reason to refuse requests.
        if let Err(failure) = greeting {
            tracing::warn!("{}", failure.message);
        }
    }
    if server::run(app, &config, listeners, stop).await {
        return Ok(());
    }
    Err(Failure { message: "requests were left unanswered at the end of the drain timeout".into(), code: 1 })
}
