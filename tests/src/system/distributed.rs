//! The four services, two instances of each, on real servers.

use super::{CHEAP, Servers, System, address, set_arguments, unique};
use crate::{
    eventually, http,
    process::{self, Process},
};
use anyhow::{Context as _, Result, bail, ensure};
use futures_util::future::try_join_all;
use std::{path::Path, process::Command};

/// The four programs.
pub const DISTRIBUTED_PROGRAMS: [&str; 4] = ["db-service", "pusher", "consumer", "ws-gateway"];
/// Instances of each.
const INSTANCES: usize = 2;

/// Two instances of each service, with a topic, a schema and prefixes of their own.
#[derive(Debug)]
pub struct Distributed {
    instances: Vec<Instance>,
    gateways: Vec<String>,
    /// The message topic.
    pub topic: String,
    /// Prefix of the names of services in Consul.
    pub prefix: String,
    /// The servers that the services use.
    pub servers: Servers,
}

/// One process of a service.
#[derive(Debug)]
pub struct Instance {
    program: &'static str,
    settings: Vec<String>,
    process: Process,
    admin: String,
    /// A gateway's address for HTTP and WebSocket.
    gateway: Option<String>,
}

impl Distributed {
    /// Starts all instances at once and waits until each is ready.
    ///
    /// # Errors
    /// If one does not become ready; the error has its output.
    pub async fn start(settings: &[&str]) -> Result<Self> {
        Self::start_on(Servers::from_environment()?, settings).await
    }

    /// Starts all instances on these servers and waits until each is ready.
    ///
    /// # Errors
    /// If one does not become ready; the error has its output.
    pub async fn start_on(servers: Servers, settings: &[&str]) -> Result<Self> {
        let run = unique();
        let topic = format!("godwit-test-{run}");
        let prefix = topic.clone();
        let common: Vec<String> = CHEAP
            .into_iter()
            .map(str::to_owned)
            .chain([
                format!("kafka.brokers={}", servers.kafka),
                format!("kafka.topic={topic}"),
                format!("kafka.group=godwit-test-{run}"),
                "kafka.partitions=4".into(),
                format!("db.postgres={}", servers.postgres),
                "db.max_connections=8".into(),
                format!("db.schema=godwit_test_{run}"),
                format!("redis.url={}", servers.redis),
                format!("redis.prefix=godwit-test-{run}"),
                "discovery.kind=consul".into(),
                format!("discovery.consul={}", servers.consul),
                format!("discovery.prefix={prefix}"),
            ])
            .chain(settings.iter().map(|&setting| setting.to_owned()))
            .collect();
        let starting = DISTRIBUTED_PROGRAMS.into_iter().flat_map(|program| vec![program; INSTANCES]);
        let instances =
            try_join_all(starting.map(|program| Instance::start(program, common.clone(), "127.0.0.1:0")))
                .await?;
        let gateways = instances.iter().filter_map(|instance| instance.gateway.clone()).collect();
        Ok(Self { instances, gateways, topic, prefix, servers })
    }

    /// Starts another instance of a program and waits until it is ready. It is killed when the returned value is dropped.
    ///
    /// # Errors
    /// If it does not become ready; the error has its output.
    pub async fn start_another(&mut self, program: &'static str) -> Result<Instance> {
        let settings = self.instances(program).next().context("there are two of each")?.settings.clone();
        Instance::start(program, settings, "127.0.0.1:0").await
    }

    /// The instances of one program.
    pub fn instances(&mut self, program: &str) -> impl Iterator<Item = &mut Instance> {
        self.instances.iter_mut().filter(move |instance| instance.program == program)
    }
}

impl System for Distributed {
    fn mode(&self) -> &'static str {
        "distributed"
    }

    fn gateways(&self) -> &[String] {
        &self.gateways
    }
}

impl Instance {
    /// Starts an instance and waits until it is ready. Only a gateway listens on `listen`.
    ///
    /// # Errors
    /// If it does not become ready; the error has its output.
    pub async fn start(program: &'static str, settings: Vec<String>, listen: &str) -> Result<Self> {
        let mut instance = Self::start_unready(program, settings, listen).await?;
        if program == "ws-gateway" {
            let line = instance.process.line("listening on ").await?;
            instance.gateway = Some(address(&line)?);
        }
        instance.ready().await?;
        Ok(instance)
    }

    /// Starts an instance and waits only until it prints its admin address.
    ///
    /// # Errors
    /// If it does not print it; the error has its output.
    pub async fn start_unready(program: &'static str, settings: Vec<String>, listen: &str) -> Result<Self> {
        Self::start_of(&process::path(program)?, program, settings, listen).await
    }

    /// Starts an instance of a program file, which may be of another version, and waits until it prints its admin address.
    ///
    /// # Errors
    /// If it does not print it; the error has its output.
    pub async fn start_of(
        file: &Path,
        program: &'static str,
        settings: Vec<String>,
        listen: &str,
    ) -> Result<Self> {
        let section = match program {
            "ws-gateway" => "gateway",
            "db-service" => "db",
            other => other,
        };
        let own = [
            format!("{section}.grpc_listen=127.0.0.1:0"),
            format!("{section}.admin_listen=127.0.0.1:0"),
            format!("gateway.listen={listen}"),
        ];
        let all = own.iter().chain(&settings).map(String::as_str);
        let mut command = Command::new(file);
        command.args(set_arguments(all));
        let mut process = Process::spawn(program, command)?;
        let admin = address(&process.line("admin on ").await?)?;
        Ok(Self { program, settings, process, admin, gateway: None })
    }

    /// Address of `/readyz` and `/metrics`. It changes with each start.
    pub fn admin(&self) -> &str {
        &self.admin
    }

    /// The settings that it was started with.
    pub fn settings(&self) -> &[String] {
        &self.settings
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Status and body of `/readyz`. The body lists the state of each dependency.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn readiness(&self) -> Result<(u16, String)> {
        let answer = http::request(&self.admin, "GET", "/readyz", None, None).await?;
        Ok((answer.status, answer.body))
    }

    /// The value of a metric. `name` includes the labels, as in `/metrics`.
    ///
    /// # Errors
    /// If it does not answer, or has no such metric.
    pub async fn metric(&self, name: &str) -> Result<f64> {
        let body = http::request(&self.admin, "GET", "/metrics", None, None).await?.body;
        let line = body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(line.with_context(|| format!("{} has no metric {name}", self.program))?.parse()?)
    }

    /// Waits until it is ready.
    ///
    /// # Errors
    /// If it does not become ready; the error has its output.
    pub async fn ready(&self) -> Result<()> {
        let ready = eventually("it is ready", async || {
            let (status, body) = self.readiness().await?;
            ensure!(status == 200, "{status} {body}");
            Ok(())
        });
        ready
            .await
            .with_context(|| format!("output of {}:\n{}", self.program, self.process.output().join("\n")))
    }

    /// Kills it (SIGKILL).
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again after it has exited, and waits until it is ready. A gateway keeps its address.
    ///
    /// # Errors
    /// If it does not become ready; the error has its output.
    pub async fn start_again(&mut self) -> Result<()> {
        let listen = self.gateway.clone().unwrap_or_else(|| "127.0.0.1:0".into());
        let again = Self::start(self.program, self.settings.clone(), &listen).await?;
        if again.gateway != self.gateway {
            bail!(
                "the gateway has the address {:?} after its restart, not {:?}",
                again.gateway,
                self.gateway
            );
        }
        *self = again;
        Ok(())
    }
}
