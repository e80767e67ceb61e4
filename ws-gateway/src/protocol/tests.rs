//! The rules of the protocol, without a socket.

use super::*;
use abi::v1::{GetHeads, GetHistory, Hello, Ping};

const SECOND: Duration = Duration::from_secs(1);

fn settings() -> Settings {
    Settings {
        hello_timeout: 5 * SECOND,
        heartbeat: 30 * SECOND,
        recheck: 900 * SECOND,
        max_in_flight: 2,
        max_requests: 2,
        max_waiting: 1_000,
        requests_per_second: 1,
        request_burst: 3,
    }
}

fn protocol(now: Instant) -> Protocol {
    Protocol::new(Arc::new(settings()), now)
}

fn identity() -> Identity {
    Identity { user: "alice".into(), device: "phone".into(), session: "s".into() }
}

fn live(now: Instant) -> Protocol {
    let mut protocol = protocol(now);
    assert!(matches!(
        protocol.on_frame(frame(Frame::Hello(Hello::default())), now),
        Some(Step::Authenticate(1, _))
    ));
    assert!(protocol.is_authenticating() && !protocol.can_read());
    protocol.welcomed(identity(), now);
    protocol
}

fn frame(frame: Frame) -> Result<ClientFrame, FrameError> {
    Ok(ClientFrame { id: 1, frame: Some(frame) })
}

fn ping() -> Result<ClientFrame, FrameError> {
    frame(Frame::Ping(Ping {}))
}

fn undecodable() -> Result<ClientFrame, FrameError> {
    Err(FrameError { id: 7, error: ApiError::invalid("?") })
}

fn with_id(id: u32, frame: Frame) -> Result<ClientFrame, FrameError> {
    Ok(ClientFrame { id, frame: Some(frame) })
}

fn history() -> Frame {
    Frame::History(GetHistory::default())
}

fn message(conversation: &str, text: &str) -> Frame {
    Frame::Send(Send { conversation: conversation.into(), client_msg_id: text.into(), message: None })
}

fn refused(step: Option<Step>) -> (u32, ErrorCode) {
    match step {
        Some(Step::Refuse(id, error)) => (id, error.code),
        other => panic!("not a refusal: {other:?}"),
    }
}

fn answered(step: Option<Step>) -> u32 {
    match step {
        Some(Step::Answer(id, _)) => id,
        other => panic!("not an answer: {other:?}"),
    }
}

fn sent(step: Option<Step>) -> SendId {
    match step {
        Some(Step::Send(id, _)) => id,
        other => panic!("not a send: {other:?}"),
    }
}

fn closed(step: &Option<Step>) -> ErrorCode {
    match step {
        Some(Step::Close(error)) => error.code,
        other => panic!("not a close: {other:?}"),
    }
}

#[test]
fn p8_the_first_frame_must_be_hello() {
    let now = Instant::now();
    assert_eq!(closed(&protocol(now).on_frame(ping(), now)), ErrorCode::Unauthenticated);
    assert_eq!(closed(&protocol(now).on_frame(undecodable(), now)), ErrorCode::InvalidRequest);
    assert_eq!(
        closed(&protocol(now).on_frame(Ok(ClientFrame { id: 1, frame: None }), now)),
        ErrorCode::InvalidRequest
    );
}

#[test]
fn p7_a_connection_without_hello_is_closed_after_the_timeout() {
    let now = Instant::now();
    let mut protocol = protocol(now);
    assert_eq!(protocol.deadline(), now + 5 * SECOND);
    assert_eq!(protocol.on_time(now + 4 * SECOND), None);
    assert_eq!(closed(&protocol.on_time(now + 5 * SECOND)), ErrorCode::HelloTimeout);
}

#[test]
fn p8_a_second_hello_is_refused_and_keeps_the_identity() {
    let now = Instant::now();
    let mut protocol = live(now);
    let step = protocol.on_frame(frame(Frame::Hello(Hello::default())), now);
    assert_eq!(refused(step), (1, ErrorCode::InvalidRequest));
    assert_eq!(protocol.identity(), Some(&identity()));
}

#[test]
fn p7_a_silent_device_is_closed_and_a_control_frame_counts_as_activity() {
    let now = Instant::now();
    let mut protocol = live(now);
    protocol.on_sign_of_life(now + 60 * SECOND);
    assert_eq!(protocol.on_time(now + 76 * SECOND), Some(Step::Renew));
    assert_eq!(protocol.on_time(now + 76 * SECOND), None);
    assert_eq!(closed(&protocol.on_time(now + 135 * SECOND)), ErrorCode::IdleTimeout);
}

#[test]
fn p5_the_route_is_renewed_with_every_heartbeat() {
    let now = Instant::now();
    let mut protocol = live(now);
    assert_eq!(protocol.deadline(), now + 30 * SECOND);
    assert_eq!(protocol.on_time(now + 30 * SECOND), Some(Step::Renew));
    assert_eq!(protocol.on_time(now + 30 * SECOND), None);
    assert_eq!(answered(protocol.on_frame(ping(), now + 40 * SECOND)), 1);
    assert_eq!(protocol.deadline(), now + 70 * SECOND);
}

#[test]
fn p8_the_account_session_is_rechecked_periodically() {
    let now = Instant::now();
    let mut protocol = live(now);
    let later = now + 900 * SECOND;
    protocol.on_sign_of_life(later);
    assert_eq!(protocol.on_time(later), Some(Step::Recheck));
    assert_ne!(protocol.on_time(later), Some(Step::Recheck));
}

#[test]
fn p7_a_device_whose_token_is_checked_for_too_long_is_told_to_try_again() {
    let now = Instant::now();
    let mut protocol = protocol(now);
    protocol.on_frame(frame(Frame::Hello(Hello::default())), now + 4 * SECOND);
    assert_eq!(protocol.on_time(now + 8 * SECOND), None);
    assert_eq!(closed(&protocol.on_time(now + 9 * SECOND)), ErrorCode::Unavailable);
}

#[test]
fn p7_reading_pauses_while_too_many_sends_are_unanswered() {
    let now = Instant::now();
    let mut protocol = live(now);
    let mut ids = Vec::new();
    for id in 1..3 {
        assert!(protocol.can_read());
        ids.push(sent(protocol.on_frame(with_id(id, message("c", "m")), now)));
        protocol.sent(ids[ids.len() - 1], None);
    }
    assert!(!protocol.can_read());
    protocol.written(&ids[..1], || now);
    assert!(protocol.can_read());
}

#[test]
fn p3_sends_are_checked_one_after_the_other_and_requests_overtake_them() {
    let now = Instant::now();
    let mut protocol = live(now);
    let first = sent(protocol.on_frame(with_id(1, message("c", "first")), now));
    assert_eq!(protocol.on_frame(with_id(2, message("c", "second")), now), None);
    assert!(!protocol.can_read(), "a waiting send is unanswered as well");
    assert_eq!(answered(protocol.on_frame(with_id(3, history()), now)), 3);
    assert_eq!(protocol.next_step(), None);
    // The first one is refused: the second one, which was read before, must not overtake it.
    protocol.sent(first, Some(&ApiError::unavailable("not now")));
    assert_eq!(refused(protocol.next_step()), (2, ErrorCode::Unavailable));
    assert_eq!(protocol.next_step(), None);
    protocol.written(&[first], || now);
    assert!(protocol.can_read());
}

#[test]
fn p3_a_send_that_waited_longer_than_the_hold_does_not_overtake() {
    let now = Instant::now();
    let mut protocol = live(now);
    let lost = sent(protocol.on_frame(with_id(1, message("c", "first")), now));
    protocol.sent(lost, None);
    let slow = sent(protocol.on_frame(with_id(2, message("other", "slow")), now));
    // The log refuses the first message, while a second one to the same conversation waits.
    protocol.refused(lost, &ApiError::unavailable("not now"));
    protocol.written(&[lost], || now);
    assert!(protocol.has_holds());
    assert_eq!(protocol.on_frame(with_id(3, message("c", "second")), now), None);
    protocol.sent(slow, None);
    protocol.written(&[slow], || now + 3 * SECOND);
    assert_eq!(refused(protocol.next_step()), (3, ErrorCode::Unavailable));
}

#[test]
fn p7_a_few_requests_are_answered_at_a_time_and_pings_never_wait_for_them() {
    let now = Instant::now();
    let mut protocol = Protocol::new(Arc::new(Settings { request_burst: 1_000, ..settings() }), now);
    protocol.on_frame(frame(Frame::Hello(Hello::default())), now);
    protocol.welcomed(identity(), now);
    for id in [1, 2] {
        assert_eq!(answered(protocol.on_frame(with_id(id, history()), now)), id);
    }
    for id in [3, 4] {
        assert_eq!(protocol.on_frame(with_id(id, history()), now), None);
    }
    assert_eq!(answered(protocol.on_frame(with_id(5, Frame::Ping(Ping {})), now)), 5);
    assert_eq!(protocol.on_frame(with_id(6, Frame::Ping(Ping {})), now), None, "one ping at a time");
    protocol.answered(5, true);
    assert_eq!(answered(protocol.next_step()), 6);
    assert_eq!(protocol.next_step(), None);
    protocol.answered(2, false);
    assert_eq!(answered(protocol.next_step()), 3);
    protocol.answered(1, false);
    assert_eq!(answered(protocol.next_step()), 4);
    assert_eq!(protocol.next_step(), None);
    // Waiting requests are limited in number and in bytes.
    let mut waiting = 0;
    while protocol.can_read() {
        waiting += 1;
        assert_eq!(protocol.on_frame(with_id(100 + waiting, history()), now), None);
    }
    assert_eq!(waiting, 64);
    protocol.answered(3, false);
    assert_eq!(answered(protocol.next_step()), 101);
    assert!(protocol.can_read());
    let large = GetHeads { after: "x".repeat(1_000), limit: 0 };
    assert_eq!(protocol.on_frame(with_id(7, Frame::Heads(large)), now), None);
    assert!(!protocol.can_read());
}

#[test]
fn an_id_of_an_unanswered_frame_is_refused_with_that_id() {
    let now = Instant::now();
    let mut protocol = Protocol::new(Arc::new(Settings { request_burst: 1_000, ..settings() }), now);
    protocol.on_frame(frame(Frame::Hello(Hello::default())), now);
    protocol.welcomed(identity(), now);
    let send = sent(protocol.on_frame(with_id(1, message("c", "m")), now));
    assert_eq!(answered(protocol.on_frame(with_id(2, history()), now)), 2);
    for id in [1, 2] {
        for content in [message("c", "n"), history(), Frame::Ping(Ping {})] {
            assert_eq!(
                refused(protocol.on_frame(with_id(id, content), now)),
                (id, ErrorCode::InvalidRequest)
            );
        }
    }
    protocol.sent(send, None);
    protocol.written(&[send], || now);
    protocol.answered(2, false);
    assert_eq!(answered(protocol.on_frame(with_id(1, history()), now)), 1);
    assert_eq!(sent(protocol.on_frame(with_id(2, message("c", "n")), now)).id, 2);
}

#[test]
fn frames_with_id_0_may_be_many_but_not_requests_for_pages() {
    let now = Instant::now();
    let mut protocol = live(now);
    let first = sent(protocol.on_frame(with_id(0, message("c", "m")), now));
    protocol.sent(first, None);
    let second = sent(protocol.on_frame(with_id(0, message("c", "n")), now));
    assert_ne!(first, second);
    protocol.sent(second, None);
    protocol.written(&[second], || now);
    assert!(protocol.can_read());
    protocol.written(&[first], || now);
    assert_eq!(answered(protocol.on_frame(with_id(0, Frame::Ping(Ping {})), now)), 0);
    assert_eq!(refused(protocol.on_frame(with_id(0, history()), now)), (0, ErrorCode::InvalidRequest));
}

#[test]
fn p7_requests_are_rate_limited_and_the_error_says_how_long_to_wait() {
    let now = Instant::now();
    let mut protocol = live(now);
    for _ in 0..3 {
        assert_eq!(answered(protocol.on_frame(ping(), now)), 1);
        protocol.answered(1, true);
    }
    let Some(Step::Refuse(1, error)) = protocol.on_frame(ping(), now) else { panic!("it is not refused") };
    assert_eq!(error.code, ErrorCode::RateLimited);
    let wait = error.retry_after.unwrap();
    assert!(wait > Duration::ZERO && wait <= SECOND, "{wait:?}");
    assert_eq!(answered(protocol.on_frame(ping(), now + wait)), 1);
}

#[test]
fn p7_invalid_frames_are_rate_limited_and_never_close_the_connection() {
    let now = Instant::now();
    let mut protocol = live(now);
    for _ in 0..3 {
        let step = protocol.on_frame(undecodable(), now);
        assert_eq!(refused(step), (7, ErrorCode::InvalidRequest));
    }
    let unknown = Ok(ClientFrame { id: 9, frame: None });
    assert_eq!(refused(protocol.on_frame(unknown, now)), (9, ErrorCode::RateLimited));
}
