//! The table of options: parsing, the error for an unknown one, and the documentation are made from it.

use super::Endpoint;
use super::settings::Settings;
use super::values::{
    SHORTEST, between, bytes, choice, duration, flag, list, number, offset, positive, secret, share, some,
    text, times,
};
use std::time::Duration;

/// One option of an [`Address`](super::Address).
pub struct AddressOption {
    /// Its name.
    pub name: &'static str,
    /// What it is with Kafka when it is not given, empty for nothing; `None` if it has no meaning there.
    pub kafka: Option<&'static str>,
    /// What it is with the embedded log when it is not given, empty for nothing; `None` if it has no meaning there.
    pub log: Option<&'static str>,
    /// What it does.
    pub doc: &'static str,
    set: fn(&mut Settings, &str) -> Result<(), String>,
}

impl std::fmt::Debug for AddressOption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AddressOption").field("name", &self.name).finish_non_exhaustive()
    }
}

impl AddressOption {
    pub(super) fn default(&self, endpoint: &Endpoint) -> Option<&'static str> {
        match endpoint {
            Endpoint::Kafka { .. } => self.kafka,
            Endpoint::Log { .. } => self.log,
        }
    }

    pub(super) fn parse(&self, settings: &mut Settings, value: &str) -> Result<(), String> {
        (self.set)(settings, value)
    }
}

/// Settings of librdkafka go through under this prefix.
pub(super) const PROPERTY: &str = "kafka.";

/// Whether the value of an option must not be shown. Settings of librdkafka may be anything.
pub(super) fn is_secret(name: &str) -> bool {
    name == "sasl.password" || name.starts_with(PROPERTY)
}

/// Sets one option that was given; the fault is a sentence.
pub(super) fn set(
    settings: &mut Settings,
    endpoint: &Endpoint,
    name: &str,
    value: &str,
) -> Result<(), String> {
    if let (Some(property), Endpoint::Kafka { .. }) = (name.strip_prefix(PROPERTY), endpoint) {
        settings.properties.push((property.to_owned(), value.to_owned()));
        return Ok(());
    }
    let Some(option) = OPTIONS.iter().find(|option| option.name == name) else {
        return Err(unknown(name));
    };
    if option.default(endpoint).is_none() {
        let other = if option.kafka.is_none() { "the embedded log" } else { "Kafka" };
        return Err(format!("`{name}` is for {other} only"));
    }
    option.parse(settings, value).map_err(|fault| format!("`{name}` {fault}"))
}

fn unknown(name: &str) -> String {
    let near =
        OPTIONS.iter().map(|option| (strsim::damerau_levenshtein(name, option.name), option.name)).min();
    match near {
        Some((distance, nearest)) if distance <= 3 => {
            format!("there is no option `{name}`; did you mean `{nearest}`?")
        }
        _ => format!("there is no option `{name}`"),
    }
}

const fn option(
    name: &'static str,
    kafka: Option<&'static str>,
    log: Option<&'static str>,
    doc: &'static str,
    set: fn(&mut Settings, &str) -> Result<(), String>,
) -> AddressOption {
    AddressOption { name, kafka, log, doc, set }
}

const fn both(
    name: &'static str,
    default: &'static str,
    doc: &'static str,
    set: fn(&mut Settings, &str) -> Result<(), String>,
) -> AddressOption {
    option(name, Some(default), Some(default), doc, set)
}

const fn kafka(
    name: &'static str,
    default: &'static str,
    doc: &'static str,
    set: fn(&mut Settings, &str) -> Result<(), String>,
) -> AddressOption {
    option(name, Some(default), None, doc, set)
}

fn put<T>(field: &mut T, value: Result<T, String>) -> Result<(), String> {
    *field = value?;
    Ok(())
}

const GIB: u64 = 1 << 30;
/// What librdkafka takes is measured by it.
const HOUR: Duration = Duration::from_secs(60 * 60);

pub(super) static OPTIONS: &[AddressOption] = &[
    // What is read and written.
    both(
        "topics",
        "",
        "Topics to read, or to write to, separated by commas. A consumer needs one at least.",
        |s, v| put(&mut s.topics, list(v)),
    ),
    option(
        "partitions",
        Some(""),
        Some("1"),
        "Topics that are missing are made with so many partitions. Without it, a \
        topic that is missing in Kafka is an error.",
        |s, v| put(&mut s.partitions, some(number(v, 1, 100_000))),
    ),
    kafka(
        "replication",
        "",
        "Replicas that each topic is made with, and is held to. From 3 on, two must be in sync. Without \
        it: what the brokers choose.",
        |s, v| put(&mut s.replication, some(number(v, 1, 100))),
    ),
    kafka(
        "allow_fewer_replicas",
        "false",
        "A topic with fewer replicas, or a lower `min.insync.replicas`, than asked for is a loud \
        warning instead of an error.",
        |s, v| put(&mut s.allow_fewer_replicas, flag(v)),
    ),
    kafka("client.id", "kafka-runtime", "The name under which the brokers know this client.", |s, v| {
        put(&mut s.client_id, text(v))
    }),
    // Security.
    kafka(
        "sasl.mechanism",
        "SCRAM-SHA-512",
        "How to log in: `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`. SCRAM needs the \
        cargo feature `ssl`.",
        |s, v| put(&mut s.sasl_mechanism, choice(v, &["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])),
    ),
    kafka("sasl.username", "", "Whom to log in as; the same as `user` in front of `@`.", |s, v| {
        put(&mut s.sasl_username, some(text(v)))
    }),
    kafka("sasl.password", "", "The password, or `file:PATH` of a file that holds it.", |s, v| {
        put(&mut s.sasl_password, some(secret(v)))
    }),
    kafka(
        "tls.ca",
        "",
        "Turns TLS on: the file of the certificates (PEM) that brokers are checked against, or `system`. \
        TLS needs the cargo feature `ssl`.",
        |s, v| put(&mut s.tls_ca, some(text(v))),
    ),
    kafka(
        "tls.cert",
        "",
        "File of this client's own certificate (PEM), for brokers that ask for one.",
        |s, v| put(&mut s.tls_cert, some(text(v))),
    ),
    kafka("tls.key", "", "File of the key (PEM) of `tls.cert`.", |s, v| put(&mut s.tls_key, some(text(v)))),
    // The group.
    both("group", "", "The consumer group. A consumer needs one.", |s, v| put(&mut s.group, some(text(v)))),
    both(
        "offset",
        "earliest",
        "Where the group begins in a partition that it has committed no offset of: `earliest`, \
        `latest`, or a time in UTC such as `2026-01-31T00:00:00Z`.",
        |s, v| put(&mut s.offset, offset(v)),
    ),
    kafka(
        "instance",
        "",
        "Static membership: the name of this member, the same after a restart, different for each.",
        |s, v| put(&mut s.instance, some(text(v))),
    ),
    kafka(
        "assignment",
        "range",
        "How the group shares out partitions: `range`, `roundrobin` or `cooperative-sticky`.",
        |s, v| put(&mut s.assignment, choice(v, &["range", "roundrobin", "cooperative-sticky"])),
    ),
    kafka(
        "session.timeout",
        "6s",
        "The group gives away the partitions of a member that has been silent for so long.",
        |s, v| put(&mut s.session_timeout, between(v, SHORTEST, HOUR)),
    ),
    kafka(
        "poll.interval",
        "75s",
        "The group gives away the partitions of a member that has not polled for so long.",
        |s, v| put(&mut s.poll_interval, positive(v)),
    ),
    kafka(
        "isolation",
        "read_committed",
        "Whether records of transactions that are open or were aborted are seen: \
        `read_committed` or `read_uncommitted`, which is not for handlers that make records.",
        |s, v| put(&mut s.isolation, choice(v, &["read_committed", "read_uncommitted"])),
    ),
    // Fetching.
    kafka("fetch.bytes", "1MiB", "Most bytes of one partition in one answer of a broker.", |s, v| {
        put(&mut s.fetch_bytes, bytes(v, 1, GIB / 2))
    }),
    kafka(
        "fetch.ahead",
        "8MiB",
        "Most bytes that are fetched ahead of the queues, over all partitions.",
        |s, v| put(&mut s.fetch_ahead, bytes(v, 1024, GIB)),
    ),
    kafka("fetch.wait", "500ms", "A broker that has nothing new answers after so long.", |s, v| {
        put(&mut s.fetch_wait, between(v, Duration::ZERO, HOUR / 12))
    }),
    kafka(
        "fetch.headers",
        "true",
        "Whether headers of records are read. Without, the CPU that librdkafka takes to parse them is saved.",
        |s, v| put(&mut s.fetch_headers, flag(v)),
    ),
    kafka("queue.records", "8000", "Most records that wait for the handler, per partition.", |s, v| {
        put(&mut s.queue_records, number(v, 1, 10_000_000))
    }),
    kafka("queue.bytes", "4MiB", "Most bytes that wait for the handler, per partition.", |s, v| {
        put(&mut s.queue_bytes, bytes(v, 1, GIB))
    }),
    // Handling.
    both(
        "batch.records",
        "1000",
        "Most records of a batch. With `ordering=key`: most that are in flight or wait, per \
        partition.",
        |s, v| put(&mut s.batch_records, number(v, 1, 1_000_000)),
    ),
    both("batch.bytes", "1MiB", "Most bytes of a batch; one larger record is a batch of its own.", |s, v| {
        put(&mut s.batch_bytes, bytes(v, 1, GIB))
    }),
    both("batch.wait", "0s", "How long a batch may wait to become full.", |s, v| {
        put(&mut s.batch_wait, duration(v))
    }),
    both(
        "ordering",
        "partition",
        "What is kept in order: all of a `partition`, or the records of each `key` (handlers of \
        single records only).",
        |s, v| put(&mut s.ordering, choice(v, &["partition", "key"])),
    ),
    both(
        "concurrency",
        "16",
        "With `ordering=key`: most records of one partition that are handled at the same time.",
        |s, v| put(&mut s.concurrency, number(v, 1, 100_000)),
    ),
    both(
        "retry.attempts",
        "forever",
        "After so many failed attempts a record goes to the dead letters.",
        |s, v| put(&mut s.retry_attempts, times(v)),
    ),
    both("retry.first", "100ms", "The wait after the first failure; it doubles with each.", |s, v| {
        put(&mut s.retry_first, positive(v))
    }),
    both("retry.max", "1s", "The longest wait between attempts.", |s, v| put(&mut s.retry_max, positive(v))),
    both(
        "retry.jitter",
        "0.5",
        "By which share of it, from 0 to 1, a wait may be shortened at random.",
        |s, v| put(&mut s.retry_jitter, share(v)),
    ),
    both(
        "dead_letters",
        "",
        "The topic of records that can't be handled. Without it their partition waits.",
        |s, v| put(&mut s.dead_letters, some(text(v))),
    ),
    both("commit.interval", "1s", "Offsets are committed about this often.", |s, v| {
        put(&mut s.commit_interval, positive(v))
    }),
    both("commit.timeout", "5s", "A commit may take so long.", |s, v| {
        put(&mut s.commit_timeout, positive(v))
    }),
    both(
        "finish.timeout",
        "5s",
        "What is in flight may take so long to finish before its partition is given away, or the \
        consumer ends.",
        |s, v| put(&mut s.finish_timeout, duration(v)),
    ),
    // Writing.
    option(
        "produce.linger",
        Some("0s"),
        None,
        "How long a record may wait for others to share its request.",
        |s, v| put(&mut s.linger, between(v, Duration::ZERO, HOUR / 4)),
    ),
    kafka("produce.in_flight", "1", "Requests per broker that may be unanswered, at most 5.", |s, v| {
        put(&mut s.in_flight, number(v, 1, 5))
    }),
    both(
        "produce.timeout",
        "5s",
        "A record that is not confirmed by then has timed out, and all that waits with it.",
        |s, v| put(&mut s.produce_timeout, positive(v)),
    ),
    kafka("produce.compression", "none", "`none`, `gzip`, `lz4`, `snappy` or `zstd`.", |s, v| {
        put(&mut s.compression, choice(v, &["none", "gzip", "lz4", "snappy", "zstd"]))
    }),
    option(
        "produce.queue.records",
        Some("100000"),
        Some("16384"),
        "Most records that wait to be written.",
        |s, v| put(&mut s.produce_queue_records, number(v, 1, 10_000_000)),
    ),
    both("produce.queue.bytes", "64MiB", "Most bytes that wait to be written.", |s, v| {
        put(&mut s.produce_queue_bytes, bytes(v, 1024, GIB))
    }),
    option("produce.record.bytes", Some("1000000"), Some("1MiB"), "Largest record.", |s, v| {
        put(&mut s.produce_record_bytes, bytes(v, 1000, GIB / 2))
    }),
    // The embedded log.
    log(
        "log.backlog",
        "2000",
        "While the consumer of a topic has so many records to do, new ones wait.",
        |s, v| put(&mut s.log_backlog, number(v, 1, 10_000_000)),
    ),
    log(
        "log.keep",
        "0",
        "So many records per partition are kept after every group has committed them.",
        |s, v| put(&mut s.log_keep, number(v, 0, u64::MAX)),
    ),
    log(
        "log.bytes",
        "",
        "Largest size of the log's file. Without it: as long as the disk has room.",
        |s, v| put(&mut s.log_bytes, some(bytes(v, 1 << 20, u64::MAX))),
    ),
    // Both.
    both("start.timeout", "30s", "The checks before the start may take so long.", |s, v| {
        put(&mut s.start_timeout, duration(v))
    }),
];

const fn log(
    name: &'static str,
    default: &'static str,
    doc: &'static str,
    set: fn(&mut Settings, &str) -> Result<(), String>,
) -> AddressOption {
    option(name, None, Some(default), doc, set)
}
