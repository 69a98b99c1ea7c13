//! The whole server, in a process of its own, over HTTP.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use sextant::bench::target::Dialect;
use sextant::bench::{self, Bounds, Pace, Report, Target};

use crate::Result;
use crate::models::{Model, sextant};
use crate::texts::Text;

/// Long requests of many clients wait long; none may fail for it.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(600);
/// A queue that takes longer than this to empty is stuck.
const EMPTIES: Duration = Duration::from_secs(120);

/// Killed when dropped.
pub(crate) struct Server {
    child: Child,
    address: String,
    /// Kept open: it has more to say than the line that is read.
    _output: Option<BufReader<ChildStdout>>,
    model: String,
}

impl Server {
    /// Serves `model` with more `arguments` for `sextant serve`, and returns when it answers.
    pub(crate) fn start(model: &Model, arguments: &str) -> Result<Self> {
        let mut command = sextant();
        command
            .arg("serve")
            .arg("--models")
            .arg(&model.repository)
            .args(["--listen", "127.0.0.1:0", "--log", "warn,sextant::embed::model=info"])
            .args(arguments.split_whitespace())
            .stdout(Stdio::piped());
        Self::spawn(command, &model.precision)
    }

    /// Starts a server of the model named `model`, which says where it serves on its output, and returns when it has.
    pub(crate) fn spawn(mut command: Command, model: &str) -> Result<Self> {
        let mut child = command.spawn()?;
        let mut output = child.stdout.take().map(BufReader::new);
        let mut line = String::new();
        if let Some(output) = &mut output {
            output.read_line(&mut line)?;
        }
        let address = line.split("http://").nth(1).and_then(|rest| rest.split(". ").next());
        let (address, model) = (address.unwrap_or_default().to_owned(), model.to_owned());
        let server = Self { child, address, _output: output, model };
        if server.address.is_empty() { Err("the server did not start".into()) } else { Ok(server) }
    }

    /// Requests in the OpenAI dialect, as the official clients send them.
    pub(crate) fn target(&self) -> Result<Target> {
        Ok(Target::new(&self.url(), Dialect::Openai)?)
    }

    /// The number of its process.
    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Puts it under load and waits for the end of it.
    pub(crate) fn load(&self, target: Target, texts: &[Text], pace: Pace, bounds: Bounds) -> Result<Report> {
        runtime()?.block_on(self.loaded(target, texts, pace, bounds, std::future::pending()))
    }

    /// Puts it under load until the end of it, or until `interrupt`.
    pub(crate) async fn loaded(
        &self,
        target: Target,
        texts: &[Text],
        pace: Pace,
        bounds: Bounds,
        interrupt: impl Future<Output = ()>,
    ) -> Result<Report> {
        let texts: Vec<String> = texts.iter().map(|text| text.text.clone()).collect();
        let bodies = target.bodies(Some(&self.model), &texts);
        Ok(bench::run(target, bodies, pace, bounds, interrupt, |_| {}).await?)
    }

    /// The sum of a metric's series whose labels hold `label`, and when that was.
    pub(crate) fn metric(&self, name: &str, label: &str) -> Result<(f64, Instant)> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        write!(stream, "GET /metrics HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.address)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let now = Instant::now();
        let is_series = |line: &&str| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])) && line.contains(label)
        };
        let values =
            answer.lines().filter(is_series).filter_map(|line| line.rsplit(' ').next()?.parse().ok());
        let values: Vec<f64> = values.collect();
        if values.is_empty() {
            return Err(format!("the server's metrics have no {name} with {label}").into());
        }
        Ok((values.iter().sum(), now))
    }

    /// Real tokens computed since it started, and when that was.
    pub(crate) fn tokens(&self) -> Result<(f64, Instant)> {
        self.metric("sextant_tokens_total", "kind=\"real\"")
    }

    /// Resident memory in bytes.
    pub(crate) fn memory(&self) -> Result<f64> {
        Ok(self.metric("process_resident_memory_bytes", "")?.0)
    }

    /// Returns when nothing waits any more.
    pub(crate) fn wait_until_idle(&self) -> Result<()> {
        let idle = async {
            while self.metric("sextant_queue_items", "")?.0 > 0.0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            // The batches that run.
            tokio::time::sleep(Duration::from_millis(200)).await;
            Ok(())
        };
        let waited = runtime()?.block_on(async { tokio::time::timeout(EMPTIES, idle).await });
        waited.map_err(|_| "the server's queue does not empty")?
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One thread, so that the generator takes no more of the machine than it must.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// Answers that were no vectors, and requests without one.
pub(crate) fn errors(report: &Report) -> u64 {
    report.requests.failed
        + report.statuses.iter().filter(|(status, _)| **status != 200).map(|(_, n)| n).sum::<u64>()
}
