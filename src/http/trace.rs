//! The span of a request, with HTTP's semantic conventions on it. Paths and queries are not: a client writes into them what
//! it likes, and the route says which page it was.

use axum::extract::{MatchedPath, Request, State};
use axum::http::uri::{Authority, Scheme};
use axum::http::{Method, StatusCode, Version, header};
use axum::middleware::Next;
use axum::response::Response;
use opentelemetry::KeyValue;
use opentelemetry::trace::{Span as _, Status};
use tower_http::request_id::RequestId;
use tracing::Instrument as _;

use super::observe::known_method;
use super::{App, answer};
use crate::trace;

/// Of a request's identifier, which its client may choose.
const LONGEST_ID: usize = 128;

/// Traces a request below its caller's span, and without one if the sampler draws it. What is asked by GET costs no work, as
/// the probes of a cluster: it is traced for a caller only.
pub(super) async fn trace(State(app): State<App>, request: Request, next: Next) -> Response {
    let parent = trace::parent(request.headers());
    let Some(tracing) =
        app.0.tracing.as_ref().filter(|_| parent.is_some() || request.method() != Method::GET)
    else {
        return next.run(request).await;
    };
    let is_child = parent.is_some();
    let route = request.extensions().get::<MatchedPath>().map(|route| route.as_str().to_owned());
    let method = known_method(request.method());
    let name = route.as_ref().map_or_else(|| method.to_owned(), |route| format!("{method} {route}"));
    let mut span = tracing.begin(name, head(&request, method, route), parent);
    let (trace_id, is_recording) = (span.context().trace_id(), span.is_recording());
    if !is_recording && !is_child {
        return next.run(request).await;
    }
    // At the level of errors, or a filter for these would take it away from their lines.
    let logs = tracing::error_span!("request", %trace_id);
    if !is_recording {
        return next.run(request).instrument(logs).await;
    }
    let (mut response, record) = trace::during(next.run(request)).instrument(logs).await;
    answer::set(response.headers_mut(), "traceresponse", &trace::response(span.context()));
    answered(span.span(), response.status());
    span.end(record);
    response
}

/// What the head of a request says.
fn head(request: &Request, method: &'static str, route: Option<String>) -> Vec<KeyValue> {
    let is_encrypted = request.extensions().get::<Scheme>() == Some(&Scheme::HTTPS);
    let mut attributes = vec![
        KeyValue::new("http.request.method", if method == "other" { "_OTHER" } else { method }),
        KeyValue::new("url.scheme", if is_encrypted { "https" } else { "http" }),
        KeyValue::new("network.protocol.name", "http"),
        KeyValue::new("network.protocol.version", version(request.version())),
    ];
    attributes.extend(route.map(|route| KeyValue::new("http.route", route)));
    let host = request.headers().get(header::HOST);
    let host: Option<Authority> = host.and_then(|host| host.to_str().ok()?.parse().ok());
    if let Some(server) = request.uri().authority().cloned().or(host) {
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

/// What the answer says. A refusal is the caller's mistake, and no error of this server; 424 is what text-embeddings-inference
/// answers where others have 500.
fn answered(span: &mut opentelemetry_sdk::trace::Span, status: StatusCode) {
    span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status.as_u16())));
    if status.is_server_error() || status == StatusCode::FAILED_DEPENDENCY {
        span.set_attribute(KeyValue::new("error.type", status.as_str().to_owned()));
        span.set_status(Status::error(""));
    }
}
