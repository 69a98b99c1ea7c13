//! Gives the memory of a peak of requests back to the system while the server goes on: glibc keeps what is freed in the pools of its threads.

use std::time::Duration;

use super::{allocated_bytes, give_back, room};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(2);

/// Bytes that are worth giving back: for less, requests to come would only ask for the same pages again.
const WORTH: i32 = 64 << 20;

/// What was there after memory was given back.
#[derive(Debug, Default)]
struct Given {
    /// The least of [`unused`] since.
    least: u32,
}

impl Given {
    /// Whether so much more is unused since.
    fn due(&mut self, unused: u32) -> bool {
        let more = unused.wrapping_sub(self.least).cast_signed();
        if more < 0 {
            self.least = unused;
        }
        more >= WORTH
    }
}

/// Looks for as long as the process lives. Ends at once where the system does not say what is used.
pub(crate) async fn give_back_after_peaks() {
    let Some(least) = unused() else { return };
    let mut given = Given { least };
    while let Some(now) = unused() {
        if given.due(now) {
            // It holds the locks of the pools, one after the other.
            if tokio::task::spawn_blocking(give_back).await.is_err() {
                return;
            }
            given.least = unused().unwrap_or(now);
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Resident bytes of no file that the allocator did not hand out: what it keeps, and the rest of the process, which hardly changes. Modulo 4 GiB,
/// as the allocator counts: a difference of two values is right.
fn unused() -> Option<u32> {
    let allocated = allocated_bytes()?;
    Some((room::private()? as u32).wrapping_sub(allocated))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEBI: u32 = 1 << 20;

    #[test]
    fn what_was_given_back_is_not_given_again_until_it_was_used() {
        let mut given = Given { least: 30 * MEBI };
        assert!(!given.due(93 * MEBI), "less than is worth it");
        assert!(given.due(94 * MEBI));
        given.least = 60 * MEBI;
        assert!(!given.due(94 * MEBI), "nothing more was freed");
        assert!(!given.due(40 * MEBI) && given.due(104 * MEBI), "the least counts");
    }

    #[test]
    fn the_difference_is_right_where_the_counts_wrap() {
        let mut given = Given { least: 0_u32.wrapping_sub(10 * MEBI) };
        assert!(!given.due(50 * MEBI) && given.due(54 * MEBI));
    }

    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[test]
    fn memory_that_is_freed_is_seen_as_unused() {
        let blocks: Vec<Vec<u8>> = (0..64 << 10).map(|_| vec![1; 1024]).collect();
        // Behind the others: the end of a pool goes back at once.
        let last = vec![1_u8; 1024];
        let before = unused().unwrap();
        drop(blocks);
        let freed = unused().unwrap().wrapping_sub(before).cast_signed();
        // The other tests of the process take and free memory meanwhile.
        assert!(freed > 16 << 20, "{freed}");
        drop(last);
    }
}
