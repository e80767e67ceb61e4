//! The distributed system as separate processes, with a proxy in every connection between its parts.
//!
//! It has two instances of each service, three brokers (three replicas, two in sync), PostgreSQL, Redis and Consul. Each
//! service has a proxy of its own to each server that it uses. Kafka is the exception: a broker advertises one address to all
//! clients, so they share one proxy per broker. The gRPC of services, their health checks by Consul, and the gateways for
//! devices are behind proxies too. Only the connections between brokers have none.

mod plan;
mod service;

pub use service::Programs;

use super::{
    fault::{Action, Breakable, Fault, Kind, Part},
    proxy::Mode,
    store::StoreView,
};
use anyhow::{Context as _, Result, ensure};
use plan::{Link, Plan};
use service::Service;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};
use tests::system::OwnServers;
use tokio::task::{JoinSet, block_in_place};

/// The running system.
#[derive(Debug)]
pub struct Cluster {
    services: Vec<Service>,
    links: Vec<Link>,
    gateways: Vec<String>,
    schema: String,
    logs: PathBuf,
    servers: Arc<OwnServers>,
    /// Killed servers that are being started again.
    starting: JoinSet<Result<()>>,
}

impl Cluster {
    /// Partitions of the message topic.
    pub const PARTITIONS: u32 = plan::PARTITIONS;

    /// Starts servers and services, with data and logs in a folder, and waits until all are ready.
    ///
    /// # Errors
    /// If one does not become ready; the error has its output.
    pub async fn start(folder: &Path, settings: &[String], programs: Programs<'_>) -> Result<Self> {
        let logs = folder.join("logs");
        std::fs::create_dir_all(&logs)?;
        let servers = block_in_place(|| OwnServers::start_proxied(folder.join("servers")))?;
        let Plan { services, links, gateways, schema } = Plan::new(&servers, settings).await?;
        let (servers, starting) = (Arc::new(servers), JoinSet::new());
        let mut cluster = Self { services, links, gateways, schema, logs, servers, starting };
        for service in &mut cluster.services {
            service.start(&cluster.logs, programs).await?;
        }
        for service in &cluster.services {
            service.ready().await?;
        }
        Ok(cluster)
    }

    /// Addresses of the gateways' proxies.
    pub fn gateways(&self) -> Vec<String> {
        self.gateways.clone()
    }

    /// Addresses of the gateways themselves.
    pub fn direct_gateways(&self) -> Vec<String> {
        let gateways = self.services.iter().filter(|service| service.program == "ws-gateway");
        gateways.map(|service| service.listen.clone()).collect()
    }

    /// Reads the store.
    ///
    /// # Errors
    /// If it can't be read.
    pub async fn stored(&self) -> Result<StoreView> {
        StoreView::postgres(&self.servers.addresses().postgres, &self.schema).await
    }

    /// Copies the logs of the servers to those of the services.
    ///
    /// # Errors
    /// If a file can't be copied.
    pub fn collect_logs(&self) -> Result<()> {
        for entry in std::fs::read_dir(self.servers.data())? {
            let entry = entry?;
            let name = entry.file_name();
            if name.to_string_lossy().contains(".log") {
                std::fs::copy(entry.path(), self.logs.join(name))?;
            }
        }
        Ok(())
    }

    /// The number of service instances.
    pub fn services(&self) -> usize {
        self.services.len()
    }

    /// Stops a service gracefully, starts it again, possibly in another version, and waits until it is ready. Returns its name.
    ///
    /// # Errors
    /// If it does not exit with 0, or does not become ready.
    pub async fn restart(&mut self, service: usize, programs: Programs<'_>) -> Result<String> {
        let service = self.services.get_mut(service).context("no such service")?;
        let process = service.process()?;
        process.signal("TERM")?;
        let status = process.ended().await?;
        ensure!(status.code() == Some(0), "{} exited with {status} after SIGTERM", service.name());
        service.start(&self.logs, programs).await?;
        service.ready().await?;
        Ok(service.name())
    }

    fn service(&mut self, program: &str, number: usize) -> Result<&mut Service> {
        let mut services = self.services.iter_mut().filter(|service| service.program == program);
        services.nth(number).context("no such service")
    }

    /// The instances of a service that a fault targets.
    fn targeted(&mut self, program: &'static str, target: usize) -> impl Iterator<Item = &mut Service> {
        let count = self.instances(Part::Service(program));
        let services = self.services.iter_mut().filter(move |service| service.program == program).enumerate();
        services.filter(move |(number, _)| target == *number || target >= count).map(|(_, service)| service)
    }

    /// The links that a fault targets.
    fn links<'a>(&'a self, to: &'a str, target: usize) -> impl Iterator<Item = &'a Link> {
        let count = self.instances_of_link(to);
        let links = self.links.iter().filter(move |link| link.to == to).enumerate();
        links.filter(move |(number, _)| target == *number || target >= count).map(|(_, link)| link)
    }

    fn instances_of_link(&self, to: &str) -> usize {
        self.links.iter().filter(|link| link.to == to).count()
    }

    async fn run_script(&self, arguments: &[&str]) -> Result<()> {
        block_in_place(|| self.servers.run(arguments))
    }
}

impl Breakable for Cluster {
    fn kinds(&self) -> Vec<Kind> {
        use Action::{Cut, Delay, HalfOpen, Kill, Pause, Reset, RollingRestart, Wipe};
        let services = tests::system::DISTRIBUTED_PROGRAMS.map(Part::Service);
        let servers = ["postgres", "redis", "kafka", "consul"].map(Part::Server);
        let links = ["postgres", "redis", "kafka", "consul", "grpc", "devices"].map(Part::Link);
        let each = |parts: &[Part], actions: &[Action]| -> Vec<Kind> {
            parts.iter().flat_map(|&part| Kind::of(part, actions)).collect()
        };
        [
            each(&services, &[Kill, Pause]),
            each(&servers, &[Kill, Pause]),
            each(&[Part::Server("redis")], &[Wipe]),
            each(&links, &[Cut, Delay, HalfOpen, Reset]),
            each(&[Part::Services], &[RollingRestart]),
        ]
        .concat()
    }

    fn instances(&self, part: Part) -> usize {
        match part {
            Part::Service(program) => {
                self.services.iter().filter(|service| service.program == program).count()
            }
            Part::Server("kafka") => 3,
            Part::Server(_) | Part::Services | Part::Disk => 1,
            Part::Link(to) => self.instances_of_link(to),
        }
    }

    fn target(&self, fault: &Fault) -> String {
        match fault.kind.part {
            Part::Service(_) if fault.target >= self.instances(fault.kind.part) => "all".to_owned(),
            Part::Service(program) => format!("{program} {}", fault.target + 1),
            Part::Server("kafka") => format!("kafka{}", fault.target + 1),
            Part::Server(name) => name.to_owned(),
            Part::Services | Part::Disk => "all".to_owned(),
            Part::Link(to) if fault.target >= self.instances_of_link(to) => "all".to_owned(),
            Part::Link(to) => {
                self.links(to, fault.target).map(|link| link.owner.as_str()).collect::<Vec<_>>().join(", ")
            }
        }
    }

    async fn inject(&mut self, fault: &Fault) -> Result<()> {
        let Fault { kind: Kind { action, part }, target, mode, .. } = *fault;
        match (action, part) {
            (Action::Kill, Part::Service(program)) => {
                self.targeted(program, target).for_each(|service| service.instance = None);
            }
            (Action::Pause, Part::Service(program)) => {
                self.service(program, target)?.process()?.signal("STOP")?;
            }
            (Action::RollingRestart, _) => {
                for service in 0..self.services.len() {
                    self.restart(service, Programs::Own).await?;
                }
            }
            (Action::Kill, Part::Server(_)) => self.run_script(&["kill", &self.target(fault)]).await?,
            (Action::Pause, Part::Server(_)) => self.run_script(&["pause", &self.target(fault)]).await?,
            (Action::Wipe, Part::Server(name)) => {
                self.run_script(&["kill", name]).await?;
                self.run_script(&["wipe", name]).await?;
            }
            (_, Part::Link(to)) => self.links(to, target).for_each(|link| link.proxy.set(mode)),
            other => anyhow::bail!("this system has no fault {other:?}"),
        }
        Ok(())
    }

    async fn heal(&mut self, fault: &Fault) -> Result<()> {
        let Fault { kind: Kind { action, part }, target, .. } = *fault;
        match (action, part) {
            (Action::Kill, Part::Service(program)) => {
                let logs = self.logs.clone();
                for service in self.targeted(program, target) {
                    service.start(&logs, Programs::Own).await?;
                }
            }
            (Action::Pause, Part::Service(program)) => {
                self.service(program, target)?.process()?.signal("CONT")?;
            }
            (Action::Kill | Action::Wipe, Part::Server(_)) => {
                let (servers, name) = (Arc::clone(&self.servers), self.target(fault));
                self.starting.spawn_blocking(move || servers.run(&["start", &name]));
            }
            (Action::Pause, Part::Server(_)) => self.run_script(&["resume", &self.target(fault)]).await?,
            (_, Part::Link(to)) => self.links(to, target).for_each(|link| link.proxy.set(Mode::Pass)),
            _ => {}
        }
        Ok(())
    }

    async fn wait_for_healing(&mut self) -> Result<()> {
        while let Some(started) = self.starting.join_next().await {
            started??;
        }
        Ok(())
    }

    async fn restart_exited(&mut self) -> Result<Vec<String>> {
        let mut exits = Vec::new();
        for service in &mut self.services {
            let Some(instance) = &mut service.instance else { continue };
            if let Some(status) = instance.process().try_ended()? {
                let output = instance.process().output();
                let last = output.iter().rev().take(5).rev().map(String::as_str).collect::<Vec<_>>();
                exits.push(format!(
                    "{} exited by itself with {status}: {}",
                    service.name(),
                    last.join(" / ")
                ));
                service.start(&self.logs, Programs::Own).await?;
            }
        }
        Ok(exits)
    }
}
