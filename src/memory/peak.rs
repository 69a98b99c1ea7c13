//! Gives the memory of a peak of requests back to the system while the server goes on: glibc keeps what is freed in the pools of its threads.

use std::time::Duration;

use super::{free_bytes, give_back, room};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(2);

/// Freed since memory was last given back, in bytes: for less, requests to come would only ask for the same pages again.
const WORTH: u64 = 64 << 20;

/// The memory of the process at a look, in bytes.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    /// What the allocator holds and nothing uses, what it gave back included.
    free: u64,
    resident: u64,
}

/// What was there after memory was given back, or what there was least of since.
#[derive(Debug, Default)]
struct Given {
    least: Seen,
}

impl Given {
    /// Whether so much is free, and resident, that was not given back. Between two looks memory may be taken and freed again: then
    /// as much is free as before, and more is resident.
    fn due(&mut self, now: Seen) -> bool {
        self.least =
            Seen { free: self.least.free.min(now.free), resident: self.least.resident.min(now.resident) };
        let more_free = now.free - self.least.free;
        let more_resident = now.resident - self.least.resident;
        more_free >= WORTH || now.free.min(more_resident) >= WORTH
    }
}

/// Looks for as long as the process lives. Ends at once where the allocator does not say what is free.
pub(crate) async fn give_back_after_peaks() {
    let mut given = Given::default();
    while let Some(now) = see() {
        if given.due(now) {
            // It holds the locks of the pools, one after the other.
            if tokio::task::spawn_blocking(give_back).await.is_err() {
                return;
            }
            given.least = see().unwrap_or(now);
        }
        tokio::time::sleep(EVERY).await;
    }
}

fn see() -> Option<Seen> {
    Some(Seen { free: free_bytes()?, resident: room::read()?.resident })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_back_is_not_given_again_until_it_was_used() {
        let mut given = Given::default();
        let mut due = |free: u64, resident: u64| {
            let now = Seen { free: free * WORTH / 4, resident: resident * WORTH / 4 };
            let due = given.due(now);
            if due {
                given.least = Seen { resident: now.resident - now.free.min(now.resident), ..now };
            }
            due
        };
        assert!(!due(3, 3), "less than is worth it");
        assert!(due(12, 40));
        assert!(!due(12, 28), "nothing was freed since");
        assert!(!due(12, 31) && due(16, 32), "freed since");
        assert!(!due(3, 28), "in use again");
        assert!(due(8, 30), "and freed again");
        assert!(!due(8, 22) && due(8, 28), "taken and freed between two looks");
        assert!(!due(2, 60), "in use, and not free");
    }

    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[test]
    fn the_system_says_what_is_free_and_resident() {
        assert!(see().is_some());
    }
}
