//! Where traces go: our settings, and below them the variables that OpenTelemetry's own SDKs read.

use axum::http::Uri;

use super::{Check, Settings};
use crate::trace::{Protocol, TraceConfig};

impl Settings {
    /// These settings over the standard variables for an exporter of traces; `variable` reads the environment. What an
    /// exporter reads by itself (headers, timeout, sampler, attributes of the resource) is left to it.
    pub fn over_standard(mut self, variable: impl Fn(&str) -> Option<String>) -> Self {
        let given = |name: &str| variable(name).filter(|value| !value.is_empty());
        let of_exporter = |what: &str| {
            let traces = given(&format!("OTEL_EXPORTER_OTLP_TRACES_{what}"));
            traces.or_else(|| given(&format!("OTEL_EXPORTER_OTLP_{what}")))
        };
        let is_off = given("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
            || given("OTEL_TRACES_EXPORTER").is_some_and(|value| value == "none");
        if self.otlp_endpoint.is_none() && !is_off {
            self.otlp_endpoint = of_exporter("ENDPOINT");
        }
        if self.otlp_endpoint.is_some() && self.otlp_protocol.is_none() {
            self.otlp_protocol = of_exporter("PROTOCOL");
        }
        self
    }
}

impl Check {
    pub(super) fn trace(&mut self, settings: &Settings) -> Option<TraceConfig> {
        let protocol = match settings.otlp_protocol.as_deref().unwrap_or("http") {
            "http" | "http/protobuf" => Protocol::Http,
            "grpc" => Protocol::Grpc,
            other => self.wrong("otlp_protocol", other, "http or grpc"),
        };
        if let Some(share) = settings.trace_sample.filter(|share| !(0.0..=1.0).contains(share)) {
            self.mistakes.push(format!("`trace_sample` is `{share}`: expected 0 to 1"));
        }
        let endpoint = settings.otlp_endpoint.clone().filter(|endpoint| !endpoint.is_empty())?;
        if let Some(expected) = fault(&endpoint, protocol) {
            self.mistakes.push(format!("`otlp_endpoint` is `{endpoint}`: expected {expected}"));
        }
        Some(TraceConfig { endpoint, protocol, sample: settings.trace_sample })
    }
}

/// What an endpoint should be, if it is not.
fn fault(endpoint: &str, protocol: Protocol) -> Option<&'static str> {
    let url = endpoint.parse::<Uri>().ok();
    let Some(url) =
        url.filter(|url| matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some())
    else {
        return Some("a URL, as http://collector:4318, or http://collector:4317 for grpc");
    };
    if url.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Some("no password in the address: set OTEL_EXPORTER_OTLP_HEADERS=authorization=...");
    }
    if url.query().is_some() {
        return Some("nothing after the path");
    }
    (protocol == Protocol::Grpc && url.path() != "/").then_some("no path for grpc, as http://collector:4317")
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;

    fn validate(toml: &str) -> Result<Option<TraceConfig>, String> {
        let settings: Settings = toml::from_str(&format!("models = 'a'\n{toml}")).unwrap();
        let validated = settings.validate(NonZeroUsize::MIN);
        validated.map(|config| config.trace).map_err(|error| error.to_string())
    }

    #[test]
    fn without_an_endpoint_nothing_is_traced() {
        assert_eq!(validate(""), Ok(None));
        assert_eq!(validate("otlp_endpoint = ''\notlp_protocol = 'grpc'\ntrace_sample = 0.5"), Ok(None));
        let trace =
            validate("otlp_endpoint = 'http://c:4317'\notlp_protocol = 'grpc'\ntrace_sample = 0.5").unwrap();
        let expected =
            TraceConfig { endpoint: "http://c:4317".into(), protocol: Protocol::Grpc, sample: Some(0.5) };
        assert_eq!(trace, Some(expected));
    }

    #[test]
    fn each_mistake_says_what_to_write() {
        for (toml, expected) in [
            ("otlp_endpoint = 'collector:4318'", "http://collector:4318"),
            ("otlp_endpoint = 'ftp://c'", "http://collector:4318"),
            ("otlp_endpoint = 'http://a:b@c'", "OTEL_EXPORTER_OTLP_HEADERS"),
            ("otlp_endpoint = 'http://c/?a'", "nothing after the path"),
            ("otlp_endpoint = 'http://c/v1/traces'\notlp_protocol = 'grpc'", "no path for grpc"),
            ("otlp_protocol = 'http/json'", "`otlp_protocol` is `http/json`: expected http or grpc"),
            ("trace_sample = 1.5", "`trace_sample` is `1.5`: expected 0 to 1"),
            ("trace_sample = nan", "`trace_sample` is `NaN`: expected 0 to 1"),
        ] {
            let error = validate(toml).unwrap_err();
            assert!(error.contains(expected), "{toml}: {error}");
        }
    }

    #[test]
    fn the_standard_variables_lie_below_the_settings() {
        let over = |settings: Settings, variables: &[(&str, &str)]| {
            let variable = |name: &str| {
                variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
            };
            let settings = settings.over_standard(variable);
            (settings.otlp_endpoint, settings.otlp_protocol)
        };
        let text = |text: &str| Some(text.to_owned());
        let all = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all");
        let of_traces = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://traces");
        let grpc = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
        let given = || Settings { otlp_endpoint: text("http://ours"), ..Settings::default() };
        assert_eq!(over(given(), &[all, grpc]), (text("http://ours"), text("grpc")));
        assert_eq!(over(Settings::default(), &[all, of_traces]), (text("http://traces"), None));
        assert_eq!(over(Settings::default(), &[all, ("OTEL_SDK_DISABLED", "true")]), (None, None));
        assert_eq!(over(Settings::default(), &[all, ("OTEL_TRACES_EXPORTER", "none")]), (None, None));
        assert_eq!(over(Settings::default(), &[grpc, ("OTEL_EXPORTER_OTLP_ENDPOINT", "")]), (None, None));
    }
}
