//! The rules of the protocol, without a socket.

use super::*;
use abi::v1::Ping;

const SECOND: Duration = Duration::from_secs(1);

fn protocol(now: Instant) -> Protocol {
    let settings = Settings {
        hello_timeout: 5 * SECOND,
        heartbeat: 30 * SECOND,
        recheck: 900 * SECOND,
        max_in_flight: 2,
        requests_per_second: 1,
        request_burst: 3,
    };
    Protocol::new(Arc::new(settings), now)
}

fn identity() -> Identity {
    Identity { user: "alice".into(), device: "phone".into(), session: "s".into() }
}

fn live(now: Instant) -> Protocol {
    let mut protocol = protocol(now);
    assert!(matches!(
        protocol.on_frame(frame(Frame::Hello(Hello::default())), now),
        Step::Authenticate(1, _)
    ));
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

fn closed(step: &Step) -> ErrorCode {
    match step {
        Step::Close(error) => error.code,
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
    assert_eq!(closed(&protocol.on_time(now + 5 * SECOND).unwrap()), ErrorCode::HelloTimeout);
}

#[test]
fn p8_a_second_hello_is_refused_and_keeps_the_identity() {
    let now = Instant::now();
    let mut protocol = live(now);
    let step = protocol.on_frame(frame(Frame::Hello(Hello::default())), now);
    assert!(matches!(step, Step::Refuse(1, error) if error.code == ErrorCode::InvalidRequest));
    assert_eq!(protocol.identity(), Some(&identity()));
}

#[test]
fn p7_a_silent_device_is_closed_and_a_control_frame_counts_as_activity() {
    let now = Instant::now();
    let mut protocol = live(now);
    protocol.on_control_frame(now + 60 * SECOND);
    assert_eq!(protocol.on_time(now + 76 * SECOND), Some(Step::Renew));
    assert_eq!(protocol.on_time(now + 76 * SECOND), None);
    assert_eq!(closed(&protocol.on_time(now + 135 * SECOND).unwrap()), ErrorCode::IdleTimeout);
}

#[test]
fn p5_the_route_is_renewed_with_every_heartbeat() {
    let now = Instant::now();
    let mut protocol = live(now);
    assert_eq!(protocol.deadline(), now + 30 * SECOND);
    assert_eq!(protocol.on_time(now + 30 * SECOND), Some(Step::Renew));
    assert_eq!(protocol.on_time(now + 30 * SECOND), None);
    assert_eq!(protocol.on_frame(ping(), now + 40 * SECOND), Step::Answer(1, Request::Ping));
    assert_eq!(protocol.deadline(), now + 70 * SECOND);
}

#[test]
fn p8_the_account_session_is_rechecked_periodically() {
    let now = Instant::now();
    let mut protocol = live(now);
    let later = now + 900 * SECOND;
    protocol.on_control_frame(later);
    assert_eq!(protocol.on_time(later), Some(Step::Recheck));
    assert_ne!(protocol.on_time(later), Some(Step::Recheck));
}

#[test]
fn p7_reading_pauses_while_too_many_sends_are_unanswered() {
    let now = Instant::now();
    let mut protocol = live(now);
    for _ in 0..2 {
        assert!(protocol.can_read());
        assert!(matches!(protocol.on_frame(frame(Frame::Send(Send::default())), now), Step::Send(1, _)));
    }
    assert!(!protocol.can_read());
    protocol.on_done(Done::Write(Answers { ids: vec![1], ..Answers::default() }), now, || now);
    assert!(protocol.can_read());
}

#[test]
fn p7_requests_are_rate_limited_and_the_error_says_how_long_to_wait() {
    let now = Instant::now();
    let mut protocol = live(now);
    for _ in 0..3 {
        assert_eq!(protocol.on_frame(ping(), now), Step::Answer(1, Request::Ping));
    }
    match protocol.on_frame(ping(), now) {
        Step::Refuse(1, error) => {
            assert_eq!(error.code, ErrorCode::RateLimited);
            let wait = error.retry_after.unwrap();
            assert!(wait > Duration::ZERO && wait <= SECOND, "{wait:?}");
            assert_eq!(protocol.on_frame(ping(), now + wait), Step::Answer(1, Request::Ping));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn p7_a_flood_of_invalid_frames_closes_the_connection() {
    let now = Instant::now();
    let mut protocol = live(now);
    for _ in 0..3 {
        assert!(matches!(protocol.on_frame(undecodable(), now), Step::Refuse(7, _)));
    }
    assert_eq!(closed(&protocol.on_frame(undecodable(), now)), ErrorCode::RateLimited);
}
