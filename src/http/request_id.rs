//! Which names a client may give its request.

use axum::extract::Request;

const NAME: &str = "x-request-id";
/// A UUID has 36, a trace's id and a span's together 55.
const LONGEST: usize = 128;

/// Takes a name away that is too long to be logged with every line, or has characters by which one line of a log could be told for
/// two, or for another field: the request then gets one of ours.
pub(super) async fn plain(mut request: Request) -> Request {
    let mut names = request.headers().get_all(NAME).iter();
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=@".contains(byte);
    let first = names.next().map(|value| value.as_bytes());
    let is_good = first.is_none_or(|name| (1..=LONGEST).contains(&name.len()) && name.iter().all(is_plain));
    if !is_good || names.next().is_some() {
        request.headers_mut().remove(NAME);
    }
    request
}
