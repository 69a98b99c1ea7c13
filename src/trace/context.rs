//! W3C trace context: whose child a request is, and what its answer says of its span.

use std::str::FromStr as _;

use axum::http::HeaderMap;
use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

/// A state that every vendor must hand on has so many bytes; a longer one is not read.
const LONGEST_STATE: usize = 512;

/// The caller's span. What is malformed is as if it was not there: tracing is no reason to refuse a request.
pub fn parent(headers: &HeaderMap) -> Option<SpanContext> {
    let mut values = headers.get_all("traceparent").iter();
    // Of two nobody knows which is true.
    let (Some(only), None) = (values.next(), values.next()) else { return None };
    let (trace, span, flags) = read(only.as_bytes())?;
    Some(SpanContext::new(trace, span, flags, true, state(headers)))
}

/// `00-<32 hex>-<16 hex>-<2 hex>`, in lower case. A later version may have more after another dash.
///
/// Not the SDK's propagator, which takes signs for digits.
fn read(value: &[u8]) -> Option<(TraceId, SpanId, TraceFlags)> {
    let text = std::str::from_utf8(value).ok()?;
    let mut fields = text.splitn(5, '-');
    let mut field = |digits: usize| {
        let field = fields.next()?;
        let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        (field.len() == digits && field.bytes().all(is_hex)).then_some(field)
    };
    let (version, trace, span, flags) = (field(2)?, field(32)?, field(16)?, field(2)?);
    if version == "ff" || (version == "00" && fields.next().is_some()) {
        return None;
    }
    let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED;
    (trace != TraceId::INVALID && span != SpanId::INVALID).then_some((trace, span, flags))
}

/// What other vendors have to say; nothing if it is malformed.
fn state(headers: &HeaderMap) -> TraceState {
    let values: Vec<_> = headers.get_all("tracestate").iter().map(|value| value.as_bytes()).collect();
    let joined = values.join(&b","[..]);
    let text = std::str::from_utf8(&joined).ok().filter(|text| text.len() <= LONGEST_STATE);
    text.and_then(|text| TraceState::from_str(text).ok()).unwrap_or_default()
}

/// The value of `traceresponse`: by it a caller that sent no context finds the trace.
pub fn response(span: &SpanContext) -> String {
    format!("00-{}-{}-{:02x}", span.trace_id(), span.span_id(), span.trace_flags().to_u8())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn told(traceparent: &str) -> Option<String> {
        parent(&headers(&[("traceparent", traceparent)])).map(|span| response(&span))
    }

    #[test]
    fn a_context_is_read_and_only_its_known_flag_kept() {
        assert_eq!(told(GOOD).as_deref(), Some(GOOD));
        let unsampled = GOOD.replace("-01", "-00");
        assert_eq!(told(&unsampled).as_deref(), Some(&*unsampled));
        assert_eq!(told(&GOOD.replace("-01", "-ff")).as_deref(), Some(GOOD));
        for later in [
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-comes",
        ] {
            assert_eq!(told(later).as_deref(), Some(GOOD), "{later}");
        }
    }

    #[test]
    fn what_is_malformed_is_no_context() {
        for malformed in [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "+0-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00_4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7_01",
        ] {
            assert_eq!(told(malformed), None, "{malformed}");
        }
        assert!(parent(&headers(&[("traceparent", GOOD), ("traceparent", GOOD)])).is_none());
        let mut not_text = HeaderMap::new();
        not_text.insert("traceparent", axum::http::HeaderValue::from_bytes(b"\xff").unwrap());
        assert!(parent(&not_text).is_none());
    }

    #[test]
    fn a_state_comes_along_if_it_can_be_read() {
        let of = |states: &[&str]| {
            let mut lines = vec![("traceparent", GOOD)];
            lines.extend(states.iter().map(|state| ("tracestate", *state)));
            parent(&headers(&lines)).unwrap().trace_state().header()
        };
        assert_eq!(of(&["a=1,b=2"]), "a=1,b=2");
        assert_eq!(of(&["a=1", "b=2"]), "a=1,b=2");
        assert_eq!(of(&["no state"]), "");
        assert_eq!(of(&[&format!("a={}", "1".repeat(511))]), "");
    }
}
