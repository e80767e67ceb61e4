//! The program: PostgreSQL behind gRPC.

use crate::{Error, Service, max_members, postgres::PostgresStore};
use abi::config::Config;
use std::{sync::Arc, time::Duration};
use tonic::service::Routes;
use utils::{
    Phase, Shutdown,
    discovery::Discovery,
    host::Host,
    tls::{self, MutualTls},
};

/// Name of the service in discovery.
const NAME: &str = "db-service";
/// A database that does not answer at start is asked again after this.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// Bound and not running.
pub struct App {
    host: Host,
    store: Arc<PostgresStore>,
    discovery: Discovery,
}

/// Binds the addresses of a db-service. Needs no database yet.
///
/// # Errors
/// An address can't be bound, or one in the configuration is not an address.
pub async fn build(config: &Config) -> Result<App, Error> {
    crate::describe_metrics();
    let db = &config.db;
    let tls = MutualTls::new(&config.tls, NAME)?;
    Ok(App {
        store: Arc::new(PostgresStore::new(db, max_members(config))?),
        discovery: Discovery::new(&config.discovery)?,
        host: Host::bind(&db.grpc_listen, &db.grpc_advertise, &db.admin_listen).await?.tls(tls),
    })
}

/// What is wrong with what the program `db-service` takes from the configuration beyond the values themselves.
pub fn check(config: &Config) -> Vec<String> {
    let mut faults = MutualTls::config_errors(&config.tls, NAME);
    faults.extend(tls::checks::consul(&config.discovery));
    faults.extend(crate::postgres::check(config.db.postgres.expose()));
    faults
}

impl App {
    /// Serves until `shutdown` stops it; returns once everything is running. It is ready, and registered, when the
    /// database has answered and has the schema of this release. Gives the `host:port` under which others reach it.
    ///
    /// # Errors
    /// The advertised address is not `host:port`.
    pub fn start(self, shutdown: &Shutdown) -> Result<String, Error> {
        let Self { host, store, discovery } = self;
        let latch = shutdown.readiness().latch("postgres");
        let grpc = host.serve_admin(shutdown);
        let address = grpc.advertised().to_owned();
        let routes = Routes::new(Service::new(Arc::clone(&store) as _).server());
        grpc.serve(NAME, env!("CARGO_PKG_VERSION"), routes, &discovery, shutdown)?;
        let stop = shutdown.token(Phase::StopAccepting);
        // Once only: later outages concern all instances alike, and callers wait for the database, not for discovery.
        shutdown.tasks().spawn("postgres", async move {
            let ready = async {
                while let Err(error) = store.ready().await {
                    latch.unready(error.to_string());
                    tokio::time::sleep(ASK_AGAIN).await;
                }
                latch.ready();
            };
            tokio::select! {
                () = ready => {}
                () = stop.cancelled() => {}
            }
        });
        Ok(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi::{
        config::{Db, Secret},
        v1::{GetSigningKeysRequest, db_service_client::DbServiceClient},
    };
    use utils::{discovery::Instances, grpc};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_program_becomes_ready_answers_and_stops() {
        let url =
            std::env::var("GODWIT_TEST_POSTGRES").expect("GODWIT_TEST_POSTGRES is not set: run tests/run");
        let schema = format!("test_{}", uuid::Uuid::new_v4().simple());
        let any = || "127.0.0.1:0".to_owned();
        let db = Db {
            grpc_listen: any(),
            admin_listen: any(),
            postgres: Secret::new(url.clone()),
            schema: schema.clone(),
            ..Db::default()
        };
        let app = build(&Config { db, ..Config::default() }).await.unwrap();
        let shutdown = Shutdown::new(Duration::from_secs(5));
        let address = app.start(&shutdown).unwrap();
        shutdown.readiness().ready().await;
        let channel = grpc::balanced(NAME, Instances::fixed([address]), grpc::Options::default());
        let mut client = DbServiceClient::new(abi::channel::Caller::new(channel));
        let keys = client.get_signing_keys(GetSigningKeysRequest {}).await.unwrap().into_inner();
        assert_eq!(keys.keys.len(), 1);
        shutdown.drain().begin("test");
        shutdown.run().await;
        assert!(!shutdown.tasks().failed());
        let pool = sqlx::PgPool::connect(&url).await.unwrap();
        let drop = sqlx::AssertSqlSafe(format!("DROP SCHEMA {schema} CASCADE"));
        sqlx::raw_sql(drop).execute(&pool).await.unwrap();
    }
}
