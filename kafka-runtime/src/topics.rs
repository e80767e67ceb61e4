//! Kafka's topics: creating missing ones, and refusing existing ones that do not meet their specification.

mod check;

use crate::error::Error;
use crate::kafka::{KafkaConfig, QuietContext, reach};
use check::{TopicState, Verdict, check};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use std::cmp::Ordering;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
const RETRY_EVERY: Duration = Duration::from_millis(300);

/// The specification of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    /// Its name.
    pub name: String,
    /// Number of partitions for a new topic; `None` if the topic must exist. An existing topic keeps its number, because a change
    /// would move keys to other partitions.
    pub partitions: Option<u32>,
    /// Number of replicas for a new topic, and the minimum for an existing one. From three on, two must be in sync to acknowledge
    /// a record. `None` lets the brokers choose.
    pub replication: Option<u32>,
    /// Whether fewer replicas or a lower `min.insync.replicas` than required are a warning instead of an error. Fewer replicas in
    /// sync than `min.insync.replicas` are always an error, because no record can be acknowledged.
    pub allow_fewer_replicas: bool,
    /// Further settings for a new topic, for example `retention.ms`. A different value in an existing topic is logged as a warning.
    pub settings: Vec<(String, String)>,
}

impl TopicSpec {
    /// A topic that is created if it is missing, without further settings.
    pub fn new(name: &str, partitions: u32, replication: u32) -> Self {
        Self { partitions: Some(partitions), replication: Some(replication), ..Self::existing(name) }
    }

    /// A topic that must exist.
    pub fn existing(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            partitions: None,
            replication: None,
            allow_fewer_replicas: false,
            settings: Vec::new(),
        }
    }

    /// Merges another specification of the same topic: the smaller number of partitions (a dead-letter topic needs one), and the
    /// larger number of replicas.
    pub(crate) fn merge(&mut self, other: Self) {
        self.partitions = [self.partitions, other.partitions].into_iter().flatten().min();
        match other.replication.cmp(&self.replication) {
            Ordering::Less => {}
            Ordering::Equal => self.allow_fewer_replicas &= other.allow_fewer_replicas,
            Ordering::Greater => {
                (self.replication, self.allow_fewer_replicas) =
                    (other.replication, other.allow_fewer_replicas);
            }
        }
        self.settings.extend(other.settings);
        self.settings.dedup();
    }

    /// Required in-sync replicas. With two of three, one replica may be down and another one lost.
    fn min_in_sync(&self) -> usize {
        if self.replication >= Some(3) { 2 } else { 1 }
    }
}

/// Creates missing topics and checks all of them. Waits up to `deadline` until the brokers respond and enough replicas are in
/// sync.
///
/// # Errors
/// - [`Error::Refused`], at once: the credentials or a certificate are wrong.
/// - [`Error::Topic`]: a topic is missing and its specification has no number of partitions, or it has fewer replicas or a lower
///   `min.insync.replicas` than required.
/// - [`Error::Unreachable`], [`Error::Kafka`], [`Error::NotReady`]: the brokers did not respond in time, or too few replicas are in
///   sync.
pub async fn ensure(kafka: &KafkaConfig, specs: &[TopicSpec], deadline: Duration) -> Result<(), Error> {
    let until = Instant::now() + deadline;
    reach(kafka, until).await?;
    let config = kafka.with_properties(kafka.client());
    let admin = AdminClient::from_config_and_context(&config, QuietContext).map_err(Error::Client)?;
    let admin = Arc::new(admin);
    let mut result = Ok(());
    for spec in specs {
        result = ensure_one(&admin, spec, until).await;
        if result.is_err() {
            break;
        }
    }
    // Dropping the client blocks until its threads have ended.
    tokio::task::spawn_blocking(move || drop(admin)).await.map_err(|_| Error::Closed)?;
    result
}

type Admin = Arc<AdminClient<QuietContext>>;

async fn ensure_one(admin: &Admin, spec: &TopicSpec, until: Instant) -> Result<(), Error> {
    loop {
        let attempt = async {
            // Look first: a client may be authorized to use a topic, but not to create one.
            let mut found = describe(admin, spec).await?;
            if let (None, Some(partitions)) = (&found, spec.partitions) {
                create(admin, spec, partitions).await?;
                found = describe(admin, spec).await?;
            }
            Ok(check(spec, found.as_ref()))
        };
        let later = match attempt.await {
            Ok(Verdict::Good) => return Ok(()),
            Ok(Verdict::Refused(reason)) => return Err(Error::Topic { topic: spec.name.clone(), reason }),
            Ok(Verdict::NotYet(reason)) => Error::NotReady { topic: spec.name.clone(), reason },
            Err(error @ Error::Kafka { .. }) => error,
            Err(error) => return Err(error),
        };
        if Instant::now() + RETRY_EVERY >= until {
            return Err(later);
        }
        tracing::info!(error = &later as &dyn std::error::Error, "a topic is not ready, checking again");
        tokio::time::sleep(RETRY_EVERY).await;
    }
}

fn failed(action: &'static str) -> impl FnOnce(KafkaError) -> Error {
    move |source| Error::Kafka { action, source }
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT)).operation_timeout(Some(REQUEST_TIMEOUT))
}

async fn create(admin: &Admin, spec: &TopicSpec, partitions: u32) -> Result<(), Error> {
    let number = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
    // In the protocol, -1 lets the brokers choose.
    let replication = TopicReplication::Fixed(spec.replication.map_or(-1, number));
    let min_in_sync = spec.min_in_sync().to_string();
    let mut topic = NewTopic::new(&spec.name, number(partitions), replication);
    if spec.min_in_sync() > 1 {
        topic = topic.set("min.insync.replicas", &min_in_sync);
    }
    for (name, value) in &spec.settings {
        topic = topic.set(name, value);
    }
    let results = admin.create_topics([&topic], &options()).await.map_err(failed("create a topic"))?;
    match results.into_iter().next() {
        None | Some(Ok(_)) => {
            tracing::info!(topic = spec.name, partitions, replication = spec.replication, "topic created");
            Ok(())
        }
        Some(Err((_, Code::TopicAlreadyExists))) => Ok(()),
        Some(Err((
            _,
            code @ (Code::InvalidReplicationFactor
            | Code::InvalidTopic
            | Code::InvalidPartitions
            | Code::InvalidConfig
            | Code::PolicyViolation
            | Code::TopicAuthorizationFailed),
        ))) => Err(Error::Topic { topic: spec.name.clone(), reason: format!("cannot be created: {code}") }),
        Some(Err((_, code))) => Err(failed("create a topic")(KafkaError::AdminOp(code))),
    }
}

/// The state of the topic; `None` if it does not exist.
async fn describe(admin: &Admin, spec: &TopicSpec) -> Result<Option<TopicState>, Error> {
    let (client, topic) = (Arc::clone(admin), spec.name.clone());
    let found = tokio::task::spawn_blocking(move || replicas(&client, &topic));
    let Some(mut found) = found.await.map_err(|_| Error::Closed)?? else { return Ok(None) };
    let resource = [ResourceSpecifier::Topic(&spec.name)];
    let configs = admin.describe_configs(&resource, &options()).await;
    let configs = configs.map_err(failed("read the settings of a topic"))?;
    // A client that may write to a topic is not always authorized to read its settings.
    let settings = configs.into_iter().next().and_then(Result::ok);
    let min_in_sync = settings.as_ref().and_then(|resource| resource.get("min.insync.replicas"));
    found.min_in_sync = min_in_sync.and_then(|entry| entry.value.as_ref()?.parse().ok());
    for (name, wanted) in &spec.settings {
        let entry = settings.as_ref().and_then(|resource| resource.get(name));
        if let Some(value) = entry.and_then(|entry| entry.value.as_ref()).filter(|value| *value != wanted) {
            tracing::warn!(
                topic = spec.name,
                name,
                value,
                wanted,
                "the topic has a different value of a setting, which is kept"
            );
        }
    }
    Ok(Some(found))
}

/// The partitions and replicas of a topic; `None` if it does not exist. Blocks.
fn replicas(admin: &Admin, topic: &str) -> Result<Option<TopicState>, Error> {
    // List all topics: a request for one missing topic creates it if the brokers allow that.
    let metadata = admin.inner().fetch_metadata(None, REQUEST_TIMEOUT).map_err(failed("list the topics"))?;
    let Some(topic) = metadata.topics().iter().find(|known| known.name() == topic) else { return Ok(None) };
    let partitions = topic.partitions();
    if partitions.is_empty() || partitions.iter().any(|partition| partition.leader() < 0) {
        // The topic is new and not known to all brokers, or its brokers are down.
        return Err(failed("read a topic")(KafkaError::MetadataFetch(Code::LeaderNotAvailable)));
    }
    Ok(Some(TopicState {
        partitions: partitions.len(),
        replication: partitions.iter().map(|partition| partition.replicas().len()).min().unwrap_or(0),
        in_sync: partitions.iter().map(|partition| partition.isr().len()).min().unwrap_or(0),
        min_in_sync: None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merging_specifications_does_not_depend_on_their_order() {
        let weak = TopicSpec { allow_fewer_replicas: true, ..TopicSpec::existing("t") };
        let made = TopicSpec::new("t", 4, 3);
        let kept = vec![("retention.ms".to_owned(), "-1".to_owned())];
        let letters = TopicSpec { partitions: Some(1), settings: kept.clone(), ..TopicSpec::existing("t") };
        let expected = TopicSpec { settings: kept, ..TopicSpec::new("t", 1, 3) };
        let specs = [weak, made, letters];
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let mut all = TopicSpec::existing("t");
            order.into_iter().for_each(|index: usize| all.merge(specs[index].clone()));
            assert_eq!(all, expected, "{order:?}");
        }
    }
}
