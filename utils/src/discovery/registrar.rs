//! Makes this process an instance that others find.

use super::{Discovery, Source, client::Client, full_name};
use crate::{Error, Phase, Readiness, Shutdown, backoff::Backoff};
use serde_json::{Value, json};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The agent is asked this often whether it still knows us: one that was restarted, or that gave us up, does not. It is on
/// the same machine.
const CHECK: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(2);

/// An instance of a service.
#[derive(Clone, Debug)]
pub struct Instance {
    /// Name of the service, without prefix.
    pub service: String,
    /// `host:port` where others reach its gRPC, health included.
    pub address: String,
    /// Version of the program.
    pub version: String,
    /// Where it runs; may be empty.
    pub zone: String,
    /// Whether its gRPC is over TLS.
    pub tls: bool,
}

/// Registers an instance while it is ready, and takes it off when the process stops.
#[derive(Debug)]
pub struct Registrar {
    instance: Instance,
    found: Found,
    /// How long an instance that has left goes on serving.
    grace: Duration,
}

/// How others find this instance.
#[derive(Debug)]
enum Found {
    Consul(Box<Client>, Registration),
    /// Somebody else takes its name off when it stops.
    Dns,
    /// They know where to look, and are told nothing.
    Fixed,
}

#[derive(Debug)]
struct Registration {
    id: String,
    body: Value,
}

impl Registrar {
    /// An instance that is not registered yet. Without Consul it never is: others know where to look.
    ///
    /// # Errors
    /// When the address is not `host:port`.
    pub fn new(discovery: &Discovery, instance: Instance) -> Result<Self, Error> {
        super::check_address(&instance.address)?;
        let found = match &discovery.source {
            Source::Consul { client, prefix } => {
                Found::Consul(client.clone(), registration(prefix, &instance)?)
            }
            Source::Dns { .. } => Found::Dns,
            Source::Fixed => Found::Fixed,
        };
        Ok(Self { instance, found, grace: discovery.grace })
    }

    /// Runs with a process: registers as soon as it is ready, deregisters as the first thing when it stops. The phase ends when
    /// those who call this instance have had the time to notice.
    pub fn attach(self, shutdown: &Shutdown) {
        let gone = CancellationToken::new();
        shutdown.on(Phase::Deregister, "registrar", gone.clone().cancelled_owned());
        let (readiness, stop) = (shutdown.readiness().clone(), shutdown.drain().token());
        shutdown.tasks().spawn("registrar", async move {
            let _gone = gone.drop_guard();
            self.run(readiness, stop).await;
        });
    }

    /// Registers once ready, keeps it so until `stop`, then deregisters and waits until others have noticed.
    pub async fn run(self, readiness: Readiness, stop: CancellationToken) {
        tokio::select! {
            () = readiness.ready() => {}
            // Nobody was sent here.
            () = stop.cancelled() => return,
        }
        let noticed = match &self.found {
            Found::Consul(client, registration) => {
                self.keep(client, registration, &readiness, &stop).await;
                self.deregister(client, registration).await
            }
            Found::Dns => {
                stop.cancelled().await;
                true
            }
            Found::Fixed => false,
        };
        if noticed {
            tokio::time::sleep(self.grace).await;
        }
    }

    /// Gives whether others can notice.
    async fn deregister(&self, client: &Client, registration: &Registration) -> bool {
        let path = format!("/v1/agent/service/deregister/{}", registration.id);
        let answer = client.put(&path, &Value::Null, TIMEOUT).await;
        match &answer {
            Ok(_) => tracing::info!(service = %self.instance.service, "deregistered"),
            Err(error) => {
                let error = crate::error::chain(error);
                tracing::warn!(service = %self.instance.service, error, "can't deregister; the health check will");
            }
        }
        answer.is_ok()
    }

    async fn keep(
        &self,
        client: &Client,
        registration: &Registration,
        readiness: &Readiness,
        stop: &CancellationToken,
    ) {
        let mut backoff = Backoff::new(Duration::from_millis(200), CHECK);
        // Who was there before at this address may be known yet, with another version and a failing check.
        let mut registered = false;
        // Requests are not cut off by `stop`: a registration on its way could overtake the deregistration.
        while !stop.is_cancelled() {
            tokio::select! {
                // The agent gives up who fails its check for a minute. Who is not ready must not come back as if it were.
                () = readiness.ready() => {}
                () = stop.cancelled() => return,
            }
            let ensured = match registered {
                true => self.ensure(client, registration).await,
                false => self.register(client, registration).await,
            };
            let pause = match ensured {
                Ok(()) => {
                    registered = true;
                    backoff.reset();
                    CHECK
                }
                Err(error) => {
                    if backoff.failures() == 0 {
                        let error = crate::error::chain(&error);
                        tracing::warn!(service = %self.instance.service, error, "can't register; trying again");
                    }
                    backoff.next_pause()
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    /// Registers if the agent does not know us.
    async fn ensure(&self, client: &Client, registration: &Registration) -> Result<(), Error> {
        match client.get(&format!("/v1/agent/service/{}", registration.id), TIMEOUT).await {
            Err(Error::ConsulRefused { status: 404, .. }) => self.register(client, registration).await,
            answer => answer.map(|_| ()),
        }
    }

    async fn register(&self, client: &Client, registration: &Registration) -> Result<(), Error> {
        let path = "/v1/agent/service/register?replace-existing-checks=true";
        client.put(path, &registration.body, TIMEOUT).await?;
        tracing::info!(service = %self.instance.service, address = %self.instance.address, "registered");
        Ok(())
    }
}

fn registration(prefix: &str, instance: &Instance) -> Result<Registration, Error> {
    let address = &instance.address;
    let wrong = || Error::Address { address: address.clone() };
    let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
    let port: u16 = port.parse().map_err(|_| wrong())?;
    let name = full_name(prefix, &instance.service);
    // The address is part of the id: an instance that is started again replaces itself.
    let id = format!("{name}-{host}-{port}").replace(['[', ']', ':'], "-");
    let mut tags = vec![format!("version={}", instance.version)];
    if !instance.zone.is_empty() {
        tags.push(format!("zone={}", instance.zone));
    }
    let body = json!({
        "Name": name,
        "ID": id,
        "Address": host.trim_matches(['[', ']']),
        "Port": port,
        "Tags": tags,
        "Meta": { "version": instance.version, "zone": instance.zone },
        "Check": {
            "Name": "gRPC health",
            "GRPC": address,
            "GRPCUseTLS": instance.tls,
            // The agent asks for health alone. Who calls an instance checks its certificate, by the service's name, which
            // older agents can't be told.
            "TLSSkipVerify": instance.tls,
            "Interval": "1s",
            "Timeout": "2s",
            // It registers only when ready: others need not wait for the first check.
            "Status": "passing",
            "DeregisterCriticalServiceAfter": "1m",
        },
    });
    Ok(Registration { id, body })
}
