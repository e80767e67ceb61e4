//! Who says what when.

use super::stage::{Hand, Stage};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

/// Messages without an outcome beyond which nothing new is said.
const MOST_PENDING: usize = 4_000;
/// Part of the messages that a device takes while it is away.
const AWAY: f64 = 0.1;
/// Part of the messages that somebody sends who is not in the conversation.
const FORBIDDEN: f64 = 0.004;
/// Part of the messages that somebody sends to a group who is out of it for now.
const OUT: f64 = 0.004;

/// Sends messages at a rate until it is stopped.
pub(super) async fn run(stage: Arc<Stage>, seed: u64, rate: f64, stop: CancellationToken) {
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
        // What could not be said in time is not made up for at once.
        due += (now - last).as_secs_f64().min(0.1) * rate;
        last = now;
        while due >= 1.0 {
            due -= 1.0;
            if stage.book.pending() < MOST_PENDING {
                say(&stage, &mut random);
            }
        }
    }
}

/// Says something, or nothing if who was chosen is away.
fn say(stage: &Stage, random: &mut StdRng) {
    let size = match random.random_range(0..1_000) {
        0 => 8_000,
        1..=50 => 1_000,
        _ => random.random_range(36..300),
    };
    if random.random_bool(FORBIDDEN) {
        return intrude(stage, random, size);
    }
    if random.random_bool(OUT) {
        return knock(stage, random, size);
    }
    let talks = &stage.cast.talks;
    let talk = talks.choose_weighted(random, |talk| talk.weight).expect("there is a conversation");
    let user = *talk.members.choose(random).expect("a conversation has members");
    if stage.is_out(talk.conversation, user) {
        return;
    }
    let devices: Vec<&Hand> = stage.hands.iter().filter(|hand| hand.user == user).collect();
    let hand = *devices.choose(random).expect("every user has a device");
    if hand.is_online() || random.random_bool(AWAY) {
        stage.send(hand, talk.conversation, size, false);
    }
}

/// Somebody sends to a conversation in which they never were.
fn intrude(stage: &Stage, random: &mut StdRng, size: usize) {
    let talk = stage.cast.talks.choose(random).expect("there is a conversation");
    let device = *stage.cast.devices.choose(random).expect("there is a device");
    let hand = &stage.hands[device as usize];
    if !talk.members.contains(&hand.user) && hand.is_online() {
        stage.send(hand, talk.conversation, size, true);
    }
}

/// Somebody sends to a group that they are out of.
fn knock(stage: &Stage, random: &mut StdRng, size: usize) {
    let group = stage.cast.groups.choose(random).expect("there is a group");
    let Some(&user) = group.comers.choose(random) else { return };
    if stage.is_out(group.conversation, user) {
        stage.send(stage.first_hand(user), group.conversation, size, false);
    }
}
