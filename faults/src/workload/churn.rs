//! Disruptions of devices and changes of group membership.

use super::{command::Command, environment::Environment, population::Group};
use crate::ledger::{Id, MembershipChange, User};
use anyhow::{Context as _, Result};
use futures_util::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use serde_json::json;
use std::{sync::Arc, time::Duration};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Attempts of a membership change, at least 200 ms apart: 5 minutes, longer than any outage.
const ATTEMPTS: usize = 1_500;

/// Time in which a device reconnects after its link is up. It is longer than the pauses between attempts.
const RECONNECT: Duration = Duration::from_millis(2_500);

/// Disrupts devices, `rate` per second, until `stop`. Then all devices are online.
pub(super) async fn disrupt_devices(
    environment: Arc<Environment>,
    seed: u64,
    rate: f64,
    stop: CancellationToken,
) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut offline = FuturesUnordered::new();
    let max_offline = environment.population.devices.len() / 4;
    loop {
        let pause = Duration::from_secs_f64(random.random_range(0.2..1.8) / rate.max(0.01));
        tokio::select! {
            () = sleep(pause) => {}
            () = stop.cancelled() => break,
        }
        while let Some(Some(())) = offline.next().now_or_never() {}
        let id = *environment.population.devices.choose(&mut random).expect("there is a device");
        let device = &environment.devices[id as usize];
        match random.random_range(0..100) {
            0..70 if !device.is_excused() && offline.len() < max_offline => {
                device.set_excused(true);
                environment.recorder.excuse_pending(id);
                device.set_online(false);
                let absence = Duration::from_secs_f64(random.random_range(0.1..12.0));
                let environment = Arc::clone(&environment);
                offline.push(async move {
                    sleep(absence).await;
                    let device = &environment.devices[id as usize];
                    device.set_online(true);
                    sleep(RECONNECT).await;
                    device.set_excused(false);
                });
            }
            70..85 => {
                environment.recorder.excuse_pending(id);
                device.command(Command::Restart);
            }
            85..100 => {
                environment.recorder.excuse_pending(id);
                device.command(Command::Sleep(Duration::from_secs_f64(random.random_range(0.5..4.0))));
            }
            _ => {}
        }
    }
    environment.devices.iter().for_each(|device| device.set_online(true));
}

/// Removes members of a group and adds them again, until `stop`.
pub(super) async fn change_members(
    environment: Arc<Environment>,
    number: usize,
    seed: u64,
    stop: CancellationToken,
) {
    let mut random = StdRng::seed_from_u64(seed ^ number as u64);
    let group = &environment.population.groups[number];
    let mut requests = 0;
    while !group.changing.is_empty() {
        tokio::select! {
            () = sleep(Duration::from_secs_f64(random.random_range(1.0..8.0))) => {}
            () = stop.cancelled() => return,
        }
        let user = *group.changing.choose(&mut random).expect("the loop ends if there is none");
        let joins = environment.is_removed(group.conversation, user);
        let leaves = random.random_bool(0.3);
        requests += 1;
        let request = format!("{}-{requests}", group.request);
        // From the first attempt on, the membership is uncertain. So the user sends no ordinary messages.
        environment.set_removed(group.conversation, user, true);
        match change(&environment, group, user, joins, leaves, &request).await {
            Ok(change) => {
                environment.recorder.membership_changed(change);
                if joins {
                    environment.set_removed(group.conversation, user, false);
                }
            }
            Err(error) => {
                let id = &environment.population.ledger.conversations[group.conversation as usize];
                environment
                    .recorder
                    .unfinished(format!("a membership change of {id}, request {request}, failed: {error:#}"));
                return;
            }
        }
    }
}

async fn change(
    environment: &Environment,
    group: &Group,
    user: User,
    joins: bool,
    leaves: bool,
    request: &str,
) -> Result<MembershipChange> {
    let id = &environment.population.ledger.conversations[group.conversation as usize];
    let name = environment.population.name(user);
    let began = environment.recorder.now();
    let answer = if joins {
        let body = json!({ "users": [name], "request_id": request });
        let path = format!("/v1/groups/{id}/members");
        environment.request(group.owner, "POST", &path, Some(body), ATTEMPTS).await?
    } else {
        let path = format!("/v1/groups/{id}/members/{name}?request_id={request}");
        let caller = if leaves { user } else { group.owner };
        environment.request(caller, "DELETE", &path, None, ATTEMPTS).await?
    };
    let entry = &answer["entry"];
    let text = |name: &str| entry[name].as_str().with_context(|| format!("no {name} in {answer}"));
    Ok(MembershipChange {
        conversation: group.conversation,
        conversation_seq: text("conversationSeq")?.parse().context("conversationSeq")?,
        message_id: Id::parse(text("messageId")?).context("messageId")?,
        user,
        joined: joins,
        began,
        at: environment.recorder.now(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_in_an_answer_is_parsed() {
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
