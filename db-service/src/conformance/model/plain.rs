//! A conversation as a list of its entries. Every answer is computed from the list, as plainly as possible, and without the rules of
//! the stores.

use abi::{
    envelope::{EDIT, GROUP, REACTION, RECALL, is_change_of_entry},
    error::ErrorCode,
    ids,
    v1::{Content, Entry, EntryState, HistoryVisibility, ReactionCount, Role, group_change::Change},
};
use std::collections::BTreeMap;

/// A conversation.
pub(super) struct Plain {
    /// Conversation id.
    pub(super) id: String,
    /// The stored entries. The entry with `conversation_seq` n is at n - 1.
    pub(super) log: Vec<Entry>,
    /// Read positions of everybody who has moved one.
    read: BTreeMap<String, usize>,
}

fn change(entry: &Entry) -> Option<&Change> {
    entry.group_change.as_ref()?.change.as_ref()
}

impl Plain {
    /// A conversation without entries.
    pub(super) fn new(id: &str) -> Self {
        Self { id: id.to_owned(), log: Vec::new(), read: BTreeMap::new() }
    }

    fn is_group(&self) -> bool {
        self.id.starts_with("g:")
    }

    fn direct_users(&self) -> Vec<&str> {
        ids::Conversation::parse(&self.id).unwrap().direct_members().collect()
    }

    /// The number of the entry with a message id.
    pub(super) fn find(&self, id: &str) -> Option<usize> {
        self.log.iter().position(|entry| entry.message_id == id).map(|index| index + 1)
    }

    fn entry(&self, seq: usize) -> &Entry {
        &self.log[seq - 1]
    }

    /// The members after each number of entries, from none to all, in the order of joining.
    fn members_over_time(&self) -> Vec<Vec<(String, Role)>> {
        let mut members: Vec<(String, Role)> = Vec::new();
        if !self.is_group() {
            members = self.direct_users().iter().map(|user| ((*user).to_owned(), Role::Member)).collect();
        }
        let mut over_time = vec![members.clone()];
        for entry in &self.log {
            apply(entry, &mut members);
            over_time.push(members.clone());
        }
        over_time
    }

    /// The members now, in the order of joining.
    pub(super) fn members(&self) -> Vec<(String, Role)> {
        self.members_over_time().pop().expect("there is a state before the first entry")
    }

    /// The role of a current member.
    pub(super) fn role(&self, user: &str) -> Option<Role> {
        self.members().into_iter().find(|(member, _)| member == user).map(|(_, role)| role)
    }

    /// Whether a user is a member, after each number of entries.
    fn membership(&self, user: &str) -> Vec<bool> {
        let is_member = |members: &Vec<(String, Role)>| members.iter().any(|(member, _)| member == user);
        self.members_over_time().iter().map(is_member).collect()
    }

    /// The entries after which a user became a member, or was none any more.
    fn turns(&self, user: &str, becomes: bool) -> Vec<usize> {
        let membership = self.membership(user);
        let turned = |seq: &usize| membership[*seq] == becomes && membership[*seq - 1] != becomes;
        (1..=self.log.len()).filter(turned).collect()
    }

    fn history_all(&self) -> bool {
        let created = self.log.first().and_then(change);
        matches!(created, Some(Change::Created(created)) if created.history() == HistoryVisibility::All)
    }

    /// The last entry that a user can see, if the user is not a member any more.
    pub(super) fn left_at(&self, user: &str) -> Option<usize> {
        if self.role(user).is_some() { None } else { self.turns(user, false).pop() }
    }

    /// The numbers of all entries that a user can see.
    pub(super) fn visible(&self, user: &str) -> Vec<usize> {
        let all = 1..=self.log.len();
        if !self.is_group() {
            return if self.direct_users().contains(&user) { all.collect() } else { vec![] };
        }
        if self.history_all() {
            let was_ever = !self.turns(user, true).is_empty();
            let last = self.left_at(user).unwrap_or(self.log.len());
            return all.filter(|seq| was_ever && *seq <= last).collect();
        }
        let membership = self.membership(user);
        all.filter(|seq| membership[*seq] || membership[*seq - 1]).collect()
    }

    /// A user's read position. A user who joins has read the entries before.
    pub(super) fn read_position(&self, user: &str) -> usize {
        let joined =
            if self.is_group() { self.turns(user, true).first().map_or(0, |seq| seq - 1) } else { 0 };
        self.read.get(user).copied().unwrap_or(joined)
    }

    /// Moves a read position. Returns the users who learn of it.
    pub(super) fn mark_read(&mut self, user: &str, seq: usize, max_receipt_members: usize) -> Vec<String> {
        let before = self.read_position(user);
        let after = seq.min(self.visible(user).last().copied().unwrap_or(0)).max(before);
        let members = self.members();
        let is_told = |author: &String| members.iter().any(|(member, _)| member == author);
        let mut authors: Vec<String> = self
            .unread(user)
            .into_iter()
            .filter(|seq| *seq <= after)
            .map(|seq| self.entry(seq).sender.clone())
            .filter(is_told)
            .collect();
        authors.sort();
        authors.dedup();
        if self.role(user).is_none() || members.len() > max_receipt_members {
            authors.clear();
        }
        self.read.insert(user.to_owned(), after);
        authors
    }

    /// The entries that are unread for a user.
    pub(super) fn unread(&self, user: &str) -> Vec<usize> {
        let (mut unread, read) = (self.visible(user), self.read_position(user));
        unread.retain(|seq| {
            let entry = self.entry(*seq);
            *seq > read && entry.countable && entry.sender != user && self.recall_of(*seq).is_none()
        });
        unread
    }

    /// `countable_seq` of an entry.
    pub(super) fn countable(&self, seq: usize) -> usize {
        self.log[..seq].iter().filter(|entry| entry.countable).count()
    }

    /// The changes of an entry.
    fn changes_of(&self, seq: usize) -> Vec<(usize, &Entry)> {
        let id = &self.entry(seq).message_id;
        let changes = self.log.iter().enumerate().filter(|(_, entry)| is_change_of_entry(&entry.kind));
        changes.filter(|(_, entry)| entry.refers_to == *id).map(|(index, entry)| (index + 1, entry)).collect()
    }

    fn recall_of(&self, seq: usize) -> Option<&Entry> {
        self.changes_of(seq).into_iter().find(|(_, entry)| entry.kind == RECALL).map(|(_, entry)| entry)
    }

    /// The state of an entry for a user. `None`: nothing has changed it.
    pub(super) fn state(&self, seq: usize, user: &str) -> Option<EntryState> {
        let changes = self.changes_of(seq);
        let edits: Vec<_> = changes.iter().filter(|(_, entry)| entry.kind == EDIT).collect();
        let mut own: BTreeMap<&str, Vec<&String>> = BTreeMap::new();
        // The reactions in the order of their first use since somebody last used them.
        let mut order: Vec<&String> = Vec::new();
        for (_, entry) in changes.iter().filter(|(_, entry)| entry.kind == REACTION) {
            own.insert(&entry.sender, entry.reactions.iter().collect());
            order.retain(|reaction| own.values().any(|own| own.contains(reaction)));
            for reaction in &entry.reactions {
                if !order.contains(&reaction) {
                    order.push(reaction);
                }
            }
        }
        let count = |reaction: &String| own.values().filter(|own| own.contains(&reaction)).count();
        let counted = |reaction: &&String| ReactionCount {
            reaction: (*reaction).clone(),
            count: count(reaction) as u32,
            mine: own.get(user).is_some_and(|own| own.contains(reaction)),
        };
        Some(EntryState {
            changed_seq: changes.last()?.0 as u64,
            edits: edits.len() as u32,
            edited_at_ms: edits.last().map_or(0, |(_, entry)| entry.sent_at_ms),
            recalled_by: self.recall_of(seq).map_or_else(String::new, |entry| entry.sender.clone()),
            reactions: order.iter().map(counted).collect(),
        })
    }

    /// The content of an entry as a user reads it.
    fn content(&self, seq: usize, user: &str) -> Option<Content> {
        let (entry, visible) = (self.entry(seq), self.visible(user));
        if entry.kind == EDIT {
            let target = self.find(&entry.refers_to).unwrap();
            let shown = visible.contains(&target) && self.recall_of(target).is_none();
            return entry.content.clone().filter(|_| shown);
        }
        if self.recall_of(seq).is_some() {
            return None;
        }
        let last = visible.last().copied().unwrap_or(0);
        let edits = self.changes_of(seq).into_iter().filter(|(at, entry)| entry.kind == EDIT && *at <= last);
        edits.last().map_or_else(|| entry.content.clone(), |(_, edit)| edit.content.clone())
    }

    /// An entry as a user reads it.
    pub(super) fn read_entry(&self, seq: usize, user: &str) -> Entry {
        let entry = self.entry(seq);
        let target = self.log[..seq - 1].iter().position(|earlier| earlier.message_id == entry.refers_to);
        Entry {
            conversation_seq: seq as u64,
            countable_seq: self.countable(seq) as u64,
            refers_to_seq: target.map_or(0, |index| index as u64 + 1),
            content: self.content(seq, user),
            state: self.state(seq, user),
            ..entry.clone()
        }
    }

    /// The log, for the message of a failure.
    pub(super) fn brief(&self) -> String {
        let line = |(index, entry)| format!("\n{} {}", index + 1, brief(entry));
        self.log.iter().enumerate().map(line).collect()
    }

    /// The name of the group.
    pub(super) fn name(&self) -> &str {
        let name = |entry| match change(entry) {
            Some(Change::Created(created)) => Some(created.name.as_str()),
            Some(Change::Renamed(renamed)) => Some(renamed.name.as_str()),
            _ => None,
        };
        self.log.iter().rev().find_map(name).unwrap_or("")
    }

    /// Whether a new entry would be stored.
    pub(super) fn decide(&self, entry: &Entry, max_members: usize) -> Result<(), ErrorCode> {
        let role = self.role(&entry.sender);
        match entry.kind.as_str() {
            GROUP => self.decide_group(entry, role, max_members),
            EDIT | RECALL | REACTION => {
                // Only a member learns that nothing was said in a direct conversation.
                self.decide_change(entry, role.ok_or(ErrorCode::Forbidden)?)
            }
            _ => role.map(drop).ok_or(ErrorCode::Forbidden),
        }
    }

    fn decide_change(&self, entry: &Entry, role: Role) -> Result<(), ErrorCode> {
        let target = self.find(&entry.refers_to).ok_or(ErrorCode::NotFound)?;
        if !self.visible(&entry.sender).contains(&target) {
            return Err(ErrorCode::NotFound);
        }
        if [EDIT, RECALL, REACTION, GROUP].contains(&self.entry(target).kind.as_str()) {
            return Err(ErrorCode::InvalidRequest);
        }
        if self.recall_of(target).is_some() {
            return Err(ErrorCode::Conflict);
        }
        let is_author = self.entry(target).sender == entry.sender;
        match entry.kind.as_str() {
            EDIT if !is_author => Err(ErrorCode::Forbidden),
            EDIT if entry.content.is_none() => Err(ErrorCode::InvalidRequest),
            RECALL if !is_author && role != Role::Owner => Err(ErrorCode::Forbidden),
            _ => Ok(()),
        }
    }

    fn decide_group(&self, entry: &Entry, role: Option<Role>, max_members: usize) -> Result<(), ErrorCode> {
        if !self.is_group() {
            return Err(ErrorCode::InvalidRequest);
        }
        let change = change(entry);
        if let Some(Change::Created(_)) = change {
            return if self.log.is_empty() { Ok(()) } else { Err(ErrorCode::AlreadyExists) };
        }
        let role = role.ok_or(ErrorCode::Forbidden)?;
        let is_member = |user: &String| self.role(user).is_some();
        match change {
            None | Some(Change::Left(_)) => Ok(()),
            Some(_) if role != Role::Owner => Err(ErrorCode::Forbidden),
            Some(Change::Added(added)) => {
                let new = added.users.iter().filter(|user| !is_member(user)).count();
                if self.members().len() + new > max_members { Err(ErrorCode::TooLarge) } else { Ok(()) }
            }
            Some(Change::Removed(removed)) if !removed.users.iter().all(is_member) => {
                Err(ErrorCode::NotFound)
            }
            Some(Change::Removed(removed)) if removed.users.contains(&entry.sender) => {
                Err(ErrorCode::Conflict)
            }
            Some(Change::OwnerChanged(changed)) if !is_member(&changed.user) => Err(ErrorCode::NotFound),
            Some(Change::OwnerChanged(changed)) if changed.user == entry.sender => Err(ErrorCode::Conflict),
            _ => Ok(()),
        }
    }
}

/// The effect of a stored entry on the members.
fn apply(entry: &Entry, members: &mut Vec<(String, Role)>) {
    let (sender, mut joining) = (&entry.sender, Vec::new());
    match change(entry) {
        Some(Change::Created(created)) => {
            members.push((sender.clone(), Role::Owner));
            joining = created.members.clone();
        }
        Some(Change::Added(added)) => joining = added.users.clone(),
        Some(Change::Removed(removed)) => members.retain(|(user, _)| !removed.users.contains(user)),
        Some(Change::Left(_)) => {
            members.retain(|(user, _)| user != sender);
            if !members.iter().any(|(_, role)| *role == Role::Owner) {
                members.iter_mut().take(1).for_each(|(_, role)| *role = Role::Owner);
            }
        }
        Some(Change::OwnerChanged(changed)) => {
            for (user, role) in members.iter_mut() {
                if user == sender {
                    *role = Role::Member;
                } else if *user == changed.user {
                    *role = Role::Owner;
                }
            }
        }
        Some(Change::Dissolved(_)) => members.clear(),
        _ => {}
    }
    for user in joining {
        if !members.iter().any(|(member, _)| *member == user) {
            members.push((user, Role::Member));
        }
    }
}

/// Whether an entry is shown in lists of conversations.
pub(super) fn is_shown(entry: &Entry) -> bool {
    !is_change_of_entry(&entry.kind)
}

/// An entry, for the message of a failure.
pub(super) fn brief(entry: &Entry) -> String {
    let Entry { sender, kind, client_msg_id, refers_to, countable, reactions, .. } = entry;
    format!("{client_msg_id}: {sender} {kind} {countable} {refers_to} {reactions:?} {:?}", change(entry))
}
