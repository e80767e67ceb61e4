//! Whether a topic is as it should be.

use super::TopicSpec;

/// What a topic is like.
pub(super) struct Found {
    pub(super) partitions: usize,
    /// Of the partition that has the fewest.
    pub(super) replication: usize,
    /// Of the partition that has the fewest.
    pub(super) in_sync: usize,
    /// `None` if this client may not see it.
    pub(super) min_in_sync: Option<usize>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Good,
    /// It may become good by itself.
    NotYet(String),
    Refused(String),
}

pub(super) fn check(spec: &TopicSpec, found: Option<&Found>) -> Verdict {
    let topic = &spec.name;
    let Some(&Found { partitions, replication, in_sync, min_in_sync }) = found else {
        return match spec.partitions {
            Some(_) => Verdict::NotYet("it was made, and is not known everywhere".into()),
            None => Verdict::Refused(
                "it does not exist: make it, or say of how many `partitions` it is to be made".into(),
            ),
        };
    };
    if let Some(configured) = spec.partitions.filter(|wanted| *wanted as usize != partitions) {
        tracing::warn!(topic, configured, partitions, "the topic keeps the partitions that it has");
    }
    if let Some(min) = min_in_sync {
        if min > replication {
            return Verdict::Refused(format!(
                "`min.insync.replicas` is {min}, but there are {replication} replicas: nothing can be acknowledged"
            ));
        }
        if in_sync < min {
            return Verdict::NotYet(format!(
                "{in_sync} replicas are in sync, and `min.insync.replicas` is {min}: nothing can be acknowledged until \
                 more brokers are back"
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
        tracing::warn!(topic, weakness, "FEWER REPLICAS THAN ASKED FOR, which was allowed");
    } else if replication < 2 {
        tracing::warn!(
            topic,
            replication,
            "ONE REPLICA: acknowledged records are lost with their broker's disk, and a power cut can take the last ones. \
             Production needs three replicas, two of them in sync"
        );
    } else if min_in_sync.is_some_and(|min| min < 2) {
        tracing::warn!(topic, "one replica alone may acknowledge: set min.insync.replicas to 2");
    } else if min_in_sync == Some(replication) {
        tracing::warn!(topic, replication, "one broker away stops all writing: add a replica");
    }
    Verdict::Good
}

/// What is weaker than it was asked to be.
fn weakness(spec: &TopicSpec, replication: usize, min_in_sync: Option<usize>) -> Option<String> {
    let asked = spec.replication? as usize;
    if replication < asked {
        return Some(format!(
            "it has {replication} replicas, and `replication` asks for {asked}: give it more, ask for fewer, or set \
             `allow_fewer_replicas`"
        ));
    }
    let (min, needed) = (min_in_sync?, spec.min_in_sync());
    (min < needed).then(|| {
        format!(
            "its `min.insync.replicas` is {min} and must be {needed}, or a record that only one broker has may be \
             acknowledged: change it, or set `allow_fewer_replicas`"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(replication: usize, in_sync: usize, min: usize) -> Found {
        Found { partitions: 1, replication, in_sync, min_in_sync: Some(min) }
    }

    fn refusal(spec: &TopicSpec, found: Option<&Found>) -> String {
        match check(spec, found) {
            Verdict::Refused(reason) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_topic_that_can_acknowledge_nothing_is_refused() {
        for asked in [1, 3] {
            let mut spec = TopicSpec::new("t", 1, asked);
            assert!(refusal(&spec, Some(&found(1, 1, 2))).contains("`min.insync.replicas` is 2"));
            spec.allow_fewer_replicas = true;
            assert!(refusal(&spec, Some(&found(1, 1, 2))).contains("nothing can be acknowledged"));
        }
    }

    #[test]
    fn too_few_replicas_in_sync_are_waited_for() {
        let spec = TopicSpec::new("t", 1, 3);
        let Verdict::NotYet(reason) = check(&spec, Some(&found(3, 1, 2))) else {
            panic!("it may become good")
        };
        assert!(reason.contains("1 replicas are in sync, and `min.insync.replicas` is 2"), "{reason}");
        assert_eq!(check(&spec, Some(&found(3, 2, 2))), Verdict::Good);
    }

    #[test]
    fn weaker_than_asked_is_refused_unless_it_is_allowed() {
        let mut spec = TopicSpec::new("t", 1, 3);
        assert!(refusal(&spec, Some(&found(1, 1, 1))).contains("`replication` asks for 3"));
        assert!(
            refusal(&spec, Some(&found(3, 3, 1))).contains("its `min.insync.replicas` is 1 and must be 2")
        );
        spec.allow_fewer_replicas = true;
        for (replication, min) in [(1, 1), (3, 1), (2, 2)] {
            assert_eq!(check(&spec, Some(&found(replication, replication, min))), Verdict::Good);
        }
    }

    #[test]
    fn what_was_asked_for_is_good() {
        for (asked, replication, min) in [(1, 1, 1), (1, 3, 1), (2, 2, 1), (2, 2, 2), (3, 3, 2), (3, 5, 3)] {
            let verdict = check(&TopicSpec::new("t", 1, asked), Some(&found(replication, replication, min)));
            assert_eq!(verdict, Verdict::Good, "{asked} asked, {replication} found, {min} in sync");
        }
        assert_eq!(check(&TopicSpec::existing("t"), Some(&found(1, 1, 1))), Verdict::Good);
    }

    #[test]
    fn a_missing_topic_is_refused_unless_it_was_just_made() {
        assert!(refusal(&TopicSpec::existing("t"), None).contains("it does not exist"));
        assert!(matches!(check(&TopicSpec::new("t", 1, 1), None), Verdict::NotYet(_)));
    }
}
