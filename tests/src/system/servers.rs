//! The servers below the services: those that the environment names, or a set of one's own that may be broken.

use super::unique;
use anyhow::{Context as _, Result, ensure};
use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
};

/// Addresses of the real servers.
#[derive(Clone, Debug)]
pub struct Servers {
    /// Kafka's brokers, separated by commas.
    pub kafka: String,
    /// PostgreSQL's URL.
    pub postgres: String,
    /// Redis's URL.
    pub redis: String,
    /// Consul's URL.
    pub consul: String,
}

impl Servers {
    /// As the environment says.
    ///
    /// # Errors
    /// A sentence with what to do if a variable is missing: a test without its servers fails, it is not skipped.
    pub fn from_environment() -> Result<Self> {
        let get = |name: &str| {
            std::env::var(name).with_context(|| {
                format!("{name} is not set: run `tests/run`, or `eval \"$(scripts/servers env)\"` after `scripts/servers up`")
            })
        };
        Ok(Self {
            kafka: get("GODWIT_TEST_KAFKA")?,
            postgres: get("GODWIT_TEST_POSTGRES")?,
            redis: get("GODWIT_TEST_REDIS")?,
            consul: get("GODWIT_TEST_CONSUL")?,
        })
    }
}

/// A set of servers that a test has for itself, by `scripts/servers`. They end with it.
#[derive(Debug)]
pub struct OwnServers {
    data: PathBuf,
    base: u16,
    brokers: u16,
    /// Which of the four; empty for all.
    names: &'static [&'static str],
    consul_token: String,
    /// Folder of the certificates, where all speak TLS.
    tls: Option<PathBuf>,
}

impl OwnServers {
    /// How far above a broker's own port the one is under which services are told to find it, where there are three.
    pub const PROXY_OFFSET: u16 = 40;
    /// Ports that a set with three brokers leaves free for its owner, counted from its first one.
    pub const FREE_PORTS: std::ops::Range<u16> = 50..100;

    /// Consul's token, where all speak TLS.
    pub const CONSUL_TOKEN: &str = "11111111-2222-3333-4444-555555555555";

    /// Starts all four, with one broker, and waits until each answers.
    ///
    /// # Errors
    /// With what the script said.
    pub fn start() -> Result<Self> {
        Self::unstarted(Self::folder(), free_ports(20)?, 1).up()
    }

    /// Starts Consul alone, which lets nobody do anything without a token; `token` may do all.
    ///
    /// # Errors
    /// With what the script said.
    pub fn start_guarded_consul(token: &str) -> Result<Self> {
        let mut servers = Self::unstarted(Self::folder(), free_ports(20)?, 1);
        (servers.names, servers.consul_token) = (&["consul"], token.to_owned());
        servers.up()
    }

    /// Starts all four with TLS: a folder has the authority, `ca.pem`, and the certificate of them all, `server.pem` and
    /// `server.key`. Consul wants [`OwnServers::CONSUL_TOKEN`].
    ///
    /// # Errors
    /// With what the script said.
    pub fn start_tls(certificates: &Path) -> Result<Self> {
        let mut servers = Self::unstarted(Self::folder(), free_ports(20)?, 1);
        (servers.tls, servers.consul_token) = (Some(certificates.to_owned()), Self::CONSUL_TOKEN.to_owned());
        servers.up()
    }

    /// Starts all four with three brokers on a block of ports, their data in a folder. Clients find the brokers only where
    /// a proxy has to be, see [`OwnServers::broker`].
    ///
    /// # Errors
    /// With what the script said.
    pub fn start_proxied(data: PathBuf) -> Result<Self> {
        Self::unstarted(data, free_ports(300)?, 3).up()
    }

    fn folder() -> PathBuf {
        // `tests/run` names a folder that it clears, should this test be ended before it can do so itself.
        let folder = std::env::var_os("GODWIT_TEST_FOLDER").map_or_else(std::env::temp_dir, PathBuf::from);
        folder.join(format!("godwit-own-servers-{}", unique()))
    }

    fn unstarted(data: PathBuf, base: u16, brokers: u16) -> Self {
        Self { data, base, brokers, names: &[], consul_token: String::new(), tls: None }
    }

    fn up(self) -> Result<Self> {
        self.run(&[&["up"], self.names].concat())?;
        Ok(self)
    }

    /// The first port of the block.
    pub fn base(&self) -> u16 {
        self.base
    }

    /// Where its data and its logs are.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Where a proxied broker, 0 to 2, listens for the proxy, and where it tells clients to come.
    pub fn broker(&self, number: u16) -> (u16, u16) {
        let port = self.base + number * 100;
        (port + 9, port + Self::PROXY_OFFSET)
    }

    /// Where they are.
    pub fn addresses(&self) -> Servers {
        let [kafka, postgres, redis, consul, ..] = self.ports();
        if let Some(tls) = &self.tls {
            let options = format!("sslmode=verify-full&sslrootcert={}/ca.pem", tls.display());
            return Servers {
                kafka: format!("127.0.0.1:{}", kafka + 3),
                postgres: format!("postgres://godwit:godwit@127.0.0.1:{postgres}/godwit?{options}"),
                redis: format!("rediss://127.0.0.1:{redis}"),
                consul: format!("https://127.0.0.1:{consul}"),
            };
        }
        let brokers: Vec<_> =
            (0..self.brokers).map(|number| format!("127.0.0.1:{}", kafka + number * 100)).collect();
        Servers {
            kafka: brokers.join(","),
            postgres: format!("postgres://godwit:godwit@127.0.0.1:{postgres}/godwit"),
            redis: format!("redis://127.0.0.1:{redis}"),
            consul: format!("http://127.0.0.1:{consul}"),
        }
    }

    /// Kafka takes ten ports in a row; with several brokers there are blocks of a hundred.
    fn ports(&self) -> [u16; 6] {
        [0, 10, 11, 12, 13, 14].map(|offset| self.base + offset)
    }

    /// A command of `scripts/servers`, such as `kill redis`.
    ///
    /// # Errors
    /// With what the script said.
    pub fn run(&self, arguments: &[&str]) -> Result<()> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/servers");
        let names = ["KAFKA", "POSTGRES", "REDIS", "CONSUL", "CONSUL_SERVER", "CONSUL_SERF"];
        let ports = names
            .map(|name| format!("GODWIT_{name}_PORT"))
            .into_iter()
            .zip(self.ports().map(|port| port.to_string()));
        let mut command = Command::new(script);
        command
            .args(arguments)
            .envs(ports)
            .env("GODWIT_SERVERS_DATA", &self.data)
            .env("GODWIT_CONSUL_TOKEN", &self.consul_token)
            .env("KAFKA_NODES", self.brokers.to_string());
        if let Some(tls) = &self.tls {
            command.env("GODWIT_SERVERS_TLS", tls);
        }
        if self.brokers > 1 {
            command.env("GODWIT_KAFKA_ADVERTISED_OFFSET", Self::PROXY_OFFSET.to_string());
        }
        let output = command.output().context("run scripts/servers")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "scripts/servers {arguments:?} ended with {}: {said}",
            output.status
        );
        Ok(())
    }
}

/// The first of so many free ports in a row, outside of what the system gives away.
pub fn free_ports(count: u16) -> Result<u16> {
    (0..50)
        .map(|_| 12_000 + rand::random_range(0..800) * 10)
        .find(|base| (0..count).all(|port| TcpListener::bind(("127.0.0.1", base + port)).is_ok()))
        .context("no free ports")
}

impl Drop for OwnServers {
    fn drop(&mut self) {
        let _ = self.run(&["wipe"]);
        let _ = std::fs::remove_dir_all(&self.data);
    }
}
