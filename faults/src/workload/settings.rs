//! Changes of users' own settings, and signals.

use super::{
    command::{Command, SignalJob},
    environment::{DeviceHandle, Environment},
};
use abi::v1::{CustomSignal, Typing, signal::Kind};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use std::{sync::Arc, time::Duration};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Changes of settings per second, and attempts to send signals.
const RATE: f64 = 3.0;
/// Fraction of the signals to conversations of others that are sent.
const FOREIGN: f64 = 0.1;

/// Lets users change settings of their conversations until `stop`.
pub(super) async fn change(environment: Arc<Environment>, seed: u64, stop: CancellationToken) {
    let mut random = StdRng::seed_from_u64(seed);
    loop {
        let pause = Duration::from_secs_f64(random.random_range(0.2..1.8) / RATE);
        tokio::select! {
            () = sleep(pause) => change_one(&environment, &mut random),
            () = stop.cancelled() => return,
        }
    }
}

/// Changes the settings of one conversation, unless an earlier change of the user has no answer yet.
fn change_one(environment: &Environment, random: &mut StdRng) {
    let conversations = &environment.population.conversations;
    let conversation = conversations.choose(random).expect("there is a conversation");
    let user = *conversation.members.choose(random).expect("a conversation has members");
    let devices: Vec<&DeviceHandle> =
        environment.devices.iter().filter(|device| device.user == user && device.is_online()).collect();
    if let Some(device) = devices.choose(random)
        && let Some(job) = environment.recorder.begin_settings(user, conversation.id)
    {
        // A full queue leaves the change without an answer.
        let _ = device.command(Command::Settings(job));
    }
}

/// Lets users send signals to conversations until `stop`.
pub(super) async fn signal(environment: Arc<Environment>, seed: u64, stop: CancellationToken) {
    let mut random = StdRng::seed_from_u64(seed);
    loop {
        let pause = Duration::from_secs_f64(random.random_range(0.2..1.8) / RATE);
        tokio::select! {
            () = sleep(pause) => signal_once(&environment, &mut random),
            () = stop.cancelled() => return,
        }
    }
}

/// Sends one signal: typing, or one of the product with a number. Few come from users who are not in the conversation; some
/// from members who are removed at present.
fn signal_once(environment: &Environment, random: &mut StdRng) {
    let population = &environment.population;
    let conversation = population.conversations.choose(random).expect("there is a conversation");
    let device = *population.devices.choose(random).expect("there is a device");
    let device = &environment.devices[device as usize];
    if !conversation.members.contains(&device.user) && !random.random_bool(FOREIGN) {
        return;
    }
    let number = environment.recorder.begin_signal(device.user, conversation.id);
    let kind = if random.random_bool(0.5) {
        Kind::Typing(Typing { stopped: false })
    } else {
        let content = Some(client::text(number.to_string()));
        Kind::Custom(CustomSignal { kind: "faults.signal".into(), content, to: Vec::new() })
    };
    let conversation = population.ledger.conversations[conversation.id as usize].clone();
    // A full queue drops the signal.
    let _ = device.command(Command::Signal(SignalJob { conversation, kind }));
}
