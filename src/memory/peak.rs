//! Gives the memory of a peak of requests back to the system while the server goes on: glibc keeps what is freed in the pools of its threads.

use std::time::Duration;

use super::{free_bytes, give_back};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(2);

/// Freed since memory was last given back, in bytes: for less, requests to come would only ask for the same pages again.
const WORTH: u64 = 64 << 20;

/// How much of what is free was given back already. The allocator counts such bytes as free, too.
#[derive(Debug, Default)]
struct Given {
    bytes: u64,
}

impl Given {
    /// Whether `free` bytes hold enough that was not given back. Bytes that were, and are in use again, count when they are freed.
    fn due(&mut self, free: u64) -> bool {
        self.bytes = self.bytes.min(free);
        free - self.bytes >= WORTH
    }

    /// After all `free` bytes were given back.
    fn note(&mut self, free: u64) {
        self.bytes = free;
    }
}

/// Looks for as long as the process lives. Ends at once where the allocator does not say what is free.
pub(crate) async fn give_back_after_peaks() {
    let mut given = Given::default();
    while let Some(free) = free_bytes() {
        if given.due(free) {
            // It holds the locks of the pools, one after the other.
            if tokio::task::spawn_blocking(give_back).await.is_err() {
                return;
            }
            given.note(free_bytes().unwrap_or(free));
        }
        tokio::time::sleep(EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_back_is_not_given_again_until_it_was_used() {
        let mut given = Given::default();
        assert!(!given.due(WORTH - 1));
        assert!(given.due(3 * WORTH));
        given.note(3 * WORTH);
        assert!(!given.due(3 * WORTH), "nothing was freed since");
        assert!(given.due(4 * WORTH), "as much as is worth it was freed since");
        given.note(4 * WORTH);
        assert!(!given.due(WORTH), "in use again");
        assert!(given.due(2 * WORTH), "and freed again");
    }

    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[test]
    fn the_allocator_says_what_is_free() {
        assert!(free_bytes().is_some());
    }
}
