//! Rules that involve several keys.

use super::{Config, Gateway, Kafka, Tls};
use crate::json::MAX_GROWTH;

/// Bytes of a frame beside the body of a message.
const FRAME_OVERHEAD: usize = 4096;

impl Config {
    /// Violated rules, each as `section.key: a sentence`.
    pub(super) fn relation_errors(&self) -> Vec<String> {
        let rules = [gateway(&self.gateway), kafka(&self.kafka), tls(&self.tls)].concat();
        rules.into_iter().filter(|(holds, _)| !holds).map(|(_, error)| error.to_owned()).collect()
    }
}

/// Whether a rule holds, and the error if it does not.
type Rule = (bool, &'static str);

fn gateway(gateway: &Gateway) -> Vec<Rule> {
    let max_frame = gateway.max_frame.bytes();
    let largest_json = gateway.max_body.bytes().saturating_mul(MAX_GROWTH).saturating_add(FRAME_OVERHEAD);
    // Every request may add a part of its answer at the same time, beside what is being written.
    let smallest_outbox = max_frame.saturating_mul(gateway.max_requests as usize + 2);
    vec![
        (
            max_frame >= largest_json,
            "gateway.max_frame: must be at least three times gateway.max_body plus 4KiB",
        ),
        (
            gateway.max_outbox.bytes() >= smallest_outbox,
            "gateway.max_outbox: must be at least gateway.max_frame times the sum of gateway.max_requests and 2",
        ),
        (
            gateway.max_outbox_total.bytes() >= gateway.max_outbox.bytes(),
            "gateway.max_outbox_total: must be at least gateway.max_outbox",
        ),
        (
            gateway.tls_certificate.is_empty() == gateway.tls_key.is_empty(),
            "gateway.tls_certificate: set it together with gateway.tls_key, or set neither",
        ),
    ]
}

fn kafka(kafka: &Kafka) -> Vec<Rule> {
    vec![
        (kafka.linger < kafka.produce_timeout, "kafka.linger: must be shorter than kafka.produce_timeout"),
        (
            kafka.tls_certificate.is_empty() == kafka.tls_key.is_empty(),
            "kafka.tls_certificate: set it together with kafka.tls_key, or set neither",
        ),
        (
            !kafka.tls_ca.is_empty() || kafka.tls_certificate.is_empty(),
            "kafka.tls_certificate: set kafka.tls_ca too, which turns TLS on",
        ),
        (
            kafka.sasl_username.is_empty() == kafka.sasl_password.is_empty(),
            "kafka.sasl_username: set it together with kafka.sasl_password, or set neither",
        ),
    ]
}

fn tls(tls: &Tls) -> Vec<Rule> {
    let is_like_ca = |file: &String| file.is_empty() == tls.ca.is_empty();
    vec![(
        is_like_ca(&tls.certificate) && is_like_ca(&tls.key),
        "tls.ca: set it together with tls.certificate and tls.key, or set none of them",
    )]
}
