//! The limits of an outbox, and the order of its frames.

use super::*;
use abi::v1::Ack;
use axum::extract::ws::Message;
use futures_util::FutureExt as _;
use std::future::poll_fn;

const MAX: usize = 10_000;

fn outbox(max_bytes: usize) -> (Outbox, Arc<Memory>) {
    let memory = Memory::new(usize::MAX);
    (Outbox::new(max_bytes, memory.clone()), memory)
}

fn message(bytes: usize) -> Message {
    Message::Binary(vec![0; bytes].into())
}

fn frame(bytes: usize) -> Outgoing {
    Outgoing::Encoded(Encoded::own(message(bytes)))
}

fn id(number: u64) -> SendId {
    SendId { id: 1, number }
}

async fn take(outbox: &Outbox, max_bytes: usize) -> Result<Vec<usize>, ErrorCode> {
    match poll_fn(|cx| outbox.poll_take(cx, true, max_bytes)).await {
        Taken::Frames(frames) => {
            Ok(frames.iter().map(|frame| frame.size() - size_of::<Outgoing>()).collect())
        }
        Taken::Close(error) => Err(error.code),
    }
}

#[tokio::test]
async fn frames_are_taken_in_order_and_a_batch_has_at_least_one() {
    let (outbox, _) = outbox(MAX);
    for bytes in [1, 2, 3_000, 4] {
        outbox.push(frame(bytes));
    }
    assert_eq!(take(&outbox, 1_000).await, Ok(vec![1, 2]));
    assert_eq!(take(&outbox, 1_000).await, Ok(vec![3_000]));
    assert_eq!(take(&outbox, 1_000).await, Ok(vec![4]));
}

#[tokio::test]
async fn p7_a_slow_device_is_closed_and_its_queue_is_dropped() {
    let (outbox, memory) = outbox(MAX);
    for _ in 0..100 {
        outbox.push(frame(1_000));
    }
    assert_eq!((memory.used(), outbox.queued_bytes()), (0, None));
    assert_eq!(take(&outbox, MAX).await, Err(ErrorCode::TooSlow));
    assert!(outbox.take(MAX).is_empty());
}

#[tokio::test]
async fn p7_frames_count_at_their_real_size_until_they_are_written() {
    let (outbox, memory) = outbox(MAX);
    let ack = Ack { message_id: "m".repeat(32), client_msg_id: "c".repeat(64), sent_at_ms: 0 };
    outbox.push(Outgoing::Sent { id: id(1), result: Ok(ack) });
    outbox.push(frame(5_000));
    let all = 5_096 + 2 * size_of::<Outgoing>();
    assert_eq!((memory.used(), outbox.queued_bytes()), (all, Some(all)));
    take(&outbox, MAX).await.unwrap();
    assert_eq!((memory.used(), outbox.queued_bytes()), (all, Some(all)), "they are being written");
    outbox.push(frame(7_000));
    assert_eq!(take(&outbox, MAX).await, Err(ErrorCode::TooSlow), "what is being written counts");
    outbox.written();
    assert_eq!(memory.used(), 0);
    outbox.push(frame(1));
    drop(outbox);
    assert_eq!(memory.used(), 0);
}

#[tokio::test]
async fn p7_a_connection_that_has_ended_holds_no_memory() {
    let (outbox, memory) = outbox(MAX);
    outbox.push(frame(1_000));
    take(&outbox, MAX).await.unwrap();
    outbox.push(frame(1_000));
    outbox.discard();
    outbox.push(frame(1_000));
    assert_eq!(memory.used(), 0);
}

#[tokio::test]
async fn p7_a_shared_frame_counts_for_each_connection_and_once_for_the_gateway() {
    let memory = Memory::new(usize::MAX);
    for message in [message(3_000), Message::Text("x".repeat(3_000).into())] {
        let outboxes: Vec<_> = (0..10).map(|_| Outbox::new(MAX, memory.clone())).collect();
        let shared = Encoded::shared(message.clone(), &memory);
        assert_eq!(shared.message(), &message);
        outboxes.iter().for_each(|outbox| outbox.push(Outgoing::Encoded(shared.clone())));
        drop(shared);
        let each = size_of::<Outgoing>();
        assert_eq!(outboxes[0].queued_bytes(), Some(3_000 + each));
        assert_eq!(memory.used(), 3_000 + 10 * each);
        drop(outboxes);
        assert_eq!(memory.used(), 0);
    }
}

#[tokio::test]
async fn p7_an_answer_in_parts_waits_for_room() {
    let (outbox, _) = outbox(MAX);
    outbox.push(frame(2_000));
    let room = outbox.room(2_000);
    let mut room = std::pin::pin!(room);
    assert!(room.as_mut().now_or_never().is_none());
    take(&outbox, MAX).await.unwrap();
    assert!(room.as_mut().now_or_never().is_none(), "the frame is not written yet");
    outbox.written();
    assert!(room.as_mut().now_or_never().is_some());
}

#[tokio::test]
async fn p3_a_refusal_is_known_only_to_sends_that_begin_after_it_was_processed() {
    let (outbox, _) = outbox(MAX);
    outbox.begin_send(0);
    assert!(!outbox.has_refusal());
    outbox.push_refusal(id(1), ApiError::unavailable("not now"));
    assert!(outbox.has_refusal());
    take(&outbox, MAX).await.unwrap();
    assert!(outbox.has_refusal(), "the current send began before");
    outbox.begin_send(1);
    assert!(!outbox.has_refusal());
    outbox.close(ApiError::new(ErrorCode::GoingAway, "drain"));
    outbox.push_refusal(id(2), ApiError::unavailable("not now"));
    assert!(outbox.has_refusal(), "even if the frame is dropped");
}

#[tokio::test]
async fn the_first_close_reason_wins_and_queued_frames_can_still_be_written() {
    let (outbox, _) = outbox(MAX);
    outbox.push(frame(5));
    outbox.close(ApiError::new(ErrorCode::GoingAway, "drain"));
    outbox.close(ApiError::new(ErrorCode::Replaced, "other"));
    outbox.push(frame(6));
    assert_eq!(take(&outbox, MAX).await, Err(ErrorCode::GoingAway));
    assert_eq!(outbox.take(MAX).len(), 1);
}
