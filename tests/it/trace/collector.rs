//! A collector of traces on 127.0.0.1, over HTTP and gRPC alike, which fails as it is told.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use axum::routing::post;
use futures_util::stream;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use tokio::net::TcpListener;

use crate::support::app::until;

/// What it does with a batch of spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    Takes,
    /// Never answers.
    Hangs,
    /// 400: not to be tried again.
    Refuses,
    /// Bytes that are no answer.
    Babbles,
    /// 200, of which only the body says that three spans were not kept.
    Rejects,
}

struct Seen {
    manner: Manner,
    headers: Vec<HeaderMap>,
    /// Each message as it came.
    messages: Vec<Bytes>,
}

#[derive(Clone)]
pub struct Collector {
    pub address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

impl Collector {
    pub async fn start(manner: Manner) -> Self {
        let seen = Arc::new(Mutex::new(Seen { manner, headers: Vec::new(), messages: Vec::new() }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let collector = Self { address: listener.local_addr().unwrap(), seen };
        let routes = Router::new()
            .route("/v1/traces", post(over_http))
            .route("/opentelemetry.proto.collector.trace.v1.TraceService/Export", post(over_grpc))
            .with_state(collector.clone());
        tokio::spawn(async { axum::serve(listener, routes).await.unwrap() });
        collector
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn manner(&self, manner: Manner) {
        self.seen().manner = manner;
    }

    /// Headers of each request.
    pub fn headers(&self) -> Vec<HeaderMap> {
        self.seen().headers.clone()
    }

    /// All bytes that came.
    pub fn bytes(&self) -> Vec<u8> {
        self.seen().messages.concat()
    }

    pub fn spans(&self) -> Vec<Span> {
        let resources = self.requests().into_iter().flat_map(|request| request.resource_spans);
        resources.flat_map(|of| of.scope_spans).flat_map(|of| of.spans).collect()
    }

    /// An attribute of the process that the spans are of, the same in every message.
    pub fn resource(&self, name: &str) -> Option<String> {
        let resources = self.requests().into_iter().flat_map(|request| request.resource_spans);
        let mut values: Vec<_> =
            resources.map(|of| text(&of.resource.unwrap().attributes, name).map(str::to_owned)).collect();
        values.dedup();
        assert_eq!(values.len(), 1, "{name}: {values:?}");
        values.remove(0)
    }

    /// Waits for the span of a request, which comes with all below it.
    pub async fn wait(&self) {
        until("a span came", async || !self.seen().messages.is_empty()).await;
    }

    fn requests(&self) -> Vec<ExportTraceServiceRequest> {
        let messages = self.seen().messages.clone();
        messages.into_iter().map(|bytes| ExportTraceServiceRequest::decode(bytes).unwrap()).collect()
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    async fn take(&self, headers: HeaderMap, message: Bytes) -> Manner {
        let manner = {
            let mut seen = self.seen();
            seen.headers.push(headers);
            seen.messages.push(message);
            seen.manner
        };
        if manner == Manner::Hangs {
            std::future::pending::<()>().await;
        }
        manner
    }
}

/// The value of an attribute that is text.
pub fn text<'a>(attributes: &'a [KeyValue], name: &str) -> Option<&'a str> {
    match value(attributes, name)? {
        Value::StringValue(text) => Some(text),
        other => panic!("{name} is {other:?}"),
    }
}

/// The value of an attribute that is a number.
pub fn number(attributes: &[KeyValue], name: &str) -> Option<i64> {
    match value(attributes, name)? {
        Value::IntValue(number) => Some(*number),
        other => panic!("{name} is {other:?}"),
    }
}

fn value<'a>(attributes: &'a [KeyValue], name: &str) -> Option<&'a Value> {
    attributes.iter().find(|attribute| attribute.key == name)?.value.as_ref()?.value.as_ref()
}

async fn over_http(State(collector): State<Collector>, headers: HeaderMap, body: Bytes) -> Response {
    assert_eq!(headers[header::CONTENT_TYPE], "application/x-protobuf");
    let answer = Response::builder();
    match collector.take(headers, body).await {
        Manner::Takes | Manner::Hangs => answer.body(Body::empty()),
        Manner::Refuses => answer.status(400).body("no such tenant".repeat(1000).into()),
        Manner::Babbles => answer.status(500).body(Body::from(&b"\xff<html>\xff"[..])),
        Manner::Rejects => {
            let partial = ExportTracePartialSuccess { rejected_spans: 3, error_message: "too old".into() };
            let message = ExportTraceServiceResponse { partial_success: Some(partial) };
            answer.body(message.encode_to_vec().into())
        }
    }
    .unwrap()
}

/// A call of one message and one answer: five bytes before each, and the status behind.
async fn over_grpc(State(collector): State<Collector>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    assert_eq!(head.headers[header::CONTENT_TYPE], "application/grpc");
    let body = body.collect().await.unwrap().to_bytes();
    let (prefix, message) = body.split_at(5);
    assert_eq!(prefix, [&[0_u8][..], &u32::try_from(message.len()).unwrap().to_be_bytes()].concat());
    let status = match collector.take(head.headers, Bytes::copy_from_slice(message)).await {
        Manner::Takes | Manner::Hangs => "0",
        Manner::Refuses => "3",
        Manner::Rejects => unreachable!("the exporter for gRPC does not show it"),
        Manner::Babbles => return Response::new(Body::from(&b"\xff<html>\xff"[..])),
    };
    let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static(status))]);
    let frames = [Frame::data(Bytes::from_static(&[0; 5])), Frame::trailers(trailers)];
    let body = Body::new(StreamBody::new(stream::iter(frames.map(Ok::<_, Infallible>))));
    Response::builder().header(header::CONTENT_TYPE, "application/grpc").body(body).unwrap()
}
