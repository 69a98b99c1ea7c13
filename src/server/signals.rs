//! The signals that stop a server.

use std::fs;
use std::future::pending;
use std::io;

use tokio::signal::unix::{SignalKind, signal};

use crate::exit;

/// As shells show the end by SIGINT.
const INTERRUPTED: u8 = 130;

/// Resolves at SIGTERM, SIGINT (Ctrl-C) or SIGHUP; a second one ends the process at once.
///
/// SIGHUP comes when the terminal is closed, and by itself it would end the process without a drain. Nothing has to be read again for it:
/// keys and certificates are followed. A process that was started with SIGHUP ignored, as by `nohup`, goes on ignoring it.
///
/// # Errors
/// If the signals cannot be listened for.
pub fn stop_signal() -> io::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    // Whether it is ignored must be asked before: to listen for a signal ends that.
    let mut hangup =
        if is_ignored(SignalKind::hangup()) { None } else { Some(signal(SignalKind::hangup())?) };
    let mut next = async move || {
        let hung_up = async {
            match &mut hangup {
                Some(hangup) => hangup.recv().await,
                None => pending().await,
            }
        };
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hung_up => {}
        }
    };
    Ok(async move {
        next().await;
        tokio::spawn(async move {
            next().await;
            tracing::warn!("second stop signal: ending at once");
            exit::at_once(INTERRUPTED);
        });
    })
}

/// Whether this process ignores the signal, which it inherits from its parent. False where the system does not tell.
fn is_ignored(kind: SignalKind) -> bool {
    fs::read_to_string("/proc/self/status").is_ok_and(|status| ignores(&status, kind))
}

/// Whether a process with this `/proc/PID/status` ignores the signal: the first is the lowest bit of the mask.
fn ignores(status: &str, kind: SignalKind) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (kind.as_raw_value() - 1) & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_that_are_ignored_are_read_from_the_mask() {
        let status = "Name:\tsextant\nSigBlk:\tffffffffffffffff\nSigIgn:\t0000000000001001\nSigCgt:\t0\n";
        assert!(ignores(status, SignalKind::hangup()) && ignores(status, SignalKind::pipe()));
        assert!(!ignores(status, SignalKind::terminate()) && !ignores("", SignalKind::hangup()));
    }
}
