//! The threads that tokenize, and how the inputs of a request are spread over them.
//!
//! A text of a million characters can take a second and 200 MB. Such texts have a thread of their own: there is one at a time, however many
//! cores and callers there are, and short texts do not wait for it. A caller has one of them in its queue, so that callers take turns.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};
use tokio::sync::{OwnedMutexGuard, oneshot};

use super::EmbedError;
use crate::account::Caller;
use crate::tokenize::{InputError, LONG_BYTES};

/// Inputs tokenized in one go by one thread; a request of more is spread over all threads.
const TOKENIZE_CHUNK: usize = 16;

/// A request that is tokenized where it arrives: about 0.1 ms of work, and waking another thread and being woken by it takes as long.
/// Its effort in the measure of [`Tokenizer::effort`](crate::tokenize::Tokenizer::effort), and its inputs, each of which takes something
/// of its own.
const TOKENIZE_HERE: (usize, usize) = (256, 64);

/// Items with their places in the request.
type Part<T> = Vec<(usize, T)>;

/// A caller's turn with its long texts.
type Turn = tokio::sync::Mutex<()>;

/// All threads that tokenize.
pub(super) struct Threads {
    short: ThreadPool,
    long: ThreadPool,
    turns: Mutex<HashMap<Caller, Weak<Turn>>>,
}

impl Threads {
    /// So many for all but the longest texts.
    ///
    /// # Errors
    /// If they cannot be started.
    pub(super) fn new(count: usize) -> Result<Self, ThreadPoolBuildError> {
        let short =
            ThreadPoolBuilder::new().num_threads(count).thread_name(|index| format!("tokenize-{index}"));
        let long = ThreadPoolBuilder::new().num_threads(1).thread_name(|_| "tokenize-long".to_owned());
        Ok(Self { short: short.build()?, long: long.build()?, turns: Mutex::default() })
    }

    /// Starts `work` on one of the threads for short texts.
    pub(super) fn spawn(&self, work: impl FnOnce() + Send + 'static) {
        self.short.spawn(work);
    }

    /// Runs `work` on each item, little of it on the caller's own thread. A caller that goes away stops it. `effort` says how long an item
    /// takes.
    pub(super) async fn spread<I, O, F>(
        &self,
        caller: &Caller,
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
        let (long, short): (Part<I>, Part<I>) =
            items.into_iter().enumerate().partition(|(_, item)| effort(item) > LONG_BYTES);
        let (work, mut short, mut parts) = (Arc::new(work), short.into_iter(), Vec::new());
        loop {
            let chunk: Part<I> = short.by_ref().take(TOKENIZE_CHUNK).collect();
            if chunk.is_empty() {
                break;
            }
            parts.push(run(&self.short, chunk, &work));
        }
        let mut done = Vec::new();
        for part in parts {
            done.extend(part.await.map_err(|_| EmbedError::Tokenizing)??);
        }
        if !long.is_empty() {
            let _turn = self.turn(caller).await;
            for item in long {
                done.extend(run(&self.long, vec![item], &work).await.map_err(|_| EmbedError::Tokenizing)??);
            }
            done.sort_unstable_by_key(|(index, _)| *index);
        }
        Ok(done.into_iter().map(|(_, output)| output).collect())
    }

    /// Waits until no other request of the caller has long texts at work.
    async fn turn(&self, caller: &Caller) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| turn.strong_count() > 0);
            let known = turns.get(caller).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let turn = Arc::default();
                turns.insert(Arc::clone(caller), Arc::downgrade(&turn));
                turn
            })
        };
        turn.lock_owned().await
    }
}

/// Starts `work` on the items of `part`, one after the other on one of the threads.
fn run<I, O, F>(
    threads: &ThreadPool,
    part: Part<I>,
    work: &Arc<F>,
) -> oneshot::Receiver<Result<Part<O>, EmbedError>>
where
    I: Send + 'static,
    O: Send + 'static,
    F: Fn(usize, &I) -> Result<O, EmbedError> + Send + Sync + 'static,
{
    let work = Arc::clone(work);
    let (reply, answer) = oneshot::channel();
    threads.spawn(move || {
        // A caller that has gone needs no answer: neither now nor between two texts.
        let done = part
            .iter()
            .take_while(|_| !reply.is_closed())
            .map(|(index, item)| Ok((*index, work(*index, item)?)));
        let done = done.collect();
        let _ = reply.send(done);
    });
    answer
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Spreads items of an effort each, and notes which were begun.
    async fn spread(
        threads: &Threads,
        caller: &str,
        efforts: Vec<usize>,
        begun: mpsc::Sender<String>,
        go: Option<Arc<Mutex<mpsc::Receiver<()>>>>,
    ) -> Vec<usize> {
        let name = caller.to_owned();
        let work = move |effort: &usize| {
            begun.send(name.clone()).unwrap();
            if let Some(go) = go.as_ref().filter(|_| *effort > LONG_BYTES) {
                go.lock().unwrap().recv().unwrap();
            }
            Ok(*effort)
        };
        threads.spread(&caller.into(), efforts, |effort| *effort, work).await.unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn callers_take_turns_with_long_texts_and_short_ones_do_not_wait_for_them() {
        let threads = Arc::new(Threads::new(1).unwrap());
        let (begun, order) = mpsc::channel();
        let (release, go) = mpsc::channel();
        let go = Arc::new(Mutex::new(go));
        let start = |caller: &'static str, efforts: Vec<usize>| {
            let (threads, begun, go) = (Arc::clone(&threads), begun.clone(), Some(Arc::clone(&go)));
            tokio::spawn(async move { spread(&threads, caller, efforts, begun, go).await })
        };
        let long = LONG_BYTES + 1;
        let greedy: Vec<_> = (0..3).map(|_| start("greedy", vec![long, 1000, long])).collect();
        let begins =
            |count: usize| (0..count).map(|_| order.recv().unwrap()).filter(|name| name != "greedy").count();
        // Three short ones and the first long one.
        assert_eq!(begins(4), 0);
        let honest = start("honest", vec![long]);
        // It waits on the long thread: the greedy caller's second text will come after it.
        while threads.turns.lock().unwrap().len() < 2 {
            tokio::task::yield_now().await;
        }
        let short = spread(&threads, "honest", vec![1000; 40], begun.clone(), None).await;
        assert_eq!(short, vec![1000; 40], "a long text is still held");
        assert_eq!(begins(40), 40);
        for _ in 0..7 {
            release.send(()).unwrap();
        }
        assert_eq!(honest.await.unwrap(), [long]);
        for request in greedy {
            assert_eq!(request.await.unwrap(), [long, 1000, long], "in the request's order");
        }
        let names: Vec<String> = order.try_iter().collect();
        let honest = names.iter().position(|name| name == "honest").unwrap();
        assert!(honest <= 1, "{names:?}");
    }
}
