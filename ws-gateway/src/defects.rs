//! A deliberate defect that the fault suite must detect. It exists only with the feature `defects`, which no released program
//! has, and is switched on by the environment variable `GODWIT_DEFECT`.
//!
//! - `random-message-id`: message ids are random, so a retry becomes a second message.

use std::sync::OnceLock;

fn has_random_ids() -> bool {
    static RANDOM: OnceLock<bool> = OnceLock::new();
    *RANDOM.get_or_init(|| std::env::var("GODWIT_DEFECT").as_deref() == Ok("random-message-id"))
}

/// Logs that this build has defects.
pub(crate) fn warn() {
    tracing::warn!(
        random_message_id = has_random_ids(),
        "this build has deliberate defects, for tests only: messages can be duplicated"
    );
}

/// The given id, or a random one.
pub(crate) fn message_id(id: String) -> String {
    if has_random_ids() { abi::ids::hex(&rand::random::<[u8; 16]>()) } else { id }
}
