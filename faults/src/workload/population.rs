//! The users, devices and conversations of a run. The seed determines them, apart from a part of the names that is unique per
//! run.

use super::{options::Options, partition};
use crate::ledger::{self, Conversation, DeviceId, DeviceKind, Ledger, User};
use ::tests::system::unique;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};

/// The default of the configuration key `app`.
pub(super) const APP: &str = "default";
/// Smallest number of probe devices, so that a probe has a sender and a receiver even with one gateway.
const MIN_PROBES: usize = 2;

/// A group to be created.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) conversation: Conversation,
    pub(super) owner: User,
    /// All members besides the owner.
    pub(super) members: Vec<User>,
    /// Members who are removed and added again during the run.
    pub(super) changing: Vec<User>,
    /// Whether new members may see entries from before they joined.
    pub(super) sees_all: bool,
    /// The `request_id` of its creation.
    pub(super) request: String,
}

/// A conversation that gets ordinary messages.
#[derive(Clone, Debug)]
pub(super) struct WeightedConversation {
    pub(super) id: Conversation,
    pub(super) members: Vec<User>,
    /// Its share of all messages, relative to the other weights.
    pub(super) weight: u32,
}

/// All users, devices and conversations.
#[derive(Debug)]
pub(super) struct Population {
    /// A ledger with users, devices and conversations, and no events yet.
    pub(super) ledger: Ledger,
    pub(super) groups: Vec<Group>,
    pub(super) conversations: Vec<WeightedConversation>,
    /// Devices of ordinary users.
    pub(super) devices: Vec<DeviceId>,
    /// Devices that only probe, each with the index of its gateway.
    pub(super) probes: Vec<(DeviceId, usize)>,
    /// The groups that they probe: one per partition.
    pub(super) probed: Vec<Conversation>,
}

impl Population {
    pub(super) fn new(seed: u64, gateways: usize, options: &Options) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let run = unique();
        let mut population = Self {
            ledger: Ledger { seed, ..Ledger::default() },
            groups: Vec::new(),
            conversations: Vec::new(),
            devices: Vec::new(),
            probes: Vec::new(),
            probed: Vec::new(),
        };
        let users: Vec<User> = (0..options.users)
            .map(|number| {
                let user = population.add_user(format!("u{number}-{run}"));
                population.devices.push(population.ledger.add_device(user, "phone", DeviceKind::Sdk));
                // Every user has a device of each kind: the deliveries that a raw device records are compared with the claims of
                // SDK devices.
                let has_tablet = number % 3 == 0;
                let second = if has_tablet && number % 2 == 1 { DeviceKind::Sdk } else { DeviceKind::Raw };
                population.devices.push(population.ledger.add_device(user, "desk", second));
                if has_tablet {
                    population.devices.push(population.ledger.add_device(user, "tablet", DeviceKind::Raw));
                }
                user
            })
            .collect();
        for (number, &user) in users.iter().enumerate() {
            for step in [1, 2, 5] {
                let other = users[(number + step) % users.len()];
                if other != user {
                    let id = abi::ids::direct(population.name(user), population.name(other));
                    population.add_conversation(id, vec![user, other], 2);
                }
            }
        }
        for number in 0..2 * options.groups {
            let mut members = users.clone();
            members.shuffle(&mut random);
            members.truncate(random.random_range(4..=8));
            let owner = members.remove(0);
            let changing =
                if number % 2 == 1 { members[..members.len().div_ceil(2)].to_vec() } else { Vec::new() };
            // The first group is busy, so that batches get large.
            let weight = if number == 0 { 60 } else { 10 };
            let request = format!("group-{number}-{run}");
            population.add_group(owner, members, changing, number % 4 == 3, request, Some(weight));
        }
        population.add_probes(gateways, options.partitions, &run);
        population
    }

    fn add_probes(&mut self, gateways: usize, partitions: u32, run: &str) {
        let users: Vec<User> = (0..gateways.max(MIN_PROBES))
            .map(|number| {
                let user = self.add_user(format!("probe{number}-{run}"));
                self.probes
                    .push((self.ledger.add_device(user, "phone", DeviceKind::Raw), number % gateways.max(1)));
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
            let group = self.add_group(users[0], users[1..].to_vec(), Vec::new(), false, request, None);
            self.probed.push(group);
        }
    }

    pub(super) fn name(&self, user: User) -> &str {
        &self.ledger.users[user as usize]
    }

    fn add_user(&mut self, name: String) -> User {
        self.ledger.users.push(name);
        self.ledger.users.len() as User - 1
    }

    fn add_conversation(&mut self, id: String, members: Vec<User>, weight: u32) {
        if !self.ledger.conversations.contains(&id) {
            self.ledger.conversations.push(id);
            let conversation = self.ledger.conversations.len() as Conversation - 1;
            self.conversations.push(WeightedConversation { id: conversation, members, weight });
        }
    }

    fn add_group(
        &mut self,
        owner: User,
        members: Vec<User>,
        changing: Vec<User>,
        sees_all: bool,
        request: String,
        weight: Option<u32>,
    ) -> Conversation {
        let id = abi::ids::group(APP, self.name(owner), &request);
        self.ledger.conversations.push(id);
        let conversation = self.ledger.conversations.len() as Conversation - 1;
        if let Some(weight) = weight {
            let all_members = std::iter::once(owner).chain(members.iter().copied()).collect();
            self.conversations.push(WeightedConversation { id: conversation, members: all_members, weight });
        }
        self.groups.push(Group { conversation, owner, members, changing, sees_all, request });
        conversation
    }
}

impl Ledger {
    fn add_device(&mut self, user: User, name: &str, kind: DeviceKind) -> DeviceId {
        self.devices.push(ledger::Device { user, name: name.to_owned(), kind, incarnations: Vec::new() });
        self.devices.len() as DeviceId - 1
    }
}

/// The key of a conversation's records.
fn key(conversation: &str) -> Vec<u8> {
    abi::record::key(APP, conversation).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_determines_the_population_apart_from_names() {
        let shape = |seed| {
            let population = Population::new(seed, 2, &Options::default());
            let groups: Vec<_> = population
                .groups
                .iter()
                .map(|group| (group.owner, group.members.clone(), group.changing.clone()))
                .collect();
            (groups, population.devices, population.probes)
        };
        assert_eq!(shape(7), shape(7));
        assert_ne!(shape(7).0, shape(8).0);
    }

    #[test]
    fn every_user_has_a_device_of_each_kind() {
        let population = Population::new(1, 2, &Options::default());
        let has = |user: User, kind: DeviceKind| {
            population.ledger.devices.iter().any(|device| device.user == user && device.kind == kind)
        };
        let probes = population.probes.len();
        for user in 0..(population.ledger.users.len() - probes) as User {
            assert!(has(user, DeviceKind::Raw) && has(user, DeviceKind::Sdk), "user {user}");
        }
    }

    #[test]
    fn probes_reach_every_partition() {
        let options = Options { partitions: 7, ..Options::default() };
        let population = Population::new(1, 2, &options);
        let found: Vec<_> = population
            .probed
            .iter()
            .map(|&conversation| {
                partition::of(&key(&population.ledger.conversations[conversation as usize]), 7)
            })
            .collect();
        assert_eq!(found, (0..7).map(Some).collect::<Vec<_>>());
    }
}
