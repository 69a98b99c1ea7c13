//! Bodies of anybody.

use std::num::NonZeroUsize;
use std::sync::LazyLock;

use axum::body::Body;
use axum::extract::{FromRequest as _, Request};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::IntoResponse as _;
use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::runtime::{Builder, Runtime};

use super::error::ApiError;
use super::extract::Json;
use super::inputs::Inputs;
use super::{admin, inference, openai, tei, tokens};
use crate::config::{HttpConfig, Settings};
use crate::embed::Input;

/// Inputs of any dialect: as the routes check them, but with few of them allowed, so that there are inputs with too many.
#[derive(Deserialize)]
struct Embed {
    #[serde(alias = "inputs")]
    input: Inputs,
}

const MOST_INPUTS: usize = 8;

#[expect(clippy::expect_used, reason = "a fuzz target fails by a panic")]
static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().build().expect("a runtime can be made"));

/// Reads a body as each request that comes as JSON. What is refused is the caller's fault, and what is taken is within the limits.
pub fn requests(body: &[u8]) {
    RUNTIME.block_on(async {
        read::<openai::CreateEmbeddings>(body).await;
        read::<tei::Embed>(body).await;
        read::<tei::Similarity>(body).await;
        read::<tokens::Tokenize>(body).await;
        read::<tokens::Decode>(body).await;
        read::<admin::RolloutRequest>(body).await;
        read::<admin::PromoteRequest>(body).await;
        read::<admin::RollbackRequest>(body).await;
        read::<admin::VerifyRequest>(body).await;
        if let Some(inputs) = read::<Embed>(body).await.and_then(|body| taken(body.input.within(MOST_INPUTS)))
        {
            check(&inputs);
        }
    });
}

/// Reads a body of the Open Inference Protocol, of which the first two bytes say how much is JSON.
#[expect(clippy::expect_used, reason = "a fuzz target fails by a panic")]
pub fn inference(data: &[u8]) {
    static CONFIG: LazyLock<HttpConfig> = LazyLock::new(|| {
        let settings =
            Settings { models: Some(String::new()), max_inputs: Some(MOST_INPUTS), ..Settings::default() };
        settings.validate(NonZeroUsize::MIN).expect("settings that are checked").http
    });
    let _inside = RUNTIME.enter();
    let Some((length, body)) = data.split_first_chunk() else { return };
    let mut headers = HeaderMap::new();
    // None of 0 bytes: that body is JSON as a whole.
    match u16::from_le_bytes(*length) {
        0 => None,
        length => headers.insert(inference::JSON_LENGTH, HeaderValue::from(length)),
    };
    let Some(request) = taken(inference::read(&headers, &Bytes::copy_from_slice(body))) else { return };
    taken(request.wants_binary());
    if let Some(request) = taken(request.embed(String::new(), &headers, &CONFIG)) {
        check(&request.inputs);
    }
}

/// What was taken. What was refused is the caller's fault.
fn taken<T>(read: Result<T, ApiError>) -> Option<T> {
    read.map_err(|refused| assert!(refused.into_response().status().is_client_error())).ok()
}

/// Rows of no ids are the tokenizer's to refuse: there are some that put tokens around them.
fn check(inputs: &[Input]) {
    assert!((1..=MOST_INPUTS).contains(&inputs.len()));
    assert!(!inputs.contains(&Input::Text(String::new())));
}

async fn read<T: DeserializeOwned>(body: &[u8]) -> Option<T> {
    taken(Json::from_request(Request::new(Body::from(body.to_vec())), &()).await).map(|Json(read)| read)
}
