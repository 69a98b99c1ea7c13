//! One request to the hub, and the decision whether a failed one is worth another attempt.

use std::time::Duration;

use reqwest::header::{ACCEPT_ENCODING, AUTHORIZATION, RANGE, RETRY_AFTER};
use reqwest::{Response, StatusCode, Url};

use super::{Hub, HubError, Patience};

/// A failed attempt.
#[derive(Debug)]
pub(super) enum Failure {
    /// Another attempt would fail as well.
    Final(HubError),
    /// Worth another attempt, not before `wait` if the server said so; `error` is what to say if it was the last.
    Passing { error: HubError, wait: Option<Duration> },
}

impl From<HubError> for Failure {
    fn from(error: HubError) -> Self {
        Self::Final(error)
    }
}

/// What a request is for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subject<'a> {
    pub id: &'a str,
    /// For messages: a file, or the file list.
    pub what: &'a str,
}

impl Hub {
    /// Asks for the bytes of `url` from `offset` on. Beside success, 416 is an answer if `offset` is not 0.
    pub(super) async fn get(
        &self,
        url: &Url,
        offset: u64,
        subject: Subject<'_>,
    ) -> Result<Response, Failure> {
        // Sizes, ranges and digests are those of the file itself.
        let mut request = self.client.get(url.clone()).header(ACCEPT_ENCODING, "identity");
        if let Some(authorization) = &self.authorization {
            // Dropped by reqwest where a redirect leaves this scheme, host and port (tested in tests/it/hub.rs).
            request = request.header(AUTHORIZATION, authorization);
        }
        if offset > 0 {
            request = request.header(RANGE, format!("bytes={offset}-"));
        }
        let response = request.send().await.map_err(|error| self.interrupted(error, subject))?;
        let status = response.status();
        if status.is_success() || (status == StatusCode::RANGE_NOT_SATISFIABLE && offset > 0) {
            return Ok(response);
        }
        Err(self.refused(&response, subject))
    }

    /// A connection that was not made, or broke.
    pub(super) fn interrupted(&self, error: reqwest::Error, subject: Subject<'_>) -> Failure {
        let hopeless = error.is_builder() || error.is_redirect();
        // reqwest does not say which host of a chain of redirects it was.
        let host = self.endpoint.host_str().unwrap_or_default().to_owned();
        let error = HubError::Transfer {
            what: subject.what.to_owned(),
            host,
            attempts: if hopeless { 1 } else { self.patience.attempts },
            // The address may be a signed one, which is as good as a password while it lasts.
            source: error.without_url(),
        };
        if hopeless { Failure::Final(error) } else { Failure::Passing { error, wait: None } }
    }

    fn refused(&self, response: &Response, subject: Subject<'_>) -> Failure {
        let status = response.status();
        let what = subject.what.to_owned();
        let with_token = self.authorization.is_some();
        let error = match status {
            // The hub answers 401 to anonymous callers also where a licence has to be accepted.
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN
                if status == StatusCode::FORBIDDEN
                    || header(response, "x-error-code") == Some("GatedRepo") =>
            {
                let page = format!("{}/{}", self.endpoint.as_str().trim_end_matches('/'), subject.id);
                HubError::Forbidden { what, page, with_token, status: status.as_u16() }
            }
            StatusCode::UNAUTHORIZED => HubError::Unauthorized { what, with_token },
            StatusCode::NOT_FOUND | StatusCode::GONE => HubError::NotFound { what, with_token },
            _ => HubError::Status { what, status: status.as_u16() },
        };
        let passing = status.is_server_error()
            || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
        if !passing {
            return Failure::Final(error);
        }
        // A date instead of seconds is allowed and not sent by hubs; the own backoff does for it.
        let wait = header(response, RETRY_AFTER.as_str()).and_then(|text| text.trim().parse().ok());
        match wait.map(Duration::from_secs) {
            Some(wait) if wait > self.patience.retry_after => Failure::Final(HubError::Wait(wait)),
            wait => Failure::Passing { error, wait },
        }
    }
}

fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    response.headers().get(name).and_then(|value| value.to_str().ok())
}

/// Counts the failures in a row of one transfer.
#[derive(Debug)]
pub(super) struct Attempts<'a> {
    patience: &'a Patience,
    failures: u32,
}

impl<'a> Attempts<'a> {
    pub fn new(patience: &'a Patience) -> Self {
        Self { patience, failures: 0 }
    }

    /// Forgets the failures so far, after one that still brought the transfer on.
    pub fn progressed(&mut self) {
        self.failures = 0;
    }

    /// Waits until the next attempt, or gives the failure back if there shall be none.
    pub async fn next(&mut self, failure: Failure) -> Result<(), HubError> {
        let (error, wait) = match failure {
            Failure::Final(error) => return Err(error),
            Failure::Passing { error, wait } => (error, wait),
        };
        self.failures += 1;
        if self.failures >= self.patience.attempts {
            return Err(error);
        }
        let backoff = self.patience.backoff.saturating_mul(1 << (self.failures - 1).min(16));
        let wait = wait.unwrap_or_default().max(backoff);
        tracing::debug!(%error, ?wait, "trying again");
        tokio::time::sleep(wait).await;
        Ok(())
    }
}
