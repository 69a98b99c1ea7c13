//! Models that the repository has and this server cannot serve, each with the reason.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use super::EmbedError;

/// By the model's name: why no version of it is loaded.
pub type Reasons = BTreeMap<String, String>;

/// Replaced as a whole, like the models that are served: a request takes no lock.
pub(super) struct Missing(ArcSwap<Reasons>);

impl Missing {
    pub(super) fn new(reasons: Reasons) -> Self {
        Self(ArcSwap::from_pointee(reasons))
    }

    pub(super) fn reasons(&self) -> Arc<Reasons> {
        self.0.load_full()
    }

    pub(super) fn set(&self, model: &str, reason: &str) {
        self.0.rcu(|reasons| {
            let mut changed = Reasons::clone(reasons);
            changed.insert(model.to_owned(), reason.to_owned());
            changed
        });
    }

    pub(super) fn clear(&self, model: &str) {
        if self.0.load().contains_key(model) {
            self.0.rcu(|reasons| {
                let mut changed = Reasons::clone(reasons);
                changed.remove(model);
                changed
            });
        }
    }

    /// The refusal of a request for `model`, if it is missing.
    pub(super) fn refusal(&self, model: &str) -> Option<EmbedError> {
        let reason = self.0.load().get(model)?.clone();
        Some(EmbedError::Missing { model: model.to_owned(), reason })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_model_is_refused_with_its_latest_reason_until_it_is_loaded() {
        let missing = Missing::new(Reasons::from([("m".to_owned(), "damaged".to_owned())]));
        assert!(missing.refusal("n").is_none());
        missing.set("m", "too large");
        let refusal = missing.refusal("m").unwrap().to_string();
        assert!(refusal.contains("`m`") && refusal.contains("too large"), "{refusal}");
        missing.clear("m");
        assert!(missing.refusal("m").is_none() && missing.reasons().is_empty());
    }
}
