//! A run of the server: from the start of its process, or the promotion of a replica, to the end.

use crate::fences::{Doubt, Logged, Partitions};
use deadpool_redis::{
    Connection,
    redis::{RedisResult, Script, cmd},
};
use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

static MEET_RUN: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("meet_run.lua")));

/// A run of the server, as this process knows it.
#[derive(Debug)]
pub(super) struct Run {
    /// Differs for every run, and changes when a replica is promoted.
    pub(super) id: Box<str>,
    /// Counts the runs that this process has met.
    number: u64,
    /// When it began. `None`: before this machine did.
    began: Option<Instant>,
    /// For each application, the partitions whose fences are complete in this run.
    apps: Mutex<HashMap<Box<str>, Partitions>>,
}

impl Run {
    fn apps(&self) -> MutexGuard<'_, HashMap<Box<str>, Partitions>> {
        // No code panics while it holds the lock.
        self.apps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads or changes the partitions of an application.
    pub(super) fn with_partitions<T>(&self, app: &str, access: impl FnOnce(&mut Partitions) -> T) -> T {
        let mut apps = self.apps();
        match apps.get_mut(app) {
            Some(partitions) => access(partitions),
            None => access(apps.entry(app.into()).or_default()),
        }
    }

    pub(super) fn doubt(&self) -> Doubt {
        Doubt { run: self.number, began: self.began }
    }

    /// Records that the store has saved a message. Returns whether the fences of its partition became complete.
    pub(super) fn saved(&self, app: &str, message: Logged, doubt: Doubt) -> bool {
        doubt.run == self.number && self.with_partitions(app, |partitions| partitions.saved(message))
    }
}

/// The last run that the connections have met.
#[derive(Debug, Default)]
pub(super) struct LastRun(Mutex<Option<Arc<Run>>>);

impl LastRun {
    fn lock(&self) -> MutexGuard<'_, Option<Arc<Run>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn get(&self) -> Option<Arc<Run>> {
        self.lock().clone()
    }

    /// The run of the server at the other end of a new connection. `marker`: the key of the marker, which names the last run that any
    /// process has met.
    ///
    /// # Errors
    /// The server does not answer, or refuses writes because it is a replica.
    pub(super) async fn meet(
        &self,
        connection: &mut Connection,
        marker: &str,
        ttl: Duration,
    ) -> RedisResult<Arc<Run>> {
        let info: String = cmd("INFO").query_async(connection).await?;
        let (id, uptime) = read_info(&info);
        let mut script = MEET_RUN.prepare_invoke();
        script.key(marker).arg(&id).arg(uptime.as_secs()).arg(ttl.as_secs());
        let age_ms: u64 = script.invoke_async(connection).await?;
        Ok(self.met(id, Duration::from_millis(age_ms)))
    }

    fn met(&self, id: String, age: Duration) -> Arc<Run> {
        let mut last = self.lock();
        let number = match last.as_ref() {
            Some(run) if *run.id == *id => return Arc::clone(run),
            Some(run) => run.number + 1,
            None => 0,
        };
        let began = Instant::now().checked_sub(age);
        let run = Arc::new(Run { id: id.into(), number, began, apps: Mutex::default() });
        Arc::clone(last.insert(run))
    }
}

/// The id of the run, and the uptime of the process. The id has 8 digits of the process and 8 of the data: the latter change when a
/// replica is promoted.
fn read_info(info: &str) -> (String, Duration) {
    let value = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    let digits = |name: &str| value(name).get(..8).unwrap_or_default().to_owned();
    let uptime = value("uptime_in_seconds:").trim().parse().unwrap_or_default();
    (digits("run_id:") + &digits("master_replid:"), Duration::from_secs(uptime))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: fn(u64) -> Logged =
        |seconds| Logged { partition: 0, checked: Instant::now() + Duration::from_secs(seconds) };

    #[test]
    fn p1_a_run_that_is_met_again_keeps_its_partitions_and_another_one_has_none() {
        let (last, age) = (LastRun::default(), Duration::ZERO);
        let first = last.met("1".into(), age);
        let doubt = first.doubt();
        assert!(!first.saved("app", MESSAGE(0), doubt));
        assert!(last.met("1".into(), age).saved("app", MESSAGE(1), doubt));
        let second = last.met("2".into(), age);
        assert!(!second.with_partitions("app", |partitions| partitions.are_complete(0)));
        assert!(!second.saved("app", MESSAGE(2), doubt), "that doubt is about another run");
        assert!(!second.saved("app", MESSAGE(3), doubt));
        assert!(!second.with_partitions("app", |partitions| partitions.are_complete(0)));
    }

    #[test]
    fn p1_a_removal_may_be_logged_for_a_time_after_a_run_began() {
        let log_time = Duration::from_secs(60);
        let doubt = LastRun::default().met("1".into(), Duration::from_secs(10)).doubt();
        assert!(!doubt.is_before(MESSAGE(49), log_time));
        assert!(doubt.is_before(MESSAGE(51), log_time));
        let older_than_this_machine =
            LastRun::default().met("1".into(), Duration::from_secs(1 << 40)).doubt();
        assert!(older_than_this_machine.is_before(MESSAGE(0), log_time));
    }

    #[test]
    fn the_id_of_a_run_comes_from_process_and_data() {
        let info = "# Server\r\nrun_id:0123456789abcdef\r\nuptime_in_seconds:77\r\nmaster_replid:fedcba9876543210\r\n";
        assert_eq!(read_info(info), ("01234567fedcba98".into(), Duration::from_secs(77)));
        assert_eq!(read_info(""), (String::new(), Duration::ZERO));
    }
}
