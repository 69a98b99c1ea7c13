//! Bodies of anybody.

use std::sync::LazyLock;

use axum::body::Body;
use axum::extract::{FromRequest as _, Request};
use axum::response::IntoResponse as _;
use serde::de::DeserializeOwned;
use tokio::runtime::{Builder, Runtime};

use super::extract::{Inputs, Json};
use super::{admin, openai, tei};
use crate::embed::Input;

/// As many as the server takes where nothing else is said.
const MOST_INPUTS: usize = 2048;

/// Reads a body as each request that comes as JSON. What is refused is the caller's fault, and what is taken is within the limits.
#[expect(clippy::expect_used, reason = "a fuzz target fails by a panic")]
pub fn requests(body: &[u8]) {
    static RUNTIME: LazyLock<Runtime> =
        LazyLock::new(|| Builder::new_current_thread().build().expect("a runtime can be made"));
    RUNTIME.block_on(async {
        read::<openai::CreateEmbeddings>(body).await;
        read::<tei::Embed>(body).await;
        read::<tei::Similarity>(body).await;
        read::<tei::Tokenize>(body).await;
        read::<tei::Decode>(body).await;
        read::<admin::RolloutRequest>(body).await;
        read::<admin::PromoteRequest>(body).await;
        read::<admin::RollbackRequest>(body).await;
        read::<admin::VerifyRequest>(body).await;
        let inputs = read::<Inputs>(body).await.and_then(|inputs| inputs.within(MOST_INPUTS).ok());
        if let Some(inputs) = inputs {
            assert!((1..=MOST_INPUTS).contains(&inputs.len()));
            assert!(!inputs.contains(&Input::Text(String::new())));
        }
    });
}

async fn read<T: DeserializeOwned>(body: &[u8]) -> Option<T> {
    match Json::from_request(Request::new(Body::from(body.to_vec())), &()).await {
        Ok(Json(read)) => Some(read),
        Err(refused) => {
            assert!(refused.into_response().status().is_client_error());
            None
        }
    }
}
