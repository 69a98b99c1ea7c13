//! Which vectors count: one of each request, and of whoever says who he is one in a while; not too many; and fewer if they cost too
//! much.

use std::hash::BuildHasher as _;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Whoever gave a key counts once in so many seconds: what one person or conversation asks resembles itself, and that dependence is
/// the largest error there is.
pub const KEY_SECONDS: u64 = 60;
/// Keys that are remembered, 32 KiB. One that is forgotten too soon counts once more.
const KEYS: usize = 4096;
/// Share of a thread's time that observing may take.
const MOST_SHARE: f64 = 0.01;
/// Time over which the share is taken.
const WINDOW: Duration = Duration::from_secs(10);
/// One request in 2^16 at least may count.
const MOST_HALVINGS: u32 = 16;

/// Draws what counts. Asked by every request, so it has no lock; a race may let one more count.
pub struct Sampler {
    started: Instant,
    /// At most so many a second.
    per_second: u32,
    /// The second in the high half, how many it had in the low.
    this_second: AtomicU64,
    /// By hash: another part of it in the high half, the second in which the key last counted in the low.
    keys: Box<[AtomicU64]>,
    hasher: std::hash::RandomState,
    halvings: AtomicU32,
}

impl Sampler {
    /// Draws `per_second` at most.
    pub fn new(per_second: u32) -> Self {
        Self {
            started: Instant::now(),
            per_second,
            this_second: AtomicU64::new(0),
            keys: (0..KEYS).map(|_| AtomicU64::new(0)).collect(),
            hasher: std::hash::RandomState::new(),
            halvings: AtomicU32::new(0),
        }
    }

    /// Whether a request of whoever has `key` counts now.
    pub fn wants(&self, key: Option<&str>) -> bool {
        self.wants_at(key, self.started.elapsed().as_secs())
    }

    /// The same at a second after the start.
    fn wants_at(&self, key: Option<&str>, second: u64) -> bool {
        // The first second is 1: 0 stands for never.
        let second = (second + 1) & u64::from(u32::MAX);
        let halvings = self.halvings.load(Ordering::Relaxed);
        let is_drawn = halvings == 0 || fastrand::u32(..) >> (u32::BITS - halvings) == 0;
        if !is_drawn {
            return false;
        }
        let Some(key) = key else { return self.has_room(second) };
        let hash = self.hasher.hash_one(key);
        let place = &self.keys[hash as usize % KEYS];
        let (tag, known) = (hash >> 32, place.load(Ordering::Relaxed));
        let (known_tag, counted) = (known >> 32, known & u64::from(u32::MAX));
        let counted_lately = known_tag == tag && counted > 0 && second.saturating_sub(counted) < KEY_SECONDS;
        let wants = !counted_lately && self.has_room(second);
        // Only now: whoever there was no room for may count in the next second.
        if wants {
            place.store(tag << 32 | second, Ordering::Relaxed);
        }
        wants
    }

    fn has_room(&self, second: u64) -> bool {
        let most = u64::from(self.per_second);
        let next = |before: u64| match (before >> 32 == second, before & u64::from(u32::MAX)) {
            (true, count) if count >= most => None,
            (true, count) => Some(second << 32 | (count + 1)),
            (false, _) => (most > 0).then_some(second << 32 | 1),
        };
        self.this_second.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }

    /// Share of the requests that may count.
    pub fn share(&self) -> f64 {
        0.5_f64.powi(self.halvings.load(Ordering::Relaxed) as i32)
    }

    fn halve(&self) {
        let more = |halvings: u32| (halvings < MOST_HALVINGS).then_some(halvings + 1);
        let _ = self.halvings.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    fn double(&self) {
        let _ = self
            .halvings
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |halvings| halvings.checked_sub(1));
    }
}

/// Keeps what observing costs below 1 %.
#[derive(Debug)]
pub struct Thrift {
    since: Instant,
    spent: Duration,
}

impl Thrift {
    /// Nothing is spent yet.
    pub fn new(now: Instant) -> Self {
        Self { since: now, spent: Duration::ZERO }
    }

    /// Counts time that was spent, and at the end of a window has `sampler` draw half as much if it was too much, or twice as much
    /// again if it was far less.
    pub fn spent(&mut self, spent: Duration, now: Instant, sampler: &Sampler) {
        self.spent += spent;
        let window = now.saturating_duration_since(self.since);
        if window < WINDOW {
            return;
        }
        let share = self.spent.as_secs_f64() / window.as_secs_f64();
        if share > MOST_SHARE {
            sampler.halve();
        } else if share < MOST_SHARE / 4.0 {
            sampler.double();
        }
        *self = Self::new(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_its_most_and_a_key_counts_once_a_minute() {
        let sampler = Sampler::new(5);
        let drawn = |key: Option<&str>, second| (0..100).filter(|_| sampler.wants_at(key, second)).count();
        assert_eq!((drawn(None, 0), drawn(None, 0), drawn(None, 1)), (5, 0, 5));
        assert_eq!((drawn(Some("a"), 2), drawn(Some("b"), 2), drawn(Some("a"), 61)), (1, 1, 0));
        assert_eq!((drawn(Some("a"), 62), drawn(Some("a"), 63)), (1, 0));
        assert_eq!((0..100).filter(|_| Sampler::new(0).wants_at(None, 3)).count(), 0);
    }

    #[test]
    fn what_costs_too_much_is_drawn_half_as_often_until_it_costs_little() {
        let (sampler, start) = (Sampler::new(u32::MAX), Instant::now());
        let mut thrift = Thrift::new(start);
        let at = |second: u64| start + Duration::from_secs(second);
        thrift.spent(Duration::from_millis(150), at(5), &sampler);
        assert_eq!(sampler.share(), 1.0, "the window is open");
        thrift.spent(Duration::from_millis(50), at(10), &sampler);
        assert_eq!(sampler.share(), 0.5);
        let drawn = (0..10_000).filter(|_| sampler.wants_at(None, 0)).count();
        assert!((4_000..6_000).contains(&drawn), "{drawn}");
        thrift.spent(Duration::from_millis(60), at(20), &sampler);
        assert_eq!(sampler.share(), 0.5, "neither much nor little");
        thrift.spent(Duration::from_millis(20), at(30), &sampler);
        assert_eq!(sampler.share(), 1.0);
        for second in 4..40 {
            thrift.spent(Duration::from_secs(1), at(second * 10), &sampler);
        }
        assert_eq!(sampler.share(), 0.5_f64.powi(16));
    }
}
