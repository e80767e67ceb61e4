//! The limit of open files. Each connection is one open file.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit of open files to the hard limit, and logs both. Most systems start programs with a soft limit of
/// 1,024, which is kept for programs that can't handle more.
pub fn raise() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        tracing::info!(limit = limit(), "limit of open files");
        return;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => {
            tracing::info!(limit = limit(), from = current, "raised the limit of open files to its maximum")
        }
        Err(error) => tracing::warn!(%error, limit = limit(), "cannot raise the limit of open files"),
    }
}

/// Most files that this process may have open.
pub fn limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p7_the_soft_limit_is_raised_to_the_hard_limit() {
        raise();
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        assert_eq!(current, maximum);
        assert_eq!(limit(), maximum.unwrap_or(u64::MAX));
    }
}
