//! One connection: its handshake, its requests, and what ends it.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::uri::Scheme;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, sleep_until, timeout};
use tower::{Service as _, service_fn};

use super::activity::{Activity, Answer, Watched};
use crate::http::admin::{Peer, WithoutCertificate};
use crate::http::room::Place;
use crate::metrics::{Closed, ListenerMetrics};
use crate::tls::Shown;

/// A connection taken at the very end needs to be read once before it is told to finish: one that has not been read
/// counts as idle and would be closed with its request unseen.
const LAST_READ: Duration = Duration::from_millis(100);
/// For a client to see that an idle connection is being closed.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Of HTTP/2, whose clients answer pings: one that is gone without a word is noticed while it has a request, too.
const PING: Duration = Duration::from_secs(30);
/// Of one HTTP/2 stream, and of all streams of a connection: bytes that a client may send before they are read.
const WINDOWS: (u32, u32) = (1 << 18, 1 << 20);
/// Bytes that wait for an HTTP/2 client's window, of each of its answers.
const SEND_BUFFER: usize = 1 << 16;
/// Headers of a request that hyper has room for if it is not told how many.
const HYPERS_HEADERS: usize = 100;

/// Limits of each connection of a listener, and of all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once.
    pub max_connections: usize,
    /// Bytes of a request's head.
    pub max_header_bytes: usize,
    /// Headers of a request.
    pub max_headers: usize,
    /// Requests at once on an HTTP/2 connection.
    pub max_streams: u32,
    /// For a TLS handshake.
    pub handshake_timeout: Duration,
    /// For a head, and for the first one to come.
    pub head_timeout: Duration,
    /// How long a client may take less than 64 KiB of its answer, or of what is left of it.
    pub write_timeout: Duration,
    /// How long a connection is kept without a request.
    pub idle_timeout: Duration,
}

impl Limits {
    /// Idle connections outlive those of the balancers that keep them for a minute.
    pub const DEFAULT: Self = Self {
        max_connections: 8192,
        max_header_bytes: 1 << 16,
        max_headers: HYPERS_HEADERS,
        max_streams: 100,
        handshake_timeout: Duration::from_secs(10),
        head_timeout: Duration::from_secs(10),
        write_timeout: Duration::from_secs(30),
        idle_timeout: Duration::from_secs(75),
    };

    /// How often a connection is looked at: none outlives a limit by more than a quarter of it. No more often, since each look wakes
    /// the task of a connection and all that hyper has in it.
    fn look_every(&self) -> Duration {
        let shortest = self.head_timeout.min(self.write_timeout).min(self.idle_timeout);
        (shortest / 4).max(Duration::from_millis(1))
    }
}

/// What all connections of a listener have in common.
#[derive(Clone)]
pub(super) struct Host {
    pub(super) router: Router,
    pub(super) limits: Limits,
    pub(super) tls: Option<Shown>,
    pub(super) metrics: Arc<ListenerMetrics>,
    /// True when connections are to finish.
    pub(super) finish: watch::Receiver<bool>,
    /// Closed when the last connection is.
    pub(super) _alive: mpsc::Sender<()>,
}

impl Host {
    /// Answers what comes over `stream`, until one end has enough.
    pub(super) async fn serve(self, stream: TcpStream, peer: SocketAddr, place: Place) {
        self.metrics.open.inc();
        let lost = place.lost().clone();
        let served = async {
            // Answers are written whole: waiting for more to send would only delay them.
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "cannot set TCP_NODELAY");
            }
            match &self.tls {
                None => self.answer(stream, peer, place, Scheme::HTTP, false).await,
                Some(shown) => {
                    let handshake = timeout(self.limits.handshake_timeout, shown.acceptor().accept(stream));
                    match handshake.await.map_err(io::Error::from).flatten() {
                        Ok(stream) => {
                            let is_bare =
                                shown.asks_clients() && stream.get_ref().1.peer_certificates().is_none();
                            self.answer(stream, peer, place, Scheme::HTTPS, is_bare).await;
                        }
                        Err(error) => {
                            tracing::debug!(%error, "a TLS handshake failed");
                            self.metrics.closed(Closed::Handshake);
                        }
                    }
                }
            }
        };
        // Dropped at once: another connection has its place.
        if lost.run_until_cancelled(served).await.is_none() {
            tracing::debug!("a connection gave way to another");
        }
        self.metrics.open.dec();
    }

    async fn answer<S>(&self, stream: S, peer: SocketAddr, place: Place, scheme: Scheme, is_bare: bool)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (limits, activity) = (&self.limits, Activity::new(place));
        let service = {
            let (router, activity) = (self.router.clone(), Arc::clone(&activity));
            service_fn(move |mut request: Request<Incoming>| {
                let exchange = activity.begin(request.version());
                // The administrators' routes ask where a request comes from.
                request.extensions_mut().insert(Peer(peer));
                // And traces, how: the target of a request seldom says.
                request.extensions_mut().insert(scheme.clone());
                if is_bare {
                    request.extensions_mut().insert(WithoutCertificate);
                }
                let answer = router.clone().call(request);
                async move { answer.await.map(|answer| answer.map(|body| Answer::new(body, exchange))) }
            })
        };
        let io = TokioIo::new(Watched::new(stream, Arc::clone(&activity)));
        let builder = builder(limits);
        let mut connection = pin!(builder.serve_connection(io, TowerToHyperService::new(service)));
        let begun = Instant::now();
        let mut finish = self.finish.clone();
        let mut finishing = pin!(async {
            // An error means that nobody can ask for it any more: the same as being asked.
            let _ = finish.wait_for(|finish| *finish).await;
            sleep_until(begun + LAST_READ).await;
        });
        let mut looks = tokio::time::interval(limits.look_every());
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut is_leaving, mut end) = (false, None);
        loop {
            tokio::select! {
                biased;
                ended = connection.as_mut() => {
                    // A client that hangs up in the middle is no fault of ours; its request is dropped with the connection.
                    if let Err(error) = ended {
                        tracing::debug!(error, "connection ended");
                    }
                    return;
                }
                () = finishing.as_mut(), if !is_leaving => {
                    is_leaving = true;
                    connection.as_mut().graceful_shutdown();
                }
                now = looks.tick() => {
                    if end.is_some_and(|end| now >= end) {
                        return;
                    }
                    match activity.overdue(limits) {
                        Some(Closed::Idle) if end.is_none() => {
                            self.metrics.closed(Closed::Idle);
                            (is_leaving, end) = (true, Some(now + LAST_WORDS));
                            connection.as_mut().graceful_shutdown();
                        }
                        Some(Closed::Idle) | None => {}
                        Some(why) => {
                            tracing::debug!(?why, "a client kept the server waiting");
                            self.metrics.closed(why);
                            return;
                        }
                    }
                }
            }
        }
    }
}

fn builder(limits: &Limits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .max_buf_size(limits.max_header_bytes)
        // hyper's own would end idle connections as well.
        .header_read_timeout(None);
    // Where it is said, hyper keeps headers on the heap, which costs 5 % by its own account.
    if limits.max_headers != HYPERS_HEADERS {
        builder.http1().max_headers(limits.max_headers);
    }
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(limits.max_header_bytes).unwrap_or(u32::MAX))
        .max_concurrent_streams(limits.max_streams)
        .initial_stream_window_size(WINDOWS.0)
        .initial_connection_window_size(WINDOWS.1)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING);
    builder
}
