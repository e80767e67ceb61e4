//! What is made of files, made again when they change.

use super::files::Named;
use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

/// Files are looked at this often, and only when a connection is made. That costs less than the handshake that follows, so it
/// is done where it is needed, and there is no task that would have to be stopped.
const PERIOD: Duration = Duration::from_secs(1);

/// Made from files; see [`Reload::current`].
pub(super) struct Reload<T> {
    files: Vec<Named>,
    make: Box<dyn Fn() -> Result<T, Vec<String>> + Send + Sync>,
    state: Mutex<State<T>>,
}

struct State<T> {
    current: T,
    /// The files of `current`.
    stamps: Stamps,
    /// Files that nothing could be made of, so that it is said once.
    faulty: Option<Stamps>,
    looked_at: Instant,
}

/// Time of change and size of each file; `None` for one that is not there.
type Stamps = Vec<Option<(SystemTime, u64)>>;

impl<T: Clone> Reload<T> {
    /// Makes the first one.
    pub(super) fn new(
        files: Vec<Named>,
        make: impl Fn() -> Result<T, Vec<String>> + Send + Sync + 'static,
    ) -> Result<Self, Vec<String>> {
        // Looked at before they are read: a change in between is seen as one.
        let stamps = stamps(&files);
        let current = make()?;
        let state = Mutex::new(State { current, stamps, faulty: None, looked_at: Instant::now() });
        Ok(Self { files, make: Box::new(make), state })
    }

    /// As the files are, or were when they were last without fault.
    pub(super) fn current(&self) -> T {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looked_at.elapsed() >= PERIOD {
            state.looked_at = Instant::now();
            self.look(&mut state);
        }
        state.current.clone()
    }

    fn look(&self, state: &mut State<T>) {
        let stamps = stamps(&self.files);
        if stamps == state.stamps {
            return;
        }
        let paths = || self.files.iter().map(|file| file.path.display().to_string()).collect::<Vec<_>>();
        match (self.make)() {
            Ok(made) => {
                tracing::info!(files = ?paths(), "certificates have changed and were read again");
                (state.current, state.stamps, state.faulty) = (made, stamps, None);
            }
            // Perhaps one of the files was written and the other is yet to be: it is tried again.
            Err(faults) if state.faulty.as_ref() != Some(&stamps) => {
                tracing::warn!(
                    faults = faults.join("; "),
                    "certificates have changed and can't be used; the last ones stay"
                );
                state.faulty = Some(stamps);
            }
            Err(_) => {}
        }
    }
}

fn stamps(files: &[Named]) -> Stamps {
    files
        .iter()
        .map(|file| {
            let metadata = std::fs::metadata(&file.path).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        })
        .collect()
}

impl<T> fmt::Debug for Reload<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reload").field("files", &self.files).finish_non_exhaustive()
    }
}
