//! The output of [`super::Sync`]: what the application has to know, in order.

use abi::v1::{Changes, Entry, Update};

/// A change for the application.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// The next entry of a conversation.
    Entry(Box<Entry>),
    /// A change of the user's own state.
    Update(Box<Update>),
    /// A page of all that changed while the device was away: heads, profile, blocks. The entries follow one by one.
    Changes(Box<Changes>),
}

/// The application's side of [`super::Sync`]. A position moves only past accepted entries.
pub trait Sink {
    /// Accepts a change, or returns it if the sink is full.
    fn offer(&mut self, change: Change) -> Option<Change>;
}

impl Sink for Vec<Change> {
    fn offer(&mut self, change: Change) -> Option<Change> {
        self.push(change);
        None
    }
}
