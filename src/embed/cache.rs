//! Vectors kept for inputs that come again. Off unless asked for: most traffic does not repeat, and equal inputs in flight
//! share a place in the queue anyway.

use std::sync::Arc;
use std::time::Duration;

use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::batch::Finished;
use crate::engine::Vector;

/// A bounded number of bytes of vectors, those used lately and often.
pub(super) struct VectorCache(Cache<Key, Arc<[f32]>, Bytes>);

/// By version, not by space: two versions of one space differ in the last digits, and a vector is tied to its version.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    version: Arc<str>,
    ids: Arc<[u32]>,
}

#[derive(Clone)]
struct Bytes;

/// The map's own, the reference counts and the key's fields.
const OVERHEAD: usize = 160;

impl Weighter<Key, Arc<[f32]>> for Bytes {
    fn weight(&self, key: &Key, vector: &Arc<[f32]>) -> u64 {
        (OVERHEAD + size_of_val(&*key.ids) + size_of_val(&**vector)) as u64
    }
}

impl VectorCache {
    /// A cache of at most `bytes`, `None` if that is 0.
    pub(super) fn new(bytes: usize) -> Option<Self> {
        // An estimate of the entries, for the size of the table: 384 dimensions, and a short text.
        let entries = bytes / (OVERHEAD + 384 * 4 + 32 * 4);
        (bytes > 0).then(|| Self(Cache::with_weighter(entries, bytes as u64, Bytes)))
    }

    /// What the engine once gave for these ids, not normalised.
    pub(super) fn get(&self, version: &Arc<str>, ids: &Arc<[u32]>) -> Option<Finished> {
        let vector = self.0.get(&Key { version: Arc::clone(version), ids: Arc::clone(ids) })?;
        let none = Duration::ZERO;
        Some(Finished { vector: Arc::new(vector.to_vec()), queued: none, ran: none, batch: None })
    }

    /// Keeps a vector, unless it is not finite: that is an error each time.
    pub(super) fn keep(&self, version: &Arc<str>, ids: Arc<[u32]>, vector: &Vector) {
        if vector.iter().all(|value| value.is_finite()) {
            self.0.insert(Key { version: Arc::clone(version), ids }, Arc::from(vector.as_slice()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_are_kept_by_version_and_the_bytes_are_bounded() {
        let cache = VectorCache::new(100_000).unwrap();
        let (one, two): (Arc<str>, Arc<str>) = ("m@1".into(), "m@2".into());
        let ids: Arc<[u32]> = [1, 2, 3].into();
        cache.keep(&one, Arc::clone(&ids), &vec![0.5; 384]);
        assert_eq!(*cache.get(&one, &ids).unwrap().vector, [0.5; 384]);
        assert!(cache.get(&two, &ids).is_none());
        for id in 0..1000 {
            cache.keep(&one, [id].into(), &vec![id as f32; 384]);
        }
        assert!(cache.0.weight() <= 100_000, "{}", cache.0.weight());
        assert!(cache.0.len() > 20);
        cache.keep(&two, Arc::clone(&ids), &vec![f32::NAN; 384]);
        assert!(cache.get(&two, &ids).is_none());
        assert!(VectorCache::new(0).is_none());
    }
}
