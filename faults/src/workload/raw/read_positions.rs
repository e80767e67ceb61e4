//! Read positions that the server has confirmed.

use std::collections::BTreeMap;

/// Confirmed read positions by conversation.
#[derive(Clone, Debug, Default)]
pub(super) struct ReadPositions(BTreeMap<String, u64>);

impl ReadPositions {
    /// The server answered `read` after the device marked `marked`.
    ///
    /// # Errors
    /// The marked position, if the answer is lower.
    pub(super) fn answered(&mut self, conversation: &str, marked: u64, read: u64) -> Result<(), u64> {
        let known = self.0.entry(conversation.to_owned()).or_insert(0);
        *known = read.max(marked).max(*known);
        if read < marked { Err(marked) } else { Ok(()) }
    }

    /// Checks a read position of the server.
    ///
    /// # Errors
    /// The confirmed position, if it is higher.
    pub(super) fn check(&self, conversation: &str, read: u64) -> Result<(), u64> {
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
        let mut positions = ReadPositions::default();
        assert_eq!(positions.answered("c", 5, 5), Ok(()));
        // Another device had marked a higher position.
        assert_eq!(positions.answered("c", 6, 8), Ok(()));
        assert_eq!(positions.check("c", 8), Ok(()));
        assert_eq!(positions.check("c", 7), Err(8));
        assert_eq!(positions.check("another", 0), Ok(()));
        assert_eq!(positions.answered("c", 9, 8), Err(9));
    }
}
