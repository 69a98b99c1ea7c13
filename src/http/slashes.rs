//! Names with a slash in paths, as a hub has them: `/v1/models/organisation/name` is served as `/v1/models/organisation%2Fname`.
//!
//! OpenAI's clients send the second form and tritonclient the first. Routes of their own for the first would be a second table, and
//! one more label for each in the metrics.

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::Uri;
use axum::http::uri::PathAndQuery;
use tower::util::MapRequest;

/// The part of a route that is a model's name.
const MODEL: &str = "{model}";

/// Lets `router`, which has these routes, be asked for names with a slash.
pub(super) fn in_one_part(router: Router, routes: impl Iterator<Item = &'static str>) -> Router {
    let routes: Arc<[Named]> = routes.filter_map(Named::of).collect();
    let join = move |mut request: Request| {
        if let Some(uri) = joined_uri(&routes, request.uri()) {
            *request.uri_mut() = uri;
        }
        request
    };
    Router::new().fallback_service(MapRequest::new(router, join))
}

/// A route that names a model.
struct Named {
    /// Before the name.
    begin: &'static str,
    /// The parts behind it.
    end: Vec<&'static str>,
}

impl Named {
    fn of(route: &'static str) -> Option<Self> {
        let (begin, end) = route.split_once(MODEL)?;
        Some(Self { begin, end: end.split('/').filter(|part| !part.is_empty()).collect() })
    }
}

fn joined_uri(routes: &[Named], uri: &Uri) -> Option<Uri> {
    let path = joined(routes, uri.path())?;
    let whole = uri.query().map_or_else(|| path.clone(), |query| format!("{path}?{query}"));
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(whole).ok()?);
    Uri::from_parts(parts).ok()
}

/// The path with the slash of its name escaped; none if its name has none. A path that is a route with a plain name stays.
fn joined(routes: &[Named], path: &str) -> Option<String> {
    let mut found = None;
    for Named { begin, end } in routes {
        let Some(rest) = path.strip_prefix(begin) else { continue };
        let parts: Vec<&str> = rest.split('/').collect();
        let Some(length) = parts.len().checked_sub(end.len()) else { continue };
        let (name, behind) = parts.split_at(length);
        let fits = behind.iter().zip(end).all(|(part, route)| route.starts_with('{') || part == route);
        match name {
            [_] if fits => return None,
            [organisation, name] if fits && !organisation.is_empty() && !name.is_empty() => {
                let one = format!("{begin}{organisation}%2F{name}");
                found = Some([&[one.as_str()], behind].concat().join("/"));
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slash_of_a_name_is_escaped_and_no_other() {
        let routes: Vec<Named> =
            crate::http::known_routes().into_iter().filter_map(|(_, route)| Named::of(route)).collect();
        for (path, expected) in [
            ("/v1/models/a/b", Some("/v1/models/a%2Fb")),
            ("/v1/models/a/b@2", Some("/v1/models/a%2Fb@2")),
            ("/v2/models/a/b", Some("/v2/models/a%2Fb")),
            ("/v2/models/a/b/infer", Some("/v2/models/a%2Fb/infer")),
            ("/v2/models/a/b/ready", Some("/v2/models/a%2Fb/ready")),
            ("/v2/models/a/b/versions/2", Some("/v2/models/a%2Fb/versions/2")),
            ("/v2/models/a/b/versions/2/infer", Some("/v2/models/a%2Fb/versions/2/infer")),
            ("/admin/v1/models/a/b", Some("/admin/v1/models/a%2Fb")),
            ("/admin/v1/models/a/b/rollback", Some("/admin/v1/models/a%2Fb/rollback")),
            ("/v1/models/a", None),
            ("/v1/models/a%2Fb", None),
            ("/v1/models/a/", None),
            ("/v1/models//b", None),
            ("/v1/models/a/b/c", None),
            ("/v2/models/a/infer", None),
            ("/v2/models/a/versions/2", None),
            ("/v2/models/a/versions/2/ready", None),
            ("/admin/v1/models/a/drift", None),
            ("/embed", None),
        ] {
            assert_eq!(joined(&routes, path).as_deref(), expected, "{path}");
        }
    }
}
