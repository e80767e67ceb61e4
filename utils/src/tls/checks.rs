//! Checks of the TLS files in a configuration, made before anything starts.

use super::files::{ConfiguredFile, load_certified_key};
use abi::config::{Discovery, Kafka};

/// Config errors of the CA file that the configuration key `key` names. An empty path has none.
pub fn authorities(key: &'static str, path: &str) -> Vec<String> {
    if path.is_empty() {
        return Vec::new();
    }
    ConfiguredFile::new(key, path).authorities().err().into_iter().collect()
}

/// Config errors of TLS and SASL to Kafka. `ssl`: whether this program was built with support for TLS to Kafka.
pub fn kafka(config: &Kafka, ssl: bool) -> Vec<String> {
    let mut errors = Vec::new();
    let without = "this program was built without TLS to Kafka; build it with the cargo feature `ssl`, which needs \
                   the headers of OpenSSL";
    let scram = !config.sasl_username.is_empty() && config.sasl_mechanism.starts_with("SCRAM");
    match (ssl, config.tls_ca.as_str()) {
        (false, "") if scram => errors.push(format!("kafka.sasl_mechanism: {without}, or use PLAIN")),
        (false, ca) if !ca.is_empty() => errors.push(format!("kafka.tls_ca: {without}")),
        (_, "" | "system") => {}
        (_, ca) => errors.extend(authorities("kafka.tls_ca", ca)),
    }
    if !config.tls_certificate.is_empty() && !config.tls_key.is_empty() {
        let certificate = ConfiguredFile::new("kafka.tls_certificate", &config.tls_certificate);
        let key = ConfiguredFile::new("kafka.tls_key", &config.tls_key);
        errors.extend(load_certified_key(&certificate, &key).err().unwrap_or_default());
    }
    errors
}

/// Config errors of TLS to Consul's agent.
pub fn consul(config: &Discovery) -> Vec<String> {
    authorities("discovery.consul_ca", &config.consul_ca)
}
