//! The rules for changes of groups; those for changes of entries are in [`entries`]. Both stores use them for saving and for
//! checking.
//!
//! A store loads a [`Group`], calls [`decide`], and writes the [`Effect`]. This module does not access a database. Decisions are
//! functions of the log, so that a replay makes the same data: only a check asks whether accounts exist.

pub(crate) mod entries;

use crate::item::number;
use abi::{
    ApiError, MAX_GROUP_NAME,
    config::Config,
    error::ErrorCode,
    ids,
    v1::{
        GroupCreated, HistoryVisibility, Member, Members, MembersAdded, MembersRemoved, OwnerChanged, Role,
        group_change::Change,
    },
};
use std::{collections::HashSet, time::Duration};

/// The configured limits of a store.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Most members of a group.
    pub(crate) max_group_members: usize,
    /// For how long an author can edit an entry, in milliseconds. 0: for ever.
    pub(crate) edit_window_ms: i64,
    /// For how long an author can recall an entry, in milliseconds. 0: for ever.
    pub(crate) recall_window_ms: i64,
    /// Authors in groups of more members get no receipts.
    pub(crate) max_receipt_members: usize,
}

impl Limits {
    /// The limits of a configuration.
    pub(crate) fn new(config: &Config) -> Self {
        let members = |limit| usize::try_from(limit).unwrap_or(usize::MAX);
        let ms = |window: Duration| i64::try_from(window.as_millis()).unwrap_or(i64::MAX);
        Self {
            max_group_members: members(config.db.max_group_members),
            edit_window_ms: ms(config.messages.edit_window),
            recall_window_ms: ms(config.messages.recall_window),
            max_receipt_members: members(config.receipts.max_members),
        }
    }

    fn check_size(self, members: usize) -> Result<(), ApiError> {
        if members > self.max_group_members {
            let max = self.max_group_members;
            return Err(ApiError::new(
                ErrorCode::TooLarge,
                format!("the group would have {members} members; at most {max} are allowed"),
            ));
        }
        Ok(())
    }
}

/// A group as it is stored.
#[derive(Clone, Debug, Default)]
pub(crate) struct Group {
    /// Incremented by each change.
    pub(crate) version: i64,
    /// Whether members see the entries from before they joined.
    pub(crate) history_all: bool,
    /// The current members, in the order of joining.
    pub(crate) members: Vec<GroupMember>,
}

/// A current member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GroupMember {
    /// User id.
    pub(crate) user: String,
    /// Owner or member.
    pub(crate) role: Role,
    /// `conversation_seq` of the first entry that the member sees.
    pub(crate) visible_from: i64,
}

/// A change that a user has requested.
pub(crate) struct Proposal<'a> {
    /// The user.
    pub(crate) sender: &'a str,
    /// The change. `None`: one of a later version.
    pub(crate) change: Option<&'a Change>,
    /// Those of the named users that have an account. `None`: a check has found that all have.
    pub(crate) accounts: Option<&'a HashSet<String>>,
}

/// The effect of an allowed change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Effect {
    /// The group is created with this name and this `history_all`.
    pub(crate) created: Option<(String, bool)>,
    /// The group gets this name.
    pub(crate) renamed: Option<String>,
    /// New members and members who come back, in the order of joining.
    pub(crate) added: Vec<(String, Role)>,
    /// Members who leave.
    pub(crate) removed: Vec<String>,
    /// The member who becomes the owner.
    pub(crate) promoted: Option<String>,
    /// The owner who becomes a member.
    pub(crate) demoted: Option<String>,
}

impl Group {
    fn role(&self, user: &str) -> Option<Role> {
        self.members.iter().find(|member| member.user == user).map(|member| member.role)
    }
}

impl From<Group> for Members {
    fn from(group: Group) -> Self {
        let member = |member: GroupMember| Member {
            user: member.user,
            role: member.role.into(),
            visible_from: number(member.visible_from),
        };
        Self { version: number(group.version), members: group.members.into_iter().map(member).collect() }
    }
}

/// The error for a sender who is not a member. It must not depend on whether the conversation exists.
pub(crate) fn outsider() -> ApiError {
    ApiError::forbidden("you are not a member of this conversation")
}

/// The value by which members are ordered: the entry that added the member, then the member's index in it.
pub(crate) fn join_order(seq: i64, index: usize) -> i64 {
    const INDEXES: i64 = 1 << 20;
    seq.saturating_mul(INDEXES).saturating_add(i64::try_from(index).unwrap_or(INDEXES).min(INDEXES - 1))
}

/// Whether a change of a group is allowed, and its effect. `group` is `None` if it does not exist.
///
/// # Errors
/// The refusal for the user. A user who is not a member gets the same error whether or not the group exists.
pub(crate) fn decide(
    group: Option<&Group>,
    proposal: &Proposal<'_>,
    limits: Limits,
) -> Result<Effect, ApiError> {
    let group = match (proposal.change, group) {
        (Some(Change::Created(created)), None) => return create(created, proposal, limits),
        (Some(Change::Created(_)), Some(_)) => {
            return Err(ApiError::new(ErrorCode::AlreadyExists, "this group exists already"));
        }
        (_, group) => group.ok_or_else(outsider)?,
    };
    let role = group.role(proposal.sender).ok_or_else(outsider)?;
    let owner_only = |action: &str| {
        if role == Role::Owner { Ok(()) } else { Err(ApiError::forbidden(format!("only an owner {action}"))) }
    };
    match proposal.change {
        // A later version has checked it. Its receivers need the entry, and this version can't apply it.
        None | Some(Change::Created(_)) => Ok(Effect::default()),
        Some(Change::Added(added)) => {
            owner_only("adds members")?;
            add(group, added, proposal, limits)
        }
        Some(Change::Removed(removed)) => {
            owner_only("removes members")?;
            remove(group, removed)
        }
        Some(Change::Left(_)) => Ok(leave(group, proposal.sender)),
        Some(Change::Renamed(renamed)) => {
            owner_only("renames the group")?;
            check_name(&renamed.name)?;
            Ok(Effect { renamed: Some(renamed.name.clone()), ..Effect::default() })
        }
        Some(Change::OwnerChanged(changed)) => {
            owner_only("makes another member the owner")?;
            change_owner(group, changed, proposal.sender)
        }
        Some(Change::Dissolved(_)) => {
            owner_only("dissolves the group")?;
            let removed = group.members.iter().map(|member| member.user.clone()).collect();
            Ok(Effect { removed, ..Effect::default() })
        }
    }
}

fn create(created: &GroupCreated, proposal: &Proposal<'_>, limits: Limits) -> Result<Effect, ApiError> {
    check_name(&created.name)?;
    check_ids(&created.members)?;
    let sender = proposal.sender;
    let mut added = vec![(sender.to_owned(), Role::Owner)];
    added.extend(new_members(&created.members, |user| user != sender));
    limits.check_size(added.len())?;
    check_accounts(&added[1..], proposal)?;
    let history_all = created.history() == HistoryVisibility::All;
    Ok(Effect { created: Some((created.name.clone(), history_all)), added, ..Effect::default() })
}

/// Checks the name of a group. The gateway has applied `abi::names`, whose rules change with the versions of Unicode. The rules here
/// never change, so a replay of the log decides the same.
fn check_name(name: &str) -> Result<(), ApiError> {
    if (1..=MAX_GROUP_NAME).contains(&name.chars().count()) && !name.chars().any(char::is_control) {
        return Ok(());
    }
    Err(ApiError::invalid(format!(
        "name must have 1 to {MAX_GROUP_NAME} characters and no control characters"
    )))
}

fn add(
    group: &Group,
    added: &MembersAdded,
    proposal: &Proposal<'_>,
    limits: Limits,
) -> Result<Effect, ApiError> {
    check_users(&added.users)?;
    let added = new_members(&added.users, |user| group.role(user).is_none());
    limits.check_size(group.members.len() + added.len())?;
    check_accounts(&added, proposal)?;
    Ok(Effect { added, ..Effect::default() })
}

fn change_owner(group: &Group, changed: &OwnerChanged, sender: &str) -> Result<Effect, ApiError> {
    let user = &changed.user;
    ids::check_id("a user's id", user)?;
    match group.role(user) {
        None => Err(not_a_member(user)),
        Some(Role::Owner) => {
            Err(ApiError::new(ErrorCode::Conflict, format!("{user} is an owner of this group already")))
        }
        Some(_) => {
            Ok(Effect { promoted: Some(user.clone()), demoted: Some(sender.to_owned()), ..Effect::default() })
        }
    }
}

fn not_a_member(user: &str) -> ApiError {
    ApiError::not_found(format!("{user} is not a member of this group"))
}

fn remove(group: &Group, removed: &MembersRemoved) -> Result<Effect, ApiError> {
    check_users(&removed.users)?;
    // Every named user is notified of the removal, so only members may be named.
    if let Some(stranger) = removed.users.iter().find(|user| group.role(user).is_none()) {
        return Err(not_a_member(stranger));
    }
    let named: HashSet<&str> = removed.users.iter().map(String::as_str).collect();
    let is_named = |member: &&GroupMember| named.contains(member.user.as_str());
    if group.members.iter().filter(|member| member.role == Role::Owner).all(|owner| is_named(&owner)) {
        return Err(ApiError::new(
            ErrorCode::Conflict,
            "a group cannot lose its last owner: leave the group instead",
        ));
    }
    let removed = group.members.iter().filter(is_named).map(|member| member.user.clone()).collect();
    Ok(Effect { removed, ..Effect::default() })
}

/// If no owner remains, the member who joined first becomes the owner.
fn leave(group: &Group, sender: &str) -> Effect {
    let remaining = || group.members.iter().filter(|member| member.user != sender);
    let is_owned = remaining().any(|member| member.role == Role::Owner);
    let new_owner = if is_owned { None } else { remaining().next() };
    Effect {
        removed: vec![sender.to_owned()],
        promoted: new_owner.map(|member| member.user.clone()),
        ..Effect::default()
    }
}

/// The members to add for those `users` for which `is_new` holds, without duplicates.
fn new_members(users: &[String], is_new: impl Fn(&str) -> bool) -> Vec<(String, Role)> {
    let mut seen = HashSet::new();
    let new = users.iter().filter(|user| is_new(user) && seen.insert(user.as_str()));
    new.map(|user| (user.clone(), Role::Member)).collect()
}

fn check_accounts(added: &[(String, Role)], proposal: &Proposal<'_>) -> Result<(), ApiError> {
    let Some(accounts) = proposal.accounts else { return Ok(()) };
    match added.iter().find(|(user, _)| !accounts.contains(user)) {
        Some((user, _)) => Err(ApiError::not_found(format!("there is no user {user}"))),
        None => Ok(()),
    }
}

fn check_users(users: &[String]) -> Result<(), ApiError> {
    if users.is_empty() {
        return Err(ApiError::invalid("users must name at least one user"));
    }
    check_ids(users)
}

fn check_ids(users: &[String]) -> Result<(), ApiError> {
    users.iter().try_for_each(|user| ids::check_id("a user's id", user))
}

#[cfg(test)]
pub(crate) mod tests;
