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
use sqlx::{PgConnection, Row as _, postgres::PgRow};

/// Returns entries up to the byte limit and the first one beyond it, which shows that there are more; at least two entries. Parameters: key of the
/// conversation, first and last entry, most entries, most bytes.
const ASCENDING: &str = "SELECT seq, countable, message_id, kind, target_seq, payload FROM (
      SELECT *, sum(octet_length(payload)) OVER (ORDER BY seq) - octet_length(payload) AS before,
        row_number() OVER (ORDER BY seq) AS nr FROM (
        SELECT seq, countable, message_id, kind, target_seq, payload FROM entries
        WHERE conversation = $1 AND seq BETWEEN $2 AND $3 ORDER BY seq LIMIT $4) AS asked
    ) AS summed WHERE before <= $5 OR nr <= 2 ORDER BY seq";
/// Like [`ASCENDING`], in the other direction.
const DESCENDING: &str = "SELECT seq, countable, message_id, kind, target_seq, payload FROM (
      SELECT *, sum(octet_length(payload)) OVER (ORDER BY seq DESC) - octet_length(payload) AS before,
        row_number() OVER (ORDER BY seq DESC) AS nr FROM (
        SELECT seq, countable, message_id, kind, target_seq, payload FROM entries
        WHERE conversation = $1 AND seq BETWEEN $2 AND $3 ORDER BY seq DESC LIMIT $4) AS asked
    ) AS summed WHERE before <= $5 OR nr <= 2 ORDER BY seq DESC";
/// Parameters: last visible entry, user, key of the conversation, first and last entry.
const STATES: &str = sql::states!("s.seq BETWEEN $4 AND $5");
/// Parameters: last visible entry, user, key of the conversation, entries.
const STATES_OF: &str = sql::states!("s.seq = ANY($4)");

/// A page with the entries that the user may see; `None` if the user never was a member.
pub(super) async fn history(
    conn: &mut PgConnection,
    view: &View,
    page: Page,
    limit: PageLimit,
) -> Result<Option<EntriesPage>> {
    let Some((key, visibility)) = visibility(&mut *conn, view).await? else { return Ok(None) };
    let Some(span) = visibility.span(page) else { return Ok(Some(EntriesPage::default())) };
    let mut rows = rows(&mut *conn, key, page, span, limit).await?;
    let mut more = rows.len() > limit.entries;
    rows.truncate(limit.entries);
    let states = states(conn, view, key, &visibility, &rows).await?;
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

/// A row of [`sql::VISIBILITY`].
type VisibilityRow = (i64, i64, Option<i64>, Option<i64>, Option<i64>);

/// Key of the conversation, and what the user can see; `None` if the user never was a member.
pub(super) async fn visibility(conn: &mut PgConnection, view: &View) -> Result<Option<(i64, Visibility)>> {
    let select = sqlx::query_as(sql::VISIBILITY).bind(&view.app).bind(&view.conversation).bind(&view.user);
    let rows: Vec<VisibilityRow> = select.fetch_all(conn).await?;
    let Some((key, from, until, ..)) = rows.first().copied() else { return Ok(None) };
    let absences = rows.iter().filter_map(|(.., after, before)| after.zip(*before)).collect();
    Ok(Some((key, Visibility { from, until, absences })))
}

async fn rows(
    conn: &mut PgConnection,
    key: i64,
    page: Page,
    span: Span,
    limit: PageLimit,
) -> Result<Vec<EntryRow>> {
    let statement = match page {
        Page::After(_) => ASCENDING,
        Page::Before(_) => DESCENDING,
    };
    let rows = sqlx::query(statement)
        .bind(key)
        .bind(span.first)
        .bind(span.last)
        .bind(column(limit.entries + 1))
        .bind(column(limit.bytes))
        .fetch_all(conn)
        .await?;
    rows.iter().map(|row| entry_row(row, 0)).collect()
}

/// Reads the columns of an entry, the first of which is `at`.
pub(super) fn entry_row(row: &PgRow, at: usize) -> Result<EntryRow> {
    Ok(EntryRow {
        seq: row.try_get(at)?,
        countable: row.try_get(at + 1)?,
        id: Bytes::copy_from_slice(row.try_get(at + 2)?),
        kind: row.try_get(at + 3)?,
        target_seq: row.try_get(at + 4)?,
        payload: Bytes::copy_from_slice(row.try_get(at + 5)?),
    })
}

/// Reads the columns of a state, the first of which is `at`.
pub(super) fn state_row(row: &PgRow, at: usize) -> Result<StateRow> {
    let optional =
        |at: usize| Ok::<_, sqlx::Error>(row.try_get::<Option<&[u8]>, _>(at)?.map(Bytes::copy_from_slice));
    Ok(StateRow {
        seq: row.try_get(at)?,
        changed_seq: row.try_get(at + 1)?,
        edits: row.try_get(at + 2)?,
        edited_at_ms: row.try_get(at + 3)?,
        recalled_by: row.try_get(at + 4)?,
        reactions: Bytes::copy_from_slice(row.try_get(at + 5)?),
        edit: optional(at + 6)?,
        mine: optional(at + 7)?,
    })
}

async fn states(
    conn: &mut PgConnection,
    view: &View,
    key: i64,
    visibility: &Visibility,
    rows: &[EntryRow],
) -> Result<Vec<StateRow>> {
    let (first, last, outside) = wanted_states(rows);
    let until = visibility.until.unwrap_or(i64::MAX);
    let range = sqlx::query(STATES).bind(until).bind(&view.user).bind(key).bind(first).bind(last);
    let mut found = range.fetch_all(&mut *conn).await?;
    if !outside.is_empty() {
        let further = sqlx::query(STATES_OF).bind(until).bind(&view.user).bind(key).bind(outside);
        found.extend(further.fetch_all(conn).await?);
    }
    let mut states = found.iter().map(|row| state_row(row, 0)).collect::<Result<Vec<_>>>()?;
    states.sort_unstable_by_key(|state| state.seq);
    Ok(states)
}

/// Converts a limit to a column.
pub(super) fn column(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
