//! How many files the process may have open: a connection is one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that are no connections: the models, the log, the store's own connections.
const OTHERS: u64 = 256;

/// Raises the limit as far as the process may, which is left low for programs that count files in a set of 1,024.
pub fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    let highest = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, highest)
    {
        tracing::warn!(%error, current = limit.current, "cannot raise the limit of open files");
    }
}

/// So many connections can each of `listeners` have.
pub(super) fn room_for_connections(listeners: u64) -> usize {
    let most = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(most.saturating_sub(OTHERS) / listeners).unwrap_or(usize::MAX).max(1)
}
