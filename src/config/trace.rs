//! Where traces go: our settings, and below them the variables that OpenTelemetry's own SDKs read.

use axum::http::Uri;
use axum::http::uri::Authority;

use super::{Check, ConfigError, Settings};
use crate::trace::{Protocol, TraceConfig};

impl Settings {
    /// These settings over the standard variables for an exporter of traces; `variable` reads the environment. What an
    /// exporter reads by itself (headers, timeout, attributes of the resource) is left to it.
    ///
    /// # Errors
    /// If a variable asks for what there is not: the exporter would go on with something else.
    pub fn over_standard(mut self, variable: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let given = |name: &str| variable(name).filter(|value| !value.is_empty());
        let of_exporter = |what: &str| {
            let names = [format!("OTEL_EXPORTER_OTLP_TRACES_{what}"), format!("OTEL_EXPORTER_OTLP_{what}")];
            names.into_iter().find_map(|name| given(&name).map(|value| (name, value)))
        };
        let is_off = given("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
            || given("OTEL_TRACES_EXPORTER").is_some_and(|value| value == "none");
        if self.otlp_endpoint.is_none()
            && !is_off
            && let Some((name, endpoint)) = of_exporter("ENDPOINT")
        {
            self.otlp_endpoint_is_route = name == "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
            self.otlp_endpoint = Some(endpoint);
        }
        if self.otlp_endpoint.as_ref().is_none_or(String::is_empty) {
            return Ok(self);
        }
        if self.otlp_protocol.is_none() {
            self.otlp_protocol = of_exporter("PROTOCOL").map(|(_, protocol)| protocol);
        }
        let mut mistakes = Vec::new();
        if self.trace_sample.is_none() {
            let share = share(given("OTEL_TRACES_SAMPLER"), given("OTEL_TRACES_SAMPLER_ARG"));
            self.trace_sample = share.unwrap_or_else(|mistake| {
                mistakes.push(mistake);
                None
            });
        }
        if let Some((name, value)) = of_exporter("COMPRESSION").filter(|(_, value)| value != "none") {
            mistakes.push(format!("`{name}` is `{value}`: expected none, spans are sent as they are"));
        }
        if let Some((name, value)) = of_exporter("TIMEOUT").filter(|(_, value)| value.parse::<u64>().is_err())
        {
            mistakes.push(format!("`{name}` is `{value}`: expected milliseconds, as 10000"));
        }
        if mistakes.is_empty() { Ok(self) } else { Err(ConfigError::Invalid(mistakes)) }
    }
}

/// The share that the standard variables name, if they do. Samplers that do not heed the caller's flag are refused: a trace
/// would have holes, or spans that nobody wanted.
fn share(sampler: Option<String>, argument: Option<String>) -> Result<Option<f64>, String> {
    let Some(sampler) = sampler else { return Ok(None) };
    match sampler.as_str() {
        "parentbased_always_on" => Ok(Some(1.0)),
        "parentbased_always_off" => Ok(Some(0.0)),
        "parentbased_traceidratio" => {
            let Some(argument) = argument else { return Ok(Some(1.0)) };
            let share = argument.parse().ok().filter(|share| (0.0..=1.0).contains(share));
            share
                .map(Some)
                .ok_or_else(|| format!("`OTEL_TRACES_SAMPLER_ARG` is `{argument}`: expected 0 to 1, as 0.1"))
        }
        _ => Err(format!(
            "`OTEL_TRACES_SAMPLER` is `{sampler}`: expected parentbased_always_on, parentbased_always_off or \
             parentbased_traceidratio with the share in OTEL_TRACES_SAMPLER_ARG"
        )),
    }
}

impl Check {
    pub(super) fn trace(&mut self, settings: &Settings) -> Option<TraceConfig> {
        let protocol = match settings.otlp_protocol.as_deref().unwrap_or("http") {
            "http" | "http/protobuf" => Protocol::Http,
            "grpc" => Protocol::Grpc,
            other => self.wrong("otlp_protocol", other, "http or grpc"),
        };
        let sample = settings.trace_sample.unwrap_or(1.0);
        if !(0.0..=1.0).contains(&sample) {
            self.mistakes.push(format!("`trace_sample` is `{sample}`: expected 0 to 1"));
        }
        let endpoint = settings.otlp_endpoint.clone().filter(|endpoint| !endpoint.is_empty())?;
        self.mistakes.extend(fault(&endpoint, protocol));
        Some(TraceConfig { endpoint, is_route: settings.otlp_endpoint_is_route, protocol, sample })
    }
}

/// What is wrong with an endpoint, if anything. What may be a secret is not repeated.
fn fault(endpoint: &str, protocol: Protocol) -> Option<String> {
    let url = endpoint.parse::<Uri>().ok();
    let host = url.as_ref().map_or(endpoint, |url| url.authority().map_or("", Authority::as_str));
    if host.contains('@') {
        let instead = "set OTEL_EXPORTER_OTLP_HEADERS=authorization=...";
        return Some(format!("`otlp_endpoint` has a password in it: {instead}"));
    }
    if endpoint.contains('?') {
        return Some("`otlp_endpoint` has a query: expected nothing after the path".to_owned());
    }
    let is_good = |url: &Uri| matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some();
    let expected = match url.filter(is_good) {
        None => "a URL, as http://collector:4318, or http://collector:4317 for grpc",
        Some(url) if protocol == Protocol::Grpc && url.path() != "/" => {
            "no path for grpc, as http://collector:4317"
        }
        Some(_) => return None,
    };
    Some(format!("`otlp_endpoint` is `{endpoint}`: expected {expected}"))
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
        let expected = TraceConfig {
            endpoint: "http://c:4317".into(),
            is_route: false,
            protocol: Protocol::Grpc,
            sample: 0.5,
        };
        assert_eq!(trace, Some(expected));
        assert_eq!(validate("otlp_endpoint = 'http://c'").unwrap().unwrap().sample, 1.0);
    }

    #[test]
    fn each_mistake_says_what_to_write() {
        for (toml, expected) in [
            ("otlp_endpoint = 'collector:4318'", "http://collector:4318"),
            ("otlp_endpoint = 'ftp://c'", "http://collector:4318"),
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
    fn what_may_be_a_secret_is_not_repeated() {
        for (endpoint, expected) in [
            (
                "http://user:s3cret@c",
                "has a password in it: set OTEL_EXPORTER_OTLP_HEADERS=authorization=...",
            ),
            ("user:s3cret@c:4318", "has a password in it"),
            ("user:s3cret@c/v1/traces", "has a password in it"),
            ("htp://user:s3cret@c", "has a password in it"),
            ("http://c/?key=s3cret", "has a query: expected nothing after the path"),
            ("c/?key=s3cret", "has a query"),
        ] {
            let error = validate(&format!("otlp_endpoint = '{endpoint}'")).unwrap_err();
            assert!(error.contains(expected) && !error.contains("s3cret"), "{endpoint}: {error}");
        }
    }

    fn over(settings: Settings, variables: &[(&str, &str)]) -> Result<Settings, String> {
        let variable = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        settings.over_standard(variable).map_err(|error| error.to_string())
    }

    fn ours() -> Settings {
        Settings { otlp_endpoint: Some("http://ours".into()), ..Settings::default() }
    }

    #[test]
    fn the_standard_variables_lie_below_the_settings() {
        let over = |settings, variables: &[_]| {
            let settings = over(settings, variables).unwrap();
            (settings.otlp_endpoint, settings.otlp_endpoint_is_route, settings.otlp_protocol)
        };
        let text = |text: &str| Some(text.to_owned());
        let all = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all");
        let of_traces = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://traces");
        let grpc = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
        assert_eq!(over(ours(), &[all, of_traces, grpc]), (text("http://ours"), false, text("grpc")));
        assert_eq!(over(Settings::default(), &[all]), (text("http://all"), false, None));
        assert_eq!(over(Settings::default(), &[all, of_traces]), (text("http://traces"), true, None));
        let nothing = (None, false, None);
        assert_eq!(over(Settings::default(), &[all, ("OTEL_SDK_DISABLED", "true")]), nothing);
        assert_eq!(over(Settings::default(), &[of_traces, ("OTEL_TRACES_EXPORTER", "none")]), nothing);
        assert_eq!(over(Settings::default(), &[grpc, ("OTEL_EXPORTER_OTLP_ENDPOINT", "")]), nothing);
    }

    #[test]
    fn what_is_printed_leads_to_the_same_route() {
        let given = Settings { models: Some("a".into()), ..Settings::default() };
        let given = over(given, &[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c/v0.2")]).unwrap();
        let config = given.validate(NonZeroUsize::MIN).unwrap();
        assert!(config.trace.as_ref().unwrap().is_route);
        let printed: Settings = toml::from_str(&config.to_toml().unwrap()).unwrap();
        assert_eq!(printed.validate(NonZeroUsize::MIN).unwrap().trace, config.trace);
    }

    #[test]
    fn the_standard_sampler_is_a_share() {
        let share = |settings, sampler, argument| {
            let variables = [("OTEL_TRACES_SAMPLER", sampler), ("OTEL_TRACES_SAMPLER_ARG", argument)];
            over(settings, &variables).unwrap().trace_sample
        };
        assert_eq!(share(ours(), "", ""), None);
        assert_eq!(share(ours(), "parentbased_always_on", ""), Some(1.0));
        assert_eq!(share(ours(), "parentbased_always_off", "0.5"), Some(0.0));
        assert_eq!(share(ours(), "parentbased_traceidratio", "0.25"), Some(0.25));
        assert_eq!(share(ours(), "parentbased_traceidratio", ""), Some(1.0));
        assert_eq!(
            share(Settings { trace_sample: Some(0.5), ..ours() }, "parentbased_always_on", ""),
            Some(0.5)
        );
    }

    #[test]
    fn a_standard_variable_that_cannot_be_followed_is_refused() {
        let ratio = ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio");
        for (variables, expected) in [
            (
                &[ratio, ("OTEL_TRACES_SAMPLER_ARG", "10%")][..],
                "`OTEL_TRACES_SAMPLER_ARG` is `10%`: expected 0 to 1",
            ),
            (&[ratio, ("OTEL_TRACES_SAMPLER_ARG", "10")], "`OTEL_TRACES_SAMPLER_ARG` is `10`"),
            (
                &[("OTEL_TRACES_SAMPLER", "traceidratio")],
                "`OTEL_TRACES_SAMPLER` is `traceidratio`: expected parentbased_always_on",
            ),
            (
                &[("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")],
                "`OTEL_EXPORTER_OTLP_COMPRESSION` is `gzip`: expected none",
            ),
            (
                &[
                    ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "gzip"),
                    ("OTEL_EXPORTER_OTLP_COMPRESSION", "none"),
                ],
                "`OTEL_EXPORTER_OTLP_TRACES_COMPRESSION` is `gzip`",
            ),
            (
                &[("OTEL_EXPORTER_OTLP_TIMEOUT", "10s")],
                "`OTEL_EXPORTER_OTLP_TIMEOUT` is `10s`: expected milliseconds",
            ),
        ] {
            let error = over(ours(), variables).unwrap_err();
            assert!(error.contains(expected), "{variables:?}: {error}");
            assert!(over(Settings::default(), variables).is_ok(), "{variables:?}: nothing is traced");
        }
        assert!(over(ours(), &[("OTEL_EXPORTER_OTLP_COMPRESSION", "none")]).is_ok());
    }
}
