use super::*;
use crate::{
    ConsumerConfig, InitialOffset, KafkaConfig, KafkaProducerConfig, KafkaSourceConfig, LogConfig, LogTopic,
};
use proptest::prelude::*;

fn parse(text: &str) -> Result<Address, Vec<String>> {
    text.parse().map_err(|error| match error {
        Error::Address { errors } => errors,
        other => panic!("{other}"),
    })
}

fn valid(text: &str) -> Address {
    parse(text).unwrap_or_else(|errors| panic!("{text}: {errors:?}"))
}

fn errors(text: &str) -> Vec<String> {
    parse(text).expect_err(text)
}

#[test]
fn omitted_options_have_the_defaults_of_the_config_structs() {
    let address = valid("kafka://h:1?topics=t&group=g");
    let kafka = KafkaConfig::new(vec!["h:1".into()], "kafka-runtime");
    let source = KafkaSourceConfig::new(kafka, "g", &["t"]);
    assert_eq!(format!("{:?}", address.source_config().unwrap().unwrap()), format!("{source:?}"));
    assert_eq!(format!("{:?}", address.producer_config()), format!("{:?}", KafkaProducerConfig::default()));
    assert_eq!(format!("{:?}", address.consumer_config()), format!("{:?}", ConsumerConfig::default()));
    let log = valid("log:some/folder?topics=t&dead_letters=d").log_config().unwrap();
    assert_eq!(log, LogConfig::new("some/folder", vec![LogTopic::new("t", 1), LogTopic::untrimmed("d")]));
}

#[test]
fn given_options_reach_the_config_structs() {
    let address = valid(
        "kafka://h:1,[::1]:2/?topics=a,b&group=g&offset=2026-01-31T00:00:00Z&instance=i&assignment=cooperative-sticky\
         &isolation=read_uncommitted&fetch.bytes=2MiB&queue.records=7&session.timeout=10s&poll.interval=2m\
         &batch.records=5&finish.timeout=20s&produce.linger=5ms&produce.compression=zstd&kafka.debug=broker",
    );
    let source = address.source_config().unwrap().unwrap();
    assert_eq!(source.kafka.brokers, ["h:1", "[::1]:2"]);
    assert_eq!(source.kafka.properties, [("debug".to_owned(), "broker".to_owned())]);
    assert_eq!((source.topics.join("+"), &*source.group), ("a+b".into(), "g"));
    assert_eq!(source.initial_offset, InitialOffset::Time { ms: 1_769_817_600_000 });
    assert_eq!(source.instance_id.as_deref(), Some("i"));
    assert_eq!((&*source.assignment, &*source.isolation), ("cooperative-sticky", "read_uncommitted"));
    assert_eq!((source.fetch_bytes, source.queue.records), (2 << 20, 7));
    assert_eq!((source.session_timeout.as_secs(), source.poll_interval.as_secs()), (10, 120));
    assert_eq!(source.revoke_timeout.as_secs(), 30, "longer than finishing and committing");
    assert_eq!(address.consumer_config().max_records, 5);
    let producer = address.producer_config();
    assert_eq!((producer.linger_ms, &*producer.compression), (5, "zstd"));
    assert_eq!(source.outputs, producer);
}

#[test]
fn all_errors_are_reported_at_once() {
    let address = "kafka://h:0,h?topics=a,,b&topics=c&gruop=g&offset=yesterday&queue.bytes=many&log.keep=1&retry.first=2s\
                   &produce.in_flight=6&concurrency=4&retry.attempts=0&sasl.password=p&nothing";
    assert_eq!(
        errors(address),
        [
            "broker 1 is not `host:port` with a port from 1 to 65535",
            "options follow `?` as `name=value`, separated by `&`",
            "`topics` must be names separated by commas",
            "`topics` is given twice",
            "unknown option `gruop`; did you mean `group`?",
            "`offset` must be `earliest`, `latest` or a time in UTC such as `2026-01-31T00:00:00Z`, not `yesterday`",
            "`queue.bytes` must be a size such as `4MiB`, not `many`",
            "`log.keep` is for the embedded log only",
            "`produce.in_flight` must be a number from 1 to 5, not `6`",
            "`retry.attempts` must be `forever` or a number above 0, not `0`",
            "`sasl.password` needs `sasl.username`",
            "`concurrency` needs `ordering=key`",
            "`retry.first` must not be longer than `retry.max`",
        ]
    );
}

#[test]
fn durations_out_of_range_are_refused() {
    let durations = [
        "session.timeout",
        "poll.interval",
        "retry.first",
        "commit.interval",
        "commit.timeout",
        "produce.timeout",
    ];
    for name in durations {
        let error = format!(
            "`{name}` must be from 1ms to 1{}, not `0s`",
            if name == "session.timeout" { "h" } else { "day" }
        );
        assert_eq!(errors(&format!("kafka://h:1?{name}=0s")), [error]);
    }
    assert_eq!(
        errors("kafka://h:1?session.timeout=2h&fetch.wait=10m&retry.max=0s&produce.linger=16m"),
        [
            "`session.timeout` must be from 1ms to 1h, not `2h`",
            "`fetch.wait` must be from 0s to 5m, not `10m`",
            "`retry.max` must be from 1ms to 1day, not `0s`",
            "`produce.linger` must be from 0s to 15m, not `16m`",
        ]
    );
    let shorter = "`produce.linger` must be shorter than `produce.timeout`";
    assert_eq!(errors("kafka://h:1?produce.linger=5s"), [shorter]);
    valid("kafka://h:1?session.timeout=1h&poll.interval=1day&fetch.wait=0s&produce.linger=4s");
}

#[test]
fn malformed_addresses_are_refused() {
    for text in ["", "kafka", "kafka:h:1", "http://h:1", "redis://"] {
        assert!(errors(text)[0].starts_with("an address begins with"), "{text}");
    }
    assert_eq!(errors("kafka://").len(), 1);
    assert_eq!(errors("log:"), ["`log:` needs a folder after it"]);
    assert!(errors("log://host/path")[0].starts_with("`log://` has no host"));
    assert_eq!(errors("log:/data?assignment=range"), ["`assignment` is for Kafka only"]);
}

#[test]
fn folders_are_absolute_or_relative() {
    assert_eq!(valid("log:///var/data?topics=t").folder(), Some(Path::new("/var/data")));
    assert_eq!(valid("log:data/log").folder(), Some(Path::new("data/log")));
    assert_eq!(valid("log:what%3F").folder(), Some(Path::new("what?")));
}

#[test]
fn secrets_are_not_printed() {
    let address =
        valid("kafka://alice:open%20sesame@h:1?topics=t&sasl.mechanism=PLAIN&kafka.ssl.key.password=hidden");
    let text = "kafka://h:1?kafka.ssl.key.password=***&sasl.mechanism=PLAIN&sasl.password=***&sasl.username=alice&topics=t";
    assert_eq!(address.to_string(), text);
    assert_eq!(format!("{address:?}"), format!("Address({text})"));
    let kafka = address.kafka_config().unwrap().unwrap();
    assert!(kafka.properties.contains(&("sasl.password".into(), "open sesame".into())));
    assert!(kafka.properties.contains(&("security.protocol".into(), "sasl_plaintext".into())));
    assert!(!format!("{kafka:?}").contains("sesame"));
}

#[test]
fn a_password_can_be_read_from_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("password");
    let text =
        format!("kafka://h:1?sasl.mechanism=PLAIN&sasl.username=u&sasl.password=file:{}", path.display());
    let missing = valid(&text).kafka_config().expect_err("there is no file").to_string();
    assert!(missing.starts_with("`sasl.password`: "), "{missing}");
    std::fs::write(&path, "from the file\n").unwrap();
    let kafka = valid(&text).kafka_config().unwrap().unwrap();
    assert!(kafka.properties.contains(&("sasl.password".into(), "from the file".into())));
}

#[cfg(not(feature = "ssl"))]
#[test]
fn options_that_need_the_feature_ssl_say_so() {
    let errors = errors("kafka://u:p@h:1?tls.ca=system");
    assert_eq!(errors.len(), 2);
    assert!(errors.iter().all(|error| error.contains("the feature `ssl`")), "{errors:?}");
}

#[derive(serde::Deserialize)]
struct Sections {
    address: Address,
}

fn section(toml: &str) -> Result<Address, String> {
    toml::from_str::<Sections>(toml).map(|sections| sections.address).map_err(|error| error.to_string())
}

#[test]
fn a_section_is_equivalent_to_a_line() {
    let line = valid(
        "kafka://h:1,i:2?topics=a,b&group=g&retry.attempts=5&retry.max=10s&retry.jitter=0.25&allow_fewer_replicas=true\
         &kafka.debug=broker",
    );
    let toml = r#"
        [address]
        brokers = ["h:1", "i:2"]
        topics = ["a", "b"]
        group = "g"
        retry = { attempts = 5, max = "10s" }
        "retry.jitter" = 0.25
        allow_fewer_replicas = true
        kafka.debug = "broker"
    "#;
    assert_eq!(section(toml).unwrap(), line);
    assert_eq!(section(r#"address = "kafka://h:1?topics=a""#).unwrap(), valid("kafka://h:1?topics=a"));
    let toml = "[address]\nfolder = \"/data\"\ntopics = \"a\"\npartitions = 3";
    assert_eq!(section(toml).unwrap(), valid("log:///data?topics=a&partitions=3"));
}

#[test]
fn all_errors_of_a_section_are_reported_at_once() {
    let error = section("[address]\nbrokers = [\"h\"]\ngroop = \"g\"\nretry.attempts = 0").unwrap_err();
    for part in ["broker 1 is not", "did you mean `group`?", "`retry.attempts` must be"] {
        assert!(error.contains(part), "{error}");
    }
    assert!(
        section("[address]\ntopics = \"a\"").unwrap_err().contains("either `brokers` (Kafka) or `folder`")
    );
}

#[test]
fn a_consumer_needs_a_group_and_topics() {
    let error = valid("kafka://h:1").source_config().unwrap_err().to_string();
    assert_eq!(error, "a consumer needs `topics`; a consumer needs a `group`");
}

/// If the README differs from the table of options, this prints the expected text.
#[test]
fn the_readme_contains_the_table_of_options() {
    let value = |default: Option<&str>| match default {
        None => "–".to_owned(),
        Some("") => String::new(),
        Some(default) => format!("`{default}`"),
    };
    let mut table = String::from("| option | Kafka | embedded log | |\n|---|---|---|---|\n");
    for option in Address::options() {
        let (kafka, log) = (value(option.kafka), value(option.log));
        table += &format!("| `{}` | {kafka} | {log} | {} |\n", option.name, option.doc);
    }
    table += "| `kafka.NAME` | | – | Any setting `NAME` of librdkafka; it wins over all others. |\n";
    let readme = include_str!("../../README.md");
    assert!(readme.contains(&table), "README.md needs this table:\n\n{table}");
}

proptest! {
    #[test]
    fn parsing_any_text_does_not_panic(text in "\\PC{0,200}") {
        let _ = text.parse::<Address>();
    }

    #[test]
    fn parsing_any_options_does_not_panic(
        place in "(kafka://|log:|log://)[a-z0-9:,@/%\\[\\].]{0,30}",
        options in prop::collection::vec((0..50_usize, "\\PC{0,12}|[0-9]{1,25}(s|ms|KiB|GiB|y)?|-?[0-9]{1,5}-[0-9]{1,3}-[0-9]{1,3}T.{0,12}"), 0..6),
    ) {
        let names: Vec<&str> = Address::options().iter().map(|option| option.name).collect();
        let options: Vec<String> =
            options.iter().map(|(name, value)| format!("{}={value}", names[name % names.len()])).collect();
        if let Ok(address) = format!("{place}?{}", options.join("&")).parse::<Address>() {
            let (_, _) = (address.log_config(), address.consumer_config());
            // The printed text parses to the same address, unless secrets were hidden.
            let text = address.to_string();
            if !text.contains("***") {
                prop_assert_eq!(text.parse::<Address>().expect("it was printed"), address);
            }
        }
    }

    #[test]
    fn given_options_are_returned_and_printed(
        hosts in prop::collection::vec(("[a-z]{1,8}(\\.[a-z]{1,3})?", 1..=u16::MAX), 1..4),
        topics in prop::collection::btree_set("[a-zA-Z0-9._-]{1,12}", 1..4),
        group in "[^\\p{C}]{1,12}",
        records in 1..1_000_000_u32,
        first_ms in 1..1_000_u32,
    ) {
        let brokers: Vec<String> = hosts.iter().map(|(host, port)| format!("{host}:{port}")).collect();
        let topics = Vec::from_iter(topics);
        let encoded = percent_encoding::utf8_percent_encode(&group, percent_encoding::NON_ALPHANUMERIC);
        let text = format!(
            "kafka://{}?topics={}&group={encoded}&batch.records={records}&retry.first={first_ms}ms",
            brokers.join(","), topics.join(",")
        );
        let address = valid(&text);
        prop_assert_eq!(address.brokers(), Some(&brokers[..]));
        prop_assert_eq!(address.topics(), &topics[..]);
        prop_assert_eq!(address.group(), Some(&*group));
        prop_assert_eq!(address.consumer_config().max_records, records as usize);
        prop_assert_eq!(valid(&address.to_string()), address);
    }

    #[test]
    fn a_password_is_never_printed(password in "[^\\p{C}]{6,20}", broken in any::<bool>()) {
        let encoded = percent_encoding::utf8_percent_encode(&password, percent_encoding::NON_ALPHANUMERIC);
        let error = if broken { "&offset=x" } else { "" };
        let text = format!("kafka://user:{encoded}@h:1?sasl.mechanism=PLAIN{error}");
        let printed = match text.parse::<Address>() {
            Ok(address) => format!("{address} {address:?} {:?}", address.kafka_config()),
            Err(error) => format!("{error} {error:?}"),
        };
        let known = "kafka://h:1?sasl.mechanism=PLAIN&sasl.password=***&sasl.username=user";
        prop_assume!(!known.contains(&password));
        prop_assert!(!printed.contains(&password), "{}", printed);
    }
}

#[test]
fn an_error_is_printable_for_any_input() {
    let text = format!("kafka://h:1?a%0ab=1&{}=1&ordering=%1b[31m", "x".repeat(10_000));
    let Err(Error::Address { errors }) = text.parse::<Address>() else { panic!("the address was accepted") };
    assert_eq!(errors.len(), 3, "{errors:?}");
    for error in errors {
        assert!(error.len() < 520 && !error.contains(char::is_control), "{error:?}");
    }
}
