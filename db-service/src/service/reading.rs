//! Reads of conversations, and read positions.

use super::{Service, check_user, limit, view};
use crate::{
    item::column,
    outcome::group_not_found,
    rules::outsider,
    store::{EncodedHead, Listed, MAX_PAGE_BYTES, Page, PageLimit, View},
};
use abi::{
    ApiError, MAX_PAGE,
    ids::{self, Conversation},
    v1::{
        EntriesPage, GetHistory, GetMembersRequest, HeadsOfRequest, HeadsPage, HeadsRequest, HistoryRequest,
        MarkReadRequest, MarkReadResponse, MarkedRead, Member, Members, ReadMark, ReadPosition, Readers,
        ReadersRequest, Role,
    },
};
use prost::bytes::Bytes;
use std::collections::HashSet;

/// Most marks in one request.
const MAX_MARKS: usize = 10_000;

impl Service {
    /// A page of a conversation.
    pub(super) async fn history_page(&self, request: HistoryRequest) -> Result<EntriesPage, ApiError> {
        let requested = request.page.unwrap_or_default();
        let view = view(request.app, request.user, &requested.conversation)?;
        let page = page(&requested)?;
        let bytes = match usize::try_from(request.max_bytes) {
            Ok(bytes @ 1..=MAX_PAGE_BYTES) => bytes,
            _ => MAX_PAGE_BYTES,
        };
        let limit = PageLimit { entries: limit(requested.limit)?, bytes };
        let may_be_empty = is_direct_member(&view.conversation, &view.user);
        match self.conversations.history(view, page, limit).await? {
            Some(page) => Ok(page),
            None if may_be_empty => Ok(EntriesPage::default()),
            None => Err(outsider()),
        }
    }

    /// A page of a user's heads.
    pub(super) async fn heads_page(&self, request: HeadsRequest) -> Result<HeadsPage, ApiError> {
        let HeadsRequest { app, user, cursor, limit: requested } = request;
        check_user(&app, &user)?;
        let limit = limit(requested)?;
        let after = if cursor.is_empty() { None } else { Some(listed(&cursor)?) };
        let mut inbox = self.users.inbox(app.clone(), user.clone(), after, limit + 1).await?;
        let has_more = inbox.len() > limit;
        inbox.truncate(limit);
        let names = inbox.iter().map(|listed| listed.conversation.clone()).collect();
        let mut heads = self.heads(app, user, names).await?.into_iter().peekable();
        let mut page = HeadsPage::default();
        let (mut bytes, mut last) = (0, None);
        for listed in inbox {
            // A conversation of the list may have been deleted meanwhile.
            let head = heads.next_if(|(conversation, _)| *conversation == listed.conversation);
            bytes += head.as_ref().map_or(0, |(_, head)| head.len());
            if bytes > MAX_PAGE_BYTES && !page.heads.is_empty() {
                page.next = last.as_ref().map_or_else(String::new, cursor_of);
                return Ok(page);
            }
            page.heads.extend(head.map(|(_, head)| head));
            last = Some(listed);
        }
        if has_more {
            page.next = last.as_ref().map_or_else(String::new, cursor_of);
        }
        Ok(page)
    }

    /// The heads of named conversations.
    pub(super) async fn named_heads(&self, request: HeadsOfRequest) -> Result<HeadsPage, ApiError> {
        let HeadsOfRequest { app, user, conversations } = request;
        check_user(&app, &user)?;
        let (count, most) = (conversations.len(), usize::try_from(MAX_PAGE).unwrap_or_default());
        if count > most {
            return Err(ApiError::invalid(format!(
                "conversations has {count} ids; at most {most} are allowed"
            )));
        }
        let canonical = |id: &String| Ok(Conversation::parse(id)?.to_string());
        let names = conversations.iter().map(canonical).collect::<Result<_, ApiError>>()?;
        let heads = self.heads(app, user, names).await?;
        Ok(HeadsPage { heads: heads.into_iter().map(|(_, head)| head).collect(), next: String::new() })
    }

    /// Conversation ids and heads with settings.
    async fn heads(
        &self,
        app: String,
        user: String,
        names: Vec<String>,
    ) -> Result<Vec<(String, Bytes)>, ApiError> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let settings = self.users.settings(app.clone(), user.clone(), names.clone());
        let heads = self.conversations.heads_of(app, user, names);
        let (settings, heads) = tokio::try_join!(settings, heads)?;
        let merged = |EncodedHead { conversation, head }| match settings.get(&conversation) {
            Some(settings) => {
                let head = crate::heads::with_settings(&head, settings);
                (conversation, head)
            }
            None => (conversation, head),
        };
        Ok(heads.into_iter().map(merged).collect())
    }

    /// The members of a conversation.
    pub(super) async fn members(&self, request: GetMembersRequest) -> Result<Members, ApiError> {
        ids::check_id("app", &request.app)?;
        let conversation = Conversation::parse(&request.conversation)?;
        if let Conversation::Direct(..) = conversation {
            let member =
                |user: &str| Member { user: user.to_owned(), role: Role::Member.into(), visible_from: 1 };
            return Ok(Members { version: 1, members: conversation.direct_members().map(member).collect() });
        }
        let members = self.conversations.members(request.app, request.conversation).await?;
        members.ok_or_else(group_not_found)
    }

    /// Who has read an entry.
    pub(super) async fn readers_page(&self, request: ReadersRequest) -> Result<Readers, ApiError> {
        let page = request.page.unwrap_or_default();
        let view = view(request.app, request.user, &page.conversation)?;
        if !page.after.is_empty() {
            ids::check_id("after", &page.after)?;
        }
        let (seq, limit) = (column(page.conversation_seq), limit(page.limit)?);
        let View { app, user, conversation } = view.clone();
        match self.conversations.readers(view, seq, page.after, limit).await? {
            Some(readers) => Ok(readers),
            None if self.is_member(app, &conversation, &user).await? => {
                Err(ApiError::not_found(format!("there is no entry {seq} that you can see")))
            }
            None => Err(outsider()),
        }
    }

    async fn is_member(&self, app: String, conversation: &str, user: &str) -> Result<bool, ApiError> {
        if is_direct_member(conversation, user) {
            return Ok(true);
        }
        let members = self.conversations.members(app, conversation.to_owned()).await?;
        Ok(members.is_some_and(|found| found.members.iter().any(|member| member.user == user)))
    }

    /// Moves read positions.
    pub(super) async fn move_read_positions(
        &self,
        request: MarkReadRequest,
    ) -> Result<MarkReadResponse, ApiError> {
        let MarkReadRequest { app, marks } = request;
        ids::check_id("app", &app)?;
        if marks.len() > MAX_MARKS {
            return Err(ApiError::invalid(format!("a request must have at most {MAX_MARKS} marks")));
        }
        let canonical = |mark: ReadMark| {
            ids::check_id("user", &mark.user)?;
            let conversation = Conversation::parse(&mark.conversation)?.to_string();
            Ok(ReadMark { conversation, ..mark })
        };
        let marks = marks.into_iter().map(canonical).collect::<Result<Vec<_>, ApiError>>()?;
        let mut seen = HashSet::new();
        if let Some(mark) = marks.iter().find(|mark| !seen.insert((&mark.user, &mark.conversation))) {
            let ReadMark { user, conversation, .. } = mark;
            return Err(ApiError::invalid(format!("marks has {conversation} twice for user {user}")));
        }
        if marks.is_empty() {
            return Ok(MarkReadResponse::default());
        }
        let mut marked = self.conversations.mark_read(app, marks.clone()).await?;
        for (mark, marked) in marks.into_iter().zip(&mut marked) {
            if marked.position.is_none() {
                *marked = unmarked(mark);
            }
        }
        Ok(MarkReadResponse { marked })
    }
}

/// The result of a mark of a user who never was a member. A direct conversation may have no entries yet.
fn unmarked(mark: ReadMark) -> MarkedRead {
    if is_direct_member(&mark.conversation, &mark.user) {
        let position = ReadPosition { conversation: mark.conversation, ..ReadPosition::default() };
        return MarkedRead { position: Some(position), ..MarkedRead::default() };
    }
    MarkedRead { error: Some(outsider().into()), ..MarkedRead::default() }
}

/// Whether the conversation is a direct one of the user. It needs no entry for that.
pub(super) fn is_direct_member(conversation: &str, user: &str) -> bool {
    Conversation::parse(conversation)
        .ok()
        .and_then(|conversation| conversation.has_direct_member(user))
        .unwrap_or(false)
}

fn cursor_of(listed: &Listed) -> String {
    format!("{}/{}", listed.last_sent_at_ms, listed.conversation)
}

fn listed(cursor: &str) -> Result<Listed, ApiError> {
    let parsed = cursor.split_once('/').and_then(|(time, conversation)| {
        let last_sent_at_ms = time.parse().ok()?;
        Conversation::parse(conversation).ok()?;
        Some(Listed { last_sent_at_ms, conversation: conversation.to_owned() })
    });
    parsed.ok_or_else(|| ApiError::invalid("cursor must be empty, or `next` of the previous page"))
}

fn page(requested: &GetHistory) -> Result<Page, ApiError> {
    match (requested.after, requested.before, requested.newest) {
        (0, 0, true) => Ok(Page::Before(i64::MAX)),
        (after, 0, false) => Ok(Page::After(column(after))),
        (0, before, _) => Ok(Page::Before(column(before))),
        _ => Err(ApiError::invalid("set at most one of after, before and newest")),
    }
}
