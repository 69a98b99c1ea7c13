//! Whether the memory suffices for one more version, estimated before anything of it is loaded: a process that takes more than it may is
//! killed, with every model that it serves.

use std::sync::{Arc, Mutex, PoisonError};

use thiserror::Error;

use crate::engine::Wanted;
use crate::memory::room::Reading;
use crate::repository::manifest::Manifest;

/// What a session takes for each byte of its version's files: the runtime copies weights into the form that its kernels want. Measured on
/// all-MiniLM-L6-v2: 1.1 in fp32, 1.2 in int8.
const OF_FILES: f64 = 1.2;
/// What a version takes beside its sessions' weights, at least: tokenizer, threads, buffers. Measured on the same.
const BESIDE: u64 = 115 << 20;

/// There is no room for a version.
#[derive(Debug, Clone, Copy, PartialEq, Error)]
#[error(
    "there is no memory for it: with {sessions} sessions it would take about {} MB ({} MB of weights and {} MB beside), and {} MB are left \
     to this process; raise the memory limit by {} MB, serve with fewer `--sessions`, or retire a version on standby. `--force` is not \
     about memory",
    mega(*weights + *beside), mega(*weights), mega(*beside), mega(*left), mega((*weights + *beside).saturating_sub(*left))
)]
pub struct NoRoom {
    /// That would be loaded.
    pub sessions: usize,
    /// Bytes of the weights of all sessions.
    pub weights: u64,
    /// Bytes of all else.
    pub beside: u64,
    /// Bytes that may still be taken, less those of versions that are being loaded.
    pub left: u64,
}

fn mega(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

/// What a version will take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Need {
    sessions: usize,
    weights: u64,
    beside: u64,
}

impl Need {
    /// Of a version whose sessions are `wanted`, beside one whose largest batches took `activations` bytes when it was loaded. None if the
    /// number of sessions is to be measured: then nothing else is loaded.
    pub(super) fn of(manifest: &Manifest, wanted: &Wanted, activations: u64) -> Option<Self> {
        let sessions =
            wanted.sessions?.get() + usize::from(wanted.lone_threads.is_some_and(|threads| threads > 0));
        let files: u64 = manifest.files.iter().map(|file| file.bytes).sum();
        let weights = (files as f64 * OF_FILES * sessions as f64) as u64;
        Some(Self { sessions, weights, beside: activations.max(BESIDE) })
    }
}

/// Bytes that versions will take which are being loaded.
#[derive(Debug, Clone, Default)]
pub struct Room(Arc<Mutex<u64>>);

/// Room for one version, until it is dropped: then what the version takes is seen in the process.
#[derive(Debug)]
pub(super) struct Reserved {
    room: Room,
    bytes: u64,
}

impl Room {
    /// Room for a version, by what the process may still take; none is refused where the system does not say that.
    ///
    /// # Errors
    /// With the figures.
    pub(super) fn reserve(&self, need: Need, reading: Option<Reading>) -> Result<Reserved, NoRoom> {
        let Need { sessions, weights, beside } = need;
        let mut loading = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let left = reading.map_or(u64::MAX, |reading| reading.available).saturating_sub(*loading);
        let bytes = weights.saturating_add(beside);
        if bytes > left {
            return Err(NoRoom { sessions, weights, beside, left });
        }
        *loading += bytes;
        Ok(Reserved { room: self.clone(), bytes })
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        *self.room.0.lock().unwrap_or_else(PoisonError::into_inner) -= self.bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn reading(available: u64) -> Option<Reading> {
        Some(Reading { resident: MIB, peak: MIB, available })
    }

    #[test]
    fn a_version_that_would_not_fit_is_refused_with_figures_and_remedies() {
        let need = Need { sessions: 2, weights: 200 * MIB, beside: 100 * MIB };
        let refused = Room::default().reserve(need, reading(250 * MIB)).unwrap_err().to_string();
        for part in [
            "2 sessions",
            "300 MB (200 MB of weights and 100 MB beside)",
            "250 MB are left",
            "limit by 50 MB",
            "--force",
        ] {
            assert!(refused.contains(part), "{part}: {refused}");
        }
        assert!(Room::default().reserve(need, reading(300 * MIB)).is_ok());
        assert!(Room::default().reserve(need, None).is_ok(), "nobody knows");
    }

    #[test]
    fn versions_that_are_being_loaded_count_until_they_are() {
        let (room, need) = (Room::default(), Need { sessions: 1, weights: 50 * MIB, beside: 50 * MIB });
        let first = room.reserve(need, reading(150 * MIB)).unwrap();
        assert_eq!(room.reserve(need, reading(150 * MIB)).unwrap_err().left, 50 * MIB);
        drop(first);
        assert!(room.reserve(need, reading(150 * MIB)).is_ok());
    }
}
