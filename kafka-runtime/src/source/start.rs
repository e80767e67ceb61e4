//! Where a partition begins to be read, if the consumer chooses that itself.

use crate::BoxError;
use crate::error::Error;
use crate::panic::message;
use crate::record::TopicPartition;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, try_join_all};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

/// Time limit of one attempt to choose start offsets.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A partition that was assigned to this member and is not read yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionStart {
    /// The partition.
    pub partition: TopicPartition,
    /// The committed offset of the group. `None`: it has committed none.
    pub committed: Option<i64>,
    /// The offset of the first stored record.
    pub first: i64,
    /// The offset after the last stored record.
    pub end: i64,
}

/// Chooses the start offset of a partition. `None`: the committed offset, or else the [`InitialOffset`](super::InitialOffset). See
/// [`Consumer::start_offsets`](crate::Consumer::start_offsets).
pub type StartOffsets =
    Arc<dyn Fn(PartitionStart) -> BoxFuture<'static, Result<Option<i64>, BoxError>> + Send + Sync>;

/// Chooses the start offsets of partitions, within the stored records of each. One attempt.
pub(crate) async fn choose(
    hook: &StartOffsets,
    partitions: Vec<PartitionStart>,
) -> Result<Vec<(TopicPartition, Option<i64>)>, Error> {
    let choose = async |start: PartitionStart| {
        let (partition, first, end) = (start.partition.clone(), start.first, start.end);
        let failed = |source: BoxError| Error::StartOffset { partition: partition.clone(), source };
        let asked = AssertUnwindSafe(async { hook(start).await }).catch_unwind();
        let offset = match tokio::time::timeout(TIMEOUT, asked).await {
            Ok(Ok(Ok(offset))) => offset,
            Ok(Ok(Err(error))) => return Err(failed(error)),
            Ok(Err(panic)) => return Err(failed(format!("it panicked: {}", message(&*panic)).into())),
            Err(_) => return Err(failed(format!("no answer within {} s", TIMEOUT.as_secs()).into())),
        };
        Ok((partition, offset.map(|offset| offset.clamp(first, end))))
    };
    try_join_all(partitions.into_iter().map(choose)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(partition: i32) -> PartitionStart {
        let partition = TopicPartition { topic: "t".into(), partition };
        PartitionStart { partition, committed: Some(50), first: 10, end: 100 }
    }

    fn hook(
        choose: impl Fn(PartitionStart) -> Result<Option<i64>, BoxError> + Send + Sync + 'static,
    ) -> StartOffsets {
        Arc::new(move |start| std::future::ready(choose(start)).boxed())
    }

    async fn offset(chosen: i64) -> Option<i64> {
        choose(&hook(move |_| Ok(Some(chosen))), vec![start(0)]).await.unwrap()[0].1
    }

    #[tokio::test]
    async fn a_chosen_offset_lies_within_the_stored_records() {
        assert_eq!(offset(9).await, Some(10));
        assert_eq!(offset(42).await, Some(42));
        assert_eq!(offset(101).await, Some(100));
        assert_eq!(choose(&hook(|_| Ok(None)), vec![start(0)]).await.unwrap()[0].1, None);
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_a_panic_and_silence_name_the_partition() {
        let fails = hook(|start| match start.partition.partition {
            0 => Ok(None),
            1 => Err("the database is down".into()),
            _ => panic!("on purpose"),
        });
        for (partition, reason) in [(1, "the database is down"), (2, "it panicked: on purpose")] {
            let error = choose(&fails, vec![start(0), start(partition)]).await.unwrap_err();
            assert_eq!(
                error.describe(),
                format!("cannot choose the start offset of t/{partition}: {reason}")
            );
        }
        let silent: StartOffsets = Arc::new(|_| std::future::pending().boxed());
        let error = choose(&silent, vec![start(3)]).await.unwrap_err();
        assert_eq!(error.describe(), "cannot choose the start offset of t/3: no answer within 5 s");
    }
}
