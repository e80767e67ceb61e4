//! The ordinary messages of the workload.

use super::environment::{DeviceHandle, Environment};
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
        environment.send(device, conversation.id, size, false);
    }
}

/// A user sends to a conversation of which they were never a member.
fn send_as_outsider(environment: &Environment, random: &mut StdRng, size: usize) {
    let population = &environment.population;
    let conversation = population.conversations.choose(random).expect("there is a conversation");
    let device = *population.devices.choose(random).expect("there is a device");
    let device = &environment.devices[device as usize];
    if !conversation.members.contains(&device.user) && device.is_online() {
        environment.send(device, conversation.id, size, true);
    }
}

/// A removed member sends to the group.
fn send_as_removed_member(environment: &Environment, random: &mut StdRng, size: usize) {
    let group = environment.population.groups.choose(random).expect("there is a group");
    let Some(&user) = group.changing.choose(random) else { return };
    if environment.is_removed(group.conversation, user) {
        environment.send(environment.first_device(user), group.conversation, size, false);
    }
}
