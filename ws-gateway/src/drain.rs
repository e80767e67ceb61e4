//! How devices leave a gateway that stops: one after the other, at an even rate, so that the gateways to which they go are not
//! stormed. Each is told to come back at once: the spreading is done here, by who knows how many there are.

use crate::{
    hub::{Connection, Hub},
    metrics,
};
use abi::{ApiError, error::ErrorCode};
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::task::TaskTracker;

/// Sockets that are still open so long after the last device was told to go are left.
const STRAGGLERS: Duration = Duration::from_secs(2);
/// Devices that said hello in the meantime are looked for this often.
const LOOK: Duration = Duration::from_millis(100);

/// Closes all connections, spread over `time`, and waits until their `sockets` are closed. No new ones may come.
pub async fn run(hub: &Hub, sockets: &TaskTracker, time: Duration) {
    let connections = hub.all();
    tracing::info!(connections = connections.len(), ?time, "telling devices to connect elsewhere");
    let count = u32::try_from(connections.len()).unwrap_or(u32::MAX);
    let begun = Instant::now();
    metrics::to_drain(count);
    for (number, connection) in (0..count).zip(connections) {
        sleep_until(begun + time.mul_f64(f64::from(number) / f64::from(count))).await;
        say_going_away(&connection);
        metrics::to_drain(count - number - 1);
    }
    let rest = async {
        while !sockets.is_empty() {
            hub.all().iter().for_each(|connection| say_going_away(connection));
            tokio::select! {
                () = sockets.wait() => {}
                () = sleep(LOOK) => {}
            }
        }
    };
    if timeout(STRAGGLERS, rest).await.is_err() {
        tracing::info!(left = sockets.len(), "sockets did not close in time");
    }
}

fn say_going_away(connection: &Connection) {
    let fault = ApiError::new(ErrorCode::GoingAway, "this server is going away; connect again");
    connection.outbox.close(fault);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{codec::Format, hub::Identity, outbox::Outbox};
    use std::{future::poll_fn, sync::Arc};
    use tokio::task::JoinSet;

    fn connection(number: u32) -> Arc<Connection> {
        let identity = Identity { user: format!("u{number}"), device: "d".into(), session: "s".into() };
        Arc::new(Connection {
            id: number.to_string(),
            identity,
            opened_at_ms: 1,
            format: Format::Proto,
            outbox: Arc::new(Outbox::new(1_000)),
        })
    }

    /// Connections whose sockets close as soon as they are told to, and when each did.
    fn connect(hub: &Arc<Hub>, sockets: &TaskTracker, numbers: std::ops::Range<u32>) -> JoinSet<Instant> {
        let mut closed = JoinSet::new();
        for connection in numbers.map(connection) {
            hub.add(connection.clone()).unwrap();
            let (hub, socket) = (hub.clone(), sockets.token());
            closed.spawn(async move {
                let drained = poll_fn(|cx| connection.outbox.poll_drain(cx)).await;
                assert_eq!(drained.close.unwrap().code, ErrorCode::GoingAway);
                hub.remove(&connection);
                drop(socket);
                Instant::now()
            });
        }
        closed
    }

    #[tokio::test(start_paused = true)]
    async fn p9_devices_leave_at_an_even_rate_over_the_whole_time() {
        let (hub, sockets, begun) = (Arc::new(Hub::new(1, 1_000)), TaskTracker::new(), Instant::now());
        let closed = connect(&hub, &sockets, 0..1_000);
        sockets.close();
        run(&hub, &sockets, Duration::from_secs(10)).await;
        let mut per_second = [0; 10];
        for at in closed.join_all().await {
            per_second[at.duration_since(begun).as_secs() as usize] += 1;
        }
        assert!(per_second.iter().all(|count| (98..=102).contains(count)), "{per_second:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn p9_who_says_hello_during_the_drain_is_told_too_and_who_does_not_listen_is_left() {
        let (hub, sockets, begun) = (Arc::new(Hub::new(1, 1_000)), TaskTracker::new(), Instant::now());
        let early = connect(&hub, &sockets, 0..2);
        sockets.close();
        let mut drain = JoinSet::new();
        let (its_hub, its_sockets) = (hub.clone(), sockets.clone());
        drain.spawn(async move { run(&its_hub, &its_sockets, Duration::from_secs(10)).await });
        sleep(Duration::from_secs(1)).await;
        let late = connect(&hub, &sockets, 2..3);
        let deaf = sockets.token();
        drain.join_all().await;
        assert_eq!((early.join_all().await.len(), late.join_all().await.len()), (2, 1));
        assert_eq!(begun.elapsed(), Duration::from_secs(5) + STRAGGLERS);
        drop(deaf);
    }
}
