//! A deliberate defect, to show that the fault suite finds it. Only with the feature `defects`, which no program that is meant
//! for people has; the environment variable `GODWIT_DEFECT` switches it on.
//!
//! - `random-message-id`: the id of a message is random, so that a retry is another message.

use std::sync::OnceLock;

fn has_random_ids() -> bool {
    static RANDOM: OnceLock<bool> = OnceLock::new();
    *RANDOM.get_or_init(|| std::env::var("GODWIT_DEFECT").as_deref() == Ok("random-message-id"))
}

/// Says what kind of build this is.
pub(crate) fn warn() {
    tracing::warn!(
        random_message_id = has_random_ids(),
        "THIS BUILD OF THE GATEWAY HAS DELIBERATE DEFECTS, for tests only: messages can be doubled"
    );
}

/// The id that a message has, or another one.
pub(crate) fn message_id(id: String) -> String {
    if has_random_ids() { abi::ids::hex(&rand::random::<[u8; 16]>()) } else { id }
}
