//! Accepts connections and lets go of them without losing a request.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::{Extension, Router};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tower::Layer as _;

use crate::http::admin::Peer;

/// What the listener does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Takes connections.
    Serving,
    /// Takes none, and finishes those it has.
    Draining,
}

/// For the whole head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Accepting fails when file descriptors run out; trying again at once would only burn the CPU.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(50);
/// A connection taken at the very end needs to be read once before it is told to finish: one that has not been read
/// counts as idle and would be closed with its request unseen.
const LAST_READ: Duration = Duration::from_millis(100);

/// Serves `router` on `listener` until [`Phase::Draining`], then until the last request is answered.
pub(super) async fn serve(listener: TcpListener, router: Router, mut phases: watch::Receiver<Phase>) {
    let graceful = GracefulShutdown::new();
    let draining = async move {
        // An error means that nobody can start a drain any more: the same as one.
        let _ = phases.wait_for(|phase| *phase == Phase::Draining).await;
    };
    tokio::pin!(draining);
    loop {
        tokio::select! {
            biased;
            () = &mut draining => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => connection(stream, peer, &router, &graceful),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
                }
            },
        }
    }
    for (stream, peer) in backlog(listener) {
        connection(stream, peer, &router, &graceful);
    }
    tokio::time::sleep(LAST_READ).await;
    graceful.shutdown().await;
}

/// The connections that the kernel has accepted already, whose clients believe that they are served, and closes the door.
///
/// Asks the kernel: the runtime's own listener answers from the events it has seen, and misses the latest.
fn backlog(listener: TcpListener) -> Vec<(TcpStream, SocketAddr)> {
    let taken = listener.into_std().map(|listener| {
        let accepted = std::iter::from_fn(|| listener.accept().ok());
        accepted.filter_map(|(stream, peer)| Some((adopt(stream).ok()?, peer))).collect()
    });
    taken.unwrap_or_else(|error| {
        tracing::warn!(%error, "connections that were waiting are lost");
        Vec::new()
    })
}

fn adopt(stream: std::net::TcpStream) -> io::Result<TcpStream> {
    stream.set_nonblocking(true)?;
    TcpStream::from_std(stream)
}

fn connection(stream: TcpStream, peer: SocketAddr, router: &Router, graceful: &GracefulShutdown) {
    // Answers are written whole: waiting for more to send would only delay them.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    // The administrators' routes ask where a request comes from.
    let service = TowerToHyperService::new(Extension(Peer(peer)).layer(router.clone()));
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // Without a timer hyper waits for the rest of a head for ever.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    let connection = graceful.watch(builder.serve_connection(TokioIo::new(stream), service).into_owned());
    tokio::spawn(async move {
        // A client that hangs up in the middle is no fault of ours; its request is dropped with the connection.
        if let Err(error) = connection.await {
            tracing::debug!(error, "connection ended");
        }
    });
}
