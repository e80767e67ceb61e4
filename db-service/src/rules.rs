//! The rules for groups, in one place for both stores, for saving and for checking beforehand.
//!
//! A store loads a [`Group`], asks [`decide`], and writes the [`Effect`]. Nothing here touches a database.

use crate::item::number;
use abi::{
    ApiError, MAX_GROUP_NAME,
    error::ErrorCode,
    ids,
    v1::{GroupCreated, HistoryVisibility, Member, Members, Role, group_change::Change},
};
use std::collections::HashSet;

/// A group as it stands.
#[derive(Clone, Debug, Default)]
pub(crate) struct Group {
    /// Raised with every change.
    pub(crate) version: i64,
    /// Later members see everything.
    pub(crate) history_all: bool,
    /// In order of joining.
    pub(crate) members: Vec<Joined>,
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Joined {
    /// User id.
    pub(crate) user: String,
    /// Owner or member.
    pub(crate) role: Role,
    /// First visible number.
    pub(crate) visible_from: i64,
}

/// What an allowed change does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Effect {
    /// The group begins with this name; later members see everything or not.
    pub(crate) created: Option<(String, bool)>,
    /// New members, in order of joining.
    pub(crate) added: Vec<Joined>,
    /// Members that are gone.
    pub(crate) removed: Vec<String>,
    /// The member who owns the group from now on.
    pub(crate) promoted: Option<String>,
}

impl Group {
    fn role(&self, user: &str) -> Option<Role> {
        self.members.iter().find(|member| member.user == user).map(|member| member.role)
    }
}

impl From<Group> for Members {
    fn from(group: Group) -> Self {
        let member = |joined: Joined| Member {
            user: joined.user,
            role: joined.role.into(),
            visible_from: number(joined.visible_from),
        };
        Self { version: number(group.version), members: group.members.into_iter().map(member).collect() }
    }
}

/// The users whose accounts must exist for a change; `decide` wants to know which of them do. No more than can matter:
/// a change that names more than twice as many as fit is refused for its size.
pub(crate) fn newcomers(change: Option<&Change>, max_members: usize) -> HashSet<&str> {
    let users = match change {
        Some(Change::Created(created)) => created.members.as_slice(),
        Some(Change::Added(added)) => added.users.as_slice(),
        _ => &[],
    };
    let mut newcomers = HashSet::new();
    for user in users {
        if newcomers.len() > max_members.saturating_mul(2) {
            break;
        }
        if ids::check_id("user", user).is_ok() {
            newcomers.insert(user.as_str());
        }
    }
    newcomers
}

/// Place of a member in the order of joining, from the entry with which it joined and its place in that.
pub(crate) fn joined_order(seq: i64, place: usize) -> i64 {
    const PLACES: i64 = 1 << 20;
    seq.saturating_mul(PLACES).saturating_add(i64::try_from(place).unwrap_or(PLACES).min(PLACES - 1))
}

/// Whether a change of a group is allowed, and what it does. `group` is `None` if there is none yet, `seq` the number
/// that the entry would get, `accounts` those of [`newcomers`] that exist, `max_members` the size limit of a group.
///
/// # Errors
/// The refusal, as the user is to see it. Whoever is not a member learns nothing about the group, not even whether
/// there is one.
pub(crate) fn decide(
    group: Option<&Group>,
    sender: &str,
    change: Option<&Change>,
    seq: i64,
    accounts: &HashSet<String>,
    max_members: usize,
) -> Result<Effect, ApiError> {
    let change = change.ok_or_else(|| ApiError::invalid("the group change says nothing"))?;
    let outsider = || ApiError::forbidden("you are not a member of this group");
    let group = match (change, group) {
        (Change::Created(created), None) => return create(created, sender, accounts, max_members),
        (Change::Created(_), Some(_)) => {
            return Err(ApiError::new(ErrorCode::AlreadyExists, "this group exists already"));
        }
        (_, group) => group.ok_or_else(outsider)?,
    };
    let role = group.role(sender).ok_or_else(outsider)?;
    let owner_only = |what: &str| {
        if role == Role::Owner { Ok(()) } else { Err(ApiError::forbidden(format!("only an owner {what}"))) }
    };
    match change {
        Change::Created(_) => unreachable!("handled above"),
        Change::Added(added) => {
            owner_only("adds members")?;
            check_users(&added.users)?;
            let visible_from = if group.history_all { 1 } else { seq };
            let is_new = |user: &str| group.role(user).is_none();
            let added = join(&added.users, visible_from, is_new);
            check_size(group.members.len() + added.len(), max_members)?;
            check_accounts(&added, accounts)?;
            Ok(Effect { added, ..Effect::default() })
        }
        Change::Removed(removed) => {
            owner_only("removes members")?;
            check_users(&removed.users)?;
            // Whoever is named is told of it.
            if let Some(stranger) = removed.users.iter().find(|user| group.role(user).is_none()) {
                return Err(ApiError::not_found(format!("{stranger} is not a member of this group")));
            }
            let gone: HashSet<&str> = removed.users.iter().map(String::as_str).collect();
            let leaves = |member: &&Joined| gone.contains(member.user.as_str());
            if group.members.iter().filter(|member| member.role == Role::Owner).all(|owner| leaves(&owner)) {
                return Err(ApiError::new(
                    ErrorCode::Conflict,
                    "a group can't lose its last owner: leave the group instead",
                ));
            }
            let removed = group.members.iter().filter(leaves).map(|member| member.user.clone()).collect();
            Ok(Effect { removed, ..Effect::default() })
        }
        Change::Left(_) => {
            let rest = || group.members.iter().filter(|member| member.user != sender);
            let is_owned = rest().any(|member| member.role == Role::Owner);
            let heir = if is_owned { None } else { rest().next() };
            Ok(Effect {
                removed: vec![sender.to_owned()],
                promoted: heir.map(|member| member.user.clone()),
                ..Effect::default()
            })
        }
    }
}

fn create(
    created: &GroupCreated,
    sender: &str,
    accounts: &HashSet<String>,
    max_members: usize,
) -> Result<Effect, ApiError> {
    let length = created.name.chars().count();
    if !(1..=MAX_GROUP_NAME).contains(&length) || created.name.chars().any(char::is_control) {
        return Err(ApiError::invalid(format!(
            "the name of a group must be 1 to {MAX_GROUP_NAME} characters without control characters"
        )));
    }
    check_ids(&created.members)?;
    let mut added = vec![Joined { user: sender.to_owned(), role: Role::Owner, visible_from: 1 }];
    added.extend(join(&created.members, 1, |user| user != sender));
    check_size(added.len(), max_members)?;
    check_accounts(&added[1..], accounts)?;
    let history_all = created.history() == HistoryVisibility::All;
    Ok(Effect { created: Some((created.name.clone(), history_all)), added, ..Effect::default() })
}

/// Those of `users` that are new, each once.
fn join(users: &[String], visible_from: i64, is_new: impl Fn(&str) -> bool) -> Vec<Joined> {
    let mut seen = HashSet::new();
    let new = users.iter().filter(|user| is_new(user) && seen.insert(user.as_str()));
    new.map(|user| Joined { user: user.clone(), role: Role::Member, visible_from }).collect()
}

fn check_accounts(added: &[Joined], accounts: &HashSet<String>) -> Result<(), ApiError> {
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

fn check_size(members: usize, max: usize) -> Result<(), ApiError> {
    if members > max {
        return Err(ApiError::new(
            ErrorCode::TooLarge,
            format!("the group would have {members} members; at most {max} are allowed"),
        ));
    }
    Ok(())
}
