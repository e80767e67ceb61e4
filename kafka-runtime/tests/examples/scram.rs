//! `scram`: the right password, and a wrong one.

use crate::support::{Example, unique};

fn address(variable: &str, password: &str, mechanism: &str, more: &str) -> String {
    let brokers = std::env::var(variable).unwrap_or_else(|_| panic!("{variable} is not set: run tests/run"));
    let name = unique("scram");
    format!(
        "kafka://godwit:{password}@{brokers}?topics={name}&group={name}&sasl.mechanism={mechanism}&partitions=1\
         &replication=1{more}"
    )
}

async fn works(address: &str) {
    let example = Example::start("scram", &[address], &[]);
    for n in 0..5 {
        example.wait_for_line(&format!("text=hello {n}")).await;
    }
    let (status, lines) = example.stop().await;
    assert!(status.success(), "{status}");
    assert!(
        lines.iter().any(|line| line.contains("sasl.password=***")),
        "the address must be printed without the password"
    );
}

#[tokio::test]
async fn the_right_password_is_accepted() {
    works(&address("GODWIT_TEST_KAFKA_SASL", "godwit", "SCRAM-SHA-256", "")).await;
    works(&address("GODWIT_TEST_KAFKA_SASL", "godwit", "SCRAM-SHA-512", "")).await;
}

#[tokio::test]
async fn the_right_password_is_accepted_over_tls() {
    let ca = std::env::var("GODWIT_TEST_KAFKA_TLS_CA")
        .expect("GODWIT_TEST_KAFKA_TLS_CA must be set: run tests/run");
    works(&address("GODWIT_TEST_KAFKA_TLS", "godwit", "SCRAM-SHA-512", &format!("&tls.ca={ca}"))).await;
}

#[tokio::test]
async fn a_wrong_password_is_a_clear_error() {
    let address = address("GODWIT_TEST_KAFKA_SASL", "open-sesame", "SCRAM-SHA-512", "");
    let mut example = Example::start("scram", &[&address], &[]);
    assert!(!example.ended().await.success());
    let output = example.lines().join("\n");
    assert!(output.contains("Error: kafka: authentication failed: "), "{output}");
    assert!(!output.contains("sesame"), "{output}");
}
