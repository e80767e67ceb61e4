//! The parsed values of all options, and the rules that hold between them.

use crate::source::InitialOffset;
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

/// The value of every option, given or default. Options of the other backend are never read.
#[derive(Clone, Default)]
pub(super) struct Settings {
    pub(super) topics: Vec<String>,
    pub(super) partitions: Option<u32>,
    pub(super) replication: Option<u32>,
    pub(super) allow_fewer_replicas: bool,
    pub(super) client_id: String,
    pub(super) sasl_mechanism: &'static str,
    pub(super) sasl_username: Option<String>,
    pub(super) sasl_password: Option<String>,
    pub(super) tls_ca: Option<String>,
    pub(super) tls_cert: Option<String>,
    pub(super) tls_key: Option<String>,
    pub(super) group: Option<String>,
    pub(super) offset: InitialOffset,
    pub(super) instance: Option<String>,
    pub(super) assignment: &'static str,
    pub(super) session_timeout: Duration,
    pub(super) poll_interval: Duration,
    pub(super) isolation: &'static str,
    pub(super) fetch_bytes: u64,
    pub(super) fetch_ahead: u64,
    pub(super) fetch_wait: Duration,
    pub(super) fetch_headers: bool,
    pub(super) queue_records: usize,
    pub(super) queue_bytes: u64,
    pub(super) batch_records: usize,
    pub(super) batch_bytes: u64,
    pub(super) batch_wait: Duration,
    pub(super) ordering: &'static str,
    pub(super) concurrency: usize,
    pub(super) retry_attempts: Option<NonZeroU32>,
    pub(super) retry_first: Duration,
    pub(super) retry_max: Duration,
    pub(super) retry_jitter: f64,
    pub(super) dead_letters: Option<String>,
    pub(super) commit_interval: Duration,
    pub(super) commit_timeout: Duration,
    pub(super) finish_timeout: Duration,
    pub(super) linger: Duration,
    pub(super) in_flight: u32,
    pub(super) produce_timeout: Duration,
    pub(super) compression: &'static str,
    pub(super) produce_queue_records: u32,
    pub(super) produce_queue_bytes: u64,
    pub(super) produce_record_bytes: u64,
    pub(super) log_backlog: usize,
    pub(super) log_keep: u64,
    pub(super) log_bytes: Option<u64>,
    pub(super) start_timeout: Duration,
    /// Settings passed to librdkafka unchanged.
    pub(super) properties: Vec<(String, String)>,
}

impl Settings {
    /// Time limit of a revocation: finishing, committing, and a margin of 5 s.
    pub(super) fn revoke_timeout(&self) -> Duration {
        self.finish_timeout + self.commit_timeout + Duration::from_secs(5)
    }

    /// Config errors that involve several options, each a sentence.
    pub(super) fn conflicts(&self, given: &BTreeMap<String, String>) -> Vec<String> {
        let mut errors = Vec::new();
        let mut check = |holds: bool, error: &str| {
            if !holds {
                errors.push(error.to_owned());
            }
        };
        let has = |name: &str| given.contains_key(name);
        check(has("sasl.username") || !has("sasl.password"), "`sasl.password` needs `sasl.username`");
        check(has("sasl.password") || !has("sasl.username"), "`sasl.username` needs `sasl.password`");
        check(
            has("sasl.username") || !has("sasl.mechanism"),
            "`sasl.mechanism` needs `sasl.username` and `sasl.password`",
        );
        check(has("tls.cert") == has("tls.key"), "`tls.cert` and `tls.key` need each other");
        check(has("tls.ca") || !has("tls.cert"), "`tls.cert` needs `tls.ca`, which turns TLS on");
        let scram = has("sasl.username") && self.sasl_mechanism.starts_with("SCRAM");
        check(
            cfg!(feature = "ssl") || !scram,
            "SCRAM needs a build of kafka-runtime with the feature `ssl`; without it use `sasl.mechanism=PLAIN`",
        );
        check(
            cfg!(feature = "ssl") || !has("tls.ca"),
            "`tls.ca` needs a build of kafka-runtime with the feature `ssl`",
        );
        check(self.ordering == "key" || !has("concurrency"), "`concurrency` needs `ordering=key`");
        check(self.retry_first <= self.retry_max, "`retry.first` must not be longer than `retry.max`");
        check(self.linger < self.produce_timeout, "`produce.linger` must be shorter than `produce.timeout`");
        if let Some(dead_letters) = &self.dead_letters {
            check(!self.topics.contains(dead_letters), "`dead_letters` must not be one of `topics`");
        }
        if self.poll_interval.is_zero() {
            // The embedded log has no group sessions and polls.
            return errors;
        }
        check(
            self.session_timeout <= self.poll_interval,
            "`session.timeout` must not be longer than `poll.interval`",
        );
        check(
            self.revoke_timeout() < self.poll_interval,
            "`poll.interval` must be longer than `finish.timeout`, `commit.timeout` and 5s together",
        );
        errors
    }
}
