//! Sextant: an embedding server that keeps vectors true.
//!
//! Embeddings are stored for months, and a wrong or changed one does not fail: it silently spoils an index. So every
//! vector is tied to one version of a model and to one vector space, versions are immutable and checked, and the answer
//! says which of them made it.
//!
//! ```text
//!   HTTP request                                                  checkpoint directory or hub
//!        |                                                                 |
//!   http      routes and layers; a dialect becomes an EmbedRequest      import    weights -> graph, probe vectors,
//!        |                                                                 |      manifest, model card
//!   embed     resolve the model, prompt, tokenize, batch, finish           |
//!        |                                                                 v
//!   batch     admission, queue, policy, worker (a tower layer)         repository   <model>/versions/<n>/
//!        |                                                                 |
//!   engine    one thread for each ONNX Runtime session  <--- loads --- rollout      <model>/rollouts/<n>.json
//! ```
//!
//! # Layout, in reading order
//! - [`config`]: flags, environment and file become one validated `Config`.
//! - [`server`]: builds the application, serves it, stops without losing a request.
//! - [`http`]: the routes, and what each dialect makes of requests, answers and refusals.
//! - [`keys`]: who may ask for what, and how much of it.
//! - [`embed`]: the pipeline of a request, and a loaded version.
//! - [`tokenize`]: text to token ids; token ids checked.
//! - [`batch`]: which rows run together, and when.
//! - [`account`]: how much callers may hold at once.
//! - [`engine`]: the runtime library, devices, sessions and their threads, tensors, pooling.
//! - [`repository`]: versions in a directory or a bucket, with [`repository::manifest`] for what a version is.
//! - [`rollout`]: which version serves, who changes that, how a server follows; and what a version must show before, in
//!   [`rollout::gate`].
//! - [`drift`]: whether the traffic is what a model was meant to see.
//! - [`import`]: a checkpoint becomes a version.
//! - [`onnx`]: the format of graphs, as far as `import` writes and the engine edits them.
//! - [`compare`]: how alike vectors are.
//! - [`evaluate`]: quality on labelled pairs.
//! - [`mod@bench`]: load on a server, and what it answers.
//! - [`mod@tls`]: certificates, shown and followed.
//! - [`metrics`], [`telemetry`], [`trace`], [`cli`]: what is counted, what is logged, what a collector of traces is told, what
//!   can be typed.
//!
//! `http` knows `embed`, `embed` knows `batch`, `batch` knows `engine`'s types; nothing lower knows `http`.

pub mod account;
pub mod batch;
pub mod bench;
mod callers;
pub mod cli;
pub mod compare;
pub mod config;
pub mod drift;
pub mod embed;
pub mod engine;
pub mod evaluate;
mod exit;
mod files;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
pub mod http;
pub mod import;
pub mod keys;
mod memory;
pub mod metrics;
pub mod onnx;
pub mod repository;
pub mod rollout;
pub mod server;
pub mod telemetry;
pub mod tls;
pub mod tokenize;
pub mod trace;
