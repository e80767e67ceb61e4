//! Devices that go away and come back, programs that are started again, members who are removed and added.

use super::{Order, cast::Group, stage::Stage};
use crate::ledger::{Change, Id, User};
use anyhow::{Context as _, Result};
use futures_util::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use serde_json::json;
use std::{sync::Arc, time::Duration};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Attempts to change a group, 200 ms apart or more: the worst outage is shorter.
const ATTEMPTS: usize = 1_500;

/// A device that may connect again does so in this time: its pauses between attempts are no longer.
const RETURN: Duration = Duration::from_millis(2_500);

/// Sends devices away, `rate` per second, until it is stopped; then all are online.
pub(super) async fn absences(stage: Arc<Stage>, seed: u64, rate: f64, stop: CancellationToken) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut away = FuturesUnordered::new();
    let most = stage.cast.devices.len() / 4;
    loop {
        let pause = Duration::from_secs_f64(random.random_range(0.2..1.8) / rate.max(0.01));
        tokio::select! {
            () = sleep(pause) => {}
            () = stop.cancelled() => break,
        }
        while let Some(Some(())) = away.next().now_or_never() {}
        let device = *stage.cast.devices.choose(&mut random).expect("there is a device");
        let hand = &stage.hands[device as usize];
        match random.random_range(0..100) {
            0..70 if !hand.is_excused() && away.len() < most => {
                hand.set_excused(true);
                stage.book.excuse(device);
                hand.set_online(false);
                let absence = Duration::from_secs_f64(random.random_range(0.1..12.0));
                let stage = Arc::clone(&stage);
                away.push(async move {
                    sleep(absence).await;
                    let hand = &stage.hands[device as usize];
                    hand.set_online(true);
                    sleep(RETURN).await;
                    hand.set_excused(false);
                });
            }
            70..85 => {
                stage.book.excuse(device);
                hand.order(Order::Restart);
            }
            85..100 => {
                stage.book.excuse(device);
                hand.order(Order::Doze(Duration::from_secs_f64(random.random_range(0.5..4.0))));
            }
            _ => {}
        }
    }
    stage.hands.iter().for_each(|hand| hand.set_online(true));
}

/// Removes members of a group and adds them again until it is stopped.
pub(super) async fn members(stage: Arc<Stage>, number: usize, seed: u64, stop: CancellationToken) {
    let mut random = StdRng::seed_from_u64(seed ^ number as u64);
    let group = &stage.cast.groups[number];
    let mut requests = 0;
    while !group.comers.is_empty() {
        tokio::select! {
            () = sleep(Duration::from_secs_f64(random.random_range(1.0..8.0))) => {}
            () = stop.cancelled() => return,
        }
        let user = *group.comers.choose(&mut random).expect("there is one, or nothing would be done");
        let joins = stage.is_out(group.conversation, user);
        let leaves = random.random_bool(0.3);
        requests += 1;
        let request = format!("{}-{requests}", group.request);
        // From the first attempt on nobody can tell; whoever is to be removed says no more.
        stage.set_out(group.conversation, user, true);
        match change(&stage, group, user, joins, leaves, &request).await {
            Ok(change) => {
                stage.book.changed(change);
                if joins {
                    stage.set_out(group.conversation, user, false);
                }
            }
            Err(error) => {
                let id = &stage.cast.ledger.conversations[group.conversation as usize];
                stage.book.unfinished(format!("a change of {id}, request {request}, failed: {error:#}"));
                return;
            }
        }
    }
}

async fn change(
    stage: &Stage,
    group: &Group,
    user: User,
    joins: bool,
    leaves: bool,
    request: &str,
) -> Result<Change> {
    let id = &stage.cast.ledger.conversations[group.conversation as usize];
    let name = stage.cast.name(user);
    let began = stage.book.now();
    let answer = if joins {
        let body = json!({ "users": [name], "request_id": request });
        stage.ask(group.owner, "POST", &format!("/v1/groups/{id}/members"), Some(body), ATTEMPTS).await?
    } else {
        let path = format!("/v1/groups/{id}/members/{name}?request_id={request}");
        stage.ask(if leaves { user } else { group.owner }, "DELETE", &path, None, ATTEMPTS).await?
    };
    let entry = &answer["entry"];
    let text = |name: &str| entry[name].as_str().with_context(|| format!("no {name} in {answer}"));
    Ok(Change {
        conversation: group.conversation,
        conversation_seq: text("conversationSeq")?.parse().context("conversationSeq")?,
        message_id: Id::parse(text("messageId")?).context("messageId")?,
        user,
        joined: joins,
        began,
        at: stage.book.now(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_of_an_answer_is_read() {
        let answer = serde_json::to_value(abi::v1::Entry {
            conversation_seq: 7,
            message_id: "00112233445566778899aabbccddeeff".into(),
            ..abi::v1::Entry::default()
        })
        .unwrap();
        assert_eq!(answer["conversationSeq"], "7");
        assert!(Id::parse(answer["messageId"].as_str().unwrap()).is_some());
    }
}
