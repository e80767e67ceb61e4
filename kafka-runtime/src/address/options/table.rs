//! The options of an address, in the order of the documentation.

use super::AddressOption;
use crate::address::settings::Settings;
use crate::address::values::{
    MIN_DURATION, attempts, between, bytes, choice, duration, flag, fraction, list, number, offset, positive,
    secret, some, text,
};
use std::time::Duration;

const GIB: u64 = 1 << 30;
const HOUR: Duration = Duration::from_secs(60 * 60);

pub(crate) static OPTIONS: &[AddressOption] = &[
    // Topics.
    both(
        "topics",
        "",
        "Topics to read or to write, separated by commas. A consumer needs at least one.",
        |s, v| put(&mut s.topics, list(v)),
    ),
    option(
        "partitions",
        Some(""),
        Some("1"),
        "Number of partitions of new topics. If unset, a missing Kafka topic is an error.",
        |s, v| put(&mut s.partitions, some(number(v, 1, 100_000))),
    ),
    kafka(
        "replication",
        "",
        "Replicas of new topics, and the minimum for existing ones. From 3 on, two must be in sync. If unset, \
        the brokers choose.",
        |s, v| put(&mut s.replication, some(number(v, 1, 100))),
    ),
    kafka(
        "allow_fewer_replicas",
        "false",
        "Whether a topic with fewer replicas or a lower `min.insync.replicas` than required is a warning \
        instead of an error.",
        |s, v| put(&mut s.allow_fewer_replicas, flag(v)),
    ),
    kafka("client.id", "kafka-runtime", "Name of this client in broker logs, metrics and quotas.", |s, v| {
        put(&mut s.client_id, text(v))
    }),
    // Security.
    kafka(
        "sasl.mechanism",
        "SCRAM-SHA-512",
        "Authentication: `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`. SCRAM needs the cargo feature `ssl`.",
        |s, v| put(&mut s.sasl_mechanism, choice(v, &["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])),
    ),
    kafka("sasl.username", "", "User name; the same as `user` before `@`.", |s, v| {
        put(&mut s.sasl_username, some(text(v)))
    }),
    kafka(
        "sasl.password",
        "",
        "The password, or `file:PATH` to read it from the first line of a file.",
        |s, v| put(&mut s.sasl_password, some(secret(v))),
    ),
    kafka(
        "tls.ca",
        "",
        "Turns TLS on. File of the CA certificates (PEM), or `system` for those of the system. TLS needs the \
        cargo feature `ssl`.",
        |s, v| put(&mut s.tls_ca, some(text(v))),
    ),
    kafka("tls.cert", "", "File of the client certificate (PEM), for brokers that require one.", |s, v| {
        put(&mut s.tls_cert, some(text(v)))
    }),
    kafka("tls.key", "", "File of the private key (PEM) of `tls.cert`.", |s, v| {
        put(&mut s.tls_key, some(text(v)))
    }),
    // Consumer group.
    both("group", "", "The consumer group. A consumer needs one.", |s, v| put(&mut s.group, some(text(v)))),
    both(
        "offset",
        "earliest",
        "Where the group starts in a partition without a committed offset: `earliest`, `latest`, or a time in \
        UTC such as `2026-01-31T00:00:00Z`.",
        |s, v| put(&mut s.offset, offset(v)),
    ),
    kafka(
        "instance",
        "",
        "Static membership: the name of this member. Each member needs its own, and keeps it over restarts.",
        |s, v| put(&mut s.instance, some(text(v))),
    ),
    kafka(
        "assignment",
        "range",
        "How the group assigns partitions: `range`, `roundrobin` or `cooperative-sticky`.",
        |s, v| put(&mut s.assignment, choice(v, &["range", "roundrobin", "cooperative-sticky"])),
    ),
    kafka(
        "session.timeout",
        "6s",
        "The group reassigns the partitions of a member that has sent no heartbeat for this long.",
        |s, v| put(&mut s.session_timeout, between(v, MIN_DURATION, HOUR)),
    ),
    kafka(
        "poll.interval",
        "75s",
        "The group reassigns the partitions of a member that has not polled for this long.",
        |s, v| put(&mut s.poll_interval, positive(v)),
    ),
    kafka(
        "isolation",
        "read_committed",
        "`read_committed` hides records of open and aborted transactions, `read_uncommitted` delivers them. \
        Transformations need `read_committed`.",
        |s, v| put(&mut s.isolation, choice(v, &["read_committed", "read_uncommitted"])),
    ),
    // Fetching.
    kafka("fetch.bytes", "1MiB", "Maximum bytes of one partition in one fetch response.", |s, v| {
        put(&mut s.fetch_bytes, bytes(v, 1, GIB / 2))
    }),
    kafka(
        "fetch.ahead",
        "8MiB",
        "Maximum bytes prefetched beyond the queues, over all partitions.",
        |s, v| put(&mut s.fetch_ahead, bytes(v, 1024, GIB)),
    ),
    kafka(
        "fetch.wait",
        "500ms",
        "How long a broker waits for new records before it sends an empty response.",
        |s, v| put(&mut s.fetch_wait, between(v, Duration::ZERO, HOUR / 12)),
    ),
    kafka(
        "fetch.headers",
        "true",
        "Whether to read record headers. `false` saves the CPU time that librdkafka spends on parsing them.",
        |s, v| put(&mut s.fetch_headers, flag(v)),
    ),
    kafka("queue.records", "8000", "Maximum records queued for the handler, per partition.", |s, v| {
        put(&mut s.queue_records, number(v, 1, 10_000_000))
    }),
    kafka("queue.bytes", "4MiB", "Maximum bytes queued for the handler, per partition.", |s, v| {
        put(&mut s.queue_bytes, bytes(v, 1, GIB))
    }),
    // Handling.
    both(
        "batch.records",
        "1000",
        "Maximum records of a batch. With `ordering=key`: maximum records in flight or waiting for an older \
        record of their key, per partition.",
        |s, v| put(&mut s.batch_records, number(v, 1, 1_000_000)),
    ),
    both("batch.bytes", "1MiB", "Maximum bytes of a batch. A larger record is a batch by itself.", |s, v| {
        put(&mut s.batch_bytes, bytes(v, 1, GIB))
    }),
    both("batch.wait", "0s", "How long to wait for a batch to fill up.", |s, v| {
        put(&mut s.batch_wait, duration(v))
    }),
    both(
        "ordering",
        "partition",
        "Scope of the order: all records of a `partition`, or the records of each `key` (only for handlers of \
        single records).",
        |s, v| put(&mut s.ordering, choice(v, &["partition", "key"])),
    ),
    both(
        "concurrency",
        "16",
        "With `ordering=key`: maximum records of one partition handled concurrently.",
        |s, v| put(&mut s.concurrency, number(v, 1, 100_000)),
    ),
    both(
        "retry.attempts",
        "forever",
        "Failed attempts after which a record becomes a dead letter.",
        |s, v| put(&mut s.retry_attempts, attempts(v)),
    ),
    both(
        "retry.first",
        "100ms",
        "Backoff after the first failure. It doubles with each further failure.",
        |s, v| put(&mut s.retry_first, positive(v)),
    ),
    both("retry.max", "1s", "Maximum backoff.", |s, v| put(&mut s.retry_max, positive(v))),
    both(
        "retry.jitter",
        "0.5",
        "Fraction of the backoff, from 0 to 1, that may be subtracted at random.",
        |s, v| put(&mut s.retry_jitter, fraction(v)),
    ),
    both(
        "dead_letters",
        "",
        "Topic for records that cannot be handled. If unset, a partition stops at such a record.",
        |s, v| put(&mut s.dead_letters, some(text(v))),
    ),
    both("commit.interval", "1s", "Interval between offset commits.", |s, v| {
        put(&mut s.commit_interval, positive(v))
    }),
    both("commit.timeout", "5s", "Time limit of a commit.", |s, v| put(&mut s.commit_timeout, positive(v))),
    both(
        "finish.timeout",
        "5s",
        "Time limit for records in flight when their partition is revoked or the consumer shuts down.",
        |s, v| put(&mut s.finish_timeout, duration(v)),
    ),
    // Writing.
    option(
        "produce.linger",
        Some("0s"),
        None,
        "How long a record may wait for others, to share a request with them.",
        |s, v| put(&mut s.linger, between(v, Duration::ZERO, HOUR / 4)),
    ),
    kafka("produce.in_flight", "1", "Maximum unanswered requests per broker, at most 5.", |s, v| {
        put(&mut s.in_flight, number(v, 1, 5))
    }),
    both(
        "produce.timeout",
        "5s",
        "Time limit for the confirmation of a record. If it is exceeded, all records queued with it fail as well.",
        |s, v| put(&mut s.produce_timeout, positive(v)),
    ),
    kafka(
        "produce.compression",
        "none",
        "Compression: `none`, `gzip`, `lz4`, `snappy` or `zstd`.",
        |s, v| put(&mut s.compression, choice(v, &["none", "gzip", "lz4", "snappy", "zstd"])),
    ),
    option(
        "produce.queue.records",
        Some("100000"),
        Some("16384"),
        "Maximum records queued for writing.",
        |s, v| put(&mut s.produce_queue_records, number(v, 1, 10_000_000)),
    ),
    both("produce.queue.bytes", "64MiB", "Maximum bytes queued for writing.", |s, v| {
        put(&mut s.produce_queue_bytes, bytes(v, 1024, GIB))
    }),
    option("produce.record.bytes", Some("1000000"), Some("1MiB"), "Maximum size of a record.", |s, v| {
        put(&mut s.produce_record_bytes, bytes(v, 1000, GIB / 2))
    }),
    // The embedded log.
    log(
        "log.backlog",
        "2000",
        "While the consumer of a topic is this many records behind, new records wait.",
        |s, v| put(&mut s.log_backlog, number(v, 1, 10_000_000)),
    ),
    log(
        "log.keep",
        "0",
        "Number of records per partition that are kept after every group has committed them.",
        |s, v| put(&mut s.log_keep, number(v, 0, u64::MAX)),
    ),
    log("log.bytes", "", "Maximum size of the log's file. If unset, the disk is the limit.", |s, v| {
        put(&mut s.log_bytes, some(bytes(v, 1 << 20, u64::MAX)))
    }),
    // Startup.
    both("start.timeout", "30s", "Time limit of the checks before the start.", |s, v| {
        put(&mut s.start_timeout, duration(v))
    }),
];

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

const fn log(
    name: &'static str,
    default: &'static str,
    doc: &'static str,
    set: fn(&mut Settings, &str) -> Result<(), String>,
) -> AddressOption {
    option(name, None, Some(default), doc, set)
}
