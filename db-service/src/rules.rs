//! The rules for group changes. Both stores use them for saving and for checking.
//!
//! A store loads a [`Group`], calls [`decide`], and writes the [`Effect`]. This module does not access a database.

use crate::item::number;
use abi::{
    ApiError, MAX_GROUP_NAME, config,
    error::ErrorCode,
    ids,
    v1::{
        GroupCreated, HistoryVisibility, Member, Members, MembersAdded, MembersRemoved, Role,
        group_change::Change,
    },
};
use std::collections::HashSet;

/// The configured limits of a store.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Most members of a group.
    pub(crate) max_group_members: usize,
}

impl Limits {
    /// The limits of a configuration.
    pub(crate) fn new(config: &config::Db) -> Self {
        Self { max_group_members: usize::try_from(config.max_group_members).unwrap_or(usize::MAX) }
    }

    /// The users whose accounts [`decide`] needs to know. A change that names more than twice the limit is refused for its
    /// size, so the list ends there.
    pub(crate) fn users_to_look_up(self, change: Option<&Change>) -> HashSet<&str> {
        let named = match change {
            Some(Change::Created(created)) => created.members.as_slice(),
            Some(Change::Added(added)) => added.users.as_slice(),
            _ => &[],
        };
        let mut users = HashSet::new();
        for user in named {
            if users.len() > self.max_group_members.saturating_mul(2) {
                break;
            }
            if ids::check_id("user", user).is_ok() {
                users.insert(user.as_str());
            }
        }
        users
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
    /// In the order of joining.
    pub(crate) members: Vec<GroupMember>,
}

/// A member of a group.
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
    /// The change.
    pub(crate) change: Option<&'a Change>,
    /// The `conversation_seq` that the entry would get.
    pub(crate) seq: i64,
    /// Those of [`Limits::users_to_look_up`] that have an account.
    pub(crate) accounts: HashSet<String>,
}

/// The effect of an allowed change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Effect {
    /// The group is created with this name and this `history_all`.
    pub(crate) created: Option<(String, bool)>,
    /// New members, in the order of joining.
    pub(crate) added: Vec<GroupMember>,
    /// Members who leave.
    pub(crate) removed: Vec<String>,
    /// The member who becomes the owner.
    pub(crate) promoted: Option<String>,
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
    let change = proposal.change.ok_or_else(|| ApiError::invalid("the group change is empty"))?;
    let outsider = || ApiError::forbidden("you are not a member of this group");
    let group = match (change, group) {
        (Change::Created(created), None) => return create(created, proposal, limits),
        (Change::Created(_), Some(_)) => {
            return Err(ApiError::new(ErrorCode::AlreadyExists, "this group exists already"));
        }
        (_, group) => group.ok_or_else(outsider)?,
    };
    let role = group.role(proposal.sender).ok_or_else(outsider)?;
    let owner_only = |action: &str| {
        if role == Role::Owner { Ok(()) } else { Err(ApiError::forbidden(format!("only an owner {action}"))) }
    };
    match change {
        Change::Created(_) => unreachable!("handled above"),
        Change::Added(added) => {
            owner_only("adds members")?;
            add(group, added, proposal, limits)
        }
        Change::Removed(removed) => {
            owner_only("removes members")?;
            remove(group, removed)
        }
        Change::Left(_) => Ok(leave(group, proposal.sender)),
    }
}

fn create(created: &GroupCreated, proposal: &Proposal<'_>, limits: Limits) -> Result<Effect, ApiError> {
    // The gateway has applied `abi::names`, whose rules change with the versions of Unicode. The rules here never change, so a
    // replay of the log decides the same.
    let length = created.name.chars().count();
    if !(1..=MAX_GROUP_NAME).contains(&length) || created.name.chars().any(char::is_control) {
        return Err(ApiError::invalid(format!(
            "name must have 1 to {MAX_GROUP_NAME} characters and no control characters"
        )));
    }
    check_ids(&created.members)?;
    let sender = proposal.sender;
    let mut added = vec![GroupMember { user: sender.to_owned(), role: Role::Owner, visible_from: 1 }];
    added.extend(new_members(&created.members, 1, |user| user != sender));
    limits.check_size(added.len())?;
    check_accounts(&added[1..], &proposal.accounts)?;
    let history_all = created.history() == HistoryVisibility::All;
    Ok(Effect { created: Some((created.name.clone(), history_all)), added, ..Effect::default() })
}

fn add(
    group: &Group,
    added: &MembersAdded,
    proposal: &Proposal<'_>,
    limits: Limits,
) -> Result<Effect, ApiError> {
    check_users(&added.users)?;
    let visible_from = if group.history_all { 1 } else { proposal.seq };
    let added = new_members(&added.users, visible_from, |user| group.role(user).is_none());
    limits.check_size(group.members.len() + added.len())?;
    check_accounts(&added, &proposal.accounts)?;
    Ok(Effect { added, ..Effect::default() })
}

fn remove(group: &Group, removed: &MembersRemoved) -> Result<Effect, ApiError> {
    check_users(&removed.users)?;
    // Every named user is notified of the removal, so only members may be named.
    if let Some(stranger) = removed.users.iter().find(|user| group.role(user).is_none()) {
        return Err(ApiError::not_found(format!("{stranger} is not a member of this group")));
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
fn new_members(users: &[String], visible_from: i64, is_new: impl Fn(&str) -> bool) -> Vec<GroupMember> {
    let mut seen = HashSet::new();
    let new = users.iter().filter(|user| is_new(user) && seen.insert(user.as_str()));
    new.map(|user| GroupMember { user: user.clone(), role: Role::Member, visible_from }).collect()
}

fn check_accounts(added: &[GroupMember], accounts: &HashSet<String>) -> Result<(), ApiError> {
    match added.iter().find(|member| !accounts.contains(&member.user)) {
        Some(member) => Err(ApiError::not_found(format!("there is no user {}", member.user))),
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
