//! Who asks, and whether they may: one layer in front of every route, so that none can be forgotten.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use axum::RequestExt as _;
use axum::extract::{FromRequestParts, MatchedPath, RawPathParams, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::App;
use super::admin::{Peer, is_from_here};
use super::error::{ApiError, Kind};
use crate::embed::{EmbedError, Model};
use crate::keys::{Budget, Key, Keys, Role};

/// What a route asks of its caller where keys are set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needs {
    /// Of those who look after a process, and have no keys.
    Nothing,
    /// A key, whatever it is for.
    AnyKey,
    /// A key that is for this.
    Role(Role),
}

impl Needs {
    /// Of a route, or of a path that is none: whoever has no key need not know which there are.
    fn of(route: Option<&str>) -> Self {
        match route {
            Some("/livez" | "/readyz") => Self::Nothing,
            // KServe probes an Inference server at its own addresses of health; who sends it there can give it a key.
            None
            | Some(
                "/health" | "/v2/health/live" | "/v2/health/ready" | "/openapi.yaml" | "/docs"
                | "/docs/{file}",
            ) => Self::AnyKey,
            Some("/metrics") => Self::Role(Role::Metrics),
            Some(route) if route.starts_with("/admin/") => Self::Role(Role::Admin),
            Some(_) => Self::Role(Role::Embed),
        }
    }
}

/// Who asks. The layer puts it beside the request for handlers, and beside the answer for whoever counts and logs.
#[derive(Debug, Clone)]
pub(super) enum Caller {
    /// Nobody needs a key. The address that the request came from, if it came over a connection.
    Anybody(Option<IpAddr>),
    /// Nobody needs a key, and an administrator is whoever is on this machine.
    Loopback,
    /// Has no key, or none that is known.
    Nameless,
    /// Has a key.
    Key(Arc<Key>),
}

impl Caller {
    /// For logs, metrics and the rollout log.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Anybody(_) | Self::Nameless => "none",
            Self::Loopback => "loopback",
            Self::Key(key) => key.name(),
        }
    }

    /// What tells it from other callers: the name of its key, or its address where there are no keys. Of an IPv6 address its network of
    /// 64 bits, since one host may use all addresses of that.
    pub(super) fn id(&self) -> Arc<str> {
        match self {
            Self::Anybody(Some(address)) => match address.to_canonical() {
                IpAddr::V4(address) => address.to_string().into(),
                IpAddr::V6(address) => {
                    Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).to_string().into()
                }
            },
            Self::Anybody(None) | Self::Loopback | Self::Nameless | Self::Key(_) => self.name().into(),
        }
    }

    /// Whether it may know what is served.
    pub(super) fn may_see_models(&self) -> bool {
        !matches!(self, Self::Nameless)
    }

    /// The models that it may use; `None` for all.
    fn models(&self) -> Option<&[String]> {
        match self {
            Self::Key(key) => key.models(),
            Self::Anybody(_) | Self::Loopback | Self::Nameless => None,
        }
    }

    /// Whether it may use the model of this name.
    pub(super) fn may_use(&self, model: &str) -> bool {
        self.models().is_none_or(|models| models.iter().any(|name| name == model))
    }

    /// Refuses the model of the name `real`, which the caller calls `asked`, if it may not use it: in the same words whether there
    /// is such a model or not, and without its real name.
    ///
    /// # Errors
    /// 403, not 404: a client with the wrong key should not look for a mistake in the name. It tells nothing, since it depends on the
    /// key's own list alone.
    fn check_model(&self, asked: &str, real: &str) -> Result<(), ApiError> {
        if self.may_use(real) {
            return Ok(());
        }
        let (caller, models) = (self.name(), self.models().unwrap_or_default().join(", "));
        let message = format!("the key `{caller}` is not for the model `{asked}`; it is for: {models}");
        Err(ApiError::new(Kind::Forbidden, message).at("model"))
    }

    /// Takes tokens that were counted for it.
    ///
    /// # Errors
    /// 429 if it has used them up.
    pub(super) fn take_tokens(&self, count: usize) -> Result<(), ApiError> {
        self.budget().map_or(Ok(()), |budget| budget.take_tokens(count).map_err(used_up))
    }

    /// Takes more tokens of a request that was let in: those that are not there are owed.
    pub(super) fn owe_tokens(&self, count: usize) {
        if let Some(budget) = self.budget() {
            budget.owe_tokens(count);
        }
    }

    /// What it may still use up.
    pub(super) fn budget(&self) -> Option<Arc<Budget>> {
        match self {
            Self::Key(key) => Some(Arc::clone(key.budget())),
            Self::Anybody(_) | Self::Loopback | Self::Nameless => None,
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    /// Without the layer nobody is known, and nothing may be used.
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get().cloned().unwrap_or(Self::Nameless))
    }
}

impl App {
    /// `asked`, a name or `name@pin`, with the model's real name in place of an alias or a hub id, if the caller may use that model.
    /// What comes after works with the real name, so that an alias that is moved meanwhile leads to no other model.
    ///
    /// # Errors
    /// If the caller may not use it, or the name means several models.
    pub(super) fn allowed(&self, asked: &str, caller: &Caller) -> Result<String, ApiError> {
        let (name, pin) = asked.split_once('@').map_or((asked, None), |(name, pin)| (name, Some(pin)));
        let real = match self.0.embedder.real_name(name) {
            Ok(real) => real.unwrap_or_else(|| name.to_owned()),
            // The key does not learn which others it could have meant.
            Err(EmbedError::AmbiguousModel { models, .. })
                if !models.iter().any(|model| caller.may_use(model)) =>
            {
                name.to_owned()
            }
            Err(error) => return Err(seen_by(caller, error)),
        };
        caller.check_model(name, &real)?;
        Ok(pin.map_or_else(|| real.clone(), |pin| format!("{real}@{pin}")))
    }

    /// The name to ask for: what the caller asked for, if it may. Where it named none, and may not use every model, the server's
    /// default or its only one.
    pub(super) fn asked_model(
        &self,
        asked: Option<&str>,
        caller: &Caller,
    ) -> Result<Option<String>, ApiError> {
        if let Some(asked) = asked {
            return self.allowed(asked, caller).map(Some);
        }
        let default = self.0.embedder.resolve(None).map(|model| model.manifest.model.clone()).ok();
        match (caller.models(), default) {
            (None, _) => Ok(None),
            (Some(models), Some(default)) if models.contains(&default) => Ok(Some(default)),
            (Some([only]), _) => Ok(Some(only.clone())),
            (Some(models), _) => Err(EmbedError::NoDefaultModel(models.to_vec()).into()),
        }
    }

    /// The version that `asked` means now, if the caller may use it.
    pub(super) fn model(&self, asked: Option<&str>, caller: &Caller) -> Result<Arc<Model>, ApiError> {
        let asked = self.asked_model(asked, caller)?;
        self.0.embedder.resolve(asked.as_deref()).map_err(|error| seen_by(caller, error))
    }

    /// The stable version of every model that the caller may use.
    pub(super) fn models(&self, caller: &Caller) -> Vec<Arc<Model>> {
        let models = self.0.embedder.models().into_iter();
        models.filter(|model| caller.may_use(&model.manifest.model)).collect()
    }
}

/// An error as the caller may read it: without the names of models that it may not use.
pub(super) fn seen_by(caller: &Caller, error: EmbedError) -> ApiError {
    let is_seen = |version: &String| caller.may_use(version.split('@').next().unwrap_or_default());
    match error {
        EmbedError::UnknownModel { asked, available } => {
            EmbedError::UnknownModel { asked, available: available.into_iter().filter(is_seen).collect() }
        }
        EmbedError::AmbiguousModel { asked, models } => {
            EmbedError::AmbiguousModel { asked, models: models.into_iter().filter(is_seen).collect() }
        }
        error => error,
    }
    .into()
}

/// Lets nobody past who may not. The key leaves the request here: what is behind can neither log nor pass it on.
pub(super) async fn check(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let needs = Needs::of(route);
    let keys = app.0.keys.get();
    let (caller, verdict) =
        if keys.is_empty() { without_keys(&request, needs) } else { with_key(&keys, &request, needs) };
    // Before the body is looked at. A name that cannot be read is refused by whoever reads it.
    let params = request.extract_parts::<RawPathParams>().await.ok();
    let model = params.as_ref().and_then(|params| params.iter().find(|(name, _)| *name == "model"));
    let verdict =
        verdict.and_then(|()| model.map_or(Ok(()), |(_, model)| app.allowed(model, &caller).map(drop)));
    request.headers_mut().remove(header::AUTHORIZATION);
    let mut response = match verdict {
        Ok(()) => {
            request.extensions_mut().insert(caller.clone());
            next.run(request).await
        }
        Err(refused) => refused.into_response(),
    };
    response.extensions_mut().insert(caller);
    response
}

fn without_keys(request: &Request, needs: Needs) -> (Caller, Result<(), ApiError>) {
    let caller = Caller::Anybody(request.extensions().get::<Peer>().map(|Peer(address)| address.ip()));
    if needs != Needs::Role(Role::Admin) {
        return (caller, Ok(()));
    }
    if is_from_here(request) {
        return (Caller::Loopback, Ok(()));
    }
    let message = "no keys are set, so only this machine may ask: see --keys-file";
    (caller, Err(ApiError::new(Kind::Forbidden, message)))
}

fn with_key(keys: &Keys, request: &Request, needs: Needs) -> (Caller, Result<(), ApiError>) {
    let given = bearer(request.headers());
    let caller = match given.and_then(|key| keys.find(key)) {
        Some(key) => Caller::Key(Arc::clone(key)),
        None => Caller::Nameless,
    };
    let verdict = match (&caller, needs) {
        (_, Needs::Nothing) | (Caller::Key(_), Needs::AnyKey) => Ok(()),
        (Caller::Key(key), Needs::Role(role)) if !key.has(role) => {
            let message = format!("the key `{}` has not the role {role}, which this needs", key.name());
            Err(ApiError::new(Kind::Forbidden, message))
        }
        // The limits are for the work that vectors are: a rollback must get through.
        (Caller::Key(key), Needs::Role(Role::Embed)) => key.budget().take_request().map_err(used_up),
        (Caller::Key(_), Needs::Role(_)) => Ok(()),
        _ => {
            let message = if request.headers().contains_key(header::AUTHORIZATION) {
                "this key is not known here; it is sent as `authorization: Bearer KEY`"
            } else if request.uri().path().starts_with("/docs") {
                // Whoever opens it in a browser cannot do what the other sentence says.
                "this page needs a key, which a browser does not send: open it on a server without keys, or through a proxy \
                 that adds `authorization: Bearer KEY`"
            } else {
                "this needs a key: `authorization: Bearer KEY`"
            };
            Err(ApiError::new(Kind::Unauthorized, message))
        }
    };
    (caller, verdict)
}

/// The refusal of a key that has used up what it may.
pub(super) fn used_up(wait: Duration) -> ApiError {
    // Rounded up: whoever comes when told gets in.
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    let message = format!("this key has used up what it may for now; come again in {seconds} s");
    ApiError::later(Kind::RateLimited, message, Duration::from_secs(seconds))
}

/// The key that a request carries. Only in this header, which OpenAI's clients and those of text-embeddings-inference send: proxies
/// and logs know that it is secret, and do not know it of `api-key` or `x-api-key`. Two of them are none: a proxy may look at one
/// and this server at the other.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (given.next(), given.next()) else { return None };
    let (scheme, key) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(key.trim())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn an_ipv6_host_is_one_caller() {
        let id = |address: &str| Caller::Anybody(Some(address.parse().unwrap())).id();
        assert_eq!(id("2001:db8:1:2:3:4:5:6"), id("2001:db8:1:2:ffff::1"));
        assert_ne!(id("2001:db8:1:2::1"), id("2001:db8:1:3::1"));
        assert_eq!(&*id("::ffff:10.0.0.1"), "10.0.0.1");
        assert_ne!(id("10.0.0.1"), id("10.0.0.2"));
    }

    #[test]
    fn a_key_is_read_from_one_header_of_one_scheme() {
        let key = |values: &[&'static str]| {
            let values = values.iter().map(|value| (header::AUTHORIZATION, HeaderValue::from_static(value)));
            bearer(&values.collect::<Vec<_>>().into_iter().fold(
                HeaderMap::new(),
                |mut headers, (name, value)| {
                    headers.append(name, value);
                    headers
                },
            ))
            .map(str::to_owned)
        };
        for (values, expected) in [
            (&["Bearer abc"][..], Some("abc")),
            (&["bearer  abc "], Some("abc")),
            (&["Basic abc"], None),
            (&["abc"], None),
            (&["Bearer"], None),
            (&[], None),
            (&["Bearer abc", "Bearer abc"], None),
        ] {
            assert_eq!(key(values).as_deref(), expected, "{values:?}");
        }
    }

    #[test]
    fn without_keys_an_address_is_a_caller_and_of_ipv6_a_network() {
        let id = |address: &str| Caller::Anybody(address.parse().ok()).id();
        assert_eq!(&*id("10.0.0.1"), "10.0.0.1");
        assert_eq!(id("::ffff:10.0.0.1"), id("10.0.0.1"));
        assert_eq!(id("2001:db8:1:2:3::4"), id("2001:db8:1:2:5::6"));
        assert!(id("2001:db8:1:2::1") != id("2001:db8:1:3::1"));
        assert_eq!(&*id("none"), "none");
    }
}
