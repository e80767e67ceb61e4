//! How far the user has read, as far as the server has said that it knows.

use std::collections::BTreeMap;

/// Answered read positions, by conversation.
#[derive(Clone, Debug, Default)]
pub(super) struct Marks(BTreeMap<String, u64>);

impl Marks {
    /// A position was marked and the answer came. Gives what is wrong with the answer: it may not be less.
    pub(super) fn answered(&mut self, conversation: &str, marked: u64, read: u64) -> Result<(), u64> {
        let known = self.0.entry(conversation.to_owned()).or_insert(0);
        *known = read.max(marked).max(*known);
        if read < marked { Err(marked) } else { Ok(()) }
    }

    /// The server says how far the user has read. Gives how far it had said, if that was further.
    pub(super) fn told(&self, conversation: &str, read: u64) -> Result<(), u64> {
        match self.0.get(conversation) {
            Some(&known) if read < known => Err(known),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_position_never_goes_back() {
        let mut marks = Marks::default();
        assert_eq!(marks.answered("c", 5, 5), Ok(()));
        // Another device had gone further.
        assert_eq!(marks.answered("c", 6, 8), Ok(()));
        assert_eq!(marks.told("c", 8), Ok(()));
        assert_eq!(marks.told("c", 7), Err(8));
        assert_eq!(marks.told("another", 0), Ok(()));
        assert_eq!(marks.answered("c", 9, 8), Err(9));
    }
}
