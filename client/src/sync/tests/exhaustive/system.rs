//! The whole system of the model: what can happen next, and what must hold.

use super::{
    super::*,
    device::Device,
    server::{Item, Mistake, Server},
};
use stateright::{Model, Property};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

#[derive(Clone, Debug, PartialEq, Hash)]
pub(super) struct World {
    server: Server,
    devices: Vec<Device>,
    /// Faults that may still happen.
    faults: Faults,
}

/// How often each fault may happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Faults {
    pub(super) lost_pushes: u8,
    pub(super) redeliveries: u8,
    pub(super) lost_caches: u8,
    pub(super) restores: u8,
    pub(super) lost_connections: u8,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Action {
    /// The server goes on with the planned changes.
    Write,
    Redeliver,
    LoseCache,
    Restore(usize),
    /// For one device from here on.
    Connect(usize),
    Disconnect(usize),
    ReadPush(usize, usize),
    LosePush(usize, usize),
    Heartbeat(usize),
    Overdue(usize),
    /// The next part of the exchange.
    Exchange(usize),
}

pub(super) struct System {
    pub(super) plan: Vec<Item>,
    pub(super) devices: usize,
    /// The devices begin with the server's receiver seq; otherwise with nothing.
    pub(super) up_to_date: bool,
    pub(super) faults: Faults,
    pub(super) mistake: Mistake,
}

impl World {
    /// Which device is which makes no difference.
    pub(super) fn representative(&self) -> Self {
        let mut world = self.clone();
        world.devices.sort_by_cached_key(|device| {
            let mut hasher = DefaultHasher::new();
            device.hash(&mut hasher);
            hasher.finish()
        });
        world
    }
}

impl System {
    fn device_actions(&self, world: &World, number: usize, actions: &mut Vec<Action>) {
        let device = &world.devices[number];
        if !device.is_connected {
            actions.push(Action::Connect(number));
            return;
        }
        for push in 0..device.pushes.len() {
            actions.push(Action::ReadPush(number, push));
            if world.faults.lost_pushes > 0 {
                actions.push(Action::LosePush(number, push));
            }
        }
        if device.exchange.is_some() {
            actions.push(Action::Exchange(number));
        }
        if device.sync.awaited().is_some() {
            actions.push(Action::Overdue(number));
        }
        // A pong ahead of a push is like a push ahead of another one.
        let (epoch, now) = world.server.now;
        let is_behind = |latest: Have| latest.epoch != epoch || latest.seq < now;
        if device.pushes.is_empty() && device.sync.latest.is_none_or(is_behind) {
            actions.push(Action::Heartbeat(number));
        }
        if world.faults.lost_connections > 0 {
            actions.push(Action::Disconnect(number));
        }
    }

    fn on_server(&self, world: &mut World, action: &Action) {
        let World { server, faults, .. } = world;
        let push = match action {
            Action::Write => server.step(self.plan[server.next], self.mistake),
            Action::Redeliver => {
                faults.redeliveries -= 1;
                Some(server.redeliver(&self.plan))
            }
            Action::LoseCache => {
                faults.lost_caches -= 1;
                server.lose_cache(self.mistake);
                None
            }
            Action::Restore(index) => {
                faults.restores -= 1;
                server.restore(*index, self.mistake);
                world.devices.iter_mut().for_each(Device::disconnect);
                None
            }
            _ => None,
        };
        if let Some(push) = push {
            for device in world.devices.iter_mut().filter(|device| device.is_connected) {
                device.pushes.push(push.clone());
            }
        }
    }
}

impl Model for System {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let server = Server::new();
        let mut device = Device::new();
        if self.up_to_date {
            let have = Some(Have { epoch: server.now.0, seq: server.now.1 });
            device.generation = server.generation;
            device.sync = Sync::new(
                State { have, generation: server.generation, ..State::default() },
                Start::Beginning,
            );
            device.connect(&server);
        }
        vec![World { server, devices: vec![device; self.devices], faults: self.faults }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        let (server, faults) = (&world.server, &world.faults);
        if server.next < self.plan.len() {
            actions.push(Action::Write);
        }
        if faults.redeliveries > 0 && server.next > 0 && server.parts == 0 {
            actions.push(Action::Redeliver);
        }
        if faults.lost_caches > 0 {
            actions.push(Action::LoseCache);
        }
        if faults.restores > 0 && server.parts == 0 {
            let known = (0..2).filter(|index| !server.stored[*index].is_empty());
            actions.extend(known.map(Action::Restore));
        }
        for number in 0..world.devices.len() {
            self.device_actions(world, number, actions);
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut world = world.clone();
        match action {
            Action::Connect(number) => world.devices[number].connect(&world.server),
            Action::Disconnect(number) => {
                world.faults.lost_connections -= 1;
                world.devices[number].disconnect();
            }
            Action::ReadPush(number, push) => {
                let push = world.devices[number].pushes.remove(push);
                world.devices[number].read_push(push);
            }
            Action::LosePush(number, push) => {
                world.faults.lost_pushes -= 1;
                world.devices[number].pushes.remove(push);
            }
            Action::Heartbeat(number) => {
                world.devices[number].sync.on_seq(seq(world.server.now.0, world.server.now.1));
            }
            Action::Overdue(number) => world.devices[number].sync.on_overdue(),
            Action::Exchange(number) => world.devices[number].exchange(&world.server, self.mistake),
            action => self.on_server(&mut world, &action),
        }
        for device in &mut world.devices {
            device.settle();
            device.pushes.sort_by_key(|push| push.now);
        }
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("P4: each entry once, in order, without gaps", |_, world: &World| {
                let current =
                    world.devices.iter().filter(|device| device.generation == world.server.generation);
                current
                    .flat_map(|device| device.seen.iter().zip(&world.server.stored))
                    .all(|(seen, stored)| stored.starts_with(seen))
            }),
            Property::always(
                "P5: a device with the receiver seq of the server has everything",
                |_, world: &World| {
                    let server = &world.server;
                    let now = seq(server.now.0, server.now.1);
                    let current =
                        world.devices.iter().filter(|device| device.generation == server.generation);
                    current.filter(|device| device.sync.have() == now).all(|device| {
                        let has_raised = device
                            .seen
                            .iter()
                            .zip(&server.raised)
                            .all(|(seen, raised)| seen.len() >= *raised);
                        has_raised && device.version >= server.raised_version
                    })
                },
            ),
            Property::always(
                "P5: a device that waits for nothing has everything",
                |system: &System, world: &World| {
                    let is_busy = |device: &Device| device.exchange.is_some() || !device.pushes.is_empty();
                    if world.devices.iter().any(is_busy) {
                        return true;
                    }
                    let mut actions = Vec::new();
                    system.actions(world, &mut actions);
                    let is_fault = |action: &Action| {
                        matches!(
                            action,
                            Action::Redeliver
                                | Action::LoseCache
                                | Action::Restore(_)
                                | Action::Disconnect(_)
                        )
                    };
                    !actions.iter().all(is_fault)
                        || world.devices.iter().all(|device| device.has_all(&world.server))
                },
            ),
            Property::sometimes(
                "everything happens and is caught up with",
                |system: &System, world: &World| {
                    let is_spent =
                        world.faults == Faults::default() && world.server.next == system.plan.len();
                    is_spent && world.devices.iter().all(|device| device.has_all(&world.server))
                },
            ),
        ]
    }
}
