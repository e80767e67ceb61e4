//! Looks names up again and again.

use super::Addresses;
use std::{io, time::Duration};
use tokio::{net::lookup_host, sync::watch, time::timeout};

/// A name that is not resolved by then can't be resolved now.
const PATIENCE: Duration = Duration::from_secs(5);

/// Keeps `set` at what the names (`name:port`) resolve to. If one of them can't be resolved, the set stays as it is.
///
/// They are looked up every `refresh`: the system's resolver doesn't tell how long an answer is good for, and asks anew
/// each time.
pub(super) async fn follow<F>(
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
                    tracing::info!("names can be resolved again");
                }
                set.send_if_modified(|known| {
                    let changed = *known != addresses;
                    *known = addresses;
                    changed
                });
            }
            Err((name, error)) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(name, error, "name can't be resolved; the known instances stay");
                }
            }
        }
        tokio::time::sleep(refresh).await;
    }
}

/// Asks the system's resolver.
pub(super) async fn system(name: String) -> io::Result<Vec<String>> {
    Ok(lookup_host(name).await?.map(|address| address.to_string()).collect())
}

async fn resolve_all<F>(names: &[String], resolve: impl Fn(String) -> F) -> Result<Addresses, (&str, String)>
where
    F: Future<Output = io::Result<Vec<String>>>,
{
    let mut addresses = Addresses::new();
    for name in names {
        match timeout(PATIENCE, resolve(name.clone())).await {
            Ok(Ok(found)) => addresses.extend(found.into_iter().map(|address| (address, String::new()))),
            Ok(Err(error)) => return Err((name, error.to_string())),
            Err(_) => return Err((name, format!("no answer within {PATIENCE:?}"))),
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
    async fn p9_a_change_of_a_name_is_seen_by_the_next_look_and_a_failure_changes_nothing() {
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
        let mut follower = JoinSet::new();
        follower.spawn(follow(vec!["db:1".to_owned()], refresh, resolve, sender));
        set.wait_for(|set| set.len() == 1).await.unwrap();

        let changed = Instant::now();
        *zone.lock().unwrap() = Some(vec!["10.0.0.1:1".to_owned(), "10.0.0.2:1".to_owned()]);
        set.wait_for(|set| set.len() == 2).await.unwrap();
        assert!(changed.elapsed() <= refresh, "{:?}", changed.elapsed());

        *zone.lock().unwrap() = None;
        tokio::time::sleep(10 * refresh).await;
        assert_eq!(set.borrow().len(), 2, "names can't be resolved: nothing changes");

        *zone.lock().unwrap() = Some(vec!["10.0.0.2:1".to_owned()]);
        set.wait_for(|set| set.len() == 1).await.unwrap();
    }
}
