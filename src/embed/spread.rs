//! Spreads the inputs of a request over the threads that tokenize.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::{EmbedError, Embedder};
use crate::tokenize::InputError;

/// Inputs tokenized in one go by one thread; a request of more is spread over all threads.
const TOKENIZE_CHUNK: usize = 16;

/// A request that is tokenized where it arrives: about 0.1 ms of work, and waking another thread and being woken by it takes as long.
/// Its effort in the measure of [`Tokenizer::effort`](crate::tokenize::Tokenizer::effort), and its inputs, each of which takes something
/// of its own.
const TOKENIZE_HERE: (usize, usize) = (256, 64);

impl Embedder {
    /// Runs `work` on each item on the tokenizing threads, a long list on all of them, and little work on this thread. A caller
    /// that goes away stops it. `effort` says how long an item takes.
    pub(super) async fn spread<I, O, F>(
        &self,
        items: Vec<I>,
        effort: impl Fn(&I) -> usize,
        work: F,
    ) -> Result<Vec<O>, EmbedError>
    where
        I: Send + 'static,
        O: Send + 'static,
        F: Fn(&I) -> Result<O, InputError> + Send + Sync + 'static,
    {
        let work =
            move |index: usize, item: &I| work(item).map_err(|source| EmbedError::Input { index, source });
        let (mut left, most_items) = TOKENIZE_HERE;
        let mut fits = |item: &I| match left.checked_sub(effort(item)) {
            Some(rest) => {
                left = rest;
                true
            }
            None => false,
        };
        if items.len() <= most_items && items.iter().all(&mut fits) {
            return items.iter().enumerate().map(|(index, item)| work(index, item)).collect();
        }
        let (mut parts, mut items, work) = (Vec::new(), items.into_iter().enumerate(), Arc::new(work));
        loop {
            let chunk: Vec<(usize, I)> = items.by_ref().take(TOKENIZE_CHUNK).collect();
            if chunk.is_empty() {
                break;
            }
            let work = Arc::clone(&work);
            let (reply, answer) = oneshot::channel();
            self.threads.spawn(move || {
                // A caller that has gone needs no answer: neither now nor between two texts.
                let done: Result<Vec<O>, EmbedError> = chunk
                    .iter()
                    .take_while(|_| !reply.is_closed())
                    .map(|(index, item)| work(*index, item))
                    .collect();
                let _ = reply.send(done);
            });
            parts.push(answer);
        }
        let mut done = Vec::new();
        for part in parts {
            done.extend(part.await.map_err(|_| EmbedError::Tokenizing)??);
        }
        Ok(done)
    }
}
