//! Accepts connections and lets go of them without losing a request.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use rustix::io::Errno;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::connection::{Host, Limits};
use crate::http::room::{Entered, Room};
use crate::metrics::{Closed, ListenerMetrics};
use crate::tls::Shown;

/// What the listener does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Takes connections.
    Serving,
    /// Takes none, and finishes those it has.
    Draining,
}

/// Accepting fails for want of file descriptors or memory; trying again at once would only burn the CPU.
const PAUSE_AFTER_SHORTAGE: Duration = Duration::from_millis(50);
/// Between two lines of the log about what cannot be accepted.
const FAILURES_TOLD_EVERY: Duration = Duration::from_secs(10);

/// A listener and how it treats who comes.
pub(super) struct Door {
    pub(super) listener: TcpListener,
    pub(super) router: Router,
    pub(super) limits: Limits,
    pub(super) tls: Option<Shown>,
    pub(super) metrics: Arc<ListenerMetrics>,
}

/// Serves until [`Phase::Draining`], then until the last request is answered.
pub(super) async fn serve(door: Door, mut phases: watch::Receiver<Phase>) {
    let Door { listener, router, limits, tls, metrics } = door;
    let (finish, finishing) = watch::channel(false);
    let (alive, mut gone) = mpsc::channel(1);
    let room = Room::new(limits.max_connections);
    let host = Host { router, limits, tls, metrics, finish: finishing, _alive: alive };
    let draining = async move {
        // An error means that nobody can start a drain any more: the same as one.
        let _ = phases.wait_for(|phase| *phase == Phase::Draining).await;
    };
    tokio::pin!(draining);
    let mut told: Option<Instant> = None;
    loop {
        tokio::select! {
            biased;
            () = &mut draining => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => admit(stream, peer, &host, &room),
                Err(error) => {
                    if told.is_none_or(|told| told.elapsed() >= FAILURES_TOLD_EVERY) {
                        tracing::warn!(%error, "cannot accept connections");
                        told = Some(Instant::now());
                    }
                    if is_shortage(&error) {
                        // Files of ours are the likeliest to be too many.
                        if room.turn_out() {
                            host.metrics.closed(Closed::GaveWay);
                        }
                        tokio::time::sleep(PAUSE_AFTER_SHORTAGE).await;
                    }
                }
            },
        }
    }
    for (stream, peer) in backlog(listener) {
        admit(stream, peer, &host, &room);
    }
    let _ = finish.send(true);
    drop(host);
    // Nothing is ever sent: this ends when every connection has dropped its end.
    gone.recv().await;
}

/// Whether something has run out. Any other failure is of the one connection, whose client left before it was taken.
fn is_shortage(error: &io::Error) -> bool {
    let of = Errno::from_io_error(error);
    of.is_some_and(|of| [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM].contains(&of))
}

/// Begins a connection, if there is room.
fn admit(stream: TcpStream, peer: SocketAddr, host: &Host, room: &Arc<Room>) {
    match room.enter() {
        Some((place, entered)) => {
            if entered == Entered::InPlaceOfAnother {
                host.metrics.closed(Closed::GaveWay);
            }
            tokio::spawn(host.clone().serve(stream, peer, place));
        }
        // To be left in the kernel's queue would look to its client like a server that hangs.
        None => host.metrics.closed(Closed::Refused),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_left_before_being_taken_is_no_shortage() {
        for (error, expected) in [(Errno::MFILE, true), (Errno::NOBUFS, true), (Errno::CONNABORTED, false)] {
            assert_eq!(is_shortage(&error.into()), expected, "{error:?}");
        }
    }
}
