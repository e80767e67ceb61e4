//! How long a device waits for a push that another push has overtaken.

use super::Sync;
use std::time::{Duration, Instant};

/// Wait before the device asks for the changes. Two pushes to a gateway that travel at the same time differ by less.
pub const OVERTAKING: Duration = Duration::from_millis(250);

/// The clock for [`Sync::awaited`]. It belongs to one connection.
#[derive(Debug, Default)]
pub struct Patience {
    /// The awaited change, and the end of the wait for it.
    waits: Option<(u64, Instant)>,
}

impl Patience {
    /// Starts and ends waits of `sync`. Returns the end of the current wait; call this again then, and after every frame.
    pub fn check(&mut self, sync: &mut Sync, now: Instant) -> Option<Instant> {
        let awaited = sync.awaited()?;
        let (_, until) = *match &mut self.waits {
            Some(waits) if waits.0 == awaited => waits,
            waits => waits.insert((awaited, now + OVERTAKING)),
        };
        if now < until {
            return Some(until);
        }
        self.waits = None;
        sync.on_overdue();
        None
    }
}
