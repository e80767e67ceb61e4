//! A few connections to Redis, each shared by many concurrent calls.
//!
//! Calls on a connection are pipelined. A shared connection therefore carries many more calls than one that a pool lends
//! to one caller at a time. The pool only creates connections; each slot keeps one of them. That also avoids the pool's
//! check before every call, which costs a round trip. After a connection error the connection is closed and the call is
//! retried once on a new one: all calls may be repeated.

use super::run::{LastRun, Run};
use crate::{Error, Result, metrics};
use deadpool_redis::{
    Connection, Manager, Pool, Runtime,
    redis::{
        AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, FromRedisValue,
        IntoConnectionInfo as _, Pipeline, RedisError, RedisResult, ScriptInvocation, ServerErrorKind,
        TlsCertificates, aio::MultiplexedConnection,
    },
};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::Mutex,
    time::{Instant, timeout},
};

/// Time limit of a call, including connecting.
const DEADLINE: Duration = Duration::from_secs(2);
/// The marker of the last run expires when no process has connected for this long.
const MARKER_TTL: Duration = Duration::from_secs(90 * 24 * 3600);
/// More connections would not increase the throughput, because Redis executes commands on one thread.
const MAX_CONNECTIONS: usize = 4;

/// A request to Redis.
pub(super) enum Request<'a> {
    /// A script, invoked by its hash and loaded if Redis does not have it. Its last argument is the id of the server's run.
    Script(ScriptInvocation<'a>),
    /// Commands that depend on the server's run.
    Commands(&'a (dyn Fn(&Run) -> Pipeline + Sync)),
    /// A single command.
    Command(Cmd),
}

impl Request<'_> {
    async fn execute<T: FromRedisValue>(&mut self, server: &mut Server) -> RedisResult<T> {
        let Server { connection, run, .. } = server;
        match self {
            // A retry appends a second run id; scripts use the last one.
            Self::Script(script) => script.arg(&*run.id).invoke_async(connection).await,
            Self::Commands(commands) => commands(run).query_async(connection).await,
            Self::Command(command) => command.query_async(connection).await,
        }
    }
}

/// The shared connections. Calls use them in turn.
pub(super) struct Connections {
    pool: Pool,
    slots: Box<[Mutex<Slot>]>,
    next: AtomicUsize,
    /// Key of the marker of the last run.
    marker: Box<str>,
    last_run: LastRun,
}

/// Holds one connection. It is locked to read or replace the connection, never during a call.
#[derive(Default)]
struct Slot {
    /// The connection and the server's run.
    current: Option<(Connection, Arc<Run>)>,
    /// Counts the connections of this slot. An error of an earlier connection must not close the current one.
    generation: u64,
}

/// A connection to one run of a server. It breaks when the run ends.
struct Server {
    connection: MultiplexedConnection,
    run: Arc<Run>,
    generation: u64,
}

impl Connections {
    pub(super) fn new(config: &abi::config::Redis) -> Result<Self> {
        let connection = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(DEADLINE))
            .set_response_timeout(Some(DEADLINE));
        let manager =
            Manager::new_with_config(connection_info(config)?, connection).map_err(|_| Error::Url)?;
        let count =
            usize::try_from(config.max_connections).unwrap_or(MAX_CONNECTIONS).clamp(1, MAX_CONNECTIONS);
        let pool = Pool::builder(manager)
            .max_size(count)
            .runtime(Runtime::Tokio1)
            .build()
            .expect("a pool without timeouts can always be built");
        let slots = (0..count).map(|_| Mutex::default()).collect();
        let marker = [&config.prefix, ":run"].concat().into();
        Ok(Self { pool, slots, next: AtomicUsize::new(0), marker, last_run: LastRun::default() })
    }

    /// The last run that any connection has met.
    pub(super) fn last_run(&self) -> Option<Arc<Run>> {
        self.last_run.get()
    }

    /// Sends a request and returns its response, and the run of the server that gave it, within [`DEADLINE`].
    pub(super) async fn call<T: FromRedisValue>(
        &self,
        call: &'static str,
        request: &mut Request<'_>,
    ) -> Result<(T, Arc<Run>)> {
        let slot = &self.slots[self.next.fetch_add(1, Ordering::Relaxed) % self.slots.len()];
        let began = Instant::now();
        let result = timeout(DEADLINE, async {
            match self.attempt(slot, call, request).await {
                Err(Error::Redis { source, .. }) if is_broken(&source) => {
                    self.attempt(slot, call, request).await
                }
                result => result,
            }
        });
        let result = match result.await {
            Ok(result) => result,
            Err(_) => {
                // The connection may be half open. If it is not, a new one costs little.
                if let Ok(mut slot) = slot.try_lock() {
                    slot.close();
                }
                Err(Error::Timeout { call, deadline: DEADLINE })
            }
        };
        metrics::call(call, began.elapsed(), result.is_ok());
        result
    }

    async fn attempt<T: FromRedisValue>(
        &self,
        slot: &Mutex<Slot>,
        call: &'static str,
        request: &mut Request<'_>,
    ) -> Result<(T, Arc<Run>)> {
        let mut server = self.server(slot, call).await?;
        let result = request.execute(&mut server).await;
        if let Err(error) = &result
            && is_broken(error)
        {
            let mut slot = slot.lock().await;
            if slot.generation == server.generation {
                slot.close();
            }
        }
        let answer = result.map_err(|source| Error::Redis { call, source })?;
        Ok((answer, server.run))
    }

    async fn server(&self, slot: &Mutex<Slot>, call: &'static str) -> Result<Server> {
        let mut slot = slot.lock().await;
        if slot.current.is_none() {
            let connected = self.pool.get().await;
            let mut connection =
                connected.map_err(|error| Error::Connect { call, reason: error.to_string() })?;
            let run = self.last_run.meet(&mut connection, &self.marker, MARKER_TTL).await;
            let run = run.map_err(|source| Error::Redis { call, source })?;
            slot.current = Some((connection, run));
            slot.generation += 1;
        }
        let (connection, run) = slot.current.as_ref().expect("connected above if it was missing");
        Ok(Server {
            connection: MultiplexedConnection::clone(connection),
            run: Arc::clone(run),
            generation: slot.generation,
        })
    }
}

/// The configured address of Redis, with the trusted authorities for TLS.
fn connection_info(config: &abi::config::Redis) -> Result<ConnectionInfo> {
    let server = config.url.expose().into_connection_info().map_err(|_| Error::Url)?;
    if !matches!(server.addr(), ConnectionAddr::TcpTls { .. }) {
        return Ok(server);
    }
    // The Redis client uses the cryptography provider of the process. If one is installed already, it is the same.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    if config.ca.is_empty() {
        return Ok(server);
    }
    let ca_error = |reason| Error::Ca { path: config.ca.clone(), reason };
    let authorities = std::fs::read(&config.ca).map_err(|error| {
        ca_error(format!("cannot be read: {error}; name a PEM file that this program may read"))
    })?;
    if !matches!(CertificateDer::pem_slice_iter(&authorities).next(), Some(Ok(_))) {
        let reason = "has no certificate; it must have one that begins with -----BEGIN CERTIFICATE-----";
        return Err(ca_error(reason.to_owned()));
    }
    let files = TlsCertificates { client_tls: None, root_cert: Some(authorities) };
    let client = Client::build_with_tls(server, files)
        .map_err(|error| ca_error(format!("cannot be used: {error}")))?;
    Ok(client.get_connection_info().clone())
}

impl Slot {
    /// Closes the connection instead of returning it to the pool.
    fn close(&mut self) {
        if let Some((connection, _)) = self.current.take() {
            drop(Connection::take(connection));
        }
    }
}

fn is_broken(error: &RedisError) -> bool {
    // A master that was demoted to a replica refuses writes; a new connection may reach its successor.
    let read_only = error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly);
    read_only || error.is_io_error() || error.is_timeout() || error.is_connection_dropped()
}
