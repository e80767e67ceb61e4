//! Registers this process as an instance of a service.

use super::{Discovery, Source, address::check_address, client::Client, full_name};
use crate::{Error, Phase, Readiness, Shutdown, backoff::Backoff};
use serde_json::{Value, json};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Interval of the checks that the agent still has our registration. An agent loses it in a restart, or removes it after
/// failed health checks. The agent runs on the same machine, so a check is cheap.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Time limit of a request to the agent.
const TIMEOUT: Duration = Duration::from_secs(2);

/// An instance of a service.
#[derive(Clone, Debug)]
pub struct Instance {
    /// Name of the service, without prefix.
    pub service: String,
    /// The address advertised to other services, `host:port`. It serves gRPC, including health.
    pub address: String,
    /// Version of the program.
    pub version: String,
    /// Zone of the instance; may be empty.
    pub zone: String,
    /// Whether it serves gRPC over TLS.
    pub tls: bool,
}

/// Registers an instance once it is ready, and deregisters it when the process stops.
#[derive(Debug)]
pub struct Registrar {
    instance: Instance,
    registry: Registry,
    /// How long a deregistered instance keeps serving.
    grace: Duration,
}

/// Where clients find this instance.
#[derive(Debug)]
enum Registry {
    Consul(Box<Client>, Registration),
    /// The platform (for example Kubernetes) maintains the DNS records.
    Dns,
    /// Clients have fixed addresses and don't notice that an instance leaves.
    Fixed,
}

#[derive(Debug)]
struct Registration {
    id: String,
    body: Value,
}

impl Registrar {
    /// A registrar that has not registered yet. It registers only with Consul.
    ///
    /// # Errors
    /// The address is not `host:port`.
    pub fn new(discovery: &Discovery, instance: Instance) -> Result<Self, Error> {
        check_address(&instance.address)?;
        let registry = match &discovery.source {
            Source::Consul { client, prefix } => {
                Registry::Consul(client.clone(), registration(prefix, &instance)?)
            }
            Source::Dns { .. } => Registry::Dns,
            Source::Fixed => Registry::Fixed,
        };
        Ok(Self { instance, registry, grace: discovery.grace })
    }

    /// Spawns [`Registrar::run`] as a task of the process, and makes the phase [`Phase::Deregister`] wait for it.
    pub fn attach(self, shutdown: &Shutdown) {
        let ended = CancellationToken::new();
        shutdown.on(Phase::Deregister, "registrar", ended.clone().cancelled_owned());
        let (readiness, stop) = (shutdown.readiness().clone(), shutdown.drain().token());
        shutdown.tasks().spawn("registrar", async move {
            let _ended = ended.drop_guard();
            self.run(readiness, stop).await;
        });
    }

    /// Registers once ready and keeps the registration until `stop`. Then deregisters and waits for the grace period, so
    /// that clients notice before the instance stops serving.
    pub async fn run(self, readiness: Readiness, stop: CancellationToken) {
        tokio::select! {
            () = readiness.ready() => {}
            // Never registered, so there are no clients to wait for.
            () = stop.cancelled() => return,
        }
        let clients_will_notice = match &self.registry {
            Registry::Consul(client, registration) => {
                self.keep_registered(client, registration, &readiness, &stop).await;
                self.deregister(client, registration).await
            }
            Registry::Dns => {
                stop.cancelled().await;
                true
            }
            Registry::Fixed => false,
        };
        if clients_will_notice {
            tokio::time::sleep(self.grace).await;
        }
    }

    /// Returns whether the agent has removed the registration.
    async fn deregister(&self, client: &Client, registration: &Registration) -> bool {
        let path = format!("/v1/agent/service/deregister/{}", registration.id);
        let response = client.put(&path, &Value::Null, TIMEOUT).await;
        match &response {
            Ok(_) => tracing::info!(service = %self.instance.service, "deregistered"),
            Err(error) => {
                let error = crate::error::chain(error);
                tracing::warn!(
                    service = %self.instance.service,
                    error,
                    "cannot deregister; the failing health check will remove the instance"
                );
            }
        }
        response.is_ok()
    }

    async fn keep_registered(
        &self,
        client: &Client,
        registration: &Registration,
        readiness: &Readiness,
        stop: &CancellationToken,
    ) {
        let mut backoff = Backoff::new(Duration::from_millis(200), CHECK_INTERVAL);
        // Always register the first time. The agent may still list a predecessor at this address, with another version and
        // a failing check.
        let mut registered = false;
        // `stop` does not cancel a request in flight: its registration could arrive after the deregistration.
        while !stop.is_cancelled() {
            tokio::select! {
                // The agent removes an instance whose check has failed for a minute. Registering again while not ready
                // would mark it as passing.
                () = readiness.ready() => {}
                () = stop.cancelled() => return,
            }
            let ensured = match registered {
                true => self.register_if_missing(client, registration).await,
                false => self.register(client, registration).await,
            };
            let pause = match ensured {
                Ok(()) => {
                    registered = true;
                    backoff.reset();
                    CHECK_INTERVAL
                }
                Err(error) => {
                    if backoff.failures() == 0 {
                        let error = crate::error::chain(&error);
                        tracing::warn!(service = %self.instance.service, error, "cannot register; retrying");
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

    /// Registers if the agent does not have the registration.
    async fn register_if_missing(&self, client: &Client, registration: &Registration) -> Result<(), Error> {
        match client.get(&format!("/v1/agent/service/{}", registration.id), TIMEOUT).await {
            Err(Error::ConsulRefused { status: 404, .. }) => self.register(client, registration).await,
            response => response.map(|_| ()),
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
    let error = || Error::Address { address: address.clone() };
    let (host, port) = address.rsplit_once(':').ok_or_else(error)?;
    let port: u16 = port.parse().map_err(|_| error())?;
    let name = full_name(prefix, &instance.service);
    // The id contains the address, so a restarted instance replaces its old registration.
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
            // The agent only checks health. Callers verify the certificate by the name of the service; older agents have
            // no setting for that name.
            "TLSSkipVerify": instance.tls,
            "Interval": "1s",
            "Timeout": "2s",
            // An instance registers only when ready, so clients need not wait for the first check.
            "Status": "passing",
            "DeregisterCriticalServiceAfter": "1m",
        },
    });
    Ok(Registration { id, body })
}
