//! Values kept for each caller, in bounded memory: without keys a caller is an address, and there may be any number of those.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

/// Callers that have a value of their own.
const OWN: usize = 64;
/// Values that all further callers share.
const SHARED: usize = 16;

/// A value of each caller. The first 64 callers have one of their own; further ones share 16, always the same caller the same one, so
/// that a caller still moves one value only.
#[derive(Debug, Clone)]
pub struct ByCaller<T> {
    own: BTreeMap<Arc<str>, T>,
    shared: BTreeMap<usize, T>,
}

impl<T> Default for ByCaller<T> {
    fn default() -> Self {
        Self { own: BTreeMap::new(), shared: BTreeMap::new() }
    }
}

impl<T: Default> ByCaller<T> {
    /// The value of `caller`, made if there is none.
    pub fn of(&mut self, caller: &Arc<str>) -> &mut T {
        if self.own.len() < OWN || self.own.contains_key(caller) {
            return self.own.entry(Arc::clone(caller)).or_default();
        }
        // The same in each table, so that tables can be merged. A caller chooses neither its key's name nor its address.
        let mut hasher = DefaultHasher::new();
        caller.hash(&mut hasher);
        self.shared.entry(hasher.finish() as usize % SHARED).or_default()
    }

    /// Adds the values of `other`, each to that of the same caller.
    pub fn merge(&mut self, other: &Self, add: impl Fn(&mut T, &T)) {
        for (caller, value) in &other.own {
            add(self.of(caller), value);
        }
        for (place, value) in &other.shared {
            add(self.shared.entry(*place).or_default(), value);
        }
    }
}

impl<T> ByCaller<T> {
    /// Every value, in no order that a caller could choose.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.own.values().chain(self.shared.values())
    }

    /// Values that there are.
    pub fn len(&self) -> usize {
        self.own.len() + self.shared.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(callers: impl Iterator<Item = usize>) -> ByCaller<u64> {
        let mut table = ByCaller::default();
        callers.for_each(|number| *table.of(&format!("10.0.0.{number}").into()) += 1);
        table
    }

    #[test]
    fn any_number_of_callers_has_a_bounded_number_of_values_and_none_is_lost() {
        let table = counted((0..10_000).chain(0..10_000));
        assert_eq!(table.len(), OWN + SHARED);
        assert_eq!(table.values().sum::<u64>(), 20_000);
        assert_eq!(table.values().filter(|count| **count == 2).count(), OWN);
    }

    #[test]
    fn merged_tables_add_up_by_caller() {
        let mut table = counted(0..3);
        table.merge(&counted(1..4), |value, other| *value += other);
        assert_eq!(table.values().copied().collect::<Vec<_>>(), [1, 2, 2, 1]);
        let mut many = counted(0..500);
        many.merge(&counted(0..500), |value, other| *value += other);
        assert_eq!((many.len(), many.values().sum::<u64>()), (OWN + SHARED, 1_000));
    }
}
