//! The HTTP client below the exporter, which keeps what the exporter does not hand on: why there was no answer, and which spans
//! the collector did not keep though it answered 200.

use std::error::Error;
use std::iter;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message as _;
use reqwest::redirect::Policy;

/// What was seen of a collector over HTTP; always empty over gRPC, whose exporter has its own client.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Why the last try got no answer.
    pub(super) failure: Option<String>,
    /// How many spans the last answer rejects, and its reason.
    pub(super) rejected: Option<(usize, String)>,
}

/// A client whose clones share what they see.
#[derive(Debug, Clone)]
pub(super) struct Client {
    client: reqwest::Client,
    seen: Arc<Mutex<Seen>>,
}

impl Client {
    pub(super) fn new(seen: Arc<Mutex<Seen>>) -> reqwest::Result<Self> {
        // The collector's key goes in a header of any name, and must not follow a redirect elsewhere.
        Ok(Self { client: reqwest::Client::builder().redirect(Policy::none()).build()?, seen })
    }
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let sent = self.client.send_bytes(request).await;
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = match &sent {
            Ok(answer) => Seen { failure: None, rejected: rejected(answer) },
            Err(error) => Seen { failure: Some(causes(error.as_ref())), rejected: None },
        };
        sent
    }
}

/// What an answer says of spans that the collector did not keep.
fn rejected(answer: &Response<Bytes>) -> Option<(usize, String)> {
    // Another status has its own body, and the exporter reads that status.
    let body = answer.status().is_success().then(|| answer.body().clone())?;
    let partial = ExportTraceServiceResponse::decode(body).ok()?.partial_success?;
    let spans = usize::try_from(partial.rejected_spans).ok().filter(|&spans| spans > 0)?;
    Some((spans, partial.error_message))
}

/// An error with all below it: the outermost says that sending failed, the innermost may say "os error 111" alone.
fn causes(error: &(dyn Error + Send + Sync + 'static)) -> String {
    let outermost: &dyn Error = error;
    let below = iter::successors(outermost.source(), |&error| error.source());
    // Its own words have the address, which the log line has anyway.
    let first = if error.is::<reqwest::Error>() { "no answer".to_owned() } else { error.to_string() };
    iter::once(first).chain(below.map(ToString::to_string)).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess;

    use super::*;

    fn answer(status: u16, rejected_spans: i64) -> Response<Bytes> {
        let partial = ExportTracePartialSuccess { rejected_spans, error_message: "too old".into() };
        let message = ExportTraceServiceResponse { partial_success: Some(partial) };
        Response::builder().status(status).body(message.encode_to_vec().into()).unwrap()
    }

    #[test]
    fn what_a_collector_did_not_keep_is_read_from_its_answer() {
        assert_eq!(rejected(&answer(200, 3)), Some((3, "too old".to_owned())));
        // A warning of something it kept, and nonsense.
        assert_eq!(rejected(&answer(200, 0)), None);
        assert_eq!(rejected(&answer(200, -1)), None);
        assert_eq!(rejected(&answer(400, 3)), None);
        assert_eq!(rejected(&Response::new(Bytes::new())), None);
        assert_eq!(rejected(&Response::new(Bytes::from_static(b"\xff<html>"))), None);
    }
}
