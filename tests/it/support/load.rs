//! Clients that ask without a pause, and fail the test if a request is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::Value;
use tokio::task::JoinHandle;

use super::app::client;
use super::floats;

/// The clients and what they have seen.
pub struct Load {
    answered: Arc<AtomicUsize>,
    stopping: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts `clients`, each with a body made for its number.
    pub fn start(url: &str, clients: usize, body: impl Fn(usize) -> Value) -> Self {
        Self::each(client, url, clients, body)
    }

    /// The same with a client that knows more than others do.
    pub fn start_with(
        client: reqwest::Client,
        url: &str,
        clients: usize,
        body: impl Fn(usize) -> Value,
    ) -> Self {
        Self::each(|| client.clone(), url, clients, body)
    }

    fn each(
        client: impl Fn() -> reqwest::Client,
        url: &str,
        clients: usize,
        body: impl Fn(usize) -> Value,
    ) -> Self {
        let (answered, stopping) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let clients = (0..clients).map(|index| {
            let (answered, stopping) = (Arc::clone(&answered), Arc::clone(&stopping));
            tokio::spawn(ask(client(), url.to_owned(), body(index), answered, stopping))
        });
        let clients = clients.collect();
        Self { answered, stopping, clients }
    }

    /// Answers so far.
    pub fn answered(&self) -> usize {
        self.answered.load(Ordering::SeqCst)
    }

    /// From now on a client may find the door shut.
    pub fn expect_a_stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
    }

    /// Waits until the clients have left, and fails if one of them lost a request.
    pub async fn all_answered(self) {
        for client in self.clients {
            client.await.unwrap();
        }
    }
}

/// Asks until it is told to leave: as a balancer does, it then goes elsewhere. Who knocks at the very moment that the door
/// is shut cannot be told from who comes too late.
async fn ask(
    client: reqwest::Client,
    url: String,
    body: Value,
    answered: Arc<AtomicUsize>,
    stopping: Arc<AtomicBool>,
) {
    let inputs = body["input"].as_array().map_or(1, Vec::len);
    loop {
        let request = client.post(&url).header("content-type", "application/json").body(body.to_string());
        match request.send().await {
            Ok(answer) => {
                assert_eq!(answer.status(), 200);
                let last = answer.headers().contains_key("connection");
                let bytes = answer.bytes().await.expect("a whole answer");
                let answer: Value = serde_json::from_slice(&bytes).expect("a whole answer");
                let vectors = answer["data"].as_array().unwrap();
                assert_eq!(vectors.len(), inputs);
                assert!(vectors.iter().all(|vector| !floats(&vector["embedding"]).is_empty()));
                answered.fetch_add(1, Ordering::SeqCst);
                if last {
                    return;
                }
            }
            // Only a client that was let in must be answered.
            Err(error) if error.is_connect() && stopping.load(Ordering::SeqCst) => return,
            Err(error) => panic!("a request was lost: {error:?}"),
        }
    }
}
