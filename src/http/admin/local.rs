//! Who is an administrator where no keys are set: whoever is on this machine.

use std::net::{IpAddr, SocketAddr};

use axum::extract::Request;
use axum::http::uri::Authority;
use axum::http::{HeaderName, header};

/// Address of the other end of a connection, put beside each request when its connection is accepted.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// Headers that a proxy adds, most of them with the address of its client, and the one that a browser adds for a page of another host. A
/// client on this machine has no use for any of them.
const TELLING: [&str; 17] = [
    "cdn-loop",
    "cf-connecting-ip",
    "cf-connecting-ipv6",
    "cf-pseudo-ipv4",
    "client-ip",
    "fastly-client-ip",
    "forwarded",
    "forwarded-for",
    "origin",
    "true-client-ip",
    "via",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-forwarded",
    "x-host",
    "x-remote-addr",
    "x-remote-ip",
];

/// The same of headers of which there are many: `x-forwarded-for`, `x-real-ip`, `x-original-forwarded-for`, `x-envoy-external-address`,
/// `x-azure-clientip`, `x-appengine-user-ip`, `x-amzn-trace-id`.
const TELLING_BEGINNINGS: [&str; 8] = [
    "x-amzn-",
    "x-appengine-",
    "x-azure-",
    "x-envoy-",
    "x-forwarded-",
    "x-original-",
    "x-proxyuser-",
    "x-real-",
];

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
        TELLING.contains(&name.as_str()) || TELLING_BEGINNINGS.iter().any(|it| name.as_str().starts_with(it))
    };
    let hosts = request.headers().get_all(header::HOST).iter();
    let hosts = hosts.map(|host| host.to_str().ok()?.parse::<Authority>().ok());
    // A request may name its host in its target and in several headers. A proxy may have read another of these names than this server
    // would, so each must be this machine's.
    let mut names = request.uri().authority().cloned().map(Some).into_iter().chain(hosts).peekable();
    let is_here = |authority: Option<Authority>| {
        // Parsers disagree about what is the host of `a@b`, and no client has a reason to send a user's name there.
        let authority = authority.filter(|authority| !authority.as_str().contains('@'));
        authority.is_some_and(|authority| {
            let host = authority.host().trim_matches(['[', ']']);
            host == "localhost" || host.parse().is_ok_and(is_local)
        })
    };
    request.headers().keys().any(tells) || names.peek().is_none() || !names.all(is_here)
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
