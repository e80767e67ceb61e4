//! Watches a service in DNS, with periodic lookups.

use super::instances::Addresses;
use std::{io, time::Duration};
use tokio::{net::lookup_host, sync::watch, time::timeout};

/// Time limit of one lookup.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Keeps `set` equal to the addresses of the names (each `name:port`). If a name can't be resolved, the set does not
/// change.
///
/// All names are looked up every `refresh`. The system's resolver reports no time to live, and does not cache.
pub(super) async fn watch<F>(
    names: Vec<String>,
    refresh: Duration,
    resolve: impl Fn(String) -> F,
    set: watch::Sender<Addresses>,
) where
    F: Future<Output = io::Result<Vec<String>>>,
{
    let mut failing = false;
    loop {
        match resolve_all(&names, &resolve).await {
            Ok(addresses) => {
                if std::mem::replace(&mut failing, false) {
                    tracing::info!("all names can be resolved again");
                }
                set.send_if_modified(|known| {
                    let changed = *known != addresses;
                    *known = addresses;
                    changed
                });
            }
            Err((name, error)) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(name, error, "cannot resolve a name; keeping the known instances");
                }
            }
        }
        tokio::time::sleep(refresh).await;
    }
}

/// Resolves a name with the system's resolver.
pub(super) async fn system_lookup(name: String) -> io::Result<Vec<String>> {
    Ok(lookup_host(name).await?.map(|address| address.to_string()).collect())
}

async fn resolve_all<F>(names: &[String], resolve: impl Fn(String) -> F) -> Result<Addresses, (&str, String)>
where
    F: Future<Output = io::Result<Vec<String>>>,
{
    let mut addresses = Addresses::new();
    for name in names {
        match timeout(TIMEOUT, resolve(name.clone())).await {
            Ok(Ok(found)) => addresses.extend(found.into_iter().map(|address| (address, String::new()))),
            Ok(Err(error)) => return Err((name, error.to_string())),
            Err(_) => return Err((name, format!("no answer within {TIMEOUT:?}"))),
        }
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};
    use tokio::{task::JoinSet, time::Instant};

    #[tokio::test(start_paused = true)]
    async fn p9_the_next_lookup_detects_a_change_and_a_failed_lookup_keeps_the_set() {
        let zone = Arc::new(Mutex::new(Some(vec!["10.0.0.1:1".to_owned()])));
        let (sender, mut set) = watch::channel(Addresses::new());
        let refresh = Duration::from_secs(2);
        let resolve = {
            let zone = zone.clone();
            move |_| {
                let answer = zone.lock().unwrap().clone();
                async move { answer.ok_or_else(|| io::Error::other("no such name")) }
            }
        };
        let mut watcher = JoinSet::new();
        watcher.spawn(watch(vec!["db:1".to_owned()], refresh, resolve, sender));
        set.wait_for(|set| set.len() == 1).await.unwrap();

        let changed = Instant::now();
        *zone.lock().unwrap() = Some(vec!["10.0.0.1:1".to_owned(), "10.0.0.2:1".to_owned()]);
        set.wait_for(|set| set.len() == 2).await.unwrap();
        assert!(changed.elapsed() <= refresh, "{:?}", changed.elapsed());

        *zone.lock().unwrap() = None;
        tokio::time::sleep(10 * refresh).await;
        assert_eq!(set.borrow().len(), 2, "a name cannot be resolved: nothing changes");

        *zone.lock().unwrap() = Some(vec!["10.0.0.2:1".to_owned()]);
        set.wait_for(|set| set.len() == 1).await.unwrap();
    }
}
