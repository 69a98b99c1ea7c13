//! Where clients' certificates are asked for: who has none gets no more than the health routes, since a kubelet's probe has none.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use crate::http::error::{ApiError, Kind};

/// What a client may ask for without one.
const HEALTH: [&str; 2] = ["/livez", "/readyz"];

/// Put beside each request of a connection whose client was asked for a certificate and had none.
#[derive(Debug, Clone, Copy)]
pub struct WithoutCertificate;

pub(in crate::http) async fn certified(request: Request, next: Next) -> Response {
    let is_bare = request.extensions().get::<WithoutCertificate>().is_some();
    if is_bare && !HEALTH.contains(&request.uri().path()) {
        let message =
            "this needs a client certificate of an authority that the server knows (tls.admin_client_ca)";
        return ApiError::new(Kind::Forbidden, message).into_response();
    }
    next.run(request).await
}
