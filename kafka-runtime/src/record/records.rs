//! The records of a batch.

use super::Record;
use std::ops::Deref;
use std::sync::Arc;

/// Records that are cheap to clone, so that a batch can be kept for retries. Derefs to a slice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records(Arc<Vec<Record>>);

impl From<Vec<Record>> for Records {
    fn from(records: Vec<Record>) -> Self {
        Self(Arc::new(records))
    }
}

impl FromIterator<Record> for Records {
    fn from_iter<I: IntoIterator<Item = Record>>(records: I) -> Self {
        records.into_iter().collect::<Vec<_>>().into()
    }
}

impl Deref for Records {
    type Target = [Record];

    fn deref(&self) -> &[Record] {
        &self.0
    }
}

impl<'a> IntoIterator for &'a Records {
    type Item = &'a Record;
    type IntoIter = std::slice::Iter<'a, Record>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Moves the records out, or copies them if there is another clone.
impl IntoIterator for Records {
    type Item = Record;
    type IntoIter = std::vec::IntoIter<Record>;

    fn into_iter(self) -> Self::IntoIter {
        Arc::unwrap_or_clone(self.0).into_iter()
    }
}
