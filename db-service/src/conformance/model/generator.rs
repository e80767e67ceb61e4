//! Random histories. A seed determines the history.

use super::{
    super::world::{
        self, SENT_AT_MS, added, created, dissolved, entry, left, owner_changed, removed, renamed,
    },
    plain::Plain,
};
use abi::{
    ids,
    v1::{Entry, HistoryVisibility, group_change::Change},
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};

const REACTIONS: [&str; 4] = ["+1", "-1", "heart", "?"];

/// The next step of a history.
pub(super) enum Step {
    /// Entries are saved.
    Save {
        /// Number of records before them that are delivered again.
        redelivered: usize,
        /// The new entries. There may be none.
        entries: Vec<Entry>,
    },
    /// A user marks a conversation as read.
    MarkRead(String, usize),
}

/// Makes the steps of a history.
pub(super) struct Generator {
    random: StdRng,
    /// The conversation.
    pub(super) conversation: String,
    /// Those who may take part.
    pub(super) users: Vec<String>,
    /// All entries made so far, also those that were rejected.
    made: Vec<Entry>,
    steps_left: usize,
}

impl Generator {
    /// The generator of the history with a seed.
    pub(super) fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let users: Vec<_> = (0..5).map(|user| format!("{seed}-{user}")).collect();
        let is_direct = random.random_ratio(1, 4);
        let conversation = if is_direct { ids::direct(&users[0], &users[1]) } else { format!("g:{seed}") };
        let steps_left = random.random_range(4..16);
        Self { random, conversation, users, made: Vec::new(), steps_left }
    }

    /// The next step; `None` after the last one.
    pub(super) fn next(&mut self, model: &Plain) -> Option<Step> {
        self.steps_left = self.steps_left.checked_sub(1)?;
        if !model.log.is_empty() && self.random.random_ratio(1, 4) {
            let (user, last) = (self.user(), model.log.len());
            return Some(Step::MarkRead(user, self.random.random_range(0..=last + 1)));
        }
        let is_redelivery = self.random.random_ratio(1, 5);
        let (redelivered, least) = if is_redelivery { (self.random.random_range(1..=12), 0) } else { (0, 1) };
        let entries = self.random.random_range(least..=6);
        Some(Step::Save { redelivered, entries: (0..entries).map(|_| self.entry()).collect() })
    }

    fn user(&mut self) -> String {
        self.users.choose(&mut self.random).expect("there are users").clone()
    }

    /// A user who is probably a member: the first users join first.
    fn sender(&mut self) -> String {
        let among = if self.random.random_ratio(3, 4) { 2 } else { self.users.len() };
        self.users[..among].choose(&mut self.random).expect("there are users").clone()
    }

    fn entry(&mut self) -> Entry {
        let number = self.made.len();
        // A retry of an earlier entry, also of one that was rejected: another record with the same message id.
        if number > 0 && self.random.random_ratio(1, 10) {
            return self.made.choose(&mut self.random).expect("there are entries").clone();
        }
        let (sender, id) = (self.sender(), number.to_string());
        let conversation = self.conversation.clone();
        let target = self.target();
        let made = match self.random.random_range(0..100) {
            _ if number == 0 && conversation.starts_with("g:") => {
                let history = *[HistoryVisibility::All, HistoryVisibility::FromJoin]
                    .choose(&mut self.random)
                    .expect("there are two");
                let members: Vec<_> = self.users[..3].iter().map(String::as_str).collect();
                world::change(&conversation, &sender, &id, created(&members, history))
            }
            0..30 => world::message(&conversation, &sender, &id),
            30..36 => Entry { refers_to: target, ..world::message(&conversation, &sender, &id) },
            36..42 => {
                let countable = self.random.random();
                Entry {
                    countable,
                    content: world::text(&id),
                    ..entry(&conversation, &sender, &id, "acme.order")
                }
            }
            42..54 => {
                let edit = world::edit(&conversation, &sender, &id, &target);
                if self.random.random_ratio(1, 20) { Entry { content: None, ..edit } } else { edit }
            }
            54..60 => world::recall(&conversation, &sender, &id, &target),
            60..74 => {
                let reactions: Vec<_> = REACTIONS.into_iter().filter(|_| self.random.random()).collect();
                world::reaction(&conversation, &sender, &id, &target, &reactions)
            }
            _ => {
                let change = self.group_change();
                world::change(&conversation, &sender, &id, change)
            }
        };
        let made = Entry { sent_at_ms: SENT_AT_MS + number as i64, ..made };
        self.made.push(made.clone());
        made
    }

    /// The id of an entry to refer to. The last ones are more likely.
    fn target(&mut self) -> String {
        if self.made.is_empty() {
            return world::message_id(&self.conversation, &self.users[0], "none");
        }
        let back = self.random.random_range(1..=self.made.len().min(12));
        self.made[self.made.len() - back].message_id.clone()
    }

    fn group_change(&mut self) -> Change {
        let (one, other) = (self.user(), self.user());
        match self.random.random_range(0..20) {
            0..7 => added(&[one.as_str(), other.as_str()]),
            7..11 => removed(&[one.as_str()]),
            11..15 => left(),
            15..17 => renamed(&format!("Group of {one}")),
            17..19 => owner_changed(&one),
            _ => dissolved(),
        }
    }
}
