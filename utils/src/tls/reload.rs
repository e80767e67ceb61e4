//! A value that is loaded from files and loaded again when they change.

use super::files::ConfiguredFile;
use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

/// Minimum time between two checks for changed files. A check happens only when a connection is made: it is cheaper than
/// the handshake, and it needs no background task.
const PERIOD: Duration = Duration::from_secs(1);

/// A value that is loaded from files; see [`Reload::current`].
pub(super) struct Reload<T> {
    files: Vec<ConfiguredFile>,
    load: Box<dyn Fn() -> Result<T, Vec<String>> + Send + Sync>,
    state: Mutex<State<T>>,
}

struct State<T> {
    current: T,
    /// The file versions from which `current` was loaded.
    versions: FileVersions,
    /// The file versions that last failed to load. Each failure is logged once.
    failed: Option<FileVersions>,
    checked_at: Instant,
}

/// Modification time and size of each file; `None` if it does not exist.
type FileVersions = Vec<Option<(SystemTime, u64)>>;

impl<T: Clone> Reload<T> {
    /// Loads the first value.
    pub(super) fn new(
        files: Vec<ConfiguredFile>,
        load: impl Fn() -> Result<T, Vec<String>> + Send + Sync + 'static,
    ) -> Result<Self, Vec<String>> {
        // Take the versions before loading: the next check then detects a change in between.
        let versions = versions(&files);
        let current = load()?;
        let state = Mutex::new(State { current, versions, failed: None, checked_at: Instant::now() });
        Ok(Self { files, load: Box::new(load), state })
    }

    /// The value of the current files, or of the last valid ones.
    pub(super) fn current(&self) -> T {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.checked_at.elapsed() >= PERIOD {
            state.checked_at = Instant::now();
            self.reload_if_changed(&mut state);
        }
        state.current.clone()
    }

    fn reload_if_changed(&self, state: &mut State<T>) {
        let versions = versions(&self.files);
        if versions == state.versions {
            return;
        }
        let paths = || self.files.iter().map(|file| file.path.display().to_string()).collect::<Vec<_>>();
        match (self.load)() {
            Ok(loaded) => {
                tracing::info!(files = ?paths(), "reloaded changed certificates");
                (state.current, state.versions, state.failed) = (loaded, versions, None);
            }
            // Perhaps only one of several files has been replaced yet. The next check tries again.
            Err(errors) if state.failed.as_ref() != Some(&versions) => {
                tracing::warn!(
                    errors = errors.join("; "),
                    "cannot reload changed certificates; keeping the last valid ones"
                );
                state.failed = Some(versions);
            }
            Err(_) => {}
        }
    }
}

fn versions(files: &[ConfiguredFile]) -> FileVersions {
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
