//! The program: PostgreSQL behind gRPC.

use crate::{Error, Service, postgres::PostgresStore, rules::Limits};
use abi::config::Config;
use std::{sync::Arc, time::Duration};
use tonic::service::Routes;
use utils::{
    Phase, Shutdown,
    cli::{Program, Threads},
    discovery::Discovery,
    host::Host,
    tls::{self, MutualTls},
};

/// The program `db-service`.
pub const PROGRAM: Program = Program {
    name: "db-service",
    version: env!("CARGO_PKG_VERSION"),
    admin: |config| &config.db.admin_listen,
    threads: Threads::Cores,
    drain_limit: |config| config.discovery.drain_grace + Duration::from_secs(15),
    check,
};
/// Pause between attempts to reach the database at start.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// The program before it runs: its listeners are bound, and no task is started.
pub struct App {
    host: Host,
    store: Arc<PostgresStore>,
    discovery: Discovery,
}

/// Binds the addresses of a db-service. The database need not be reachable yet.
///
/// # Errors
/// An address can't be bound, or an address in the configuration is invalid.
pub async fn build(config: &Config) -> Result<App, Error> {
    crate::describe_metrics();
    let db = &config.db;
    let tls = MutualTls::new(&config.tls, PROGRAM.name)?;
    Ok(App {
        store: Arc::new(PostgresStore::new(db, Limits::new(config))?),
        discovery: Discovery::new(&config.discovery)?,
        host: Host::bind(&db.grpc_listen, &db.grpc_advertise, &db.admin_listen).await?.tls(tls),
    })
}

/// Config errors that only this program can detect: unusable files and URLs.
fn check(config: &Config) -> Vec<String> {
    let mut errors = MutualTls::config_errors(&config.tls, PROGRAM.name);
    errors.extend(tls::checks::consul(&config.discovery));
    errors.extend(crate::postgres::check(config.db.postgres.expose()));
    errors
}

impl App {
    /// The `host:port` under which other services reach this db-service.
    pub fn address(&self) -> &str {
        self.host.advertised()
    }

    /// Serves until `shutdown`. Returns once everything runs. The program is ready, and registered, when the database has
    /// answered and has the schema of this release.
    ///
    /// # Errors
    /// The advertised address is not `host:port`.
    pub fn run(self, shutdown: &Shutdown) -> Result<(), Error> {
        let Self { host, store, discovery } = self;
        let latch = shutdown.readiness().latch("postgres");
        let grpc = host.serve_admin(shutdown);
        let service = Service::new(Arc::clone(&store));
        let routes = Routes::new(service.clone().server());
        grpc.serve(PROGRAM.name, PROGRAM.version, routes, &discovery, shutdown)?;
        // A warning only: reads work, and all instances are affected alike, so leaving discovery would help no caller.
        shutdown.warn_of("postgres", move || service.health());
        let stop = shutdown.token(Phase::StopAccepting);
        // Asked at start only. A later outage affects all instances alike: leaving discovery would help no caller.
        shutdown.tasks().spawn("postgres", async move {
            let ready = async {
                while let Err(error) = store.ready().await {
                    latch.unready(error.to_string());
                    tokio::time::sleep(RETRY_INTERVAL).await;
                }
                latch.ready();
            };
            tokio::select! {
                () = ready => {}
                () = stop.cancelled() => {}
            }
        });
        Ok(())
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
        let address = app.address().to_owned();
        app.run(&shutdown).unwrap();
        shutdown.readiness().ready().await;
        let channel = grpc::balanced(PROGRAM.name, Instances::fixed([address]), grpc::Options::default());
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
