//! Where a client on the server's own machine asks whether it is alive.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::{Check, ConfigError, DEADLINE, LISTEN, Settings};

impl Settings {
    /// Where the health routes of a server with these settings answer on its own machine, as `http://address`, and how long
    /// to wait for `/livez`: two seconds more than the server waits itself, since its answer says what is stuck.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] if one of the settings asked is wrong; the others are not looked at.
    pub fn health(&self) -> Result<(String, Duration), ConfigError> {
        let mut check = Check::default();
        let mut address = match &self.admin_listen {
            Some(given) => check.parse("admin_listen", Some(given), LISTEN),
            None => check.parse("listen", self.listen.as_deref(), LISTEN),
        };
        // All addresses of the machine are no address to connect to.
        if address.ip() == Ipv4Addr::UNSPECIFIED {
            address.set_ip(Ipv4Addr::LOCALHOST.into());
        } else if address.ip() == Ipv6Addr::UNSPECIFIED {
            address.set_ip(Ipv6Addr::LOCALHOST.into());
        }
        let deadline = check.time("liveness_deadline", self.liveness_deadline.as_deref(), DEADLINE);
        let patience = deadline.saturating_add(Duration::from_secs(2));
        let has_own = self.admin_listen.is_some() && self.tls.admin_cert.is_some();
        let scheme = if has_own || self.tls.cert.is_some() { "https" } else { "http" };
        if check.mistakes.is_empty() {
            Ok((format!("{scheme}://{address}"), patience))
        } else {
            Err(ConfigError::Invalid(check.mistakes))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(toml: &str) -> Settings {
        toml::from_str(toml).unwrap()
    }

    #[test]
    fn health_is_asked_where_it_answers() {
        for (toml, expected) in [
            ("", "http://127.0.0.1:8080"),
            ("listen = '0.0.0.0:80'", "http://127.0.0.1:80"),
            ("listen = '[::]:80'", "http://[::1]:80"),
            ("listen = '10.0.0.7:80'", "http://10.0.0.7:80"),
            ("tls.cert = 'a'", "https://127.0.0.1:8080"),
            ("tls.cert = 'a'\nadmin_listen = '0.0.0.0:90'", "https://127.0.0.1:90"),
            ("tls.admin_cert = 'a'\nadmin_listen = '0.0.0.0:90'", "https://127.0.0.1:90"),
            ("listen = 'wrong, and not asked'\nadmin_listen = '0.0.0.0:90'", "http://127.0.0.1:90"),
        ] {
            let (address, patience) = settings(toml).health().unwrap();
            assert_eq!((address.as_str(), patience.as_secs()), (expected, 12));
        }
        let deadline = settings("liveness_deadline = '1s'").health().unwrap().1;
        assert_eq!(deadline.as_secs(), 3);
        let error =
            settings("admin_listen = '9090'\nliveness_deadline = 'soon'").health().unwrap_err().to_string();
        assert!(error.contains("`admin_listen`") && error.contains("`liveness_deadline`"), "{error}");
    }
}
