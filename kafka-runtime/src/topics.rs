//! Kafka's topics: making them, and refusing those that can't keep the promise.

mod check;

use crate::error::Error;
use crate::kafka::{KafkaConfig, QuietContext, reach};
use check::{Found, Verdict, check};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use std::cmp::Ordering;
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
    /// Partitions when it is made; `None`: it must be there. An existing topic keeps its own number: more would move keys to
    /// other partitions.
    pub partitions: Option<u32>,
    /// Replicas when it is made, and at least so many when it is there. With three or more, two of them must be in sync for a
    /// record to be acknowledged. `None`: what the brokers choose.
    pub replication: Option<u32>,
    /// Fewer replicas, or a lower `min.insync.replicas`, than asked for are a loud warning instead of an error. Fewer that are in
    /// sync than `min.insync.replicas` are never: nothing could be acknowledged.
    pub allow_fewer_replicas: bool,
    /// More settings when it is made, for example `retention.ms`. A topic that is there and has others is warned of.
    pub settings: Vec<(String, String)>,
}

impl TopicSpec {
    /// A topic that is made if it is missing, without further settings.
    pub fn new(name: &str, partitions: u32, replication: u32) -> Self {
        Self { partitions: Some(partitions), replication: Some(replication), ..Self::existing(name) }
    }

    /// A topic that must be there.
    pub fn existing(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            partitions: None,
            replication: None,
            allow_fewer_replicas: false,
            settings: Vec::new(),
        }
    }

    /// Asks for what another specification of the topic asks for as well. Of two numbers of partitions it is the smaller one, as
    /// dead letters need, of replicas the larger one.
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

    /// How many replicas must have a record before it is acknowledged: with three, one may be away and another lost.
    fn min_in_sync(&self) -> usize {
        if self.replication >= Some(3) { 2 } else { 1 }
    }
}

/// Makes the topics that are missing and checks all of them. Waits until the brokers answer and enough replicas are in sync, at
/// most until `deadline`.
///
/// # Errors
/// - [`Error::Refused`], at once: the credentials or a certificate are wrong.
/// - [`Error::Topic`]: a topic is missing and says no partitions, or has fewer replicas or a weaker `min.insync.replicas` than was
///   asked for.
/// - [`Error::Unreachable`], [`Error::Kafka`], [`Error::NotReady`]: the brokers did not answer in time, or too few replicas came back.
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
    // The client waits for its threads as it is dropped.
    tokio::task::spawn_blocking(move || drop(admin)).await.map_err(|_| Error::Closed)?;
    result
}

type Admin = Arc<AdminClient<QuietContext>>;

async fn ensure_one(admin: &Admin, spec: &TopicSpec, until: Instant) -> Result<(), Error> {
    loop {
        let attempt = async {
            // Looked at first: a client may be allowed to use a topic and not to make one.
            let mut found = look(admin, spec).await?;
            if let (None, Some(partitions)) = (&found, spec.partitions) {
                create(admin, spec, partitions).await?;
                found = look(admin, spec).await?;
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
        tracing::info!(error = &later as &dyn std::error::Error, "a topic is not ready, looking again");
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
    // -1 is how the protocol says that the brokers choose.
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
            tracing::info!(topic = spec.name, partitions, replication = spec.replication, "topic made");
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
        ))) => Err(Error::Topic { topic: spec.name.clone(), reason: format!("cannot be made: {code}") }),
        Some(Err((_, code))) => Err(failed("create a topic")(KafkaError::AdminOp(code))),
    }
}

/// What the topic is like; `None` if it is not there.
async fn look(admin: &Admin, spec: &TopicSpec) -> Result<Option<Found>, Error> {
    let (client, topic) = (Arc::clone(admin), spec.name.clone());
    let found = tokio::task::spawn_blocking(move || replicas(&client, &topic));
    let Some(mut found) = found.await.map_err(|_| Error::Closed)?? else { return Ok(None) };
    let resource = [ResourceSpecifier::Topic(&spec.name)];
    let configs = admin.describe_configs(&resource, &options()).await;
    let configs = configs.map_err(failed("look at a topic's settings"))?;
    // Whoever may write to a topic need not be allowed to see its settings.
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
                "the topic keeps a setting that should be another"
            );
        }
    }
    Ok(Some(found))
}

/// The partitions of a topic and their replicas; `None` if it is not there. Blocks.
fn replicas(admin: &Admin, topic: &str) -> Result<Option<Found>, Error> {
    // Of all topics: asking for one that is not there would make it where brokers allow that.
    let metadata =
        admin.inner().fetch_metadata(None, REQUEST_TIMEOUT).map_err(failed("look at the topics"))?;
    let Some(topic) = metadata.topics().iter().find(|known| known.name() == topic) else { return Ok(None) };
    let partitions = topic.partitions();
    if partitions.is_empty() || partitions.iter().any(|partition| partition.leader() < 0) {
        // Made a moment ago and not known everywhere, or its brokers are away.
        return Err(failed("look at a topic")(KafkaError::MetadataFetch(Code::LeaderNotAvailable)));
    }
    Ok(Some(Found {
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
    fn a_topic_is_asked_for_in_the_same_way_whichever_specification_comes_first() {
        let weak = TopicSpec { allow_fewer_replicas: true, ..TopicSpec::existing("t") };
        let made = TopicSpec::new("t", 4, 3);
        let kept = vec![("retention.ms".to_owned(), "-1".to_owned())];
        let letters = TopicSpec { partitions: Some(1), settings: kept.clone(), ..TopicSpec::existing("t") };
        let wanted = TopicSpec { settings: kept, ..TopicSpec::new("t", 1, 3) };
        let specs = [weak, made, letters];
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let mut all = TopicSpec::existing("t");
            order.into_iter().for_each(|index: usize| all.merge(specs[index].clone()));
            assert_eq!(all, wanted, "{order:?}");
        }
    }
}
