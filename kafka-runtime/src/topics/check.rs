//! Compares a topic with its specification.

use super::TopicSpec;

/// The state of an existing topic.
pub(super) struct TopicState {
    pub(super) partitions: usize,
    /// The smallest number of replicas of a partition.
    pub(super) replication: usize,
    /// The smallest number of in-sync replicas of a partition.
    pub(super) in_sync: usize,
    /// `None` if this client is not authorized to read it.
    pub(super) min_in_sync: Option<usize>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Good,
    /// The topic may become usable without an operator.
    NotYet(String),
    Refused(String),
}

pub(super) fn check(spec: &TopicSpec, found: Option<&TopicState>) -> Verdict {
    let topic = &spec.name;
    let Some(&TopicState { partitions, replication, in_sync, min_in_sync }) = found else {
        return match spec.partitions {
            Some(_) => Verdict::NotYet("it was created, but not all brokers know it".into()),
            None => Verdict::Refused(
                "it does not exist: create it, or set `partitions` to have it created".into(),
            ),
        };
    };
    if let Some(configured) = spec.partitions.filter(|wanted| *wanted as usize != partitions) {
        tracing::warn!(
            topic,
            configured,
            partitions,
            "the topic has a different number of partitions, which is kept"
        );
    }
    if let Some(min) = min_in_sync {
        if min > replication {
            return Verdict::Refused(format!(
                "`min.insync.replicas` is {min}, but there are only {replication} replicas: no record can be acknowledged"
            ));
        }
        if in_sync < min {
            return Verdict::NotYet(format!(
                "{in_sync} replicas are in sync, but `min.insync.replicas` is {min}: no record can be acknowledged until \
                 more brokers are up"
            ));
        }
    }
    let weakness = weakness(spec, replication, min_in_sync);
    if let Some(weakness) = &weakness
        && !spec.allow_fewer_replicas
    {
        return Verdict::Refused(weakness.clone());
    }
    if let Some(weakness) = weakness {
        tracing::warn!(topic, weakness, "fewer replicas than required, as `allow_fewer_replicas` permits");
    } else if replication < 2 {
        tracing::warn!(
            topic,
            replication,
            "ONE REPLICA: acknowledged records are lost if the broker loses its disk, and the latest ones if it loses power. \
             Production needs three replicas, two of them in sync"
        );
    } else if min_in_sync.is_some_and(|min| min < 2) {
        tracing::warn!(topic, "a single replica can acknowledge records: set min.insync.replicas to 2");
    } else if min_in_sync == Some(replication) {
        tracing::warn!(topic, replication, "a single broker failure stops all writes: add a replica");
    }
    Verdict::Good
}

/// The requirement that the topic does not meet, if there is one.
fn weakness(spec: &TopicSpec, replication: usize, min_in_sync: Option<usize>) -> Option<String> {
    let required = spec.replication? as usize;
    if replication < required {
        return Some(format!(
            "it has {replication} replicas, but `replication` requires {required}: add replicas, require fewer, or set \
             `allow_fewer_replicas`"
        ));
    }
    let (min, needed) = (min_in_sync?, spec.min_in_sync());
    (min < needed).then(|| {
        format!(
            "its `min.insync.replicas` is {min} and must be {needed}, or a record on a single broker may be \
             acknowledged: change it, or set `allow_fewer_replicas`"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(replication: usize, in_sync: usize, min: usize) -> TopicState {
        TopicState { partitions: 1, replication, in_sync, min_in_sync: Some(min) }
    }

    fn refusal(spec: &TopicSpec, found: Option<&TopicState>) -> String {
        match check(spec, found) {
            Verdict::Refused(reason) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_topic_that_can_never_acknowledge_is_refused() {
        for required in [1, 3] {
            let mut spec = TopicSpec::new("t", 1, required);
            assert!(refusal(&spec, Some(&found(1, 1, 2))).contains("`min.insync.replicas` is 2"));
            spec.allow_fewer_replicas = true;
            assert!(refusal(&spec, Some(&found(1, 1, 2))).contains("no record can be acknowledged"));
        }
    }

    #[test]
    fn too_few_in_sync_replicas_are_not_an_error_yet() {
        let spec = TopicSpec::new("t", 1, 3);
        let Verdict::NotYet(reason) = check(&spec, Some(&found(3, 1, 2))) else {
            panic!("more brokers may come up")
        };
        assert!(reason.contains("1 replicas are in sync, but `min.insync.replicas` is 2"), "{reason}");
        assert_eq!(check(&spec, Some(&found(3, 2, 2))), Verdict::Good);
    }

    #[test]
    fn a_weaker_topic_is_refused_unless_allowed() {
        let mut spec = TopicSpec::new("t", 1, 3);
        assert!(refusal(&spec, Some(&found(1, 1, 1))).contains("`replication` requires 3"));
        assert!(
            refusal(&spec, Some(&found(3, 3, 1))).contains("its `min.insync.replicas` is 1 and must be 2")
        );
        spec.allow_fewer_replicas = true;
        for (replication, min) in [(1, 1), (3, 1), (2, 2)] {
            assert_eq!(check(&spec, Some(&found(replication, replication, min))), Verdict::Good);
        }
    }

    #[test]
    fn a_topic_that_meets_its_specification_is_accepted() {
        for (required, replication, min) in [(1, 1, 1), (1, 3, 1), (2, 2, 1), (2, 2, 2), (3, 3, 2), (3, 5, 3)]
        {
            let verdict =
                check(&TopicSpec::new("t", 1, required), Some(&found(replication, replication, min)));
            assert_eq!(verdict, Verdict::Good, "{required} required, {replication} found, {min} in sync");
        }
        assert_eq!(check(&TopicSpec::existing("t"), Some(&found(1, 1, 1))), Verdict::Good);
    }

    #[test]
    fn a_missing_topic_is_refused_unless_it_was_just_created() {
        assert!(refusal(&TopicSpec::existing("t"), None).contains("it does not exist"));
        assert!(matches!(check(&TopicSpec::new("t", 1, 1), None), Verdict::NotYet(_)));
    }
}
