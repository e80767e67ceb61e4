//! What is wrong with the files that a configuration names, before anything starts.

use super::files::{Named, certified};
use abi::config::{Discovery, Kafka};

/// What is wrong with a file of authorities that a key of the configuration names; nothing for an empty path.
pub fn authorities(key: &'static str, path: &str) -> Vec<String> {
    if path.is_empty() { Vec::new() } else { Named::new(key, path).authorities().err().into_iter().collect() }
}

/// What is wrong with how Kafka's brokers are to be reached. `ssl`: whether this program was built with TLS to them.
pub fn kafka(config: &Kafka, ssl: bool) -> Vec<String> {
    let mut faults = Vec::new();
    let without = "this program was built without TLS to Kafka; build it with the cargo feature `ssl`, which needs \
                   the headers of OpenSSL";
    let scram = !config.sasl_username.is_empty() && config.sasl_mechanism.starts_with("SCRAM");
    match (ssl, config.tls_ca.as_str()) {
        (false, "") if scram => faults.push(format!("kafka.sasl_mechanism: {without}, or take PLAIN")),
        (false, ca) if !ca.is_empty() => faults.push(format!("kafka.tls_ca: {without}")),
        (_, "" | "system") => {}
        (_, ca) => faults.extend(authorities("kafka.tls_ca", ca)),
    }
    if !config.tls_certificate.is_empty() && !config.tls_key.is_empty() {
        let certificate = Named::new("kafka.tls_certificate", &config.tls_certificate);
        faults.extend(
            certified(&certificate, &Named::new("kafka.tls_key", &config.tls_key)).err().unwrap_or_default(),
        );
    }
    faults
}

/// What is wrong with how Consul's agent is to be reached.
pub fn consul(config: &Discovery) -> Vec<String> {
    authorities("discovery.consul_ca", &config.consul_ca)
}
