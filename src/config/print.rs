//! The configuration that results, as a file that would give it.

use std::num::NonZeroUsize;
use std::time::Duration;

use super::{Auto, Config, ConnectionsSettings, Count, Settings};

impl Config {
    /// The whole configuration as a TOML file that would give it.
    ///
    /// # Errors
    /// If a value cannot be written as TOML.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        let text = |duration: Duration| Some(humantime::format_duration(duration).to_string());
        toml::to_string(&Settings {
            models: Some(self.models.clone()),
            cache_dir: Some(self.cache.directory.clone()),
            cache_dir_bytes: Some(self.cache.bytes),
            require_signed: self.trusted.as_ref().map(|keys| keys.file().to_owned()),
            listen: Some(self.listen.to_string()),
            admin_listen: self.admin_listen.map(|address| address.to_string()),
            keys_file: self.keys_file.clone(),
            keys: self.keys_text.clone(),
            onnxruntime: self.execution.onnxruntime.clone(),
            device: Some(self.execution.device.to_string()),
            device_memory: Some(or_auto(self.execution.device_memory)),
            tensorrt_cache: self.execution.tensorrt_cache.clone(),
            default_model: self.default_model.clone(),
            sync_interval: text(self.sync_interval),
            recheck_interval: text(self.recheck_interval),
            truncate: self.http.truncate.map(|way| format!("{way:?}").to_lowercase()),
            sessions: Some(or_auto(self.wanted.sessions)),
            threads: self.wanted.threads.map(NonZeroUsize::get),
            lone_threads: Some(self.wanted.lone_threads.map_or(Count::Auto(Auto::Auto), Count::Of)),
            max_batch_tokens: Some(or_auto(self.wanted.batch_tokens)),
            max_queue_tokens: Some(self.limits.queue_tokens),
            bulk_share: Some(self.limits.bulk_share),
            cache_bytes: Some(self.http.cache_bytes),
            max_requests: Some(self.http.max_requests),
            max_inputs: Some(self.http.max_inputs),
            max_input_bytes: Some(self.http.max_input_bytes),
            max_body_bytes: Some(self.http.max_body_bytes),
            drain_delay: text(self.drain_delay),
            drain_timeout: text(self.drain_timeout),
            liveness_deadline: text(self.http.liveness_deadline),
            otlp_endpoint: self.trace.as_ref().map(|trace| trace.endpoint.clone()),
            otlp_endpoint_is_route: self.trace.as_ref().is_some_and(|trace| trace.is_route),
            otlp_protocol: self.trace.as_ref().map(|trace| format!("{:?}", trace.protocol).to_lowercase()),
            trace_sample: self.trace.as_ref().map(|trace| trace.sample),
            log_format: Some(format!("{:?}", self.log_format).to_lowercase()),
            log: Some(self.log.clone()),
            gate: self.gate.into(),
            guard: self.guard.into(),
            drift: self.drift.into(),
            connections: ConnectionsSettings::of(&self.connections, &self.http.bodies),
            tls: (&self.tls).into(),
        })
    }
}

fn or_auto(count: Option<NonZeroUsize>) -> Count {
    count.map_or(Count::Auto(Auto::Auto), |count| Count::Of(count.get()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CORES: NonZeroUsize = NonZeroUsize::new(4).unwrap();

    #[test]
    fn what_is_printed_gives_the_same_configuration() {
        let read = |text: &str| toml::from_str::<Settings>(text).unwrap().validate(CORES).unwrap();
        let config = read(
            "models = 's3://b/m'\ncache_dir = '/cache'\ncache_dir_bytes = 5\ndrain_delay = '1m 5s'\nsessions = 'auto'\n\
             max_batch_tokens = 512\nlone_threads = 0\nrecheck_interval = '0s'",
        );
        assert_eq!((config.cache.directory.to_str(), config.cache.bytes), (Some("/cache"), 5));
        let printed = config.to_toml().unwrap();
        let again = read(&printed);
        assert_eq!(format!("{again:?}"), format!("{config:?}"));
    }
}
