//! `/tokenize` and `/decode`, in the dialect of text-embeddings-inference.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize, Serializer};

use super::access::Caller;
use super::body::Reserved;
use super::error::{ApiError, Kind};
use super::extract::Json;
use super::inputs::Inputs;
use super::{App, answer, beside_others};
use crate::account::Reservation;
use crate::embed::{Prompt, tokenizing_cost};
use crate::tokenize::Piece;

#[derive(Deserialize)]
pub(super) struct Tokenize {
    inputs: Inputs<String>,
    #[serde(default)]
    add_special_tokens: Option<bool>,
    #[serde(default)]
    prompt_name: Option<String>,
    #[serde(default)]
    model: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Decode {
    ids: Inputs<Vec<i64>>,
    #[serde(default)]
    skip_special_tokens: Option<bool>,
    #[serde(default)]
    model: Option<String>,
}

/// Of the texts whose tokens are shown at once: of punctuation each byte is a token, which takes 300 bytes while it is tokenized, and each is
/// in the answer.
const MOST_BYTES: usize = 256 << 10;

/// Of one token in JSON, about.
const TOKEN_BYTES: usize = 64;

/// Of one token before it is JSON: the piece, and its text in an allocation of its own.
const PIECE_BYTES: usize = size_of::<Piece>() + 16;

/// The tokens of each text, as they stand in the answer.
struct Texts<'a>(&'a [Vec<Piece>]);

struct Tokens<'a>(&'a [Piece]);

#[derive(Serialize)]
struct Token<'a> {
    id: u32,
    text: &'a str,
    special: bool,
    start: Option<usize>,
    stop: Option<usize>,
}

impl Serialize for Texts<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|text| Tokens(text)))
    }
}

impl Serialize for Tokens<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|piece| Token {
            id: piece.id,
            text: &piece.text,
            special: piece.special,
            start: piece.span.as_ref().map(|span| span.start),
            stop: piece.span.as_ref().map(|span| span.end),
        }))
    }
}

pub(super) async fn tokenize(
    State(app): State<App>,
    caller: Caller,
    Json(body): Json<Tokenize>,
) -> Result<Response, ApiError> {
    let model = app.model(body.model.as_deref(), &caller)?;
    let texts = body.inputs.counted(app.0.config.max_inputs)?;
    // Nothing is cut off here, so all of it is work and answer.
    let (bytes, most) =
        (texts.iter().map(String::len).sum::<usize>(), app.0.config.max_input_bytes.min(MOST_BYTES));
    if bytes > most {
        let message = format!("the texts have {bytes} bytes, at most {most} are tokenized at once");
        return Err(ApiError::new(Kind::TooLarge, message));
    }
    let cost = texts.iter().map(|text| tokenizing_cost(text)).sum::<usize>();
    caller.take_tokens(cost)?;
    // A token has a byte at least.
    let room = app.reserve(&caller, bytes * (PIECE_BYTES + TOKEN_BYTES))?;
    let prompt = body.prompt_name.map_or(Prompt::Default, Prompt::Named);
    let special = body.add_special_tokens.unwrap_or(true);
    let pieces = app.0.embedder.pieces(&model, &caller.id(), texts, &prompt, special).await?;
    let count = pieces.iter().map(Vec::len).sum::<usize>();
    caller.owe_tokens(count.saturating_sub(cost));
    room.shrink_to(count * (PIECE_BYTES + TOKEN_BYTES));
    with_room(room, beside_others(count * TOKEN_BYTES, || answer::json(&Texts(&pieces))))
}

pub(super) async fn decode(
    State(app): State<App>,
    caller: Caller,
    Json(body): Json<Decode>,
) -> Result<Response, ApiError> {
    let model = app.model(body.model.as_deref(), &caller)?;
    let lists = body.ids.counted(app.0.config.max_inputs)?;
    // A token has a byte at least, and no more may be decoded than is tokenized.
    let (ids, most) = (lists.iter().map(Vec::len).sum::<usize>(), app.0.config.max_input_bytes);
    if ids > most {
        let message = format!("the lists have {ids} ids, at most {most} are decoded at once");
        return Err(ApiError::new(Kind::TooLarge, message).at("ids"));
    }
    caller.take_tokens(ids)?;
    let room = app.reserve(&caller, ids * TOKEN_BYTES)?;
    let skip = body.skip_special_tokens.unwrap_or(true);
    let texts = app.0.embedder.decode(&model, &caller.id(), lists, skip).await?;
    with_room(room, beside_others(texts.iter().map(String::len).sum(), || answer::json(&texts)))
}

/// Hands over what is reserved for an answer.
fn with_room(room: Reservation, answer: Result<Response, ApiError>) -> Result<Response, ApiError> {
    answer.map(|mut response| {
        response.extensions_mut().insert(Reserved(Arc::new(room)));
        response
    })
}
