//! Equal inputs of a request are one row.

use std::collections::HashMap;
use std::sync::Arc;

use crate::tokenize::Tokens;

/// The different rows of a request, and for each input the place of its row among them: equal inputs are computed once.
pub(super) fn distinct(inputs: Vec<Tokens>) -> (Vec<Arc<[u32]>>, Vec<usize>) {
    let mut known = HashMap::with_capacity(inputs.len());
    let mut rows = Vec::new();
    let mut place = |input: Tokens| {
        *known.entry(input.ids).or_insert_with_key(|ids| {
            rows.push(Arc::clone(ids));
            rows.len() - 1
        })
    };
    let places = inputs.into_iter().map(&mut place).collect();
    (rows, places)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_inputs_share_a_row() {
        let tokens = |ids: &[u32]| Tokens { ids: ids.into(), cut: 0, unknown: 0 };
        let (rows, places) = distinct(vec![tokens(&[1]), tokens(&[2]), tokens(&[1])]);
        assert_eq!((rows.len(), places), (2, vec![0, 1, 0]));
    }
}
