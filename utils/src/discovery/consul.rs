//! Follows a service in Consul with blocking queries: a change is seen at once, not at the next poll.

use super::{Addresses, client::Client};
use crate::{Error, backoff::Backoff};
use serde::Deserialize;
use std::{collections::HashMap, time::Duration};
use tokio::{sync::watch, time::Instant};

/// The agent keeps a query open this long when nothing changes.
const WAIT: Duration = Duration::from_secs(55);
/// The agent adds up to a sixteenth of the wait, so that not everybody asks at once; and it must answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The first answer comes at once.
const FIRST_ANSWER: Duration = Duration::from_secs(5);
/// While Consul is away it is asked this often, at the least.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// After it was away, instances have so long to register again and to have their first check. The registrar looks once
/// a second.
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

/// Keeps `set` at the healthy instances of a service. While Consul is away it stays as it is.
pub(super) async fn follow(client: Client, name: String, set: watch::Sender<Addresses>) {
    let mut backoff = Backoff::new(Duration::from_millis(200), ASK_AGAIN);
    let mut doubt = Doubt::default();
    let mut index = 0;
    loop {
        match ask(&client, &name, index, doubt.patience(Instant::now())).await {
            Ok((next, answered)) => {
                let came_back = backoff.failures() > 0;
                if came_back {
                    tracing::info!(service = %name, "consul answers again");
                }
                if came_back || next < index {
                    doubt = Doubt::of(&set.borrow(), Instant::now() + SETTLE);
                }
                backoff.reset();
                index = next_index(index, next);
                let addresses = doubt.judge(answered, Instant::now());
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
                    tracing::warn!(service = %name, error, "consul does not answer; the known instances stay");
                }
                // A restarted agent may have forgotten our index and count anew.
                index = 0;
                backoff.wait().await;
            }
        }
    }
}

/// An agent that has just come back may know nothing yet, or only some: the others are still there and will register again,
/// or wait for their first check. So what was known stays for a while, each until the agent has named it once: from then
/// on it is believed.
#[derive(Debug, Default)]
struct Doubt {
    unconfirmed: Addresses,
    until: Option<Instant>,
}

impl Doubt {
    fn of(known: &Addresses, until: Instant) -> Self {
        Self { unconfirmed: known.clone(), until: Some(until) }
    }

    /// How long a query may wait for a change.
    fn patience(&self, now: Instant) -> Duration {
        // A whole second more, or the last query of the doubt could end just before it does.
        let settled = |until: Instant| until.saturating_duration_since(now) + Duration::from_secs(1);
        self.until.map_or(WAIT, |until| settled(until).min(WAIT))
    }

    /// What an answer means.
    fn judge(&mut self, answered: Addresses, now: Instant) -> Addresses {
        if self.until.is_some_and(|until| now >= until) {
            *self = Self::default();
        }
        self.unconfirmed.retain(|address, _| !answered.contains_key(address));
        let mut addresses = self.unconfirmed.clone();
        addresses.extend(answered);
        addresses
    }
}

async fn ask(client: &Client, name: &str, index: u64, wait: Duration) -> Result<(u64, Addresses), Error> {
    let (path, patience) = match index {
        0 => (format!("/v1/health/service/{name}?passing"), FIRST_ANSWER),
        _ => {
            let seconds = wait.as_secs();
            (format!("/v1/health/service/{name}?passing&index={index}&wait={seconds}s"), wait + PATIENCE)
        }
    };
    let answer = client.get(&path, patience).await?;
    let entries: Vec<Entry> = serde_json::from_slice(&answer.body).map_err(|error| Error::Consul {
        agent: "the agent".to_owned(),
        path: path.clone(),
        source: error.into(),
    })?;
    Ok((answer.index, entries.into_iter().map(address).collect()))
}

/// The address of an instance, and its zone.
fn address(Entry { node, service }: Entry) -> (String, String) {
    // An instance without an address of its own has that of its node.
    let host = if service.address.is_empty() { node.address } else { service.address };
    let port = service.port;
    let zone = service.meta.and_then(|mut meta| meta.remove("zone")).unwrap_or_default();
    (if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }, zone)
}

/// An index that goes back means that the servers were restored or the agent was changed: begin anew, or queries
/// would block until the old index is reached again.
fn next_index(known: u64, answered: u64) -> u64 {
    if answered < known { 0 } else { answered.max(1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_that_goes_back_begins_anew() {
        assert_eq!(next_index(7, 9), 9);
        assert_eq!(next_index(7, 7), 7);
        assert_eq!(next_index(7, 3), 0);
        assert_eq!(next_index(0, 0), 1, "an index of 0 would not block");
    }

    fn addresses(names: &[&str]) -> Addresses {
        names.iter().map(|name| ((*name).to_owned(), String::new())).collect()
    }

    #[test]
    fn p9_an_agent_that_has_forgotten_is_not_believed_until_it_has_named_an_instance_or_time_has_passed() {
        let now = Instant::now();
        let mut doubt = Doubt::of(&addresses(&["a:1", "b:1"]), now + SETTLE);
        assert!(doubt.patience(now) > SETTLE && doubt.patience(now) < WAIT);
        assert_eq!(doubt.judge(addresses(&[]), now), addresses(&["a:1", "b:1"]), "it knows nothing yet");
        assert_eq!(doubt.judge(addresses(&["a:1"]), now), addresses(&["a:1", "b:1"]), "only some");
        assert_eq!(doubt.judge(addresses(&["c:1"]), now), addresses(&["b:1", "c:1"]), "a came and went");
        assert_eq!(doubt.judge(addresses(&["c:1"]), now + SETTLE), addresses(&["c:1"]), "b did not come");
        assert_eq!(doubt.judge(addresses(&[]), now + SETTLE), addresses(&[]), "the last one has left");
        assert_eq!(doubt.patience(now), WAIT);
    }

    #[test]
    fn an_instance_has_the_address_of_its_node_and_the_zone_of_its_metadata_where_there_is_any() {
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
