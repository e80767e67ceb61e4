//! Watches a service in Consul. Blocking queries report a change immediately, without polling.

use super::{client::Client, instances::Addresses};
use crate::{Error, backoff::Backoff};
use serde::Deserialize;
use std::{collections::HashMap, time::Duration};
use tokio::{sync::watch, time::Instant};

/// How long the agent holds a blocking query open if nothing changes.
const WAIT: Duration = Duration::from_secs(55);
/// Added to the wait for the client's timeout. The agent adds jitter of up to a sixteenth of the wait, plus the time of
/// the response.
const TIMEOUT_MARGIN: Duration = Duration::from_secs(10);
/// Timeout of a query that does not block.
const FIRST_QUERY_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest pause between two queries while Consul is unavailable.
const MAX_RETRY_PAUSE: Duration = Duration::from_secs(2);
/// After an outage, instances have this long to register again and to pass their first check. The registrar checks its
/// registration once a second.
const SETTLE: Duration = Duration::from_secs(10);

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    node: Node,
    service: Service,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    address: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Service {
    address: String,
    port: u16,
    meta: Option<HashMap<String, String>>,
}

/// Keeps `set` equal to the healthy instances of a service. While Consul is unavailable, the set does not change.
pub(super) async fn watch(client: Client, name: String, set: watch::Sender<Addresses>) {
    let mut backoff = Backoff::new(Duration::from_millis(200), MAX_RETRY_PAUSE);
    let mut unconfirmed = Unconfirmed::default();
    let mut index = 0;
    loop {
        match query(&client, &name, index, unconfirmed.query_wait(Instant::now())).await {
            Ok((next, answer)) => {
                let was_unavailable = backoff.failures() > 0;
                if was_unavailable {
                    tracing::info!(service = %name, "consul is available again");
                }
                if was_unavailable || next < index {
                    unconfirmed = Unconfirmed::new(&set.borrow(), Instant::now() + SETTLE);
                }
                backoff.reset();
                index = next_index(index, next);
                let addresses = unconfirmed.merge(answer, Instant::now());
                set.send_if_modified(|known| {
                    let changed = *known != addresses;
                    if changed {
                        tracing::info!(service = %name, instances = addresses.len(), "instances changed");
                        *known = addresses;
                    }
                    changed
                });
            }
            Err(error) => {
                if backoff.failures() == 0 {
                    let error = crate::error::chain(&error);
                    tracing::warn!(service = %name, error, "consul is unavailable; keeping the known instances");
                }
                // A restarted agent may have lost our index and restart its count.
                index = 0;
                backoff.wait().await;
            }
        }
    }
}

/// Known instances that a recovered agent has not reported yet.
///
/// After an outage the agent may report no instance, or only some: the others have yet to register again or to pass
/// their first check. Each known instance stays in the set until the agent has reported it once or the settle time has
/// passed. After that, only the agent's answer counts.
#[derive(Debug, Default)]
struct Unconfirmed {
    addresses: Addresses,
    until: Option<Instant>,
}

impl Unconfirmed {
    fn new(known: &Addresses, until: Instant) -> Self {
        Self { addresses: known.clone(), until: Some(until) }
    }

    /// How long a query may wait for a change.
    fn query_wait(&self, now: Instant) -> Duration {
        // One second more, so that the last query does not end just before the settle time does.
        let settled = |until: Instant| until.saturating_duration_since(now) + Duration::from_secs(1);
        self.until.map_or(WAIT, |until| settled(until).min(WAIT))
    }

    /// Adds the unconfirmed instances to the agent's answer.
    fn merge(&mut self, answer: Addresses, now: Instant) -> Addresses {
        if self.until.is_some_and(|until| now >= until) {
            *self = Self::default();
        }
        self.addresses.retain(|address, _| !answer.contains_key(address));
        let mut merged = self.addresses.clone();
        merged.extend(answer);
        merged
    }
}

async fn query(client: &Client, name: &str, index: u64, wait: Duration) -> Result<(u64, Addresses), Error> {
    let (path, timeout) = match index {
        0 => (format!("/v1/health/service/{name}?passing"), FIRST_QUERY_TIMEOUT),
        _ => {
            let seconds = wait.as_secs();
            (
                format!("/v1/health/service/{name}?passing&index={index}&wait={seconds}s"),
                wait + TIMEOUT_MARGIN,
            )
        }
    };
    let response = client.get(&path, timeout).await?;
    let entries: Vec<Entry> = serde_json::from_slice(&response.body).map_err(|error| Error::Consul {
        agent: "the agent".to_owned(),
        path: path.clone(),
        source: error.into(),
    })?;
    Ok((response.index, entries.into_iter().map(address).collect()))
}

/// The address of an instance, and its zone.
fn address(Entry { node, service }: Entry) -> (String, String) {
    // An instance without its own address has the address of its node.
    let host = if service.address.is_empty() { node.address } else { service.address };
    let port = service.port;
    let zone = service.meta.and_then(|mut meta| meta.remove("zone")).unwrap_or_default();
    (if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }, zone)
}

/// The index for the next query. A decreased index means that Consul was restored from a backup or the agent changed:
/// restart at 0, or queries would block until the old index is reached again.
fn next_index(last: u64, received: u64) -> u64 {
    if received < last { 0 } else { received.max(1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decreased_index_restarts_at_0() {
        assert_eq!(next_index(7, 9), 9);
        assert_eq!(next_index(7, 7), 7);
        assert_eq!(next_index(7, 3), 0);
        assert_eq!(next_index(0, 0), 1, "an index of 0 would not block");
    }

    fn addresses(names: &[&str]) -> Addresses {
        names.iter().map(|name| ((*name).to_owned(), String::new())).collect()
    }

    #[test]
    fn p9_known_instances_stay_until_a_recovered_agent_reports_them_or_the_settle_time_passes() {
        let now = Instant::now();
        let mut unconfirmed = Unconfirmed::new(&addresses(&["a:1", "b:1"]), now + SETTLE);
        assert!(unconfirmed.query_wait(now) > SETTLE && unconfirmed.query_wait(now) < WAIT);
        let mut merge = |answer: &[&str], now| unconfirmed.merge(addresses(answer), now);
        assert_eq!(merge(&[], now), addresses(&["a:1", "b:1"]), "the agent reports none yet");
        assert_eq!(merge(&["a:1"], now), addresses(&["a:1", "b:1"]), "the agent reports one");
        assert_eq!(merge(&["c:1"], now), addresses(&["b:1", "c:1"]), "a was reported and has left");
        assert_eq!(merge(&["c:1"], now + SETTLE), addresses(&["c:1"]), "b was never reported");
        assert_eq!(merge(&[], now + SETTLE), addresses(&[]), "the last one has left");
        assert_eq!(unconfirmed.query_wait(now), WAIT);
    }

    #[test]
    fn an_instance_defaults_to_its_nodes_address_and_takes_its_zone_from_the_metadata() {
        let entry = |service: serde_json::Value| {
            let json = serde_json::json!({"Node": {"Address": "10.0.0.1"}, "Service": service});
            address(serde_json::from_value(json).unwrap())
        };
        let plain =
            |host| entry(serde_json::json!({"Address": host, "Port": 7, "Meta": null, "Weights": {}}));
        assert_eq!(plain(""), ("10.0.0.1:7".into(), String::new()));
        assert_eq!(plain("db"), ("db:7".into(), String::new()));
        assert_eq!(plain("::1"), ("[::1]:7".into(), String::new()));
        let meta = serde_json::json!({"version": "1", "zone": "north"});
        let zoned = entry(serde_json::json!({"Address": "db", "Port": 7, "Meta": meta}));
        assert_eq!(zoned, ("db:7".into(), "north".into()));
    }
}
