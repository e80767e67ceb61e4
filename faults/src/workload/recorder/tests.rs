use super::*;
use crate::ledger::{Device, DeviceKind, Outcome};
use crate::workload::command::Intent;
use abi::v1::{Ack, content::Body};
use std::time::Duration;

fn recorder() -> Recorder {
    let device =
        |name: &str| Device { user: 0, name: name.into(), kind: DeviceKind::Sdk, incarnations: Vec::new() };
    Recorder::new(Ledger {
        users: vec!["alice".into()],
        conversations: vec!["d:alice:alice".into()],
        devices: ["phone", "tablet"].map(device).into(),
        ..Ledger::default()
    })
}

fn ack(number: u8) -> Ack {
    Ack { message_id: Id([number; 16]).to_string(), ..Ack::default() }
}

#[test]
fn the_first_acknowledgement_of_a_send_takes_precedence() {
    let recorder = recorder();
    let job = recorder.begin_send(0, 0, &Intent::Message { size: 50 }, false, false);
    let sent = job.draft.clone().into_send("", String::new());
    assert!(matches!(sent.content.unwrap().body, Some(Body::Text(text))
        if text.starts_with(&job.client_msg_id) && text.len() == 50));
    assert_eq!((recorder.pending_count(), recorder.unseen_count()), (1, 0));
    recorder.acked(job.send, &ack(1));
    recorder.acked(job.send, &ack(2));
    recorder.refused(job.send, "internal", true);
    assert_eq!((recorder.pending_count(), recorder.unseen_count(), recorder.acked_count()), (0, 1, 1));
    let entry = Entry { message_id: ack(1).message_id, conversation: job.conversation, ..Entry::default() };
    recorder.begin_incarnation(0, &State::default());
    recorder.shown(0, &entry, true);
    assert_eq!(recorder.unseen_count(), 0);
    let ledger = recorder.take_ledger();
    assert!(matches!(ledger.sends[0].outcome, Outcome::Acked { message_id: Id([1, ..]), .. }));
    assert_eq!(ledger.later_acks.len(), 1);
    assert_eq!(ledger.devices[0].incarnations[0].observations.len(), 1);
}

#[tokio::test]
async fn waits_of_disrupted_devices_do_not_count_as_pauses() {
    let recorder = recorder();
    let begin = Instant::now();
    let send = recorder.begin_send(0, 0, &Intent::Message { size: 50 }, false, false).send;
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(recorder.longest_pause_since(begin) >= Duration::from_millis(15), "the wait has not ended");
    recorder.acked(send, &ack(1));
    let pause = recorder.longest_pause_since(begin);
    assert!(pause >= Duration::from_millis(15));
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(recorder.longest_pause_since(begin), pause, "the wait is over");
    assert_eq!(recorder.longest_pause_since(Instant::now()), Duration::ZERO);
    let disrupted = recorder.begin_send(0, 0, &Intent::Message { size: 50 }, false, false).send;
    recorder.excuse_pending(0);
    tokio::time::sleep(Duration::from_millis(30)).await;
    recorder.acked(disrupted, &ack(2));
    assert_eq!(recorder.longest_pause_since(begin), pause);
}

#[test]
fn a_copy_of_another_device_is_a_send_of_its_own() {
    let recorder = recorder();
    let job = recorder.begin_send(0, 0, &Intent::Message { size: 50 }, true, false);
    let copy = recorder.begin_copy(&job, 1);
    assert!(job.may_be_copied && !copy.may_be_copied);
    assert_eq!((recorder.pending_count(), &copy.client_msg_id), (2, &job.client_msg_id));
    recorder.acked(copy.send, &ack(2));
    let ledger = recorder.take_ledger();
    let [original, copy] = &ledger.sends[..] else { panic!("there are two sends") };
    assert_eq!((original.device, copy.device), (0, 1));
    assert_eq!((&original.outcome, copy.forbidden), (&Outcome::Unknown, true));
    assert_ne!(original.digest, copy.digest, "the entries differ in the device");
}
