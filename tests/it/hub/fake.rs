//! A hub on 127.0.0.1 with one model, which fails as it is told.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderName, StatusCode, header};
use axum::response::Response;
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;

pub const ID: &str = "acme/tiny";
pub const COMMIT: &str = "c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00";
/// The one file that is listed as a large one, with a SHA-256.
pub const WEIGHTS: &str = "model.safetensors";

/// config.json of an encoder that can be compiled.
pub fn config(architecture: &str) -> Vec<u8> {
    let config = json!({
        "model_type": architecture,
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "vocab_size": 100,
        "max_position_embeddings": 32,
    });
    config.to_string().into_bytes()
}

/// What happens to one request.
#[derive(Debug, Clone)]
pub enum Fault {
    /// The connection breaks after so many bytes of the body.
    Cut(usize),
    /// The status, with `Retry-After` unless empty.
    Status(u16, &'static str),
    /// 401, as the hub answers where a licence has to be accepted.
    Gated,
    /// All of it with 200, whatever was asked for.
    NoRange,
    /// 206 with a range nobody asked for.
    WrongRange,
    /// One bit is another.
    Flip,
    /// A byte too many.
    Longer {
        /// Whether `Content-Length` says so.
        announced: bool,
    },
    /// A few bytes, then nothing.
    Stall,
    /// 302.
    Redirect(String),
    /// A web page, as captive portals send it.
    Page,
}

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Seen {
    pub uri: String,
    pub range: Option<String>,
    pub authorization: Option<String>,
}

#[derive(Default)]
struct Model {
    files: BTreeMap<String, Vec<u8>>,
    large: Vec<String>,
    /// By the end of a path, or `/api/`.
    faults: HashMap<String, VecDeque<Fault>>,
    seen: Vec<Seen>,
}

type Shared = Arc<Mutex<Model>>;

pub struct FakeHub {
    pub url: String,
    model: Shared,
}

impl FakeHub {
    /// A hub with a small model of six files, five of them needed.
    pub async fn start() -> Self {
        let (listener, hub) = Self::bind().await;
        hub.put_large(WEIGHTS, (0..100_000_u64).map(|index| ((index * index) >> 5) as u8).collect());
        hub.put("config.json", config("bert"));
        hub.put("tokenizer.json", b"{}".to_vec());
        hub.put("1_Pooling/config.json", br#"{"pooling_mode_mean_tokens":true}"#.to_vec());
        // Empty files exist, and no range of them does.
        hub.put("README.md", Vec::new());
        hub.put("pytorch_model.bin", b"not needed".to_vec());
        let app = Router::new().fallback(answer).with_state(hub.model.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        hub
    }

    /// An address where nobody listens.
    pub async fn stopped() -> Self {
        Self::bind().await.1
    }

    async fn bind() -> (TcpListener, Self) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        (listener, Self { url, model: Shared::default() })
    }

    fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap()
    }

    pub fn put(&self, name: &str, content: Vec<u8>) {
        self.model().files.insert(name.to_owned(), content);
    }

    pub fn put_large(&self, name: &str, content: Vec<u8>) {
        self.put(name, content);
        self.model().large.push(name.to_owned());
    }

    pub fn remove(&self, name: &str) {
        self.model().files.remove(name);
        self.model().files.remove("pytorch_model.bin");
    }

    /// The next requests for `name` (a file, or `/api/` for the list) go wrong, one after the other.
    pub fn fail(&self, name: &str, faults: impl IntoIterator<Item = Fault>) {
        self.model().faults.entry(name.to_owned()).or_default().extend(faults);
    }

    pub fn content(&self, name: &str) -> Vec<u8> {
        self.model().files[name].clone()
    }

    /// The listed digest, as messages name it.
    pub fn digest(&self, name: &str) -> String {
        let content = self.content(name);
        if self.model().large.iter().any(|large| large == name) {
            format!("SHA-256 {}", sha256(&content))
        } else {
            format!("git blob {}", git_blob(&content))
        }
    }

    /// All requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.model().seen.clone()
    }

    /// All requests for files.
    pub fn downloads(&self) -> Vec<Seen> {
        self.seen().into_iter().filter(|seen| seen.uri.contains("/resolve/")).collect()
    }

    /// The `Range` headers of the requests for a file.
    pub fn ranges(&self, name: &str) -> Vec<Option<String>> {
        let path = format!("/{name}");
        let asked =
            self.seen().into_iter().filter(|seen| seen.uri.split('?').next().unwrap().ends_with(&path));
        asked.map(|seen| seen.range).collect()
    }
}

async fn answer(State(model): State<Shared>, request: Request) -> Response {
    let header =
        |name: HeaderName| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    let seen = Seen {
        uri: request.uri().to_string(),
        range: header(header::RANGE),
        authorization: header(header::AUTHORIZATION),
    };
    let path = request.uri().path();
    let mut model = model.lock().unwrap();
    model.seen.push(seen.clone());
    let (name, content) = if path.starts_with("/api/models/acme/tiny/revision/") {
        ("/api/".to_owned(), Some(model.list().to_string().into_bytes()))
    } else {
        let name = path.strip_prefix(&format!("/{ID}/resolve/{COMMIT}/")).unwrap_or_default().to_owned();
        let content = model.files.get(&name).cloned();
        (name, content)
    };
    let fault = model.faults.get_mut(&name).and_then(VecDeque::pop_front);
    let Some(content) = content else { return status(404) };
    respond(content, seen.range, fault)
}

impl Model {
    /// In the words of the real hub, with fields that nobody reads.
    fn list(&self) -> Value {
        let siblings = self.files.iter().map(|(name, content)| {
            let size = content.len();
            if self.large.contains(name) {
                // The blob id is that of the pointer file.
                let lfs = json!({ "sha256": sha256(content), "size": size, "pointerSize": 134 });
                json!({ "rfilename": name, "blobId": "1".repeat(40), "size": size, "lfs": lfs })
            } else {
                json!({ "rfilename": name, "blobId": git_blob(content), "size": size })
            }
        });
        json!({ "id": ID, "sha": COMMIT, "gated": false, "siblings": siblings.collect::<Vec<_>>() })
    }
}

fn respond(mut content: Vec<u8>, range: Option<String>, fault: Option<Fault>) -> Response {
    let asked = range.map(|range| range["bytes=".len()..].trim_end_matches('-').parse::<usize>().unwrap());
    let mut start = asked.filter(|_| !matches!(fault, Some(Fault::NoRange)));
    match &fault {
        Some(Fault::Status(code, retry_after)) => {
            let mut response = status(*code);
            if !retry_after.is_empty() {
                response.headers_mut().insert(header::RETRY_AFTER, retry_after.parse().unwrap());
            }
            return response;
        }
        Some(Fault::Gated) => {
            let mut response = status(401);
            response.headers_mut().insert("x-error-code", "GatedRepo".parse().unwrap());
            return response;
        }
        Some(Fault::Redirect(to)) => {
            let mut response = status(302);
            response.headers_mut().insert(header::LOCATION, to.parse().unwrap());
            return response;
        }
        Some(Fault::Page) => return Response::new("<html>Please log in</html>".into()),
        Some(Fault::Flip) => content[0] ^= 1,
        Some(Fault::Longer { .. }) => content.push(0),
        Some(Fault::WrongRange) => start = start.map(|start| start - 1),
        _ => {}
    }
    let total = content.len();
    if start.is_some_and(|start| start >= total) {
        return status(416);
    }
    let rest = Bytes::from(content.split_off(start.unwrap_or(0)));
    let mut response = Response::builder().header(header::ACCEPT_RANGES, "bytes");
    if let Some(start) = start {
        let range = format!("bytes {start}-{}/{total}", total - 1);
        response = response.status(StatusCode::PARTIAL_CONTENT).header(header::CONTENT_RANGE, range);
    }
    if !matches!(fault, Some(Fault::Longer { announced: false })) {
        response = response.header(header::CONTENT_LENGTH, rest.len());
    }
    let body = match fault {
        Some(Fault::Cut(after)) => broken(rest.slice(..after)),
        Some(Fault::Stall) => {
            let some = stream::iter([Ok::<_, io::Error>(rest.slice(..10))]);
            Body::from_stream(some.chain(stream::pending()))
        }
        Some(Fault::Longer { announced: false }) => {
            Body::from_stream(stream::iter([Ok::<_, io::Error>(rest)]))
        }
        _ => Body::from(rest),
    };
    response.body(body).unwrap()
}

/// The bytes, then the end of the connection.
fn broken(bytes: Bytes) -> Body {
    let end = stream::once(async {
        // hyper drops what it has not yet written when a body fails.
        tokio::time::sleep(Duration::from_millis(20)).await;
        Err(io::Error::other("cut"))
    });
    Body::from_stream(stream::iter([Ok(bytes)]).chain(end))
}

fn status(code: u16) -> Response {
    Response::builder().status(code).body(Body::empty()).unwrap()
}

fn sha256(content: &[u8]) -> String {
    hex::encode(Sha256::digest(content))
}

fn git_blob(content: &[u8]) -> String {
    let object = [format!("blob {}\0", content.len()).as_bytes(), content].concat();
    hex::encode(Sha1::digest(object))
}
