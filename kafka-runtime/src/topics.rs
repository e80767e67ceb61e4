//! Kafka's topics: making them, and saying when they can't keep the promise.

use crate::error::Error;
use crate::kafka::{KafkaConfig, QuietContext};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
const RETRY_EVERY: Duration = Duration::from_millis(300);

/// A topic as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    /// Its name.
    pub name: String,
    /// Partitions when it is made. An existing topic keeps its own number: more would move keys to other partitions.
    pub partitions: u32,
    /// Replicas when it is made. With three or more, two of them must be in sync for a record to be acknowledged.
    pub replication: u32,
    /// More settings when it is made, for example `retention.ms`.
    pub settings: Vec<(String, String)>,
}

impl TopicSpec {
    /// Without further settings.
    pub fn new(name: &str, partitions: u32, replication: u32) -> Self {
        Self { name: name.to_owned(), partitions, replication, settings: Vec::new() }
    }

    fn min_in_sync(&self) -> Option<&'static str> {
        (self.replication >= 3).then_some("2")
    }
}

/// What a topic is like.
struct Found {
    partitions: usize,
    replication: usize,
    min_in_sync: Option<usize>,
}

/// Makes the topics that are missing and checks all of them; warns of what is weaker than it should be, and fails if records
/// could never be acknowledged. Asks again until the brokers answer, at most until `deadline`.
pub async fn ensure(kafka: &KafkaConfig, specs: &[TopicSpec], deadline: Duration) -> Result<(), Error> {
    let until = Instant::now() + deadline;
    let config = kafka.with_properties(kafka.client());
    let admin = AdminClient::from_config_and_context(&config, QuietContext).map_err(Error::Client)?;
    let admin = Arc::new(admin);
    for spec in specs {
        retry(until, || create(&admin, spec)).await?;
        let found = retry(until, || look(&admin, &spec.name)).await?;
        check(spec, &found)?;
    }
    // The client waits for its threads as it is dropped.
    tokio::task::spawn_blocking(move || drop(admin)).await.map_err(|_| Error::Closed)
}

async fn retry<T, F: Future<Output = Result<T, Error>>>(
    until: Instant,
    attempt: impl Fn() -> F,
) -> Result<T, Error> {
    loop {
        match attempt().await {
            Err(error @ Error::Kafka { .. }) if Instant::now() + RETRY_EVERY < until => {
                tracing::info!(error = &error as &dyn std::error::Error, "kafka is not ready, asking again");
                tokio::time::sleep(RETRY_EVERY).await;
            }
            result => return result,
        }
    }
}

fn failed(action: &'static str) -> impl FnOnce(KafkaError) -> Error {
    move |source| Error::Kafka { action, source }
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT)).operation_timeout(Some(REQUEST_TIMEOUT))
}

async fn create(admin: &AdminClient<QuietContext>, spec: &TopicSpec) -> Result<(), Error> {
    let number = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
    let mut topic =
        NewTopic::new(&spec.name, number(spec.partitions), TopicReplication::Fixed(number(spec.replication)));
    if let Some(replicas) = spec.min_in_sync() {
        topic = topic.set("min.insync.replicas", replicas);
    }
    for (name, value) in &spec.settings {
        topic = topic.set(name, value);
    }
    let results = admin.create_topics([&topic], &options()).await.map_err(failed("create a topic"))?;
    match results.into_iter().next() {
        None | Some(Ok(_)) => {
            tracing::info!(
                topic = spec.name,
                partitions = spec.partitions,
                replication = spec.replication,
                "topic made"
            );
            Ok(())
        }
        Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(()),
        Some(Err((
            _,
            code @ (RDKafkaErrorCode::InvalidReplicationFactor
            | RDKafkaErrorCode::InvalidTopic
            | RDKafkaErrorCode::InvalidPartitions
            | RDKafkaErrorCode::InvalidConfig
            | RDKafkaErrorCode::PolicyViolation
            | RDKafkaErrorCode::TopicAuthorizationFailed),
        ))) => Err(Error::Topic { topic: spec.name.clone(), reason: format!("cannot be made: {code}") }),
        Some(Err((_, code))) => Err(failed("create a topic")(KafkaError::AdminOp(code))),
    }
}

async fn look(admin: &Arc<AdminClient<QuietContext>>, name: &str) -> Result<Found, Error> {
    let (client, topic) = (Arc::clone(admin), name.to_owned());
    let metadata = move || client.inner().fetch_metadata(Some(&topic), REQUEST_TIMEOUT);
    let metadata = tokio::task::spawn_blocking(metadata).await.map_err(|_| Error::Closed)?;
    let metadata = metadata.map_err(failed("look at a topic"))?;
    let partitions = metadata.topics().first().map(|topic| topic.partitions()).unwrap_or_default();
    if partitions.is_empty() || partitions.iter().any(|partition| partition.leader() < 0) {
        // Made a moment ago, and not known everywhere.
        return Err(failed("look at a topic")(KafkaError::MetadataFetch(
            RDKafkaErrorCode::LeaderNotAvailable,
        )));
    }
    let resource = [ResourceSpecifier::Topic(name)];
    let configs =
        admin.describe_configs(&resource, &options()).await.map_err(failed("look at a topic's settings"))?;
    // Whoever may write to a topic need not be allowed to see its settings.
    let settings = configs.into_iter().next().and_then(Result::ok);
    let min_in_sync = settings.as_ref().and_then(|resource| resource.get("min.insync.replicas"));
    Ok(Found {
        partitions: partitions.len(),
        replication: partitions.iter().map(|partition| partition.replicas().len()).min().unwrap_or(0),
        min_in_sync: min_in_sync.and_then(|entry| entry.value.as_ref()?.parse().ok()),
    })
}

fn check(spec: &TopicSpec, found: &Found) -> Result<(), Error> {
    let topic = &spec.name;
    let Found { partitions, replication, min_in_sync } = *found;
    if partitions != spec.partitions as usize {
        tracing::warn!(
            topic,
            configured = spec.partitions,
            partitions,
            "the topic keeps the partitions that it has"
        );
    }
    if replication < 2 {
        tracing::warn!(
            topic,
            replication,
            "ONE REPLICA: acknowledged records are lost with their broker's disk, and a power cut can take the last ones. \
             Production needs three replicas, two of them in sync"
        );
    }
    match min_in_sync {
        Some(min) if min > replication => Err(Error::Topic {
            topic: topic.clone(),
            reason: format!(
                "min.insync.replicas is {min}, but there are {replication} replicas: nothing can be acknowledged"
            ),
        }),
        Some(min) if replication > 1 && min < 2 => {
            tracing::warn!(
                topic,
                replication,
                min_in_sync = min,
                "one replica alone may acknowledge: set min.insync.replicas to 2"
            );
            Ok(())
        }
        Some(min) if replication > 1 && min == replication => {
            tracing::warn!(
                topic,
                replication,
                min_in_sync = min,
                "one broker away stops all writing: add a replica"
            );
            Ok(())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_that_can_acknowledge_nothing_is_an_error() {
        let spec = TopicSpec::new("t", 1, 1);
        let found = |replication, min| Found { partitions: 1, replication, min_in_sync: Some(min) };
        assert!(matches!(check(&spec, &found(1, 2)), Err(Error::Topic { .. })));
        for (replication, min) in [(1, 1), (3, 2), (3, 1), (3, 3)] {
            assert!(check(&spec, &found(replication, min)).is_ok(), "{replication} replicas, {min} in sync");
        }
    }

    #[test]
    fn two_of_three_replicas_must_be_in_sync() {
        assert_eq!(TopicSpec::new("t", 1, 3).min_in_sync(), Some("2"));
        assert_eq!(TopicSpec::new("t", 1, 1).min_in_sync(), None);
    }
}
