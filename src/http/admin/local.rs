//! Who is an administrator where no keys are set: whoever is on this machine.

use std::net::{IpAddr, SocketAddr};

use axum::extract::Request;
use axum::http::uri::Authority;
use axum::http::{HeaderName, header};

/// Address of the other end of a connection, put beside each request when its connection is accepted.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// Whether a request is from this machine, and not through a proxy on it that says so, nor from a page in a browser.
pub(in crate::http) fn is_from_here(request: &Request) -> bool {
    let peer = request.extensions().get::<Peer>();
    peer.is_some_and(|Peer(address)| is_local(address.ip())) && !came_from_elsewhere(request)
}

fn is_local(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// Whether a proxy on this machine passed it on, or a page in a browser on it had it sent: what says so, or another host's name.
/// A proxy that says nothing is not seen: behind one, set a key.
fn came_from_elsewhere(request: &Request) -> bool {
    let tells = |name: &HeaderName| {
        ["forwarded", "via", "x-real-ip", "origin"].contains(&name.as_str())
            || name.as_str().starts_with("x-forwarded-")
    };
    let host =
        request.headers().get(header::HOST).and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
    let named = request.uri().authority().cloned().or(host);
    let is_here = |authority: &Authority| {
        let host = authority.host().trim_matches(['[', ']']);
        host == "localhost" || host.parse().is_ok_and(is_local)
    };
    request.headers().keys().any(tells) || !named.as_ref().is_some_and(is_here)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_itself_by_either_protocol() {
        for (address, local) in [
            ("127.0.0.1", true),
            ("127.8.0.1", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("10.0.0.1", false),
            ("::2", false),
        ] {
            assert_eq!(is_local(address.parse().unwrap()), local, "{address}");
        }
    }
}
