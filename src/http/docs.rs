//! A page with the contract and a form to try it: Swagger UI, out of the binary, with nothing from elsewhere.

use axum::Extension;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sha2::{Digest as _, Sha256};

use super::App;
use super::beside::Unheld;
use super::error::{ApiError, Kind};

/// The browser loads nothing from other hosts and sends nothing there, runs no script that is in a page's text, and shows the page
/// in no frame. Swagger UI's style sheet has its pictures in it, as `data:`.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

/// A file as a browser gets it.
struct File {
    kind: HeaderValue,
    body: &'static [u8],
    etag: HeaderValue,
}

impl File {
    fn new(kind: &'static str, body: &'static [u8]) -> Self {
        let digest = format!("\"{}\"", hex::encode(&Sha256::digest(body)[..8]));
        // Digits within quotes: always a header's value.
        let etag = HeaderValue::from_str(&digest).unwrap_or(HeaderValue::from_static("\"\""));
        Self { kind: HeaderValue::from_static(kind), body, etag }
    }

    /// The file, or 304 to whoever has it already.
    fn answer(&self, headers: &HeaderMap) -> Response {
        let own = [
            (header::ETAG, self.etag.clone()),
            // Asked for again each time: the names stay the same over releases.
            (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
            (header::CONTENT_SECURITY_POLICY, POLICY),
            (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
            (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        ];
        if self.is_known(headers) {
            return (StatusCode::NOT_MODIFIED, own).into_response();
        }
        (own, [(header::CONTENT_TYPE, self.kind.clone())], Extension(Unheld), self.body).into_response()
    }

    fn is_known(&self, headers: &HeaderMap) -> bool {
        let own = self.etag.as_bytes();
        let known = headers
            .get_all(header::IF_NONE_MATCH)
            .iter()
            .flat_map(|value| value.as_bytes().split(|&byte| byte == b',').map(<[u8]>::trim_ascii));
        // A proxy that compresses makes the tag a weak one.
        known.map(|tag| tag.strip_prefix(b"W/").unwrap_or(tag)).any(|tag| tag == own)
    }
}

/// The page and what it loads.
pub(super) struct Files {
    page: File,
    /// By name.
    loaded: [(&'static str, File); 3],
}

impl Files {
    pub(super) fn new() -> Self {
        let script = "text/javascript; charset=utf-8";
        let library = include_bytes!(concat!(env!("OUT_DIR"), "/swagger-ui-bundle.js"));
        let styles = include_bytes!(concat!(env!("OUT_DIR"), "/swagger-ui.css"));
        Self {
            page: File::new("text/html; charset=utf-8", include_bytes!("docs/page.html")),
            loaded: [
                ("page.js", File::new(script, include_bytes!("docs/page.js"))),
                ("swagger-ui-bundle.js", File::new(script, library)),
                ("swagger-ui.css", File::new("text/css; charset=utf-8", styles)),
            ],
        }
    }
}

pub(super) async fn page(State(app): State<App>, headers: HeaderMap) -> Response {
    app.0.docs.page.answer(&headers)
}

pub(super) async fn file(
    State(app): State<App>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    match app.0.docs.loaded.iter().find(|(known, _)| *known == name) {
        Some((_, file)) => Ok(file.answer(&headers)),
        None => Err(ApiError::new(Kind::NotFound, format!("the page at /docs has no file `{name}`"))),
    }
}
