//! Looks names up again and again.

use super::Addresses;
use std::time::Duration;
use tokio::{net::lookup_host, sync::watch, time::timeout};

/// Names are looked up this often: the system's resolver doesn't tell how long an answer is good for.
const PERIOD: Duration = Duration::from_secs(5);

/// Keeps `set` at what the names (`name:port`) resolve to. If one of them can't be resolved, the set stays as it is.
pub(super) async fn follow(names: Vec<String>, set: watch::Sender<Addresses>) {
    let mut failing = false;
    loop {
        match resolve(&names).await {
            Ok(addresses) => {
                failing = false;
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
        tokio::time::sleep(PERIOD).await;
    }
}

async fn resolve(names: &[String]) -> Result<Addresses, (&str, String)> {
    let mut addresses = Addresses::new();
    for name in names {
        match timeout(PERIOD, lookup_host(name)).await {
            Ok(Ok(found)) => addresses.extend(found.map(|address| address.to_string())),
            Ok(Err(error)) => return Err((name, error.to_string())),
            Err(_) => return Err((name, format!("no answer within {PERIOD:?}"))),
        }
    }
    Ok(addresses)
}
