//! Counts and logs every answer, in one place for all routes.

use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::Response;
use tower_http::request_id::RequestId;

use super::App;
use super::access::Caller;

/// Label of every path that is no route: a client must not be able to add series.
const UNMATCHED: &str = "unmatched";

pub(super) async fn observe(State(app): State<App>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let id = request.extensions().get::<RequestId>().cloned();
    let method = known_method(request.method());
    let mut response = next.run(request).await;
    if app.is_draining() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let seconds = started.elapsed().as_secs_f64();
    let route = route.as_ref().map_or(UNMATCHED, MatchedPath::as_str);
    let status = response.status().as_u16();
    app.0.metrics.answered(route, method, status, seconds);
    let caller = response.extensions().get::<Caller>();
    if let Some(caller @ (Caller::Key(_) | Caller::Nameless)) = caller {
        app.0.metrics.keys.answered(caller.name(), status);
    }
    let key = caller.map_or("none", Caller::name);
    let id = id.as_ref().and_then(|id| id.header_value().to_str().ok()).unwrap_or("");
    tracing::debug!(id, key, method, route, status, milliseconds = seconds * 1e3, "answered");
    response
}

/// The method as a label: a client may send any word as a method.
pub(super) fn known_method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::HEAD => "HEAD",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        Method::PATCH => "PATCH",
        _ => "other",
    }
}
