//! Dead letters: records that can't be handled. Consumers write them; operators list, replay and drop them.
//!
//! A letter is a record of the dead-letter topic, and its position there is its id. It is open until a later record says that
//! it has ended, by a replay or by being dropped. The topic is the only state, so several processes may work on it. Ended
//! letters at the beginning of the topic are removed, so it does not grow without limit.
//!
//! A replay writes the original record to its topic, waits for the confirmation, and then writes the record that ends the
//! letter. After a crash in between, the letter is still open; replaying it again writes the record twice, which a handler has
//! to expect anyway (at least once). Letters are replayed one after the other by ascending id, so the replayed records of one
//! key keep their order. They follow all records that were written to that key in the meantime. A replayed record goes
//! through the same handler as any other; if it is rejected again, it becomes a new letter.

mod ends;
pub mod header;
mod id;
mod index;
mod letter;
mod letters;
mod writer;

pub use ends::Ends;
pub use id::{LetterId, ParseLetterIdError};
pub use letter::Letter;
pub use letters::{Letters, Page, Replayed, Selection};
pub use writer::DeadLetters;
