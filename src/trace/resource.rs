//! Who the spans are of.

use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::{EnvResourceDetector, TelemetryResourceDetector};
use opentelemetry_sdk::trace::{IdGenerator as _, RandomIdGenerator};

/// This process; `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_SERVICE_NAME` go over what it says of itself.
pub(super) fn resource(variable: impl Fn(&str) -> Option<String>) -> Resource {
    let own = Resource::builder_empty().with_attributes([
        KeyValue::new("service.name", "sextant"),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        // Every start is another instance: spans of two must not look like one's.
        KeyValue::new("service.instance.id", RandomIdGenerator::default().new_trace_id().to_string()),
    ]);
    let told = own
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_detector(Box::new(EnvResourceDetector::new()));
    match variable("OTEL_SERVICE_NAME").filter(|name| !name.is_empty()) {
        Some(name) => told.with_service_name(name).build(),
        None => told.build(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_the_service_can_be_given() {
        let name = |given: &str| {
            let resource = resource(|name| (name == "OTEL_SERVICE_NAME").then(|| given.to_owned()));
            resource.get(&"service.name".into()).unwrap().to_string()
        };
        assert_eq!(name("search"), "search");
        assert_eq!(name(""), "sextant");
    }
}
