//! Listening for connections: [`bind`], and [`Listener`], which keeps accepting when the process is out of descriptors.

use crate::{Error, log_limit::LogLimit};
use abi::config::ListenAddress;
use futures_util::{Stream, stream};
use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    fs::File,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{Instant, sleep},
};

/// Longest queue of connections that wait to be accepted. The system reduces it to its own maximum (`somaxconn`).
const BACKLOG: i32 = i32::MAX;
/// Pause after a failed accept.
const PAUSE: Duration = Duration::from_millis(100);
/// Interval between two log lines about failed accepts.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Binds a configured address; see [`ListenAddress`] for its forms. Port 0 selects a free port.
///
/// # Errors
/// The text is not an address, or the address can't be bound.
pub async fn bind(address: &str) -> Result<TcpListener, Error> {
    let listen: ListenAddress =
        address.parse().map_err(|_| Error::ListenAddress { address: address.to_owned() })?;
    let failed = |source| Error::Bind { address: address.to_owned(), source };
    let mut first_error = None;
    for candidate in listen.resolve().map_err(failed)? {
        match listen_on(candidate) {
            Ok(listener) => return Ok(listener),
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    Err(failed(first_error.unwrap_or_else(|| io::Error::other("the name has no address"))))
}

fn listen_on(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        // `[::]` means IPv4 too, also on a system whose default is IPv6 only.
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Replaces an unspecified listen address (`0.0.0.0`, `[::]`) by loopback, to which a client can connect.
pub fn connectable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

/// A listener whose accepts never fail.
///
/// It holds a spare descriptor. When the process has no other one left, the spare is used to accept one more connection. So a
/// listener with few clients, such as the admin port, answers also then.
#[derive(Debug)]
pub struct Listener {
    tcp: TcpListener,
    spare: Option<File>,
    log: LogLimit,
}

impl From<TcpListener> for Listener {
    fn from(tcp: TcpListener) -> Self {
        Self { tcp, spare: None, log: LogLimit::new(LOG_INTERVAL) }
    }
}

impl Listener {
    /// Accepts the next connection. After a failure it tries again, with a pause if the failure is likely to last.
    pub async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            if self.spare.is_none() {
                self.spare = File::open("/dev/null").ok();
            }
            match self.tcp.accept().await {
                Ok(accepted) => return accepted,
                Err(error) if is_connection_error(&error) => {}
                Err(error) if is_out_of_descriptors(&error) && self.spare.take().is_some() => {
                    // Use the spare for one connection, without opening it again first.
                    if let Ok(accepted) = self.tcp.accept().await {
                        return accepted;
                    }
                }
                Err(error) => {
                    self.report(&error);
                    sleep(PAUSE).await;
                }
            }
        }
    }

    /// The address it listens on.
    ///
    /// # Errors
    /// The system does not know the address.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// The connections as an endless stream.
    pub fn into_stream(self) -> impl Stream<Item = TcpStream> {
        stream::unfold(self, |mut listener| async move {
            let (stream, _) = listener.accept().await;
            Some((stream, listener))
        })
    }

    fn report(&mut self, error: &io::Error) {
        let Some(suppressed) = self.log.pass(Instant::now()) else { return };
        if is_out_of_descriptors(error) {
            tracing::error!(
                %error,
                suppressed,
                "new connections wait: no file descriptor is free; raise the limit of open files (LimitNOFILE=, ulimit -n)"
            );
        } else {
            tracing::error!(%error, suppressed, "cannot accept connections; trying again");
        }
    }
}

impl axum::serve::Listener for Listener {
    type Io = TcpStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        Self::accept(self).await
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Self::local_addr(self)
    }
}

/// Whether an accept failed because of its connection, so that the next one may succeed.
fn is_connection_error(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Whether the process or the system has no free file descriptor.
fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

#[cfg(test)]
mod tests;
