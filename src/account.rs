//! How much callers may hold at once: tokens that wait for a session, bytes of bodies and answers.
//!
//! One limit for all, shared by dynamic thresholds (Choudhury and Hahne, 1998): a caller may hold four times what is still free. One caller
//! alone gets four fifths of the limit, two get four ninths each, and there is always room for a caller that holds nothing.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A caller may hold this many times what is free.
const SHARE: usize = 4;

/// Whom a request belongs to: the name of its key, or else the address that it came from.
pub type Caller = Arc<str>;

/// A limit, and what of it is held.
#[derive(Debug)]
pub struct Account {
    limit: usize,
    /// What a single caller counts at most. One that needs more than the whole limit, and holds nothing, is let in, and must not keep
    /// the others out.
    most: usize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    /// Of all callers, each with at most [`Account::most`].
    total: usize,
    callers: HashMap<Caller, usize>,
}

impl Account {
    /// An account of which nothing is held.
    pub fn new(limit: usize) -> Arc<Self> {
        let most = limit / (SHARE + 1) * SHARE;
        Arc::new(Self { limit, most, held: Mutex::default() })
    }

    /// What is held by all callers.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).total
    }

    /// Holds `amount` for `caller`; none if that is more than the caller may hold now. A caller that holds nothing may hold any amount
    /// while anything is free.
    pub fn reserve(self: &Arc<Self>, caller: &Caller, amount: usize) -> Option<Reservation> {
        let reservation = Reservation {
            account: Arc::clone(self),
            caller: Arc::clone(caller),
            amount: AtomicUsize::new(0),
        };
        reservation.grow(amount).then_some(reservation)
    }

    fn take(&self, caller: &Caller, amount: usize) -> bool {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let before = held.callers.get(caller).copied().unwrap_or(0);
        let free = self.limit.saturating_sub(held.total);
        let after = before.saturating_add(amount);
        let is_allowed = if before == 0 {
            free > 0 || amount == 0
        } else {
            amount <= free && after <= free.saturating_mul(SHARE)
        };
        if is_allowed && amount > 0 {
            held.total += after.min(self.most) - before.min(self.most);
            held.callers.insert(Arc::clone(caller), after);
        }
        is_allowed
    }

    fn give_back(&self, caller: &Caller, amount: usize) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(before) = held.callers.get(caller).copied() else { return };
        let after = before - amount;
        held.total -= before.min(self.most) - after.min(self.most);
        if after == 0 {
            held.callers.remove(caller);
        } else if let Some(amount) = held.callers.get_mut(caller) {
            *amount = after;
        }
    }
}

/// What is held for one request, until it is dropped.
#[derive(Debug)]
pub struct Reservation {
    account: Arc<Account>,
    caller: Caller,
    /// Atomic, because the parts of an answer share a reservation.
    amount: AtomicUsize,
}

impl Reservation {
    /// How much is held.
    pub fn amount(&self) -> usize {
        self.amount.load(Ordering::Relaxed)
    }

    /// Holds `more` as well, if the caller may. Otherwise what was held stays.
    #[must_use]
    pub fn grow(&self, more: usize) -> bool {
        let is_allowed = self.account.take(&self.caller, more);
        if is_allowed {
            self.amount.fetch_add(more, Ordering::Relaxed);
        }
        is_allowed
    }

    /// Gives back all but `amount`.
    pub fn shrink_to(&self, amount: usize) {
        let before = self.amount.fetch_min(amount, Ordering::Relaxed);
        if amount < before {
            self.account.give_back(&self.caller, before - amount);
        }
    }

    /// Gives back `amount`, at most all.
    pub fn release(&self, amount: usize) {
        let before = self
            .amount
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| Some(held.saturating_sub(amount)));
        self.account.give_back(&self.caller, before.unwrap_or_default().min(amount));
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn caller(name: &str) -> Caller {
        name.into()
    }

    #[test]
    fn one_caller_cannot_take_what_another_needs() {
        let account = Account::new(100);
        let greedy = caller("greedy");
        let held: Vec<_> = std::iter::from_fn(|| account.reserve(&greedy, 10)).collect();
        assert_eq!(held.len(), 8, "four fifths");
        let other = caller("other");
        assert!(account.reserve(&other, 10).is_some());
        drop(held);
        assert!(account.reserve(&greedy, 10).is_some());
    }

    #[test]
    fn a_caller_that_holds_nothing_may_hold_more_than_the_limit_and_keeps_nobody_out() {
        let account = Account::new(100);
        let large = account.reserve(&caller("a"), 1_000_000).unwrap();
        assert!(account.reserve(&caller("a"), 1).is_none(), "a second one waits for the first");
        assert!(account.reserve(&caller("b"), 50).is_some());
        drop(large);
        assert_eq!(account.held(), 0);
    }

    #[test]
    fn without_a_limit_everything_is_allowed() {
        let account = Account::new(usize::MAX);
        let first = account.reserve(&caller("a"), 1 << 40);
        assert!(first.is_some() && account.reserve(&caller("a"), 1 << 40).is_some());
    }

    proptest! {
        /// Whatever is held and given back, in whatever order: the total is that of the callers, nothing is left at the end, and a new
        /// caller finds room as long as few callers hold something.
        #[test]
        fn what_is_held_is_given_back(steps in prop::collection::vec((0..4usize, 0..80usize, any::<bool>()), 1..200)) {
            let account = Account::new(100);
            let callers = ["a", "b", "c", "d"].map(caller);
            let mut held: Vec<Reservation> = Vec::new();
            for (of, amount, takes) in steps {
                if takes {
                    held.extend(account.reserve(&callers[of], amount));
                } else if !held.is_empty() {
                    let at = amount % held.len();
                    held[at].release(of + 1);
                    if held[at].amount() == 0 {
                        held.swap_remove(at);
                    }
                }
                let inside = account.held.lock().unwrap();
                prop_assert_eq!(inside.total, inside.callers.values().map(|held| (*held).min(80)).sum::<usize>());
                let sum: usize = held.iter().map(Reservation::amount).sum();
                prop_assert_eq!(inside.callers.values().sum::<usize>(), sum);
            }
            drop(held);
            prop_assert!(account.held.lock().unwrap().callers.is_empty());
        }
    }
}
