//! The tables and columns of an export. Both stores read and write the rows with statements made from this list.
//!
//! A test compares the list with the schemas, so that a new column is not forgotten.

use crate::error::{Error, Result};
use abi::v1::{ExportRow, ExportTable, ExportValue, export_value::Value};

/// The type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `bigint`.
    Number,
    /// `integer`.
    Small,
    /// `boolean`; 0 or 1 in SQLite.
    Flag,
    /// `text`.
    Text,
    /// `bytea`.
    Bytes,
}

/// The source of a column that is not exported: the conversation to which the row belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Derived {
    /// The key of the conversation, which each store assigns anew.
    Key,
    /// Its application.
    App,
    /// The `conversation_seq` of its last entry.
    Head,
}

/// A table.
pub(crate) struct Table {
    /// Name.
    pub(crate) name: &'static str,
    /// Columns that are not exported.
    derived: &'static [(&'static str, Derived)],
    /// Columns that are exported.
    columns: &'static [(&'static str, Kind)],
    /// The columns that order the rows. For tables of conversations: within a conversation.
    order: &'static [&'static str],
}

const KEY: (&str, Derived) = ("conversation", Derived::Key);

use Kind::{Bytes, Flag, Number, Small, Text};

/// All tables. Those from [`CONVERSATIONS`] on have rows that belong to a conversation.
pub(crate) const TABLES: &[Table] = &[
    Table {
        name: "signing_keys",
        derived: &[],
        columns: &[("slot", Small), ("id", Text), ("secret", Bytes)],
        order: &["slot"],
    },
    Table {
        name: "users",
        derived: &[],
        columns: &[("app", Text), ("user_id", Text), ("password_hash", Text)],
        order: &["app", "user_id"],
    },
    Table {
        name: "profiles",
        derived: &[],
        columns: &[("app", Text), ("user_id", Text), ("profile", Bytes)],
        order: &["app", "user_id"],
    },
    Table {
        name: "settings",
        derived: &[],
        columns: &[
            ("app", Text),
            ("user_id", Text),
            ("id", Text),
            ("muted_until_ms", Number),
            ("pinned", Flag),
            ("archived", Flag),
            ("marked_unread", Flag),
            ("draft", Text),
        ],
        order: &["app", "user_id", "id"],
    },
    Table {
        name: "blocks",
        derived: &[],
        columns: &[("app", Text), ("user_id", Text), ("blocked", Text)],
        order: &["app", "user_id", "blocked"],
    },
    Table {
        name: "sessions",
        derived: &[],
        columns: &[
            ("app", Text),
            ("user_id", Text),
            ("id", Text),
            ("device", Text),
            ("refresh_hash", Bytes),
            ("previous_hash", Bytes),
            ("refresh_number", Number),
        ],
        order: &["app", "user_id", "id"],
    },
    Table {
        name: "log_positions",
        derived: &[],
        columns: &[("topic", Text), ("partition", Small), ("first_offset", Number), ("next_offset", Number)],
        order: &["topic", "partition"],
    },
    Table {
        name: "conversations",
        derived: &[("key", Derived::Key), ("kept", Derived::Head)],
        columns: &[
            ("app", Text),
            ("id", Text),
            ("head", Number),
            ("countable", Number),
            ("shown", Number),
            ("last_sent_at_ms", Number),
            ("members_version", Number),
            ("name", Text),
            ("history", Small),
        ],
        order: &["app", "id"],
    },
    Table {
        name: "members",
        derived: &[KEY, ("app", Derived::App)],
        columns: &[
            ("user_id", Text),
            ("role", Small),
            ("visible_from", Number),
            ("visible_until", Number),
            ("left_countable", Number),
            ("read_seq", Number),
            ("read_countable", Number),
            ("excluded", Number),
            ("joined", Number),
        ],
        order: &["user_id"],
    },
    Table {
        name: "absences",
        derived: &[KEY],
        columns: &[("user_id", Text), ("after_seq", Number), ("before_seq", Number), ("countable", Number)],
        order: &["user_id", "after_seq"],
    },
    Table {
        name: "entries",
        derived: &[KEY],
        columns: &[
            ("seq", Number),
            ("countable", Number),
            ("sent_at_ms", Number),
            ("target_seq", Number),
            ("counts", Flag),
            ("message_id", Bytes),
            ("sender", Text),
            ("kind", Text),
            ("payload", Bytes),
        ],
        order: &["seq"],
    },
    Table {
        name: "entry_states",
        derived: &[KEY],
        columns: &[
            ("seq", Number),
            ("changed_seq", Number),
            ("edits", Number),
            ("edited_at_ms", Number),
            ("edit_seq", Number),
            ("recalled_seq", Number),
            ("recalled_by", Text),
            ("reactions", Bytes),
        ],
        order: &["seq"],
    },
    Table {
        name: "reactions",
        derived: &[KEY],
        columns: &[("target_seq", Number), ("user_id", Text), ("reactions", Bytes)],
        order: &["target_seq", "user_id"],
    },
];

/// Index of the table of users.
pub(crate) const USERS: usize = 1;
/// Index of the table of sessions.
pub(crate) const SESSIONS: usize = 5;
/// Index of the table of conversations.
pub(crate) const CONVERSATIONS: usize = 7;
/// Index of the table of members.
pub(crate) const MEMBERS: usize = 8;
/// Index of the table of entries.
pub(crate) const ENTRIES: usize = 10;

impl Table {
    /// Names of the exported columns, each with a prefix, for a `SELECT`.
    pub(crate) fn select_list(&self, prefix: &str) -> String {
        let columns: Vec<_> = self.columns.iter().map(|(name, _)| format!("{prefix}{name}")).collect();
        columns.join(", ")
    }

    /// The columns that order the rows, each with a prefix.
    pub(crate) fn order_list(&self, prefix: &str) -> String {
        let columns: Vec<_> = self.order.iter().map(|name| format!("{prefix}{name}")).collect();
        columns.join(", ")
    }

    /// Types of the exported columns.
    pub(crate) fn kinds(&self) -> impl Iterator<Item = Kind> {
        self.columns.iter().map(|(_, kind)| *kind)
    }

    /// Names and types of all columns, in the order of a row from [`Placement::place`].
    pub(crate) fn all_columns(&self) -> impl Iterator<Item = (&'static str, Kind)> {
        let derived = self.derived.iter().map(|(name, derived)| match derived {
            Derived::Key | Derived::Head => (*name, Number),
            Derived::App => (*name, Text),
        });
        derived.chain(self.columns.iter().copied())
    }

    /// Position of an exported column.
    fn position(&self, column: &str) -> usize {
        let found = self.columns.iter().position(|(name, _)| *name == column);
        found.expect("the callers name columns of the list")
    }

    /// The number in a column of a row of this table.
    ///
    /// # Errors
    /// The column of the row is not a number.
    pub(crate) fn number(&self, column: &str, row: &ExportRow) -> Result<i64> {
        match row.values.get(self.position(column)).and_then(|value| value.value.as_ref()) {
            Some(Value::Number(number)) => Ok(*number),
            _ => Err(Error::Corrupt("a row lacks a number")),
        }
    }

    /// The text in a column of a row of this table.
    ///
    /// # Errors
    /// The column of the row is not a text.
    pub(crate) fn text<'a>(&self, column: &str, row: &'a ExportRow) -> Result<&'a str> {
        match row.values.get(self.position(column)).and_then(|value| value.value.as_ref()) {
            Some(Value::Text(text)) => Ok(text),
            _ => Err(Error::Corrupt("a row lacks a text")),
        }
    }

    fn check(&self, row: &ExportRow) -> Result<()> {
        let fits = |(kind, value): (Kind, &ExportValue)| match (kind, &value.value) {
            (_, None) | (Number, Some(Value::Number(_))) => true,
            (Small, Some(Value::Number(number))) => i32::try_from(*number).is_ok(),
            (Flag, Some(Value::Number(number))) => matches!(number, 0 | 1),
            (Text, Some(Value::Text(text))) => !text.contains('\0'),
            (Bytes, Some(Value::Data(_))) => true,
            _ => false,
        };
        if row.values.len() != self.columns.len() || !self.kinds().zip(&row.values).all(fits) {
            return Err(Error::Corrupt("a row does not fit its table"));
        }
        Ok(())
    }
}

/// The table of a row.
///
/// # Errors
/// There is no such table, or the values do not fit its columns.
pub(crate) fn table_of(row: &ExportRow) -> Result<(usize, &'static Table)> {
    let index = usize::try_from(row.table).unwrap_or(usize::MAX);
    let table = TABLES.get(index).ok_or(Error::Corrupt("a row belongs to no table"))?;
    table.check(row)?;
    Ok((index, table))
}

/// The list in the form of an export.
pub(crate) fn listed() -> Vec<ExportTable> {
    let table = |table: &Table| ExportTable {
        name: table.name.to_owned(),
        columns: table.columns.iter().map(|(name, _)| (*name).to_owned()).collect(),
    };
    TABLES.iter().map(table).collect()
}

/// Assigns the keys of conversations and adds the derived columns to rows.
#[derive(Default)]
pub(crate) struct Placement {
    key: i64,
    app: String,
    head: i64,
}

impl Placement {
    /// Key of the last conversation.
    #[cfg(feature = "postgres")]
    pub(crate) fn last_key(&self) -> i64 {
        self.key
    }

    /// The index of a row's table, and the values of all its columns.
    ///
    /// # Errors
    /// The row does not fit its table.
    pub(crate) fn place(&mut self, row: ExportRow) -> Result<(usize, Vec<ExportValue>)> {
        let (index, table) = table_of(&row)?;
        if index == CONVERSATIONS {
            self.key += 1;
            table.text("app", &row)?.clone_into(&mut self.app);
            self.head = table.number("head", &row)?;
        }
        let derived = table.derived.iter().map(|(_, derived)| match derived {
            Derived::Key => Value::Number(self.key),
            Derived::App => Value::Text(self.app.clone()),
            Derived::Head => Value::Number(self.head),
        });
        let mut values: Vec<_> = derived.map(|value| ExportValue { value: Some(value) }).collect();
        values.extend(row.values);
        Ok((index, values))
    }
}

#[cfg(test)]
mod tests;
