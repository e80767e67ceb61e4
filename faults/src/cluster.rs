//! The distributed system as separate processes, with a proxy in every connection between its parts.
//!
//! Two instances of each service; three brokers, each record on all of them and acknowledged by two; PostgreSQL, Redis
//! and Consul. Each service has a proxy of its own to each server that it uses, but for Kafka: a broker tells its clients
//! itself where it is, so all of them share one proxy per broker. Services find each other's gRPC, and Consul their
//! health, behind a proxy, and so do devices their gateways. Only the brokers among themselves have none.

mod wiring;

use super::{
    fault::{Action, Breakable, Fault, Kind, Part},
    proxy::Mode,
    store::StoreView,
};
use anyhow::{Context as _, Result, ensure};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};
use tests::{
    process::{self, Process},
    system::{Instance, OwnServers},
};
use tokio::task::{JoinSet, block_in_place};
use wiring::{Link, Wiring};

/// The running system.
#[derive(Debug)]
pub struct Cluster {
    members: Vec<Member>,
    links: Vec<Link>,
    gateways: Vec<String>,
    schema: String,
    logs: PathBuf,
    servers: Arc<OwnServers>,
    /// Servers that were killed and are on their way back.
    starting: JoinSet<Result<()>>,
}

/// A process of a service, or the place of one that was killed.
#[derive(Debug)]
struct Member {
    program: &'static str,
    number: usize,
    settings: Vec<String>,
    /// Where a gateway listens.
    listen: String,
    instance: Option<Instance>,
}

/// The programs of the services: those of this build, or in a folder, of another version.
#[derive(Clone, Copy, Debug)]
pub enum Programs<'a> {
    /// Of this build.
    Own,
    /// In a folder.
    In(&'a Path),
}

impl Programs<'_> {
    fn file(self, program: &str) -> Result<PathBuf> {
        match self {
            Self::Own => process::path(program),
            Self::In(folder) => Ok(folder.join(program)),
        }
    }
}

impl Cluster {
    /// Partitions of the topic of messages.
    pub const PARTITIONS: u32 = 4;

    /// Starts servers and services, with data and logs in a folder, and waits until all are ready.
    ///
    /// # Errors
    /// If one does not become ready; with what it said.
    pub async fn start(folder: &Path, settings: &[String], programs: Programs<'_>) -> Result<Self> {
        let logs = folder.join("logs");
        std::fs::create_dir_all(&logs)?;
        let servers = block_in_place(|| OwnServers::start_proxied(folder.join("servers")))?;
        let Wiring { members, links, gateways, schema } = wiring::wire(&servers, settings).await?;
        let (servers, starting) = (Arc::new(servers), JoinSet::new());
        let mut cluster = Self { members, links, gateways, schema, logs, servers, starting };
        for member in &mut cluster.members {
            member.start(&cluster.logs, programs).await?;
        }
        for member in &cluster.members {
            member.ready().await?;
        }
        Ok(cluster)
    }

    /// Addresses of the gateways, as devices reach them.
    pub fn gateways(&self) -> Vec<String> {
        self.gateways.clone()
    }

    /// Addresses of the gateways themselves, without a proxy.
    pub fn bare_gateways(&self) -> Vec<String> {
        let gateways = self.members.iter().filter(|member| member.program == "ws-gateway");
        gateways.map(|member| member.listen.clone()).collect()
    }

    /// What is stored.
    ///
    /// # Errors
    /// If it can't be read.
    pub async fn stored(&self) -> Result<StoreView> {
        StoreView::postgres(&self.servers.addresses().postgres, &self.schema).await
    }

    /// Puts the logs of the servers beside those of the services.
    ///
    /// # Errors
    /// If a file can't be copied.
    pub fn keep_logs(&self) -> Result<()> {
        for entry in std::fs::read_dir(self.servers.data())? {
            let entry = entry?;
            let name = entry.file_name();
            if name.to_string_lossy().contains(".log") {
                std::fs::copy(entry.path(), self.logs.join(name))?;
            }
        }
        Ok(())
    }

    /// Process ids of the services.
    pub fn ids(&mut self) -> Vec<u32> {
        let instances = self.members.iter_mut().filter_map(|member| member.instance.as_mut());
        instances.map(|instance| instance.process().id()).collect()
    }

    /// How many services there are.
    pub fn members(&self) -> usize {
        self.members.len()
    }

    /// Ends a service as an upgrade does, starts it again, perhaps of another version, and waits until it is ready. Gives its name.
    ///
    /// # Errors
    /// If it does not end in order, or does not come back.
    pub async fn restart(&mut self, member: usize, programs: Programs<'_>) -> Result<String> {
        let member = self.members.get_mut(member).context("no such service")?;
        let process = member.process()?;
        process.signal("TERM")?;
        let status = process.ended().await?;
        ensure!(status.code() == Some(0), "{} ended with {status} when it was told to stop", member.name());
        member.start(&self.logs, programs).await?;
        member.ready().await?;
        Ok(member.name())
    }

    fn member(&mut self, program: &str, number: usize) -> Result<&mut Member> {
        let mut members = self.members.iter_mut().filter(|member| member.program == program);
        members.nth(number).context("no such service")
    }

    /// The processes of a service that a fault concerns.
    fn hit(&mut self, program: &'static str, target: usize) -> impl Iterator<Item = &mut Member> {
        let count = self.instances(Part::Service(program));
        let members = self.members.iter_mut().filter(move |member| member.program == program).enumerate();
        members.filter(move |(number, _)| target == *number || target >= count).map(|(_, member)| member)
    }

    /// The links that a fault concerns.
    fn links<'a>(&'a self, to: &'a str, target: usize) -> impl Iterator<Item = &'a Link> {
        let count = self.instances_of_link(to);
        let links = self.links.iter().filter(move |link| link.to == to).enumerate();
        links.filter(move |(number, _)| target == *number || target >= count).map(|(_, link)| link)
    }

    fn instances_of_link(&self, to: &str) -> usize {
        self.links.iter().filter(|link| link.to == to).count()
    }

    async fn run(&self, arguments: &[&str]) -> Result<()> {
        block_in_place(|| self.servers.run(arguments))
    }
}

impl Breakable for Cluster {
    fn kinds(&self) -> Vec<Kind> {
        use Action::{Cut, Delay, Empty, HalfOpen, Kill, Pause, Reset, Roll};
        let services = tests::system::DISTRIBUTED_PROGRAMS.map(Part::Service);
        let servers = ["postgres", "redis", "kafka", "consul"].map(Part::Server);
        let links = ["postgres", "redis", "kafka", "consul", "grpc", "devices"].map(Part::Link);
        let each = |parts: &[Part], actions: &[Action]| -> Vec<Kind> {
            parts.iter().flat_map(|&part| Kind::of(part, actions)).collect()
        };
        [
            each(&services, &[Kill, Pause]),
            each(&servers, &[Kill, Pause]),
            each(&[Part::Server("redis")], &[Empty]),
            each(&links, &[Cut, Delay, HalfOpen, Reset]),
            each(&[Part::Services], &[Roll]),
        ]
        .concat()
    }

    fn instances(&self, part: Part) -> usize {
        match part {
            Part::Service(program) => self.members.iter().filter(|member| member.program == program).count(),
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
                self.links(to, fault.target).map(|link| link.of.as_str()).collect::<Vec<_>>().join(", ")
            }
        }
    }

    async fn inject(&mut self, fault: &Fault) -> Result<()> {
        let Fault { kind: Kind { action, part }, target, mode, .. } = *fault;
        match (action, part) {
            (Action::Kill, Part::Service(program)) => {
                self.hit(program, target).for_each(|member| member.instance = None);
            }
            (Action::Pause, Part::Service(program)) => {
                self.member(program, target)?.process()?.signal("STOP")?;
            }
            (Action::Roll, _) => {
                for member in 0..self.members.len() {
                    self.restart(member, Programs::Own).await?;
                }
            }
            (Action::Kill, Part::Server(_)) => self.run(&["kill", &self.target(fault)]).await?,
            (Action::Pause, Part::Server(_)) => self.run(&["pause", &self.target(fault)]).await?,
            (Action::Empty, Part::Server(name)) => {
                self.run(&["kill", name]).await?;
                self.run(&["wipe", name]).await?;
            }
            (_, Part::Link(to)) => self.links(to, target).for_each(|link| link.proxy.set(mode)),
            other => anyhow::bail!("no such fault: {other:?}"),
        }
        Ok(())
    }

    async fn heal(&mut self, fault: &Fault) -> Result<()> {
        let Fault { kind: Kind { action, part }, target, .. } = *fault;
        match (action, part) {
            (Action::Kill, Part::Service(program)) => {
                let logs = self.logs.clone();
                for member in self.hit(program, target) {
                    member.start(&logs, Programs::Own).await?;
                }
            }
            (Action::Pause, Part::Service(program)) => {
                self.member(program, target)?.process()?.signal("CONT")?;
            }
            (Action::Kill | Action::Empty, Part::Server(_)) => {
                let (servers, name) = (Arc::clone(&self.servers), self.target(fault));
                self.starting.spawn_blocking(move || servers.run(&["start", &name]));
            }
            (Action::Pause, Part::Server(_)) => self.run(&["resume", &self.target(fault)]).await?,
            (_, Part::Link(to)) => self.links(to, target).for_each(|link| link.proxy.set(Mode::Pass)),
            _ => {}
        }
        Ok(())
    }

    async fn settle(&mut self) -> Result<()> {
        while let Some(started) = self.starting.join_next().await {
            started??;
        }
        Ok(())
    }

    async fn revive(&mut self) -> Result<Vec<String>> {
        let mut ended = Vec::new();
        for member in &mut self.members {
            let Some(instance) = &mut member.instance else { continue };
            if let Some(status) = instance.process().try_ended()? {
                let said = instance.process().said();
                let last = said.iter().rev().take(5).rev().map(String::as_str).collect::<Vec<_>>();
                ended.push(format!("{} ended by itself with {status}: {}", member.name(), last.join(" / ")));
                member.start(&self.logs, Programs::Own).await?;
            }
        }
        Ok(ended)
    }
}

impl Member {
    fn name(&self) -> String {
        format!("{} {}", self.program, self.number)
    }

    /// Starts it, without waiting until it is ready: what it needs may be away.
    async fn start(&mut self, logs: &Path, programs: Programs<'_>) -> Result<()> {
        let file = programs.file(self.program)?;
        let mut instance =
            Instance::start_of(&file, self.program, self.settings.clone(), &self.listen).await?;
        instance.process().keep(&logs.join(format!("{}-{}.log", self.program, self.number)))?;
        self.instance = Some(instance);
        Ok(())
    }

    async fn ready(&self) -> Result<()> {
        self.instance.as_ref().context("it was killed")?.ready().await
    }

    fn process(&mut self) -> Result<&mut Process> {
        Ok(self.instance.as_mut().context("it was killed")?.process())
    }
}
