//! A TCP proxy that breaks connections the ways networks do.

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

/// Bytes on their way in one direction.
const BUFFER: usize = 64 * 1024;
/// A target that does not take a connection by then is taken for one that refuses it.
const CONNECT: Duration = Duration::from_secs(2);

/// What a proxy does with its connections, those that are open and those that come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Passes everything on.
    Pass,
    /// Closes all and refuses new ones: nobody listens.
    Cut,
    /// Ends all with a reset, new ones as soon as they are there.
    Reset,
    /// Takes everything and passes nothing on, not even an end: as when a machine on the way has lost its memory of the
    /// connections. What was open then stays dead after healing, until one side says something and gets a reset.
    HalfOpen,
    /// Passes each piece on this much later.
    Delay(Duration),
}

/// A proxy in front of one address. Its connections end with it.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// Listens on `listen` and passes on to `target`, where nobody needs to listen yet.
    ///
    /// # Errors
    /// If it can't listen.
    pub async fn start(listen: SocketAddr, target: SocketAddr) -> Result<Self> {
        Self::balance(listen, vec![target]).await
    }

    /// Passes connections on to each target in turn, to the next one if one does not take it.
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

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on it does this.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

/// Takes connections, with a listener only while it may.
async fn accept(
    listener: TcpListener,
    address: SocketAddr,
    targets: Arc<[SocketAddr]>,
    mut mode: watch::Receiver<Mode>,
) {
    let mut turn = 0;
    let mut connections = JoinSet::new();
    let mut open = Some(listener);
    loop {
        let now = *mode.borrow_and_update();
        open = match (open, now) {
            (_, Mode::Cut) => None,
            (Some(listener), _) => Some(listener),
            // The port is out of the range that the system gives away, so nobody else has it.
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
            } => if let Some((near, _)) = accepted {
                turn += 1;
                connections.spawn(connection(near, Arc::clone(&targets), turn, mode.clone()));
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(near: TcpStream, targets: Arc<[SocketAddr]>, turn: usize, mode: watch::Receiver<Mode>) {
    let now = *mode.borrow();
    if now == Mode::Reset {
        let _ = near.set_zero_linger();
        return;
    }
    if now == Mode::HalfOpen {
        // Nobody ever hears of it.
        return relay(near, None, mode).await;
    }
    for target in targets.iter().cycle().skip(turn).take(targets.len()) {
        if let Ok(Ok(far)) = timeout(CONNECT, TcpStream::connect(target)).await {
            let _ = (near.set_nodelay(true), far.set_nodelay(true));
            return relay(near, Some(far), mode).await;
        }
    }
    // The nearest that a proxy comes to a refusal.
    let _ = near.set_zero_linger();
}

/// How a connection ends.
#[derive(Debug)]
enum End {
    /// Both sides have said all.
    Done,
    /// It is broken off with a reset.
    Reset,
}

async fn relay(mut near: TcpStream, mut far: Option<TcpStream>, mode: watch::Receiver<Mode>) {
    // Once something was swallowed the stream has a hole: it must never be taken for whole again.
    let dead = AtomicBool::new(far.is_none());
    let end = {
        let (near_read, near_write) = near.split();
        let (mut there, mut back): (Direction<'_>, Direction<'_>) = match &mut far {
            Some(far) => {
                let (far_read, far_write) = far.split();
                (
                    Box::pin(pump(near_read, far_write, &mode, &dead)),
                    Box::pin(pump(far_read, near_write, &mode, &dead)),
                )
            }
            None => {
                (Box::pin(pump(near_read, tokio::io::sink(), &mode, &dead)), Box::pin(std::future::pending()))
            }
        };
        let both = async {
            tokio::select! {
                end = &mut there => if matches!(end, End::Done) { back.await } else { end },
                end = &mut back => if matches!(end, End::Done) { there.await } else { end },
            }
        };
        tokio::select! {
            end = both => end,
            end = ordered(mode.clone()) => end,
        }
    };
    if matches!(end, End::Reset) {
        for stream in [Some(&near), far.as_ref()].into_iter().flatten() {
            let _ = stream.set_zero_linger();
        }
    }
}

type Direction<'a> = std::pin::Pin<Box<dyn Future<Output = End> + Send + 'a>>;

/// The end that the proxy's mode demands.
async fn ordered(mut mode: watch::Receiver<Mode>) -> End {
    match mode.wait_for(|mode| matches!(mode, Mode::Cut | Mode::Reset)).await.as_deref() {
        Ok(Mode::Cut) => End::Done,
        // The proxy itself is gone.
        _ => End::Reset,
    }
}

/// One direction, until its end.
async fn pump(
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
