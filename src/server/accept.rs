//! Accepts connections and lets go of them without losing a request.

use std::time::Duration;

use axum::Router;
use futures_util::FutureExt as _;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

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
                Ok((stream, _)) => connection(stream, &router, &graceful),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
                }
            },
        }
    }
    // The kernel has accepted these already, and their clients believe that they are served.
    while let Some(Ok((stream, _))) = listener.accept().now_or_never() {
        connection(stream, &router, &graceful);
    }
    drop(listener);
    tokio::time::sleep(LAST_READ).await;
    graceful.shutdown().await;
}

fn connection(stream: TcpStream, router: &Router, graceful: &GracefulShutdown) {
    // Answers are written whole: waiting for more to send would only delay them.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let service = TowerToHyperService::new(router.clone());
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
