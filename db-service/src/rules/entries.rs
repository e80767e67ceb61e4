//! The rules for changes of entries: edits, recalls and reactions. A pure function, used by both stores for saving and for checking.

use super::{Limits, outsider};
use crate::item::{EntryChange, Item, number};
use abi::{
    ApiError, envelope,
    error::ErrorCode,
    v1::{EntryState, Envelope, ReactionCount, Role},
};

/// Most edits of an entry.
pub(crate) const MAX_EDITS: u32 = 1_000;
/// Most reactions of a user to an entry.
pub(crate) const MAX_REACTIONS: usize = 16;
/// Most different reactions to an entry.
pub(crate) const MAX_DIFFERENT_REACTIONS: usize = 64;
/// Longest reaction, in bytes.
pub(crate) const MAX_REACTION_BYTES: usize = 64;

/// An entry to be changed, as the user who changes it sees it.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// `conversation_seq`.
    pub(crate) seq: i64,
    /// Its author.
    pub(crate) sender: String,
    /// When the gateway accepted it, milliseconds since 1970.
    pub(crate) sent_at_ms: i64,
    /// The kind; `None` for messages.
    pub(crate) kind: Option<String>,
    /// Whether it counts as unread.
    pub(crate) counts: bool,
    /// Whether the user who changes it can see it.
    pub(crate) is_visible: bool,
    /// Its state before the change.
    pub(crate) state: State,
    /// The reactions of the user who changes it, before the change.
    pub(crate) own_reactions: Vec<String>,
}

/// The state of an entry after its changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// `conversation_seq` of the last change. 0: none.
    pub(crate) changed_seq: i64,
    /// Number of edits.
    pub(crate) edits: u32,
    /// When the last edit was accepted, milliseconds since 1970. 0: never.
    pub(crate) edited_at_ms: i64,
    /// `conversation_seq` of the last edit. 0: none.
    pub(crate) edit_seq: i64,
    /// `conversation_seq` of the recall. 0: none.
    pub(crate) recalled_seq: i64,
    /// The user who recalled it. Empty: nobody.
    pub(crate) recalled_by: String,
    /// The reactions, in the order of their first use, and the number of users of each.
    pub(crate) reactions: Vec<(String, u32)>,
}

/// A change that a user has requested.
pub(crate) struct Proposal<'a> {
    /// The user.
    pub(crate) sender: &'a str,
    /// The user's role. `None`: not a member now.
    pub(crate) role: Option<Role>,
    /// The change.
    pub(crate) change: &'a EntryChange,
    /// The `conversation_seq` that it would get.
    pub(crate) seq: i64,
    /// When the gateway accepted it, milliseconds since 1970.
    pub(crate) sent_at_ms: i64,
    /// The windows, if they apply. They are not decided again when the log is replayed.
    pub(crate) windows: Option<Limits>,
}

/// The effect of an allowed change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct EntryEffect {
    /// The state after the change.
    pub(crate) state: State,
    /// After a reaction: all reactions of the sender.
    pub(crate) own_reactions: Option<Vec<String>>,
    /// The entry does not count as unread any more.
    pub(crate) is_recall: bool,
}

impl State {
    /// Decodes the column `reactions`.
    ///
    /// # Errors
    /// The column is damaged.
    pub(crate) fn decode_reactions(column: &[u8]) -> crate::error::Result<Vec<(String, u32)>> {
        let decoded = <EntryState as prost::Message>::decode(column)
            .map_err(|_| crate::Error::Corrupt("the reactions to an entry"))?;
        Ok(decoded.reactions.into_iter().map(|counted| (counted.reaction, counted.count)).collect())
    }

    /// Encodes the column `reactions`.
    pub(crate) fn encode_reactions(&self) -> Vec<u8> {
        prost::Message::encode_to_vec(&EntryState { reactions: self.counts(), ..EntryState::default() })
    }

    fn counts(&self) -> Vec<ReactionCount> {
        let count = |(reaction, count): &(String, u32)| ReactionCount {
            reaction: reaction.clone(),
            count: *count,
            mine: false,
        };
        self.reactions.iter().map(count).collect()
    }
}

impl From<State> for EntryState {
    fn from(state: State) -> Self {
        Self {
            changed_seq: number(state.changed_seq),
            edits: state.edits,
            edited_at_ms: state.edited_at_ms,
            reactions: state.counts(),
            recalled_by: state.recalled_by,
        }
    }
}

/// Encodes the column `reactions` of a user's reactions.
pub(crate) fn encode_own_reactions(reactions: &[String]) -> Vec<u8> {
    prost::Message::encode_to_vec(&Envelope { reactions: reactions.to_vec(), ..Envelope::default() })
}

/// Decodes the column `reactions` of a user's reactions.
///
/// # Errors
/// The column is damaged.
pub(crate) fn decode_own_reactions(column: &[u8]) -> crate::error::Result<Vec<String>> {
    let decoded = <Envelope as prost::Message>::decode(column)
        .map_err(|_| crate::Error::Corrupt("a user's reactions to an entry"))?;
    Ok(decoded.reactions)
}

/// The error of a change in a conversation that does not exist. Only its members learn that it does not.
pub(crate) fn no_such_entry(item: &Item) -> ApiError {
    if item.is_direct() && !item.is_stranger { not_found() } else { outsider() }
}

fn not_found() -> ApiError {
    ApiError::not_found("refers_to names no entry of this conversation that you can see")
}

/// Whether a change of an entry is allowed, and its effect. `target` is `None` if there is no such entry.
///
/// # Errors
/// The refusal for the user.
pub(crate) fn decide(target: Option<&Target>, proposal: &Proposal<'_>) -> Result<EntryEffect, ApiError> {
    let role = proposal.role.ok_or_else(outsider)?;
    let target = target.filter(|target| target.is_visible).ok_or_else(not_found)?;
    if let Some(kind) = &target.kind
        && (envelope::is_change_of_entry(kind) || kind == envelope::GROUP)
    {
        return Err(ApiError::invalid(format!(
            "refers_to names an entry of kind {kind}, which cannot be edited, recalled or reacted to"
        )));
    }
    if target.state.recalled_seq > 0 {
        return Err(ApiError::new(ErrorCode::Conflict, "the entry that refers_to names was recalled"));
    }
    let state = State { changed_seq: proposal.seq, ..target.state.clone() };
    match proposal.change {
        EntryChange::Edit { has_content } => edit(target, proposal, state, *has_content),
        EntryChange::Recall => recall(target, proposal, state, role),
        EntryChange::Reaction(reactions) => react(target, state, reactions),
    }
}

fn edit(
    target: &Target,
    proposal: &Proposal<'_>,
    mut state: State,
    has_content: bool,
) -> Result<EntryEffect, ApiError> {
    if target.sender != proposal.sender {
        return Err(ApiError::forbidden("only the author edits an entry"));
    }
    if !has_content {
        return Err(ApiError::invalid("content is missing: an edit needs the new content"));
    }
    if state.edits >= MAX_EDITS {
        return Err(ApiError::new(
            ErrorCode::Conflict,
            format!("the entry has been edited {MAX_EDITS} times, which is the limit"),
        ));
    }
    let window = proposal.windows.map_or(0, |limits| limits.edit_window_ms);
    check_window(target, proposal, window, "edit")?;
    state.edits += 1;
    (state.edit_seq, state.edited_at_ms) = (proposal.seq, proposal.sent_at_ms);
    Ok(EntryEffect { state, ..EntryEffect::default() })
}

fn recall(
    target: &Target,
    proposal: &Proposal<'_>,
    mut state: State,
    role: Role,
) -> Result<EntryEffect, ApiError> {
    if role != Role::Owner {
        if target.sender != proposal.sender {
            return Err(ApiError::forbidden("only the author or an owner of the group recalls an entry"));
        }
        let window = proposal.windows.map_or(0, |limits| limits.recall_window_ms);
        check_window(target, proposal, window, "recall")?;
    }
    (state.recalled_seq, state.recalled_by) = (proposal.seq, proposal.sender.to_owned());
    Ok(EntryEffect { state, is_recall: true, ..EntryEffect::default() })
}

/// `window_ms`: 0 is no limit.
fn check_window(
    target: &Target,
    proposal: &Proposal<'_>,
    window_ms: i64,
    action: &str,
) -> Result<(), ApiError> {
    if window_ms > 0 && proposal.sent_at_ms.saturating_sub(target.sent_at_ms) > window_ms {
        let minutes = window_ms / 60_000;
        return Err(ApiError::forbidden(format!(
            "an author can {action} an entry for {minutes} minutes after it was sent; this one is older"
        )));
    }
    Ok(())
}

fn react(target: &Target, mut state: State, reactions: &[String]) -> Result<EntryEffect, ApiError> {
    let mut own: Vec<String> = Vec::new();
    for reaction in reactions {
        if !(1..=MAX_REACTION_BYTES).contains(&reaction.len()) || reaction.contains('\0') {
            return Err(ApiError::invalid(format!(
                "each of reactions must have 1 to {MAX_REACTION_BYTES} bytes and no NUL"
            )));
        }
        if !own.contains(reaction) {
            own.push(reaction.clone());
        }
        if own.len() > MAX_REACTIONS {
            return Err(ApiError::new(
                ErrorCode::TooLarge,
                format!("reactions has more than {MAX_REACTIONS} different reactions"),
            ));
        }
    }
    for (reaction, count) in &mut state.reactions {
        let (had, has) = (target.own_reactions.contains(reaction), own.contains(reaction));
        *count = (*count + u32::from(has && !had)).saturating_sub(u32::from(had && !has));
    }
    state.reactions.retain(|(_, count)| *count > 0);
    for reaction in &own {
        if !state.reactions.iter().any(|(known, _)| known == reaction) {
            state.reactions.push((reaction.clone(), 1));
        }
    }
    if state.reactions.len() > MAX_DIFFERENT_REACTIONS {
        return Err(ApiError::new(
            ErrorCode::TooLarge,
            format!("the entry would have more than {MAX_DIFFERENT_REACTIONS} different reactions"),
        ));
    }
    Ok(EntryEffect { state, own_reactions: Some(own), ..EntryEffect::default() })
}
