//! The whole server, in its own process, over HTTP.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use sextant::bench::target::Dialect;
use sextant::bench::{self, Bounds, Pace, Report, Target};

use crate::Result;
use crate::models::{Model, sextant};
use crate::texts::{Text, TextSet};

/// Before each measurement.
const WARMUP: Duration = Duration::from_secs(1);
/// Long requests of many clients wait long; none may fail for it.
const TIMEOUT: Duration = Duration::from_secs(600);
/// 256 requests of 32 long texts are 1.2 million tokens in flight: refusing some of them is another measurement.
const QUEUE_TOKENS: &str = "4000000";

/// What one measurement gave.
pub(crate) struct Served {
    /// Real tokens.
    pub(crate) tokens_per_second: f64,
    /// Whether these were counted from the answers, or read from the server's own counter.
    pub(crate) from_answers: bool,
    /// Of a core.
    pub(crate) generator_share: f64,
    /// Milliseconds; of what was answered while measuring.
    pub(crate) p50: Option<f64>,
    /// Answers that were no vectors, and requests without one.
    pub(crate) errors: u64,
}

impl Served {
    /// Speed at saturation, with a new process: nothing is left in its queue from the measurement before.
    pub(crate) fn measure(
        model: &Model,
        set: &TextSet,
        clients: usize,
        inputs: usize,
        time: Duration,
        arguments: &str,
    ) -> Result<Self> {
        let server = Server::start(model, arguments)?;
        let texts: Vec<String> = set.texts.iter().map(|text| text.text.clone()).collect();
        let target = server.target()?.with_inputs(inputs);
        let bodies = target.bodies(Some(&model.precision), &texts);
        let bounds = Bounds { warmup: WARMUP, duration: time, requests: u64::MAX, timeout: TIMEOUT };
        let pace = Pace::Closed { concurrency: clients };
        let (report, counted) = runtime()?.block_on(async {
            let mut counted = None;
            let counter = async {
                tokio::time::sleep(WARMUP).await;
                let before = server.tokens();
                tokio::time::sleep(time).await;
                counted = Some((before, server.tokens()));
            };
            let report = bench::run(target, bodies, pace, bounds, counter, |_| {}).await?;
            Ok::<_, Box<dyn std::error::Error>>((report, counted))
        })?;
        let from_answers = report.per_second.tokens.unwrap_or(0.0);
        let by_server = match counted {
            Some((before, after)) => {
                let ((before, at), (after, then)) = (before?, after?);
                (after - before) / (then - at).as_secs_f64()
            }
            None => return Err("the load ended before its time".into()),
        };
        // With this much in flight few requests are both sent and answered in the time, and which ones is chance.
        let in_flight = (clients * inputs) as f64 * set.mean_tokens();
        let few = in_flight > by_server * time.as_secs_f64() / 4.0;
        Ok(Self {
            tokens_per_second: if few { by_server } else { from_answers },
            from_answers: !few,
            generator_share: report.generator.processor_share.unwrap_or(0.0),
            p50: report.latency_ms.map(|latency| latency.p50),
            errors: errors(&report),
        })
    }

    /// The median latency of one client that sends `text` over and over, in milliseconds, of at most `requests` and about
    /// `time`.
    pub(crate) fn latency(
        model: &Model,
        text: &Text,
        requests: u64,
        time: Duration,
        arguments: &str,
    ) -> Result<f64> {
        let server = Server::start(model, arguments)?;
        let target = server.target()?;
        let bodies = target.bodies(Some(&model.precision), std::slice::from_ref(&text.text));
        let bounds =
            Bounds { warmup: Duration::from_millis(300), duration: time, requests, timeout: TIMEOUT };
        let pace = Pace::Closed { concurrency: 1 };
        let never = std::future::pending();
        let report = runtime()?.block_on(bench::run(target, bodies, pace, bounds, never, |_| {}))?;
        if errors(&report) > 0 {
            return Err(format!("{} requests failed: {:?}", errors(&report), report.statuses).into());
        }
        Ok(report.latency_ms.ok_or("no request was answered")?.p50)
    }
}

fn errors(report: &Report) -> u64 {
    report.requests.failed
        + report.statuses.iter().filter(|(status, _)| **status != 200).map(|(_, n)| n).sum::<u64>()
}

/// One thread, so that the generator takes no more of the machine than it must.
fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// Killed when dropped.
struct Server {
    child: Child,
    address: String,
    /// Kept open: it has more to say than the line that is read.
    _output: Option<BufReader<ChildStdout>>,
}

impl Server {
    fn start(model: &Model, arguments: &str) -> Result<Self> {
        let mut child = sextant()
            .arg("serve")
            .arg("--models")
            .arg(&model.repository)
            .args(["--listen", "127.0.0.1:0", "--log", "warn", "--max-queue-tokens", QUEUE_TOKENS])
            .args(arguments.split_whitespace())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut output = child.stdout.take().map(BufReader::new);
        let mut line = String::new();
        if let Some(output) = &mut output {
            output.read_line(&mut line)?;
        }
        let address = line.split("http://").nth(1).and_then(|rest| rest.split(". ").next());
        let server = Self { child, address: address.unwrap_or_default().to_owned(), _output: output };
        if server.address.is_empty() {
            return Err("the server did not start".into());
        }
        Ok(server)
    }

    fn target(&self) -> Result<Target> {
        Ok(Target::new(&format!("http://{}", self.address), Dialect::Openai)?)
    }

    /// Real tokens computed since it started, and when that was.
    fn tokens(&self) -> Result<(f64, Instant)> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        write!(stream, "GET /metrics HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.address)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let now = Instant::now();
        let line = answer
            .lines()
            .find(|line| line.starts_with("sextant_tokens_total{") && line.contains("kind=\"real\""));
        let value = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
        Ok((value.ok_or("the server's metrics have no sextant_tokens_total")?, now))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
