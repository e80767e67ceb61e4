//! A TCP proxy that breaks connections in the ways that networks do.

use anyhow::{Context as _, Result};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

/// Buffer size per direction, in bytes.
const BUFFER: usize = 64 * 1024;
/// Connect timeout. A target that exceeds it counts as refusing the connection.
const CONNECT: Duration = Duration::from_secs(2);

/// The behaviour of a proxy, for its open and its new connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Forwards all bytes.
    Pass,
    /// Closes open connections and refuses new ones.
    Cut,
    /// Resets open connections, and new ones once they are accepted.
    Reset,
    /// Accepts all bytes and forwards none, not even the end of a stream, like a firewall that has lost its connection table.
    /// After healing, a connection that lost bytes stays dead until one side sends and gets a reset.
    HalfOpen,
    /// Forwards each read with this delay.
    Delay(Duration),
}

/// A running proxy. Its connections end when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// Listens on `listen` and forwards to `target`, which need not be reachable yet.
    ///
    /// # Errors
    /// If it can't listen.
    pub async fn start(listen: SocketAddr, target: SocketAddr) -> Result<Self> {
        Self::balance(listen, vec![target]).await
    }

    /// Distributes connections over targets in turn. If a target does not accept one, the next target gets it.
    ///
    /// # Errors
    /// If it can't listen.
    pub async fn balance(listen: SocketAddr, targets: Vec<SocketAddr>) -> Result<Self> {
        let listener = TcpListener::bind(listen).await.with_context(|| format!("listen on {listen}"))?;
        let address = listener.local_addr()?;
        let (mode, watched) = watch::channel(Mode::Pass);
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, address, targets.into(), watched));
        Ok(Self { address, mode, _tasks: tasks })
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes the mode.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

/// Accepts connections. In [`Mode::Cut`] there is no listener, so that the system refuses them.
async fn accept(
    listener: TcpListener,
    address: SocketAddr,
    targets: Arc<[SocketAddr]>,
    mut mode: watch::Receiver<Mode>,
) {
    let mut next_target = 0;
    let mut connections = JoinSet::new();
    let mut open = Some(listener);
    loop {
        let now = *mode.borrow_and_update();
        open = match (open, now) {
            (_, Mode::Cut) => None,
            (Some(listener), _) => Some(listener),
            // The port is outside of the ephemeral range, so it is still free.
            (None, _) => TcpListener::bind(address).await.ok(),
        };
        tokio::select! {
            changed = mode.changed() => if changed.is_err() { return },
            accepted = async {
                match &open {
                    Some(listener) => listener.accept().await.ok(),
                    None if now == Mode::Cut => std::future::pending().await,
                    None => { sleep(Duration::from_millis(20)).await; None }
                }
            } => if let Some((client, _)) = accepted {
                next_target += 1;
                connections.spawn(connection(client, Arc::clone(&targets), next_target, mode.clone()));
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(
    client: TcpStream,
    targets: Arc<[SocketAddr]>,
    next_target: usize,
    mode: watch::Receiver<Mode>,
) {
    let now = *mode.borrow();
    if now == Mode::Reset {
        let _ = client.set_zero_linger();
        return;
    }
    if now == Mode::HalfOpen {
        return relay(client, None, mode).await;
    }
    for target in targets.iter().cycle().skip(next_target).take(targets.len()) {
        if let Ok(Ok(target_stream)) = timeout(CONNECT, TcpStream::connect(target)).await {
            let _ = (client.set_nodelay(true), target_stream.set_nodelay(true));
            return relay(client, Some(target_stream), mode).await;
        }
    }
    // No target accepted the connection. A reset is the closest that a proxy has to a refusal.
    let _ = client.set_zero_linger();
}

/// The end of a connection.
#[derive(Debug)]
enum End {
    /// Both streams ended normally.
    Done,
    /// The connection is reset.
    Reset,
}

async fn relay(mut client: TcpStream, mut target_stream: Option<TcpStream>, mode: watch::Receiver<Mode>) {
    // Once bytes were dropped, the stream has a gap and must never be resumed.
    let dead = AtomicBool::new(target_stream.is_none());
    let end = {
        let (client_read, client_write) = client.split();
        let (mut to_target, mut to_client): (Direction<'_>, Direction<'_>) = match &mut target_stream {
            Some(target_stream) => {
                let (target_read, target_write) = target_stream.split();
                (
                    Box::pin(forward(client_read, target_write, &mode, &dead)),
                    Box::pin(forward(target_read, client_write, &mode, &dead)),
                )
            }
            None => (
                Box::pin(forward(client_read, tokio::io::sink(), &mode, &dead)),
                Box::pin(std::future::pending()),
            ),
        };
        let both = async {
            tokio::select! {
                end = &mut to_target => if matches!(end, End::Done) { to_client.await } else { end },
                end = &mut to_client => if matches!(end, End::Done) { to_target.await } else { end },
            }
        };
        tokio::select! {
            end = both => end,
            end = mode_end(mode.clone()) => end,
        }
    };
    if matches!(end, End::Reset) {
        for stream in [Some(&client), target_stream.as_ref()].into_iter().flatten() {
            let _ = stream.set_zero_linger();
        }
    }
}

type Direction<'a> = std::pin::Pin<Box<dyn Future<Output = End> + Send + 'a>>;

/// Waits for a mode that ends connections.
async fn mode_end(mut mode: watch::Receiver<Mode>) -> End {
    match mode.wait_for(|mode| matches!(mode, Mode::Cut | Mode::Reset)).await.as_deref() {
        Ok(Mode::Cut) => End::Done,
        // Reset, or the proxy was dropped.
        _ => End::Reset,
    }
}

/// Forwards one direction until its end.
async fn forward(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mode: &watch::Receiver<Mode>,
    dead: &AtomicBool,
) -> End {
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = from.read(&mut buffer).await;
        let now = *mode.borrow();
        match (read, now) {
            (Ok(0) | Err(_), Mode::HalfOpen) => {
                dead.store(true, Ordering::Relaxed);
                return std::future::pending().await;
            }
            (Ok(_), Mode::HalfOpen) => dead.store(true, Ordering::Relaxed),
            (Err(_), _) => return End::Reset,
            (Ok(_), _) if dead.load(Ordering::Relaxed) => return End::Reset,
            (Ok(0), _) => {
                let _ = to.shutdown().await;
                return End::Done;
            }
            (Ok(length), _) => {
                if let Mode::Delay(delay) = now {
                    sleep(delay).await;
                }
                if to.write_all(&buffer[..length]).await.is_err() {
                    return End::Reset;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
