//! A load generator: how fast a server answers, and how long a request takes, at a given load.
//!
//! *Closed loop*: N clients, each sends its next request when the last is answered. It finds the saturation, but a slow
//! server slows the clients too, so its latencies flatter. *Open loop*: requests arrive at a rate, whatever the server
//! does (Poisson), and latency counts from the arrival that was scheduled, so that waiting for a slow server is counted
//! (no coordinated omission). Both are bounded in time, in number of requests and in requests in flight.
//!
//! It shares the machine with the server it measures, so it is light: one thread, bodies made before, one HTTP/1.1
//! connection for each request in flight, answers read and not parsed but for their token count. Its own processor time is
//! in the report.
//!
//! [`session`] is apart from it: the bare sessions of a version in a loop, with no server to measure.
//!
//! Reading order: [`target`] (what is sent where), `client` (one exchange), [`schedule`] (when), `tally` (what came of
//! it), [`report`] (the figures).

mod client;
pub mod input;
pub mod report;
pub mod schedule;
pub mod session;
mod tally;
pub mod target;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::Serialize;
use thiserror::Error;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

pub use client::Cause;
use client::Client;
pub use report::Report;
use schedule::{Arrivals, Pacer};
use tally::Tally;
pub use target::Target;

/// After an interruption: what is in flight for longer is abandoned.
const GRACE: Duration = Duration::from_secs(1);
/// How often `progress` is called.
const TICK: Duration = Duration::from_millis(100);
/// A closed-loop client's pause after a refusal: without one, clients that are refused at once would take the processor
/// from the server.
const PAUSE_REFUSED: Duration = Duration::from_millis(10);
/// The same after a request that got no answer.
const PAUSE_FAILED: Duration = Duration::from_millis(100);

/// When requests are sent.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(tag = "mode", rename_all = "lowercase")]
pub enum Pace {
    /// Each of `concurrency` clients sends when its last request is answered.
    Closed {
        /// Clients.
        concurrency: usize,
    },
    /// Poisson arrivals.
    Open {
        /// Arrivals per second.
        rate: f64,
        /// Most requests in flight; an arrival beyond them is not sent, and counted.
        concurrency: usize,
        /// The same seed, the same arrivals.
        seed: u64,
    },
}

/// How long, and how patiently.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Load before anything is measured.
    pub warmup: Duration,
    /// Measured time at most.
    pub duration: Duration,
    /// Measured requests at most.
    pub requests: u64,
    /// A request without a whole answer after that has failed.
    pub timeout: Duration,
}

/// Why nothing could be measured.
#[derive(Debug, Error)]
pub enum BenchError {
    /// The texts cannot be read.
    #[error(transparent)]
    Input(#[from] input::InputFileError),
    /// The URL is not one that can be measured.
    #[error(transparent)]
    Target(#[from] target::TargetError),
    /// The first request got no answer.
    #[error("no answer from {address}: {cause}")]
    Unreachable {
        /// Host and port.
        address: String,
        /// Why.
        cause: Cause,
    },
    /// The first request got another answer than vectors.
    #[error("{address} answers {status} to the first request: {body}")]
    Refused {
        /// Host and port.
        address: String,
        /// The status.
        status: u16,
        /// How the answer begins.
        body: String,
    },
    /// The model was not named, and the server does not offer exactly one.
    #[error("name a model: the server offers {}", .0.join(", "))]
    WhichModel(Vec<String>),
    /// The thread of the arrivals could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] std::io::Error),
}

/// How far a run is, for a progress bar.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// From 0 to 1; the warm-up counts too.
    pub share: f64,
    /// Answers so far, the warm-up's too.
    pub answers: u64,
}

/// What all clients share.
struct Shared {
    target: Target,
    bodies: Vec<Bytes>,
    timeout: Duration,
    tally: Mutex<Tally>,
}

impl Shared {
    /// Never contended: all clients are tasks of one thread, and none waits while it holds this.
    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends one request. `due` is when it should have gone, `number` says which body it has.
    async fn exchange(&self, client: &mut Client, due: Instant, number: u64) -> Option<Duration> {
        let body = self.bodies[(number % self.bodies.len() as u64) as usize].clone();
        let sent_bytes = body.len() as u64;
        let sent = Instant::now();
        let result = client.exchange(&self.target, body, self.timeout).await;
        let pause = match &result {
            Ok(answer) if answer.status == 200 => None,
            Ok(_) => Some(PAUSE_REFUSED),
            Err(_) => Some(PAUSE_FAILED),
        };
        self.tally().end(due, sent, Instant::now(), sent_bytes, result);
        pause
    }
}

/// Puts `target` under load. Must be called on a current-thread tokio runtime, or the generator takes more of the machine
/// than it says. `bodies` are sent in order, again from the first after the last. When `interrupt` resolves the run ends
/// with what was measured.
///
/// # Errors
/// If the server cannot be reached or refuses the first request.
pub async fn run(
    target: Target,
    bodies: Vec<Bytes>,
    pace: Pace,
    bounds: Bounds,
    interrupt: impl Future<Output = ()>,
    mut progress: impl FnMut(Progress),
) -> Result<Report, BenchError> {
    target.check(bodies.first().cloned().unwrap_or_default(), bounds.timeout).await?;
    let inputs = target.inputs_per_request as u64;
    let start = Instant::now();
    let tally = Tally::new(start + bounds.warmup, bounds.duration, bounds.requests, inputs);
    let shared = Arc::new(Shared { target, bodies, timeout: bounds.timeout, tally: Mutex::new(tally) });
    let mut clients = JoinSet::new();
    match pace {
        Pace::Closed { concurrency } => {
            for _ in 0..concurrency.max(1) {
                clients.spawn(closed_client(Arc::clone(&shared)));
            }
        }
        Pace::Open { rate, concurrency, seed } => {
            let pacer = Pacer::start(Arrivals::new(start, rate, seed)).map_err(BenchError::Thread)?;
            clients.spawn(open_loop(Arc::clone(&shared), pacer, concurrency.max(1)));
        }
    }
    let all_ended = async { while clients.join_next().await.is_some() {} };
    tokio::pin!(all_ended, interrupt);
    let mut ticks = tokio::time::interval(TICK);
    let mut interrupted = false;
    loop {
        tokio::select! {
            () = &mut all_ended => break,
            () = &mut interrupt => {
                interrupted = true;
                shared.tally().stop(Instant::now());
                // What is still not answered then stays in the tally as sent: the report calls it abandoned.
                let _ = tokio::time::timeout(GRACE, &mut all_ended).await;
                break;
            }
            _ = ticks.tick() => progress(shared.tally().progress(start, Instant::now())),
        }
    }
    let report = shared.tally().report(Instant::now(), interrupted);
    Ok(report)
}

async fn closed_client(shared: Arc<Shared>) {
    let mut client = Client::default();
    loop {
        let now = Instant::now();
        let Some(number) = shared.tally().begin(now) else { return };
        if let Some(pause) = shared.exchange(&mut client, now, number).await {
            tokio::time::sleep(pause).await;
        }
    }
}

async fn open_loop(shared: Arc<Shared>, mut pacer: Pacer, concurrency: usize) {
    let places = Arc::new(Semaphore::new(concurrency));
    // The one used last goes first: the fewest connections, and those warm.
    let (back, mut idle) = mpsc::unbounded_channel::<Client>();
    let mut clients = Vec::new();
    let mut running = JoinSet::new();
    while let Some(due) = pacer.next().await {
        while running.try_join_next().is_some() {}
        while let Ok(client) = idle.try_recv() {
            clients.push(client);
        }
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            if !shared.tally().miss(due) {
                break;
            }
            continue;
        };
        let Some(number) = shared.tally().begin(due) else { break };
        let mut client = clients.pop().unwrap_or_default();
        let (shared, back) = (Arc::clone(&shared), back.clone());
        running.spawn(async move {
            shared.exchange(&mut client, due, number).await;
            drop(place);
            // The loop is over if nobody takes it back.
            let _ = back.send(client);
        });
    }
    while running.join_next().await.is_some() {}
}
