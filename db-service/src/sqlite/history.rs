//! Pages of a conversation.

use crate::{
    entries::{EntryPage, EntryRow, StateRow, wanted_states},
    error::Result,
    statements::reads as sql,
    store::{Page, PageLimit, View},
    visibility::{Span, Visibility},
};
use abi::v1::EntriesPage;
use prost::bytes::Bytes;
use rusqlite::{Connection, Row, params};

/// Parameters: key of the conversation, first and last entry, limit.
const ASCENDING: &str = "SELECT seq, countable, message_id, kind, target_seq, payload FROM entries
    WHERE conversation = $1 AND seq BETWEEN $2 AND $3 ORDER BY seq LIMIT $4";
/// Parameters: those of [`ASCENDING`].
const DESCENDING: &str = "SELECT seq, countable, message_id, kind, target_seq, payload FROM entries
    WHERE conversation = $1 AND seq BETWEEN $2 AND $3 ORDER BY seq DESC LIMIT $4";
/// Parameters: last visible entry, user, key of the conversation, first and last entry.
pub(super) const STATES: &str = sql::states!("s.seq BETWEEN $4 AND $5");

/// A page with the entries that the user may see; `None` if the user never was a member.
pub(super) fn history(
    conn: &Connection,
    view: &View,
    page: Page,
    limit: PageLimit,
) -> Result<Option<EntriesPage>> {
    let Some((key, visibility)) = visibility(conn, view)? else { return Ok(None) };
    let Some(span) = visibility.span(page) else { return Ok(Some(EntriesPage::default())) };
    let (rows, mut more) = rows(conn, key, page, span, limit)?;
    let states = states(conn, view, key, &visibility, &rows)?;
    let composed = EntryPage { conversation: &view.conversation, visibility: &visibility, states: &states };
    let mut entries = Vec::with_capacity(rows.len());
    let mut bytes = 0;
    for row in &rows {
        let entry = composed.entry(row)?;
        bytes += entry.len();
        if bytes > limit.bytes && !entries.is_empty() {
            more = true;
            break;
        }
        entries.push(entry);
    }
    Ok(Some(EntriesPage { entries, more: more || span.more }))
}

/// Key of the conversation, and what the user can see; `None` if the user never was a member.
pub(super) fn visibility(conn: &Connection, view: &View) -> Result<Option<(i64, Visibility)>> {
    let mut select = conn.prepare_cached(sql::VISIBILITY)?;
    let mut rows = select.query([&view.app, &view.conversation, &view.user])?;
    let mut found: Option<(i64, Visibility)> = None;
    while let Some(row) = rows.next()? {
        if found.is_none() {
            let visibility = Visibility { from: row.get(1)?, until: row.get(2)?, absences: Vec::new() };
            found = Some((row.get(0)?, visibility));
        }
        if let (Some((_, visibility)), Some(after)) = (&mut found, row.get(3)?) {
            visibility.absences.push((after, row.get(4)?));
        }
    }
    Ok(found)
}

/// The rows of a page up to its limits, and whether the span has more.
fn rows(
    conn: &Connection,
    key: i64,
    page: Page,
    span: Span,
    limit: PageLimit,
) -> Result<(Vec<EntryRow>, bool)> {
    let mut select = conn.prepare_cached(match page {
        Page::After(_) => ASCENDING,
        Page::Before(_) => DESCENDING,
    })?;
    // One entry beyond the limit shows that there are more.
    let most = i64::try_from(limit.entries + 1).unwrap_or(i64::MAX);
    let mut found = select.query(params![key, span.first, span.last, most])?;
    let mut rows = Vec::with_capacity(limit.entries.min(64));
    let mut bytes = 0;
    while let Some(row) = found.next()? {
        if rows.len() == limit.entries || bytes > limit.bytes {
            return Ok((rows, true));
        }
        let row = entry_row(row, 0)?;
        bytes += row.payload.len();
        rows.push(row);
    }
    Ok((rows, false))
}

/// Reads the columns of an entry, the first of which is `at`.
pub(super) fn entry_row(row: &Row<'_>, at: usize) -> Result<EntryRow> {
    Ok(EntryRow {
        seq: row.get(at)?,
        countable: row.get(at + 1)?,
        id: bytes(row, at + 2)?,
        kind: row.get(at + 3)?,
        target_seq: row.get(at + 4)?,
        payload: bytes(row, at + 5)?,
    })
}

/// Reads the columns of a state, the first of which is `at`.
pub(super) fn state_row(row: &Row<'_>, at: usize) -> Result<StateRow> {
    let optional = |at| Ok::<_, rusqlite::Error>(row.get::<_, Option<Vec<u8>>>(at)?.map(Bytes::from));
    Ok(StateRow {
        seq: row.get(at)?,
        changed_seq: row.get(at + 1)?,
        edits: row.get(at + 2)?,
        edited_at_ms: row.get(at + 3)?,
        recalled_by: row.get(at + 4)?,
        reactions: bytes(row, at + 5)?,
        edit: optional(at + 6)?,
        mine: optional(at + 7)?,
    })
}

fn bytes(row: &Row<'_>, column: usize) -> rusqlite::Result<Bytes> {
    Ok(Bytes::from(row.get::<_, Vec<u8>>(column)?))
}

fn states(
    conn: &Connection,
    view: &View,
    key: i64,
    visibility: &Visibility,
    rows: &[EntryRow],
) -> Result<Vec<StateRow>> {
    let (first, last, outside) = wanted_states(rows);
    let until = visibility.until.unwrap_or(i64::MAX);
    let mut select = conn.prepare_cached(STATES)?;
    let mut states = Vec::new();
    let ranges = std::iter::once((first, last)).chain(outside.into_iter().map(|seq| (seq, seq)));
    for (first, last) in ranges {
        let mut found = select.query(params![until, view.user, key, first, last])?;
        while let Some(row) = found.next()? {
            states.push(state_row(row, 0)?);
        }
    }
    states.sort_unstable_by_key(|state| state.seq);
    Ok(states)
}
