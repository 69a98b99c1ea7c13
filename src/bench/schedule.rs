//! When requests of an open loop are due, and a thread that says so in time.

use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};
use std::{io, thread};

use tokio::sync::mpsc;

/// Arrivals that may wait for the generator's thread. Far more than a machine can be behind without being useless.
const WAITING: usize = 1 << 16;

/// The times of a Poisson process: gaps are independent and exponential, so arrivals come in bunches, as from many people
/// who do not know of each other. Endless.
#[derive(Debug, Clone)]
pub struct Arrivals {
    next: Instant,
    mean_gap: f64,
    random: fastrand::Rng,
}

impl Arrivals {
    /// `rate` arrivals per second after `start`; the same `seed`, the same gaps.
    pub fn new(start: Instant, rate: f64, seed: u64) -> Self {
        let mut arrivals = Self { next: start, mean_gap: 1.0 / rate, random: fastrand::Rng::with_seed(seed) };
        // The first is a gap after the start, as any other is after the one before it.
        arrivals.next();
        arrivals
    }

    fn gap(&mut self) -> Duration {
        // 1 - u lies in (0, 1], so the logarithm is finite.
        let seconds = -(1.0 - self.random.f64()).ln() * self.mean_gap;
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX / 4)
    }
}

impl Iterator for Arrivals {
    type Item = Instant;

    fn next(&mut self) -> Option<Instant> {
        let due = self.next;
        let gap = self.gap();
        self.next = due.checked_add(gap)?;
        Some(due)
    }
}

/// Hands out arrivals when they are due. A thread of its own, because tokio's timers are in whole milliseconds, and a
/// request may take less; it ends when the pacer is dropped.
pub(super) struct Pacer {
    due: mpsc::Receiver<Instant>,
    /// Never sent on: its end is the thread's sign to end.
    _alive: SyncSender<()>,
}

impl Pacer {
    pub(super) fn start(arrivals: Arrivals) -> io::Result<Self> {
        let (send, due) = mpsc::channel(WAITING);
        let (alive, ended) = sync_channel::<()>(0);
        thread::Builder::new().name("arrivals".into()).spawn(move || {
            for due in arrivals {
                let wait = due.saturating_duration_since(Instant::now());
                // One that is late goes out at once, with the time it was due.
                if !wait.is_zero() && ended.recv_timeout(wait) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
                if send.blocking_send(due).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { due, _alive: alive })
    }

    /// The next arrival, when it is due.
    pub(super) async fn next(&mut self) -> Option<Instant> {
        self.due.recv().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_have_the_rate_and_the_spread_of_a_poisson_process() {
        let start = Instant::now();
        let (rate, count) = (250.0, 20_000);
        let times: Vec<Instant> = Arrivals::new(start, rate, 7).take(count).collect();
        let seconds = (times[count - 1] - start).as_secs_f64();
        // Six standard deviations of the sum of exponential gaps.
        assert!((seconds * rate / count as f64 - 1.0).abs() < 6.0 / (count as f64).sqrt(), "{seconds}");
        let longer = times.windows(2).filter(|pair| (pair[1] - pair[0]).as_secs_f64() > 1.0 / rate).count();
        let share = longer as f64 / count as f64;
        assert!((share - (-1.0_f64).exp()).abs() < 0.02, "share of gaps longer than the mean: {share}");
    }

    #[test]
    fn a_seed_fixes_the_arrivals() {
        let start = Instant::now();
        let take = |seed| Arrivals::new(start, 10.0, seed).take(50).collect::<Vec<_>>();
        assert_eq!(take(1), take(1));
        assert_ne!(take(1), take(2));
    }

    #[tokio::test]
    async fn the_pacer_gives_every_arrival_and_none_early() {
        let arrivals = Arrivals::new(Instant::now(), 2000.0, 3);
        let mut pacer = Pacer::start(arrivals.clone()).unwrap();
        for expected in arrivals.take(40) {
            assert_eq!(pacer.next().await, Some(expected));
            assert!(Instant::now() >= expected);
        }
    }
}
