//! Who takes part: users, their devices, their conversations. It follows from the seed alone, but for a part of the
//! users' names that is new in every run.

use super::Options;
use crate::{
    ledger::{self, Conversation, DeviceId, Kind, Ledger, User},
    workload::partition,
};
use ::tests::system::unique;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};

/// The application that is served unless configured otherwise.
pub(super) const APP: &str = "default";
/// Devices that probe at each gateway; so there are two ends even with one gateway.
const PROBES: usize = 2;

/// A group to be made.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) conversation: Conversation,
    pub(super) owner: User,
    /// All but the owner.
    pub(super) members: Vec<User>,
    /// Members who are removed and added again.
    pub(super) comers: Vec<User>,
    pub(super) sees_all: bool,
    pub(super) request: String,
}

/// A conversation to talk in.
#[derive(Clone, Debug)]
pub(super) struct Talk {
    pub(super) conversation: Conversation,
    pub(super) members: Vec<User>,
    /// Part of all messages that go there.
    pub(super) weight: u32,
}

/// Everybody and everything.
#[derive(Debug)]
pub(super) struct Cast {
    /// With users, devices and conversations, and nothing that happened.
    pub(super) ledger: Ledger,
    pub(super) groups: Vec<Group>,
    pub(super) talks: Vec<Talk>,
    /// Devices that take part in everything.
    pub(super) devices: Vec<DeviceId>,
    /// Devices that only probe, each with its gateway's number.
    pub(super) probes: Vec<(DeviceId, usize)>,
    /// Where they probe: one for each partition.
    pub(super) probed: Vec<Conversation>,
}

impl Cast {
    pub(super) fn new(seed: u64, gateways: usize, options: &Options) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let run = unique();
        let mut cast = Self {
            ledger: Ledger { seed, ..Ledger::default() },
            groups: Vec::new(),
            talks: Vec::new(),
            devices: Vec::new(),
            probes: Vec::new(),
            probed: Vec::new(),
        };
        let users: Vec<User> = (0..options.users)
            .map(|number| {
                let user = cast.user(format!("u{number}-{run}"));
                cast.devices.push(cast.ledger.device(user, "phone", Kind::Sdk));
                // What a device of the SDK believes is held against what one that is run by hand was told.
                let has_tablet = number % 3 == 0;
                let second = if has_tablet && number % 2 == 1 { Kind::Sdk } else { Kind::Raw };
                cast.devices.push(cast.ledger.device(user, "desk", second));
                if has_tablet {
                    cast.devices.push(cast.ledger.device(user, "tablet", Kind::Raw));
                }
                user
            })
            .collect();
        for (number, &user) in users.iter().enumerate() {
            for step in [1, 2, 5] {
                let other = users[(number + step) % users.len()];
                if other != user {
                    let id = abi::ids::direct(cast.name(user), cast.name(other));
                    cast.talk(id, vec![user, other], 2);
                }
            }
        }
        for number in 0..2 * options.groups {
            let mut members = users.clone();
            members.shuffle(&mut random);
            members.truncate(random.random_range(4..=8));
            let owner = members.remove(0);
            let comers =
                if number % 2 == 1 { members[..members.len().div_ceil(2)].to_vec() } else { Vec::new() };
            // One is busy: its batches are large.
            let weight = if number == 0 { 60 } else { 10 };
            let request = format!("group-{number}-{run}");
            cast.group(owner, members, comers, number % 4 == 3, request, Some(weight));
        }
        cast.probers(gateways, options.partitions, &run);
        cast
    }

    fn probers(&mut self, gateways: usize, partitions: u32, run: &str) {
        let users: Vec<User> = (0..gateways.max(PROBES))
            .map(|number| {
                let user = self.user(format!("probe{number}-{run}"));
                self.probes.push((self.ledger.device(user, "phone", Kind::Raw), number % gateways.max(1)));
                user
            })
            .collect();
        for wanted in 0..partitions {
            let owner = self.name(users[0]).to_owned();
            let request = (0..)
                .map(|attempt| format!("probe-{attempt}-{run}"))
                .find(|request| {
                    partition::of(&key(&abi::ids::group(APP, &owner, request)), partitions) == Some(wanted)
                })
                .expect("every partition has keys");
            let group = self.group(users[0], users[1..].to_vec(), Vec::new(), false, request, None);
            self.probed.push(group);
        }
    }

    pub(super) fn name(&self, user: User) -> &str {
        &self.ledger.users[user as usize]
    }

    fn user(&mut self, name: String) -> User {
        self.ledger.users.push(name);
        self.ledger.users.len() as User - 1
    }

    fn talk(&mut self, id: String, members: Vec<User>, weight: u32) {
        if !self.ledger.conversations.contains(&id) {
            self.ledger.conversations.push(id);
            let conversation = self.ledger.conversations.len() as Conversation - 1;
            self.talks.push(Talk { conversation, members, weight });
        }
    }

    fn group(
        &mut self,
        owner: User,
        members: Vec<User>,
        comers: Vec<User>,
        sees_all: bool,
        request: String,
        weight: Option<u32>,
    ) -> Conversation {
        let id = abi::ids::group(APP, self.name(owner), &request);
        self.ledger.conversations.push(id);
        let conversation = self.ledger.conversations.len() as Conversation - 1;
        if let Some(weight) = weight {
            let everybody = std::iter::once(owner).chain(members.iter().copied()).collect();
            self.talks.push(Talk { conversation, members: everybody, weight });
        }
        self.groups.push(Group { conversation, owner, members, comers, sees_all, request });
        conversation
    }
}

impl Ledger {
    fn device(&mut self, user: User, name: &str, kind: Kind) -> DeviceId {
        self.devices.push(ledger::Device { user, name: name.to_owned(), kind, lives: Vec::new() });
        self.devices.len() as DeviceId - 1
    }
}

/// Key of a conversation's records.
fn key(conversation: &str) -> Vec<u8> {
    abi::record::key(APP, conversation).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_makes_the_same_cast_but_for_names() {
        let shape = |seed| {
            let cast = Cast::new(seed, 2, &Options::default());
            let groups: Vec<_> = cast
                .groups
                .iter()
                .map(|group| (group.owner, group.members.clone(), group.comers.clone()))
                .collect();
            (groups, cast.devices, cast.probes)
        };
        assert_eq!(shape(7), shape(7));
        assert_ne!(shape(7).0, shape(8).0);
    }

    #[test]
    fn every_user_has_a_device_of_each_kind() {
        let cast = Cast::new(1, 2, &Options::default());
        let has = |user: User, kind: Kind| {
            cast.ledger.devices.iter().any(|device| device.user == user && device.kind == kind)
        };
        let probers = cast.probes.len();
        for user in 0..(cast.ledger.users.len() - probers) as User {
            assert!(has(user, Kind::Raw) && has(user, Kind::Sdk), "user {user}");
        }
    }

    #[test]
    fn probes_reach_every_partition() {
        let options = Options { partitions: 7, ..Options::default() };
        let cast = Cast::new(1, 2, &options);
        let found: Vec<_> = cast
            .probed
            .iter()
            .map(|&conversation| partition::of(&key(&cast.ledger.conversations[conversation as usize]), 7))
            .collect();
        assert_eq!(found, (0..7).map(Some).collect::<Vec<_>>());
    }
}
