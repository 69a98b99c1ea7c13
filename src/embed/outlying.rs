//! How far the inputs of a request lie from what its model was meant to see.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::{EmbedError, Embedder};
use crate::batch::Finished;
use crate::drift::inputs::InputFacts;
use crate::drift::score::{Observation, Scorer};

/// Vectors that are scored where they are answered: waking another thread takes as long.
const SCORE_HERE: usize = 4;

/// How far an input lies from the traffic that the model was meant to see.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outlying {
    /// See [`Observation::score`].
    pub score: f32,
    /// Share of unchanged traffic that lies as far out or farther.
    pub p_value: f64,
}

impl Embedder {
    /// How far each vector lies outside, in one matrix product: of many on a thread kept for such work. None for a vector that is all
    /// zeros.
    pub(super) async fn outlying(
        &self,
        scorer: Arc<Scorer>,
        finished: &[Finished],
    ) -> Result<Vec<Option<Outlying>>, EmbedError> {
        fn score(scorer: &Scorer, vectors: &[(impl AsRef<[f32]>, InputFacts)]) -> Vec<Option<Outlying>> {
            let outlying = |seen: Observation| Outlying { score: seen.score, p_value: seen.p_value };
            scorer.observe(vectors).into_iter().map(|seen| seen.map(outlying)).collect()
        }
        let vectors = finished.iter().map(|row| row.vector.as_slice());
        if finished.len() <= SCORE_HERE {
            let vectors: Vec<_> = vectors.map(|vector| (vector, InputFacts::default())).collect();
            return Ok(score(&scorer, &vectors));
        }
        let vectors: Vec<_> = vectors.map(|vector| (vector.to_vec(), InputFacts::default())).collect();
        let work = move || score(&scorer, &vectors);
        let (reply, answer) = oneshot::channel();
        // A caller that has gone needs no answer.
        self.threads.spawn(move || drop(reply.send(work())));
        answer.await.map_err(|_| EmbedError::Scoring)
    }
}
