//! Plans a cluster: settings, ports and proxies.

use super::service::Service;
use crate::proxy::Proxy;
use anyhow::{Context as _, Result};
use std::net::{Ipv4Addr, SocketAddr};
use tests::system::{CHEAP, DISTRIBUTED_PROGRAMS, OwnServers, Servers, unique};

/// Partitions of the message topic.
pub(super) const PARTITIONS: u32 = 4;
/// Instances of each service.
const INSTANCES: usize = 2;
/// Brokers.
const BROKERS: u16 = 3;

/// A proxied connection, or a group of connections that share a proxy.
#[derive(Debug)]
pub(super) struct Link {
    /// `postgres`, `redis`, `kafka`, `consul`, `grpc` or `devices`.
    pub(super) to: &'static str,
    /// The service or broker that has this proxy.
    pub(super) owner: String,
    pub(super) proxy: Proxy,
}

/// A planned cluster. Its proxies run, its services do not yet.
pub(super) struct Plan {
    pub(super) services: Vec<Service>,
    pub(super) links: Vec<Link>,
    /// Addresses of the gateways' proxies.
    pub(super) gateways: Vec<String>,
    pub(super) schema: String,
}

impl Plan {
    /// Plans a cluster and starts its proxies. `settings` override the cluster's own ones.
    pub(super) async fn new(servers: &OwnServers, settings: &[String]) -> Result<Self> {
        let run = unique();
        let schema = format!("godwit_faults_{run}");
        let mut planner = Planner::new(servers);
        let brokers = planner.proxy_brokers(servers).await?;
        let addresses = servers.addresses();
        let common = common_settings(&run, &schema, &brokers);
        let (mut services, mut gateways) = (Vec::new(), Vec::new());
        for program in DISTRIBUTED_PROGRAMS {
            for number in 1..=INSTANCES {
                let name = format!("{program} {number}");
                let mut own: Vec<String> = CHEAP.iter().map(|&setting| setting.to_owned()).collect();
                own.extend(common.clone());
                own.extend(planner.link_servers(program, &name, &addresses).await?);
                own.extend(planner.link_grpc(program, &name).await?);
                let listen = planner.port()?;
                if program == "ws-gateway" {
                    gateways.push(planner.link("devices", &name, listen).await?.to_string());
                }
                own.extend(settings.iter().cloned());
                let listen = listen.to_string();
                services.push(Service { program, number, settings: own, listen, instance: None });
            }
        }
        Ok(Self { services, links: planner.links, gateways, schema })
    }
}

/// Assigns ports and starts proxies.
struct Planner {
    ports: std::vec::IntoIter<u16>,
    links: Vec<Link>,
}

impl Planner {
    fn new(servers: &OwnServers) -> Self {
        // The block of each broker has the same free ports as the first one.
        let ports: Vec<u16> = (0..BROKERS)
            .flat_map(|block| OwnServers::FREE_PORTS.map(move |port| servers.base() + block * 100 + port))
            .collect();
        Self { ports: ports.into_iter(), links: Vec::new() }
    }

    fn port(&mut self) -> Result<SocketAddr> {
        Ok(local(self.ports.next().context("the block of ports is used up")?))
    }

    /// Starts a proxy in front of an address and returns the proxy's address.
    async fn link(&mut self, to: &'static str, owner: &str, target: SocketAddr) -> Result<SocketAddr> {
        let proxy = Proxy::start(self.port()?, target).await?;
        let address = proxy.address();
        self.links.push(Link { to, owner: owner.to_owned(), proxy });
        Ok(address)
    }

    /// Starts a proxy at the advertised address of each broker.
    async fn proxy_brokers(&mut self, servers: &OwnServers) -> Result<Vec<String>> {
        let mut brokers = Vec::new();
        for broker in 0..BROKERS {
            let (listen, advertised) = servers.broker(broker);
            let proxy = Proxy::start(local(advertised), local(listen)).await?;
            brokers.push(proxy.address().to_string());
            self.links.push(Link { to: "kafka", owner: format!("kafka{}", broker + 1), proxy });
        }
        Ok(brokers)
    }

    /// Starts a service's proxies to servers and returns the settings that use them.
    async fn link_servers(&mut self, program: &str, name: &str, servers: &Servers) -> Result<[String; 2]> {
        let consul = self.link("consul", name, authority(&servers.consul)?).await?;
        let store = if program == "db-service" {
            let postgres = self.link("postgres", name, authority(&servers.postgres)?).await?;
            format!("db.postgres=postgres://godwit:godwit@{postgres}/godwit")
        } else {
            let redis = self.link("redis", name, authority(&servers.redis)?).await?;
            format!("redis.url=redis://{redis}")
        };
        Ok([format!("discovery.consul=http://{consul}"), store])
    }

    /// Starts the proxy in front of a service's gRPC and returns the settings that use it. No service calls a consumer, so it
    /// has none; Consul checks its health directly.
    async fn link_grpc(&mut self, program: &str, name: &str) -> Result<Vec<String>> {
        let section = match program {
            "consumer" => return Ok(vec![]),
            "ws-gateway" => "gateway",
            "db-service" => "db",
            other => other,
        };
        let listen = self.port()?;
        let proxy = self.link("grpc", name, listen).await?;
        Ok(vec![format!("{section}.grpc_listen={listen}"), format!("{section}.grpc_advertise={proxy}")])
    }
}

fn common_settings(run: &str, schema: &str, brokers: &[String]) -> [String; 10] {
    [
        format!("kafka.brokers={}", brokers.join(",")),
        format!("kafka.topic=godwit-faults-{run}"),
        format!("kafka.group=godwit-faults-{run}"),
        format!("kafka.partitions={PARTITIONS}"),
        "kafka.replication=3".into(),
        format!("db.schema={schema}"),
        "db.max_connections=8".into(),
        format!("redis.prefix=godwit-faults-{run}"),
        "discovery.kind=consul".into(),
        format!("discovery.prefix=godwit-faults-{run}"),
    ]
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// The `host:port` of a URL.
fn authority(url: &str) -> Result<SocketAddr> {
    let host = url.split("://").nth(1).and_then(|rest| rest.rsplit('@').next());
    let host = host.and_then(|rest| rest.split('/').next()).context("no host in a URL")?;
    host.parse().with_context(|| format!("{url} has no IP address and port"))
}
