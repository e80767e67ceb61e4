//! A few connections to Redis, each shared by many calls at once.
//!
//! Calls on a connection are pipelined, so one carries far more than a pool that lends it to one caller at a time. The
//! pool makes and counts connections; each lane keeps one of its, which also spares the pool's check (a round trip
//! of its own) before every call. A connection that failed is thrown away, and the call is made once more on a new one:
//! all calls may be repeated.

use crate::{Error, Result, metrics};
use deadpool_redis::{
    Connection, Manager, Pool, Runtime,
    redis::{
        AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, FromRedisValue,
        IntoConnectionInfo as _, Pipeline, RedisError, RedisResult, ScriptInvocation, ServerErrorKind,
        TlsCertificates, aio::MultiplexedConnection, cmd,
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

/// All the time that a call has, with making a connection.
const DEADLINE: Duration = Duration::from_secs(2);
/// More connections carry no more: Redis has one thread.
const MAX_LANES: usize = 4;

/// What is asked of Redis.
pub(super) enum Request<'a> {
    /// A script, by its hash; loaded again when Redis has forgotten it. Its last argument is the run of the server.
    Script(ScriptInvocation<'a>),
    /// Commands that belong to the run of a server.
    Commands(&'a (dyn Fn(&str) -> Pipeline + Sync)),
    /// A single command.
    Command(Cmd),
}

impl Request<'_> {
    async fn run<T: FromRedisValue>(&mut self, server: &mut Server) -> RedisResult<T> {
        let Server { connection, run, .. } = server;
        match self {
            // A second attempt adds a second run; scripts look at the last one.
            Self::Script(script) => script.arg(&**run).invoke_async(connection).await,
            Self::Commands(commands) => commands(run).query_async(connection).await,
            Self::Command(command) => command.query_async(connection).await,
        }
    }
}

pub(super) struct Lanes {
    pool: Pool,
    lanes: Box<[Mutex<Lane>]>,
    next: AtomicUsize,
}

/// Locked to take the connection out or to make one, never during a call.
#[derive(Default)]
struct Lane {
    held: Option<(Connection, Arc<str>)>,
    /// Which connection it is: a failure of an earlier one must not throw away the present one.
    generation: u64,
}

/// A connection to one run of one server: it ends with that run.
struct Server {
    connection: MultiplexedConnection,
    /// Differs from that of any other run, and changes when a replica is made the master.
    run: Arc<str>,
    generation: u64,
}

impl Lanes {
    pub(super) fn new(config: &abi::config::Redis) -> Result<Self> {
        let connection = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(DEADLINE))
            .set_response_timeout(Some(DEADLINE));
        let manager = Manager::new_with_config(server(config)?, connection).map_err(|_| Error::Url)?;
        let lanes = usize::try_from(config.max_connections).unwrap_or(MAX_LANES).clamp(1, MAX_LANES);
        let pool = Pool::builder(manager)
            .max_size(lanes)
            .runtime(Runtime::Tokio1)
            .build()
            .expect("a pool without timeouts of its own can always be built");
        Ok(Self { pool, lanes: (0..lanes).map(|_| Mutex::default()).collect(), next: AtomicUsize::new(0) })
    }

    /// Asks Redis within [`DEADLINE`].
    pub(super) async fn call<T: FromRedisValue>(
        &self,
        call: &'static str,
        request: &mut Request<'_>,
    ) -> Result<T> {
        let lane = &self.lanes[self.next.fetch_add(1, Ordering::Relaxed) % self.lanes.len()];
        let began = Instant::now();
        let result = timeout(DEADLINE, async {
            match self.attempt(lane, call, request).await {
                Err(Error::Redis { source, .. }) if is_broken(&source) => {
                    self.attempt(lane, call, request).await
                }
                result => result,
            }
        });
        let result = match result.await {
            Ok(result) => result,
            Err(_) => {
                // Perhaps half open; if not, a new one costs little.
                if let Ok(mut lane) = lane.try_lock() {
                    lane.discard();
                }
                Err(Error::Timeout { call, deadline: DEADLINE })
            }
        };
        metrics::call(call, began.elapsed(), result.is_ok());
        result
    }

    async fn attempt<T: FromRedisValue>(
        &self,
        lane: &Mutex<Lane>,
        call: &'static str,
        request: &mut Request<'_>,
    ) -> Result<T> {
        let mut server = self.server(lane, call).await?;
        let result = request.run(&mut server).await;
        if let Err(error) = &result
            && is_broken(error)
        {
            let mut lane = lane.lock().await;
            if lane.generation == server.generation {
                lane.discard();
            }
        }
        result.map_err(|source| Error::Redis { call, source })
    }

    async fn server(&self, lane: &Mutex<Lane>, call: &'static str) -> Result<Server> {
        let mut lane = lane.lock().await;
        if lane.held.is_none() {
            let made = self.pool.get().await;
            let mut connection = made.map_err(|error| Error::Connect { call, reason: error.to_string() })?;
            let run = run(&mut connection).await.map_err(|source| Error::Redis { call, source })?;
            lane.held = Some((connection, run));
            lane.generation += 1;
        }
        let (connection, run) = lane.held.as_ref().expect("made above when it was missing");
        Ok(Server {
            connection: MultiplexedConnection::clone(connection),
            run: Arc::clone(run),
            generation: lane.generation,
        })
    }
}

/// Where Redis is, and for TLS whom to believe that it is Redis.
fn server(config: &abi::config::Redis) -> Result<ConnectionInfo> {
    let server = config.url.expose().into_connection_info().map_err(|_| Error::Url)?;
    if !matches!(server.addr(), ConnectionAddr::TcpTls { .. }) {
        return Ok(server);
    }
    // The client of Redis takes the provider of the process. If there is one already, it is the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    if config.ca.is_empty() {
        return Ok(server);
    }
    let fault = |reason| Error::Ca { path: config.ca.clone(), reason };
    let authorities = std::fs::read(&config.ca).map_err(|error| {
        fault(format!("can't be read: {error}; name a PEM file that this program may read"))
    })?;
    if !matches!(CertificateDer::pem_slice_iter(&authorities).next(), Some(Ok(_))) {
        let wanted = "has no certificate; it must have one that begins with -----BEGIN CERTIFICATE-----";
        return Err(fault(wanted.to_owned()));
    }
    let files = TlsCertificates { client_tls: None, root_cert: Some(authorities) };
    let client =
        Client::build_with_tls(server, files).map_err(|error| fault(format!("can't be used: {error}")))?;
    Ok(client.get_connection_info().clone())
}

/// Which run of which server this is, and under which replication id: 8 digits of each.
async fn run(connection: &mut Connection) -> RedisResult<Arc<str>> {
    let info: String = cmd("INFO").query_async(connection).await?;
    let digits = |name: &str| {
        let value = info.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        value.get(..8).unwrap_or_default().to_owned()
    };
    Ok(Arc::from(digits("run_id:") + &digits("master_replid:")))
}

impl Lane {
    /// Throws the connection away instead of giving it back to the pool.
    fn discard(&mut self) {
        if let Some((connection, _)) = self.held.take() {
            drop(Connection::take(connection));
        }
    }
}

fn is_broken(error: &RedisError) -> bool {
    // A master that became a replica refuses to write; the next connection may lead to its successor.
    let read_only = error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly);
    read_only || error.is_io_error() || error.is_timeout() || error.is_connection_dropped()
}
