//! Commands to devices.

use std::time::Duration;

/// A message for a device to send.
#[derive(Clone, Debug)]
pub(super) struct SendJob {
    /// Index of the send in the ledger.
    pub(super) send: u32,
    /// The conversation's id.
    pub(super) conversation: String,
    /// The `client_msg_id`.
    pub(super) client_msg_id: String,
    /// The text; it begins with `client_msg_id`.
    pub(super) text: String,
}

/// A command to a device.
#[derive(Debug)]
pub(super) enum Command {
    /// Send a message.
    Send(SendJob),
    /// Also send a message that another device of the user is sending.
    SendCopy(SendJob),
    /// Restart the program with the last saved state or an older one.
    Restart,
    /// Read no events for this time.
    Sleep(Duration),
}
