//! Closes the connections of a draining gateway one after the other, at an even rate, to spare the other gateways a reconnect
//! storm. Each device reconnects immediately: only the draining gateway knows the number of devices, so it spreads them.

use crate::{
    hub::{Connection, Hub},
    metrics,
};
use abi::{ApiError, error::ErrorCode};
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::task::TaskTracker;

/// How long to wait for open sockets after the last connection was closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// How often to look for devices that completed their handshake during the drain.
const RECHECK_INTERVAL: Duration = Duration::from_millis(100);

/// Closes all connections, spread over `time`, and waits until their `sockets` are closed. No socket may be added meanwhile.
pub async fn run(hub: &Hub, sockets: &TaskTracker, time: Duration) {
    let connections = hub.all();
    tracing::info!(connections = connections.len(), ?time, "telling devices to connect elsewhere");
    let count = u32::try_from(connections.len()).unwrap_or(u32::MAX);
    let began = Instant::now();
    metrics::to_drain(count);
    for (number, connection) in (0..count).zip(connections) {
        sleep_until(began + time.mul_f64(f64::from(number) / f64::from(count))).await;
        close(&connection);
        metrics::to_drain(count - number - 1);
    }
    let remaining = async {
        while !sockets.is_empty() {
            hub.all().iter().for_each(|connection| close(connection));
            tokio::select! {
                () = sockets.wait() => {}
                () = sleep(RECHECK_INTERVAL) => {}
            }
        }
    };
    if timeout(CLOSE_TIMEOUT, remaining).await.is_err() {
        tracing::info!(left = sockets.len(), "sockets did not close in time");
    }
}

fn close(connection: &Connection) {
    connection.outbox.close(ApiError::new(ErrorCode::GoingAway, "this server is stopping; connect again"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        codec::Format,
        hub::{Identity, Order},
        limits::Limits,
        memory::Memory,
        outbox::{Outbox, Taken},
    };
    use abi::config::Config;
    use std::{future::poll_fn, sync::Arc};
    use tokio::task::JoinSet;

    fn hub() -> Hub {
        Hub::new(Limits::new(&Config::default()))
    }

    fn connection(number: u32) -> Arc<Connection> {
        let identity = Identity { user: format!("u{number}"), device: "d".into(), session: "s".into() };
        Arc::new(Connection {
            id: number.to_string(),
            identity,
            order: Order::default(),
            format: Format::Proto,
            outbox: Arc::new(Outbox::new(1_000, Memory::new(usize::MAX))),
        })
    }

    /// Adds connections whose sockets close on request. Returns when each has closed.
    fn connect(hub: &Arc<Hub>, sockets: &TaskTracker, numbers: std::ops::Range<u32>) -> JoinSet<Instant> {
        let mut closed = JoinSet::new();
        for connection in numbers.map(connection) {
            hub.add(connection.clone()).unwrap();
            let (hub, socket) = (hub.clone(), sockets.token());
            closed.spawn(async move {
                match poll_fn(|cx| connection.outbox.poll_take(cx, true, 1_000)).await {
                    Taken::Close(error) => assert_eq!(error.code, ErrorCode::GoingAway),
                    Taken::Frames(frames) => panic!("not a close: {frames:?}"),
                }
                hub.remove(&connection);
                drop(socket);
                Instant::now()
            });
        }
        closed
    }

    #[tokio::test(start_paused = true)]
    async fn p9_connections_are_closed_at_an_even_rate_over_the_whole_drain() {
        let (hub, sockets, began) = (Arc::new(hub()), TaskTracker::new(), Instant::now());
        let closed = connect(&hub, &sockets, 0..1_000);
        sockets.close();
        run(&hub, &sockets, Duration::from_secs(10)).await;
        let mut per_second = [0; 10];
        for at in closed.join_all().await {
            per_second[at.duration_since(began).as_secs() as usize] += 1;
        }
        assert!(per_second.iter().all(|count| (98..=102).contains(count)), "{per_second:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn p9_a_connection_opened_during_the_drain_is_closed_and_an_unresponsive_one_is_abandoned() {
        let (hub, sockets, began) = (Arc::new(hub()), TaskTracker::new(), Instant::now());
        let early = connect(&hub, &sockets, 0..2);
        sockets.close();
        let mut drain = JoinSet::new();
        let (drained, open) = (hub.clone(), sockets.clone());
        drain.spawn(async move { run(&drained, &open, Duration::from_secs(10)).await });
        sleep(Duration::from_secs(1)).await;
        let late = connect(&hub, &sockets, 2..3);
        let unresponsive = sockets.token();
        drain.join_all().await;
        assert_eq!((early.join_all().await.len(), late.join_all().await.len()), (2, 1));
        assert_eq!(began.elapsed(), Duration::from_secs(5) + CLOSE_TIMEOUT);
        drop(unresponsive);
    }
}
