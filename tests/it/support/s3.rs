//! An S3 server: moto, the emulator that people test S3 clients with, behind a door that sees every request and lets a test
//! spoil the answer.

use std::collections::{HashMap, VecDeque};
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use futures_util::stream;
use reqwest::header::{AUTHORIZATION, HOST, IF_NONE_MATCH};
use sextant::repository::{CacheSettings, Repository};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::app::client;
use super::skipped;

/// Where `make test` puts moto.
const PYTHON: &str = ".sextant/test-tools/bin/python";

/// Ends with its standard input, so that no end of the test process leaves it behind. Port 0: it says which one it got.
const MOTO: &str = "
import os, sys, threading
threading.Thread(target=lambda: (sys.stdin.buffer.read(), os._exit(0)), daemon=True).start()
from moto.server import main
main(['-H', '127.0.0.1', '-p', '0'])
";

/// Moto looks at who asks, and not whether it is true.
const SIGNED: &str = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, \
                      Signature=0";

/// What happens to one answer.
#[derive(Debug, Clone)]
pub enum Fault {
    /// One bit is another.
    Flip,
    /// The status, and none of the object.
    Status(u16),
    /// Half of it, and the rest when the semaphore is closed.
    Hold(Arc<Semaphore>),
}

/// A bucket of its own.
pub struct Bucket {
    /// With a prefix, as `--models` takes it.
    pub url: String,
    /// How it is reached.
    pub variables: Vec<(String, String)>,
    /// Where its objects are, for changing them past the repository.
    objects: String,
    door: Arc<Door>,
}

impl Bucket {
    /// `None`, and a word about it, on a machine without moto; there the test has nothing to say. CI must have it.
    pub async fn new() -> Option<Self> {
        static MOTO: OnceLock<Option<Moto>> = OnceLock::new();
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let upstream = &MOTO.get_or_init(Moto::start).as_ref()?.url;
        let name = format!("bucket-{}", COUNT.fetch_add(1, Ordering::SeqCst));
        let made = client().put(format!("{upstream}/{name}")).send().await.unwrap();
        assert_eq!(made.status(), 200, "{}", made.text().await.unwrap());
        let door = Arc::new(Door { upstream: upstream.clone(), client: client(), ..Door::default() });
        let address = door.open().await;
        let variables = [
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ENDPOINT_URL", &address),
            ("AWS_ALLOW_HTTP", "true"),
            // So that the machine's own proxy, which knows no 127.0.0.1 of ours, is left out.
            ("AWS_PROXY_URL", &address),
            ("AWS_PROXY_EXCLUDES", "127.0.0.1"),
        ];
        Some(Self {
            url: format!("s3://{name}/some/models"),
            variables: variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            objects: format!("{upstream}/{name}/some/models"),
            door,
        })
    }

    /// The repository in it, with a cache that is nearly without bound.
    pub fn repository(&self, cache: &TempDir) -> Repository {
        self.bounded(cache, 1 << 30)
    }

    /// The same with another bound.
    pub fn bounded(&self, cache: &TempDir, bytes: u64) -> Repository {
        let settings = CacheSettings::new(Some(cache.path().to_owned()), Some(bytes));
        Repository::open_with(&self.url, false, &self.variables).unwrap().with_cache(settings)
    }

    /// Spoils the next answers to GETs of paths that end with `suffix`, one after the other.
    pub fn fault(&self, suffix: &str, faults: impl IntoIterator<Item = Fault>) {
        self.door.faults.lock().unwrap().entry(suffix.to_owned()).or_default().extend(faults);
    }

    /// From now on it is a store that does not know `If-None-Match`, and overwrites.
    pub fn forget_conditions(&self) {
        self.door.unconditional.store(true, Ordering::SeqCst);
    }

    /// Requests so far of that method whose paths end with `suffix`.
    pub fn seen(&self, method: &str, suffix: &str) -> usize {
        let seen = self.door.seen.lock().unwrap();
        seen.iter().filter(|(verb, path)| verb == method && path.ends_with(suffix)).count()
    }

    /// Writes an object past the repository; its key is relative to the prefix.
    pub async fn put(&self, key: &str, bytes: &[u8]) {
        self.send(client().put(format!("{}/{key}", self.objects)).body(bytes.to_vec())).await;
    }

    /// Removes an object past the repository.
    pub async fn delete(&self, key: &str) {
        self.send(client().delete(format!("{}/{key}", self.objects))).await;
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> String {
        let answer = request.header(AUTHORIZATION, SIGNED).send().await.unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
        answer.text().await.unwrap()
    }

    /// Whether there is no object in it at all.
    pub async fn is_empty(&self) -> bool {
        let bucket = self.objects.strip_suffix("/some/models").unwrap();
        let listing =
            client().get(format!("{bucket}?list-type=2")).send().await.unwrap().text().await.unwrap();
        assert!(listing.contains("<ListBucketResult"), "{listing}");
        !listing.contains("<Key>")
    }
}

/// The emulator, one for all tests of this process.
struct Moto {
    url: String,
    /// It lives as long as this process, which has the other end of its standard input.
    _child: Child,
}

impl Moto {
    fn start() -> Option<Self> {
        if !Path::new(PYTHON).exists() {
            skipped(&format!("no S3 server to test against: `make test` puts one where {PYTHON} is"));
            return None;
        }
        let mut child = Command::new(PYTHON)
            .args(["-c", MOTO])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut errors = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        let url = loop {
            let mut line = String::new();
            assert!(errors.read_line(&mut line).unwrap() > 0, "moto ended: {said}");
            if let Some((_, port)) = line.trim().split_once("http://127.0.0.1:") {
                break format!("http://127.0.0.1:{port}");
            }
            said.push_str(&line);
        };
        // A line for each request, which has to go somewhere.
        std::thread::spawn(move || errors.read_to_end(&mut Vec::new()));
        Some(Self { url, _child: child })
    }
}

/// What stands between the clients of one bucket and moto.
#[derive(Default)]
struct Door {
    upstream: String,
    client: reqwest::Client,
    unconditional: AtomicBool,
    seen: Mutex<Vec<(String, String)>>,
    /// By the end of a path.
    faults: Mutex<HashMap<String, VecDeque<Fault>>>,
}

impl Door {
    async fn open(self: &Arc<Self>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(pass).with_state(Arc::clone(self));
        tokio::spawn(async { axum::serve(listener, router).await.unwrap() });
        address
    }

    fn next_fault(&self, path: &str) -> Option<Fault> {
        let mut faults = self.faults.lock().unwrap();
        faults.iter_mut().find(|(suffix, _)| path.ends_with(*suffix))?.1.pop_front()
    }
}

async fn pass(State(door): State<Arc<Door>>, request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    let (method, path) = (parts.method.clone(), parts.uri.path().to_owned());
    door.seen.lock().unwrap().push((method.to_string(), path.clone()));
    let fault = if method == "GET" { door.next_fault(&path) } else { None };
    if let Some(Fault::Status(status)) = fault {
        return Response::builder().status(status).body(Body::empty()).unwrap();
    }
    parts.headers.remove(HOST);
    if door.unconditional.load(Ordering::SeqCst) {
        parts.headers.remove(IF_NONE_MATCH);
    }
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let url = format!("{}{}", door.upstream, parts.uri.path_and_query().unwrap());
    let answer = door.client.request(method, url).headers(parts.headers).body(body).send().await.unwrap();
    let mut response = Response::builder().status(answer.status());
    *response.headers_mut().unwrap() = answer.headers().clone();
    let mut bytes = answer.bytes().await.unwrap().to_vec();
    let body = match fault {
        Some(Fault::Flip) => {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            Body::from(bytes)
        }
        Some(Fault::Hold(until)) => {
            let rest = bytes.split_off(bytes.len() / 2);
            let (first, rest) = (Bytes::from(bytes), Bytes::from(rest));
            Body::from_stream(stream::unfold(0, move |step| {
                let (first, rest, until) = (first.clone(), rest.clone(), Arc::clone(&until));
                async move {
                    match step {
                        0 => Some((Ok::<_, std::io::Error>(first), 1)),
                        1 => {
                            // The only way that it ends is being closed.
                            let _closed = until.acquire().await;
                            Some((Ok(rest), 2))
                        }
                        _ => None,
                    }
                }
            }))
        }
        Some(Fault::Status(_)) | None => Body::from(bytes),
    };
    response.body(body).unwrap()
}
