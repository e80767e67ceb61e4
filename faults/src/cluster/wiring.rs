//! Who is connected to whom, through which proxy, on which ports.

use super::{Cluster, Member};
use crate::proxy::Proxy;
use anyhow::{Context as _, Result};
use std::net::{Ipv4Addr, SocketAddr};
use tests::system::{CHEAP, OwnServers, unique};

/// Instances of each service.
const INSTANCES: usize = 2;

/// A connection that can be broken.
#[derive(Debug)]
pub(super) struct Link {
    /// `postgres`, `redis`, `kafka`, `consul`, `grpc` or `devices`.
    pub(super) to: &'static str,
    /// Whose it is.
    pub(super) of: String,
    pub(super) proxy: Proxy,
}

/// The parts of a [`Cluster`], not yet running but for the proxies.
pub(super) struct Wiring {
    pub(super) members: Vec<Member>,
    pub(super) links: Vec<Link>,
    pub(super) gateways: Vec<String>,
    pub(super) schema: String,
}

/// Gives ports away and starts proxies.
struct Wirer {
    ports: std::vec::IntoIter<u16>,
    links: Vec<Link>,
}

impl Wirer {
    fn port(&mut self) -> Result<SocketAddr> {
        Ok(local(self.ports.next().context("the block of ports is used up")?))
    }

    /// A proxy in front of an address; gives its own.
    async fn link(&mut self, to: &'static str, of: &str, target: SocketAddr) -> Result<SocketAddr> {
        let proxy = Proxy::start(self.port()?, target).await?;
        let address = proxy.address();
        self.links.push(Link { to, of: of.to_owned(), proxy });
        Ok(address)
    }
}

/// Plans everything. Later `settings` win.
pub(super) async fn wire(servers: &OwnServers, settings: &[String]) -> Result<Wiring> {
    let run = unique();
    let schema = format!("godwit_faults_{run}");
    // The blocks of the second and third broker leave as much free as that of the first.
    let ports: Vec<u16> = (0..3)
        .flat_map(|block| OwnServers::FREE_PORTS.map(move |port| servers.base() + block * 100 + port))
        .collect();
    let mut wirer = Wirer { ports: ports.into_iter(), links: Vec::new() };
    let mut brokers = Vec::new();
    for broker in 0..3 {
        let (listens, advertised) = servers.broker(broker);
        let proxy = Proxy::start(local(advertised), local(listens)).await?;
        brokers.push(proxy.address().to_string());
        wirer.links.push(Link { to: "kafka", of: format!("kafka{}", broker + 1), proxy });
    }
    let addresses = servers.addresses();
    let common = [
        format!("kafka.brokers={}", brokers.join(",")),
        format!("kafka.topic=godwit-faults-{run}"),
        format!("kafka.group=godwit-faults-{run}"),
        format!("kafka.partitions={}", Cluster::PARTITIONS),
        "kafka.replication=3".into(),
        format!("db.schema={schema}"),
        "db.max_connections=8".into(),
        format!("redis.prefix=godwit-faults-{run}"),
        "discovery.kind=consul".into(),
        format!("discovery.prefix=godwit-faults-{run}"),
    ];
    let (mut members, mut gateways) = (Vec::new(), Vec::new());
    for program in tests::system::DISTRIBUTED_PROGRAMS {
        for number in 1..=INSTANCES {
            let name = format!("{program} {number}");
            let mut own: Vec<String> = CHEAP.iter().map(|&setting| setting.to_owned()).collect();
            own.extend(common.clone());
            let consul = wirer.link("consul", &name, authority(&addresses.consul)?).await?;
            own.push(format!("discovery.consul=http://{consul}"));
            if program == "db-service" {
                let postgres = wirer.link("postgres", &name, authority(&addresses.postgres)?).await?;
                own.push(format!("db.postgres=postgres://godwit:godwit@{postgres}/godwit"));
            } else {
                let redis = wirer.link("redis", &name, authority(&addresses.redis)?).await?;
                own.push(format!("redis.url=redis://{redis}"));
            }
            // Nobody calls a consumer; Consul asks it without a proxy.
            if program != "consumer" {
                let section = match program {
                    "ws-gateway" => "gateway",
                    "db-service" => "db",
                    other => other,
                };
                let listen = wirer.port()?;
                let proxy = wirer.link("grpc", &name, listen).await?;
                own.push(format!("{section}.grpc_listen={listen}"));
                own.push(format!("{section}.grpc_advertise={proxy}"));
            }
            let listen = wirer.port()?;
            if program == "ws-gateway" {
                gateways.push(wirer.link("devices", &name, listen).await?.to_string());
            }
            own.extend(settings.iter().cloned());
            members.push(Member {
                program,
                number,
                settings: own,
                listen: listen.to_string(),
                instance: None,
            });
        }
    }
    Ok(Wiring { members, links: wirer.links, gateways, schema })
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// The `host:port` of a URL.
fn authority(url: &str) -> Result<SocketAddr> {
    let host = url.split("://").nth(1).and_then(|rest| rest.rsplit('@').next());
    let host = host.and_then(|rest| rest.split('/').next()).context("no host in a URL")?;
    host.parse().with_context(|| format!("{url} names no address"))
}
