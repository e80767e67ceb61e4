//! What can be wrong with values that can all be read.

use super::Config;
use std::time::Duration;

impl Config {
    /// What is wrong with the values taken together, each a sentence with the key.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut check = |holds: bool, fault: &str| {
            if !holds {
                faults.push(fault.to_owned());
            }
        };
        check(
            crate::ids::check_id("app", &self.app).is_ok(),
            "app: must be 1 to 64 of letters, digits, '.', '_' and '-'",
        );
        let gateway = &self.gateway;
        check(gateway.max_body.bytes() > 0, "gateway.max_body: must be more than 0");
        check(
            gateway.max_frame.bytes()
                >= (gateway.max_body.bytes() / 3).saturating_mul(4).saturating_add(4096),
            "gateway.max_frame: must be at least four thirds of gateway.max_body and 4KiB",
        );
        check(
            gateway.max_outbox.bytes() >= gateway.max_frame.bytes(),
            "gateway.max_outbox: must be at least gateway.max_frame",
        );
        check(gateway.max_in_flight > 0, "gateway.max_in_flight: must be more than 0");
        check(gateway.heartbeat >= Duration::from_secs(1), "gateway.heartbeat: must be at least 1s");
        check(!gateway.hello_timeout.is_zero(), "gateway.hello_timeout: must be more than 0s");
        let (day, year) = (Duration::from_secs(86_400), Duration::from_secs(366 * 86_400));
        for (name, value, most, written) in [
            ("gateway.hello_timeout", gateway.hello_timeout, day, "1day"),
            ("gateway.heartbeat", gateway.heartbeat, day, "1day"),
            ("gateway.drain", gateway.drain, day, "1day"),
            ("gateway.drain_grace", gateway.drain_grace, day, "1day"),
            ("discovery.dns_refresh", self.discovery.dns_refresh, day, "1day"),
            ("discovery.drain_grace", self.discovery.drain_grace, day, "1day"),
            ("pusher.deliver_timeout", self.pusher.deliver_timeout, day, "1day"),
            ("auth.access_token_life", self.auth.access_token_life, year, "1year"),
            ("kafka.produce_timeout", self.kafka.produce_timeout, day, "1day"),
        ] {
            // Beyond that, adding a time to now would overflow somewhere.
            check(value <= most, &format!("{name}: must be at most {written}"));
        }
        check(self.consumer.max_batch > 0, "consumer.max_batch: must be more than 0");
        check(self.db.max_connections > 0, "db.max_connections: must be more than 0");
        check(self.db.max_group_members > 1, "db.max_group_members: must be more than 1");
        check(
            !self.db.schema.is_empty()
                && self.db.schema.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'),
            "db.schema: must be of lower-case letters, digits and '_'",
        );
        check(
            self.auth.access_token_life >= Duration::from_secs(1),
            "auth.access_token_life: must be at least 1s",
        );
        check(self.auth.argon2_memory_kib >= 8, "auth.argon2_memory_kib: must be at least 8");
        check(self.auth.argon2_passes > 0, "auth.argon2_passes: must be more than 0");
        for (index, key) in self.auth.keys.iter().enumerate() {
            check(
                key.expose().split_once('=').is_some_and(|(id, secret)| {
                    crate::ids::check_id("key id", id).is_ok() && secret.len() >= 32
                }),
                &format!("auth.keys[{index}]: must be ID=SECRET with a secret of at least 32 bytes"),
            );
        }
        let limits = &self.limits;
        for (name, value) in [
            ("sends_per_second", limits.sends_per_second),
            ("send_burst", limits.send_burst),
            ("requests_per_second", limits.requests_per_second),
            ("request_burst", limits.request_burst),
            ("auth_per_second", limits.auth_per_second),
            ("auth_burst", limits.auth_burst),
            ("account_auth_per_second", limits.account_auth_per_second),
            ("account_auth_burst", limits.account_auth_burst),
            ("connects_per_second", limits.connects_per_second),
            ("connect_burst", limits.connect_burst),
            ("connections_per_user", limits.connections_per_user),
        ] {
            check(value > 0, &format!("limits.{name}: must be more than 0"));
        }
        check(!self.kafka.brokers.is_empty(), "kafka.brokers: name at least one broker");
        check(self.kafka.partitions > 0, "kafka.partitions: must be more than 0");
        check(self.kafka.replication > 0, "kafka.replication: must be more than 0");
        let discovery = &self.discovery;
        check(
            discovery.dns_refresh >= Duration::from_millis(100),
            "discovery.dns_refresh: must be at least 100ms",
        );
        check(
            discovery.zone.is_empty() || crate::ids::check_id("zone", &discovery.zone).is_ok(),
            "discovery.zone: must be 1 to 64 of letters, digits, '.', '_' and '-'",
        );
        for (first, second, pair) in [
            (&gateway.tls_certificate, &gateway.tls_key, "gateway.tls_certificate: and gateway.tls_key"),
            (&self.kafka.tls_certificate, &self.kafka.tls_key, "kafka.tls_certificate: and kafka.tls_key"),
        ] {
            check(
                first.is_empty() == second.is_empty(),
                &format!("{pair} need each other: set both or none"),
            );
        }
        let kafka = &self.kafka;
        check(
            kafka.linger < kafka.produce_timeout && kafka.linger <= Duration::from_secs(900),
            "kafka.linger: must be shorter than kafka.produce_timeout, and at most 15min",
        );
        let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
        check(
            (second..=minute).contains(&kafka.session_timeout),
            "kafka.session_timeout: must be from 1s to 1min",
        );
        check(
            kafka.sasl_username.is_empty() == kafka.sasl_password.is_empty(),
            "kafka.sasl_username: and kafka.sasl_password need each other: set both or none",
        );
        check(
            matches!(kafka.sasl_mechanism.as_str(), "PLAIN" | "SCRAM-SHA-256" | "SCRAM-SHA-512"),
            "kafka.sasl_mechanism: must be PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512",
        );
        check(
            !kafka.tls_ca.is_empty() || kafka.tls_certificate.is_empty(),
            "kafka.tls_certificate: needs kafka.tls_ca, which turns TLS on",
        );
        let tls = &self.tls;
        check(
            [&tls.ca, &tls.certificate, &tls.key].iter().all(|file| file.is_empty() == tls.ca.is_empty()),
            "tls.ca: with tls.certificate and tls.key it makes TLS between the services: set all three or none",
        );
        check(self.embedded.max_backlog > 0, "embedded.max_backlog: must be more than 0");
        let token = self.operator.token.expose();
        check(token.is_empty() || token.len() >= 32, "operator.token: must have at least 32 bytes");
        check(
            token.bytes().all(|byte| byte.is_ascii_graphic()),
            "operator.token: must be of visible ASCII characters",
        );
        let endpoint = self.trace.endpoint.strip_prefix("http://");
        check(
            self.trace.endpoint.is_empty()
                || endpoint
                    .is_some_and(|rest| rest.contains(':') && !rest.contains('/') && !rest.contains('@')),
            "trace.endpoint: must be http://HOST:PORT; leave it empty to follow no message",
        );
        check((0.0..=1.0).contains(&self.trace.sample), "trace.sample: must be from 0 to 1");
        check(matches!(self.log.format.as_str(), "text" | "json"), "log.format: must be text or json");
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ByteSize, Secret};

    #[test]
    fn the_defaults_are_without_fault() {
        assert_eq!(Config::default().faults(), Vec::<String>::new());
    }

    #[test]
    fn p7_values_without_bound_are_refused() {
        let mut config = Config::default();
        config.gateway.heartbeat = Duration::MAX;
        config.auth.access_token_life = Duration::from_secs(u64::MAX / 2);
        config.gateway.max_body = ByteSize::new(u64::MAX);
        let faults = config.faults().join("\n");
        for key in ["gateway.heartbeat:", "auth.access_token_life:", "gateway.max_frame:"] {
            assert!(faults.contains(key), "{key} is not in {faults}");
        }
    }

    #[test]
    fn every_fault_is_named() {
        let mut config = Config { app: "a b".into(), ..Config::default() };
        config.gateway.max_in_flight = 0;
        config.auth.keys = vec![Secret::new("short=secret")];
        config.limits.send_burst = 0;
        config.kafka.linger = config.kafka.produce_timeout;
        config.kafka.session_timeout = Duration::from_secs(120);
        config.operator.token = Secret::new("short");
        config.trace.endpoint = "collector:4317".into();
        config.trace.sample = f64::NAN;
        let faults = config.faults().join("\n");
        for key in [
            "app:",
            "gateway.max_in_flight:",
            "auth.keys[0]:",
            "limits.send_burst:",
            "kafka.linger:",
            "kafka.session_timeout:",
            "operator.token:",
            "trace.endpoint:",
            "trace.sample:",
        ] {
            assert!(faults.contains(key), "{key} is not in {faults}");
        }
    }
}
