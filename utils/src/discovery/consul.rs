//! Follows a service in Consul with blocking queries: a change is seen at once, not at the next poll.

use super::{Addresses, client::Client};
use crate::{Error, backoff::Backoff};
use serde::Deserialize;
use std::time::Duration;
use tokio::sync::watch;

/// The agent keeps a query open this long when nothing changes.
const WAIT: Duration = Duration::from_secs(55);
/// The agent adds up to a sixteenth of the wait, so that not everybody asks at once; and it must answer.
const PATIENCE: Duration = Duration::from_secs(65);
/// The first answer comes at once.
const FIRST_ANSWER: Duration = Duration::from_secs(5);

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
}

/// Keeps `set` at the healthy instances of a service. While Consul is away it stays as it is.
pub(super) async fn follow(client: Client, name: String, set: watch::Sender<Addresses>) {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
    let mut index = 0;
    loop {
        match ask(&client, &name, index).await {
            Ok((next, addresses)) => {
                if backoff.failures() > 0 {
                    tracing::info!(service = %name, "consul answers again");
                }
                backoff.reset();
                let anew = index == 0;
                index = next_index(index, next);
                set.send_if_modified(|known| {
                    let changed = *known != addresses && !has_forgotten(anew, known, &addresses);
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

async fn ask(client: &Client, name: &str, index: u64) -> Result<(u64, Addresses), Error> {
    let (path, patience) = match index {
        0 => (format!("/v1/health/service/{name}?passing"), FIRST_ANSWER),
        _ => {
            let wait = WAIT.as_secs();
            (format!("/v1/health/service/{name}?passing&index={index}&wait={wait}s"), PATIENCE)
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

fn address(Entry { node, service }: Entry) -> String {
    // An instance without an address of its own has that of its node.
    let host = if service.address.is_empty() { node.address } else { service.address };
    let port = service.port;
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// An agent that has just come back may know nothing yet: the instances are still there and will register again. If it
/// says so a second time, after we waited for a change, then it is true.
fn has_forgotten(anew: bool, known: &Addresses, answered: &Addresses) -> bool {
    anew && answered.is_empty() && !known.is_empty()
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

    #[test]
    fn p9_an_agent_that_has_forgotten_everything_is_not_believed_at_first() {
        let (known, none) = (Addresses::from(["a:1".to_owned()]), Addresses::new());
        assert!(has_forgotten(true, &known, &none));
        assert!(!has_forgotten(false, &known, &none), "the last one has left");
        assert!(!has_forgotten(true, &known, &Addresses::from(["b:1".to_owned()])));
    }

    #[test]
    fn an_instance_without_address_has_that_of_its_node() {
        let entry = |host: &str| {
            let json =
                serde_json::json!({"Node": {"Address": "10.0.0.1"}, "Service": {"Address": host, "Port": 7}});
            address(serde_json::from_value(json).unwrap())
        };
        assert_eq!(entry(""), "10.0.0.1:7");
        assert_eq!(entry("db"), "db:7");
        assert_eq!(entry("::1"), "[::1]:7");
    }
}
