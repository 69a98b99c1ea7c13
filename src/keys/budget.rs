//! What a key may use up: requests and tokens a second.

use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// How much a key may use up, as its entry says; what is not said is not limited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Requests a second in the long run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_per_second: Option<NonZeroU32>,
    /// Requests at once after a pause; those of a second if not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests_burst: Option<NonZeroU32>,
    /// Tokens a second in the long run, special tokens included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_second: Option<NonZeroU32>,
    /// Tokens at once after a pause; those of a second if not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_burst: Option<NonZeroU32>,
}

impl Limits {
    /// Whether nothing is limited.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Counts what a key uses up. What is refused costs nothing.
#[derive(Debug)]
pub struct Budget {
    requests: Option<RateLimiter<NotKeyed, InMemoryState, TokioClock, NoOpMiddleware<Duration>>>,
    tokens: Option<Tokens>,
}

impl Budget {
    /// A budget that nothing was taken from.
    pub fn new(limits: &Limits) -> Self {
        let requests = limits.requests_per_second.map(|rate| {
            let quota = Quota::per_second(rate).allow_burst(limits.requests_burst.unwrap_or(rate));
            RateLimiter::direct_with_clock(quota, TokioClock(Instant::now()))
        });
        let tokens =
            limits.tokens_per_second.map(|rate| Tokens::new(rate, limits.tokens_burst.unwrap_or(rate)));
        Self { requests, tokens }
    }

    /// Takes one request, before anything of it is read.
    ///
    /// # Errors
    /// How long to wait, if there is none left, or tokens are still owed: then the work of counting new ones is saved.
    pub fn take_request(&self) -> Result<(), Duration> {
        if let Some(tokens) = &self.tokens {
            tokens.are_left()?;
        }
        let Some(requests) = &self.requests else { return Ok(()) };
        requests.check().map_err(|until| until.wait_time_from(requests.clock().now()))
    }

    /// Takes the tokens of a request, when they are counted and before any is computed.
    ///
    /// # Errors
    /// How long to wait, if none is left.
    pub fn take_tokens(&self, count: usize) -> Result<(), Duration> {
        self.tokens.as_ref().map_or(Ok(()), |tokens| tokens.take(count))
    }

    /// Takes more tokens of a request that was let in: those that are not there are owed.
    pub fn owe_tokens(&self, count: usize) {
        if let Some(tokens) = &self.tokens {
            tokens.owe(count);
        }
    }
}

/// Lets a request in while one token is left, and takes all of its tokens: what is not there is owed, and nobody gets in until it is
/// paid. So a large request is neither impossible nor cheaper than many small ones, and the rate holds in the long run.
///
/// Not by `governor`, which never lets in what is larger than the burst.
#[derive(Debug)]
struct Tokens {
    /// Seconds.
    of_one: f64,
    burst: Duration,
    /// When everything that was taken is paid. It lies ahead of now by what was taken from the burst, and by more if tokens are owed.
    paid: Mutex<Instant>,
}

impl Tokens {
    fn new(rate: NonZeroU32, burst: NonZeroU32) -> Self {
        let of_one = 1.0 / f64::from(rate.get());
        let burst = Duration::from_secs_f64(of_one * f64::from(burst.get()));
        Self { of_one, burst, paid: Mutex::new(Instant::now()) }
    }

    fn are_left(&self) -> Result<(), Duration> {
        self.wait(*self.paid.lock().unwrap_or_else(PoisonError::into_inner), Instant::now())
    }

    fn take(&self, count: usize) -> Result<(), Duration> {
        let (mut paid, now) = (self.paid.lock().unwrap_or_else(PoisonError::into_inner), Instant::now());
        self.wait(*paid, now)?;
        *paid = now.max(*paid) + Duration::from_secs_f64(self.of_one * count as f64);
        Ok(())
    }

    fn owe(&self, count: usize) {
        let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        *paid = Instant::now().max(*paid) + Duration::from_secs_f64(self.of_one * count as f64);
    }

    /// Until one token is left.
    fn wait(&self, paid: Instant, now: Instant) -> Result<(), Duration> {
        let taken = paid.saturating_duration_since(now) + Duration::from_secs_f64(self.of_one);
        match taken.saturating_sub(self.burst) {
            // Rounding, of a burst of one token.
            wait if wait < Duration::from_nanos(10) => Ok(()),
            wait => Err(wait),
        }
    }
}

/// The time since the budget was made, by the runtime's clock, which tests can stop.
#[derive(Debug, Clone)]
struct TokioClock(Instant);

impl Clock for TokioClock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}
