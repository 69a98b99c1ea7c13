//! The span of a request, with HTTP's semantic conventions on it. Paths and queries are not: a client writes into them what
//! it likes, and the route says which page it was.

use axum::extract::{MatchedPath, Request, State};
use axum::http::uri::{Authority, Scheme};
use axum::http::{Method, Version, header};
use axum::middleware::Next;
use axum::response::Response;
use opentelemetry::KeyValue;
use tower_http::request_id::RequestId;
use tracing::Instrument as _;

use super::observe::known_method;
use super::{App, answer};
use crate::trace;

/// Of a request's identifier, which its client may choose.
const LONGEST_ID: usize = 128;

/// Of the host that a client says it asks: no name is longer.
const LONGEST_HOST: usize = 255;

/// Traces a request below its caller's span, and without one if the sampler draws it. What is asked by anything but POST costs
/// no work, as the probes of a cluster: it is traced for a caller only.
pub(super) async fn trace(State(app): State<App>, request: Request, next: Next) -> Response {
    let parent = trace::parent(request.headers());
    let Some(tracing) =
        app.0.tracing.as_ref().filter(|_| parent.is_some() || request.method() == Method::POST)
    else {
        return next.run(request).await;
    };
    let is_child = parent.is_some();
    // As HTTP's conventions have a method that nobody knows.
    let (method, name) = match known_method(request.method()) {
        "other" => ("_OTHER", "HTTP"),
        known => (known, known),
    };
    let route = request.extensions().get::<MatchedPath>().cloned();
    let name = route.as_ref().map_or_else(|| name.to_owned(), |route| format!("{name} {}", route.as_str()));
    let mut span = tracing.begin(name, parent);
    if !span.is_recording() && !is_child {
        return next.run(request).await;
    }
    // At the level of errors, or a filter for these would take it away from their lines.
    let logs = tracing::error_span!("request", trace_id = %span.context().trace_id());
    if !span.is_recording() {
        return next.run(request).instrument(logs).await;
    }
    span.asked(head(&request, method, route.as_ref()));
    let mut response = span.during(next.run(request)).instrument(logs).await;
    answer::set(response.headers_mut(), "traceresponse", &trace::response(span.context()));
    span.answered(response.status());
    response
}

/// What the head of a request says.
fn head(request: &Request, method: &'static str, route: Option<&MatchedPath>) -> Vec<KeyValue> {
    let is_encrypted = request.extensions().get::<Scheme>() == Some(&Scheme::HTTPS);
    let mut attributes = vec![
        KeyValue::new("http.request.method", method),
        KeyValue::new("url.scheme", if is_encrypted { "https" } else { "http" }),
        KeyValue::new("network.protocol.name", "http"),
        KeyValue::new("network.protocol.version", version(request.version())),
    ];
    attributes.extend(route.map(|route| KeyValue::new("http.route", route.as_str().to_owned())));
    let host = request.headers().get(header::HOST);
    let host: Option<Authority> = host.and_then(|host| host.to_str().ok()?.parse().ok());
    let server = request.uri().authority().cloned().or(host);
    if let Some(server) = server.filter(|server| server.host().len() <= LONGEST_HOST) {
        attributes.push(KeyValue::new("server.address", server.host().to_owned()));
        attributes.extend(server.port_u16().map(|port| KeyValue::new("server.port", i64::from(port))));
    }
    let id = request.extensions().get::<RequestId>().and_then(|id| id.header_value().to_str().ok());
    let id = id.map(|id| id.chars().take(LONGEST_ID).collect::<String>());
    attributes.extend(id.map(|id| KeyValue::new("sextant.request_id", id)));
    attributes
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        _ => "1.1",
    }
}
