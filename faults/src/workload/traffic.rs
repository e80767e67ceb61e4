//! The ordinary messages of the workload, and changes of them.

use super::{
    command::Intent,
    environment::{DeviceHandle, Environment},
};
use crate::ledger::{Conversation, User};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// Sends without an outcome above which no new ones begin.
const MAX_PENDING: usize = 4_000;
/// Probability that an offline device still gets a message to send.
const OFFLINE: f64 = 0.1;
/// Fraction of messages that users send to conversations of which they were never members.
const FORBIDDEN: f64 = 0.004;
/// Fraction of messages that removed members send to their group.
const REMOVED: f64 = 0.004;
/// Fraction of sends that answer or change an earlier message.
const CHANGES: f64 = 0.12;
/// Fraction of those that edit a message of another user.
const FORBIDDEN_EDITS: f64 = 0.02;
/// The reactions in use. An entry can have 64 different ones.
const REACTIONS: [&str; 6] = ["+1", "-1", "heart", "?", "\u{1f600}", "\u{1f389}"];

/// Sends messages at a rate until `stop`.
pub(super) async fn run(environment: Arc<Environment>, seed: u64, rate: f64, stop: CancellationToken) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut tick = interval(Duration::from_millis(10));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut due, mut last) = (0.0, Instant::now());
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = stop.cancelled() => return,
        }
        let now = Instant::now();
        // After a delay of this task, catch up on at most 100 ms of messages, to avoid a burst.
        due += (now - last).as_secs_f64().min(0.1) * rate;
        last = now;
        while due >= 1.0 {
            due -= 1.0;
            if environment.recorder.pending_count() < MAX_PENDING {
                send_one(&environment, &mut random);
            }
        }
    }
}

/// Sends a message, unless the chosen user is removed from the group or the chosen device is offline.
fn send_one(environment: &Environment, random: &mut StdRng) {
    let size = match random.random_range(0..1_000) {
        0 => 8_000,
        1..=50 => 1_000,
        _ => random.random_range(36..300),
    };
    if random.random_bool(FORBIDDEN) {
        return send_as_outsider(environment, random, size);
    }
    if random.random_bool(REMOVED) {
        return send_as_removed_member(environment, random, size);
    }
    let conversations = &environment.population.conversations;
    let conversation = conversations
        .choose_weighted(random, |conversation| conversation.weight)
        .expect("there is a conversation");
    let user = *conversation.members.choose(random).expect("a conversation has members");
    if environment.is_removed(conversation.id, user) {
        return;
    }
    let devices: Vec<&DeviceHandle> =
        environment.devices.iter().filter(|device| device.user == user).collect();
    let device = *devices.choose(random).expect("every user has a device");
    if device.is_online() || random.random_bool(OFFLINE) {
        let (intent, forbidden) = intent(environment, random, conversation.id, user, size);
        environment.send(device, conversation.id, &intent, forbidden);
    }
}

/// What a member sends, and whether the server must refuse it: a message, or something that answers or changes an earlier one.
fn intent(
    environment: &Environment,
    random: &mut StdRng,
    conversation: Conversation,
    user: User,
    size: usize,
) -> (Intent, bool) {
    let message = (Intent::Message { size }, false);
    if !random.random_bool(CHANGES) {
        return message;
    }
    let recent = environment.recorder.recent(conversation);
    let forbidden = random.random_bool(FORBIDDEN_EDITS);
    let kind = if forbidden { 0 } else { random.random_range(0..100) };
    let any_author = (30..).contains(&kind);
    let targets: Vec<_> =
        recent.into_iter().filter(|target| any_author || (target.author == user) != forbidden).collect();
    let Some(target) = targets.choose(random).map(|target| target.message_id.clone()) else { return message };
    let intent = match kind {
        0..25 => Intent::Edit { target, size },
        25..30 => Intent::Recall { target },
        30..80 => {
            let reactions = REACTIONS.into_iter().filter(|_| random.random_bool(0.3)).collect();
            Intent::Reaction { target, reactions }
        }
        _ => Intent::Reply { to: target, size },
    };
    (intent, forbidden)
}

/// A user sends to a conversation of which they were never a member.
fn send_as_outsider(environment: &Environment, random: &mut StdRng, size: usize) {
    let population = &environment.population;
    let conversation = population.conversations.choose(random).expect("there is a conversation");
    let device = *population.devices.choose(random).expect("there is a device");
    let device = &environment.devices[device as usize];
    if !conversation.members.contains(&device.user) && device.is_online() {
        environment.send(device, conversation.id, &Intent::Message { size }, true);
    }
}

/// A removed member sends to the group.
fn send_as_removed_member(environment: &Environment, random: &mut StdRng, size: usize) {
    let group = environment.population.groups.choose(random).expect("there is a group");
    let Some(&user) = group.changing.choose(random) else { return };
    if environment.is_removed(group.conversation, user) {
        let intent = Intent::Message { size };
        environment.send(environment.first_device(user), group.conversation, &intent, false);
    }
}
