//! What a key may use up: requests and tokens a second.

use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

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

    /// Whether one that `before` has is not said here.
    pub(super) fn lost(&self, before: &Self) -> bool {
        let of = |limits: &Self| {
            [limits.requests_per_second, limits.requests_burst, limits.tokens_per_second, limits.tokens_burst]
        };
        of(self).into_iter().zip(of(before)).any(|(now, before)| now.is_none() && before.is_some())
    }
}

/// Counts what a key uses up. What is refused costs nothing.
#[derive(Debug)]
pub struct Budget {
    requests: Mutex<Option<Bucket>>,
    tokens: Mutex<Option<Bucket>>,
}

impl Budget {
    /// A budget that nothing was taken from.
    pub fn new(limits: &Limits) -> Self {
        let [requests, tokens] = rates(limits).map(|rate| Mutex::new(rate.map(Bucket::full)));
        Self { requests, tokens }
    }

    /// From now on these limits hold. What was used up under the limits before stays used up, and a debt stays a debt of as many tokens:
    /// neither a change of the file nor a request that runs meanwhile escapes it. A limit that was not there before begins full.
    pub fn change(&self, limits: &Limits) {
        for (bucket, rate) in [&self.requests, &self.tokens].into_iter().zip(rates(limits)) {
            let mut bucket = bucket.lock().unwrap_or_else(PoisonError::into_inner);
            *bucket = rate.map(|rate| match bucket.take() {
                Some(before) => before.with(rate, Instant::now()),
                None => Bucket::full(rate),
            });
        }
    }

    /// Takes one request, before anything of it is read.
    ///
    /// # Errors
    /// How long to wait, if there is none left, or tokens are still owed: then the work of counting new ones is saved.
    pub fn take_request(&self) -> Result<(), Duration> {
        take(&self.tokens, 0)?;
        take(&self.requests, 1)
    }

    /// Takes the tokens of a request, when they are counted and before any is computed.
    ///
    /// # Errors
    /// How long to wait, if none is left.
    pub fn take_tokens(&self, count: usize) -> Result<(), Duration> {
        take(&self.tokens, count)
    }

    /// Takes more tokens of a request that was let in: those that are not there are owed.
    pub fn owe_tokens(&self, count: usize) {
        if let Some(tokens) = self.tokens.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            tokens.owe(count, Instant::now());
        }
    }
}

fn take(bucket: &Mutex<Option<Bucket>>, count: usize) -> Result<(), Duration> {
    let mut bucket = bucket.lock().unwrap_or_else(PoisonError::into_inner);
    bucket.as_mut().map_or(Ok(()), |bucket| bucket.take(count, Instant::now()))
}

/// How fast something may be taken, and how much at once after a pause.
#[derive(Debug, Clone, Copy)]
struct Rate {
    per_second: NonZeroU32,
    burst: NonZeroU32,
}

/// The rate of requests and that of tokens, where they are limited.
fn rates(limits: &Limits) -> [Option<Rate>; 2] {
    let rate = |per_second: Option<NonZeroU32>, burst: Option<NonZeroU32>| {
        per_second.map(|per_second| Rate { per_second, burst: burst.unwrap_or(per_second) })
    };
    [
        rate(limits.requests_per_second, limits.requests_burst),
        rate(limits.tokens_per_second, limits.tokens_burst),
    ]
}

/// A token bucket that may be overdrawn: a request gets in while one token is left, and takes all of its tokens. The key then waits until
/// the debt is repaid. So a large request is neither impossible nor cheaper than many small ones, and the rate holds in the long run.
#[derive(Debug)]
struct Bucket {
    /// Seconds until one comes back.
    of_one: f64,
    burst: NonZeroU32,
    /// When everything that was taken is paid. It lies ahead of now by what was taken from the burst, and by more if there is a debt.
    paid: Instant,
}

impl Bucket {
    fn full(rate: Rate) -> Self {
        Self { of_one: 1.0 / f64::from(rate.per_second.get()), burst: rate.burst, paid: Instant::now() }
    }

    /// The same at another rate: as many are left, but no more than the new burst, or as many are owed.
    fn with(&self, rate: Rate, now: Instant) -> Self {
        let taken = self.paid.saturating_duration_since(now).as_secs_f64() / self.of_one;
        let left = f64::from(self.burst.get()) - taken;
        let taken = (f64::from(rate.burst.get()) - left).max(0.0);
        let full = Self::full(rate);
        Self { paid: now + Duration::from_secs_f64(taken * full.of_one), ..full }
    }

    /// Takes `count`, if one is left.
    fn take(&mut self, count: usize, now: Instant) -> Result<(), Duration> {
        let taken = self.paid.saturating_duration_since(now) + Duration::from_secs_f64(self.of_one);
        let burst = Duration::from_secs_f64(self.of_one * f64::from(self.burst.get()));
        match taken.saturating_sub(burst) {
            // Rounding, of a burst of one.
            wait if wait < Duration::from_nanos(10) => {}
            wait => return Err(wait),
        }
        self.owe(count, now);
        Ok(())
    }

    /// Takes `count` of a request that was let in.
    fn owe(&mut self, count: usize, now: Instant) {
        self.paid = now.max(self.paid) + Duration::from_secs_f64(self.of_one * count as f64);
    }
}
