//! The servers that the services use: shared ones from the environment, or a private set that a test may kill.

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
    /// Reads the addresses from the environment.
    ///
    /// # Errors
    /// If a variable is missing; the error tells how to set it. A test without its servers fails and is not skipped.
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

/// A private set of servers, run by `scripts/servers`. It is stopped and wiped when dropped.
#[derive(Debug)]
pub struct OwnServers {
    data: PathBuf,
    base: u16,
    brokers: u16,
    /// The servers to run; empty for all four.
    names: &'static [&'static str],
    consul_token: String,
    /// Folder of the certificates, if the servers use TLS.
    tls: Option<PathBuf>,
}

impl OwnServers {
    /// Offset from a broker's own port to its advertised port, in a set with three brokers.
    pub const PROXY_OFFSET: u16 = 40;
    /// Ports in the block of each broker that stay free for the test, as offsets from the first port of the block.
    pub const FREE_PORTS: std::ops::Range<u16> = 50..100;

    /// Consul's token in a set with TLS.
    pub const CONSUL_TOKEN: &str = "11111111-2222-3333-4444-555555555555";

    /// Starts all four, with one broker, and waits until each answers.
    ///
    /// # Errors
    /// If the script fails; the error has its output.
    pub fn start() -> Result<Self> {
        Self::unstarted(Self::folder(), free_ports(20)?, 1).up()
    }

    /// Starts Consul alone, with access control: requests need a token, and `token` allows everything.
    ///
    /// # Errors
    /// If the script fails; the error has its output.
    pub fn start_consul_with_access_control(token: &str) -> Result<Self> {
        let mut servers = Self::unstarted(Self::folder(), free_ports(20)?, 1);
        (servers.names, servers.consul_token) = (&["consul"], token.to_owned());
        servers.up()
    }

    /// Starts all four with TLS. The folder holds the authority (`ca.pem`) and the shared certificate (`server.pem` and
    /// `server.key`). Consul requires [`OwnServers::CONSUL_TOKEN`].
    ///
    /// # Errors
    /// If the script fails; the error has its output.
    pub fn start_tls(certificates: &Path) -> Result<Self> {
        let mut servers = Self::unstarted(Self::folder(), free_ports(20)?, 1);
        (servers.tls, servers.consul_token) = (Some(certificates.to_owned()), Self::CONSUL_TOKEN.to_owned());
        servers.up()
    }

    /// Starts all four with three brokers on a block of ports, with their data in a folder. The brokers advertise addresses
    /// where the caller must run proxies, see [`OwnServers::broker`].
    ///
    /// # Errors
    /// If the script fails; the error has its output.
    pub fn start_proxied(data: PathBuf) -> Result<Self> {
        Self::unstarted(data, free_ports(300)?, 3).up()
    }

    fn folder() -> PathBuf {
        // `tests/run` clears this folder, in case the test is killed before it can do so itself.
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

    /// The folder of data and logs.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The listening and the advertised port of a proxied broker, 0 to 2.
    pub fn broker(&self, number: u16) -> (u16, u16) {
        let port = self.base + number * 100;
        (port + 9, port + Self::PROXY_OFFSET)
    }

    /// The servers' addresses.
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

    /// Kafka uses ten consecutive ports. With several brokers, each has a block of a hundred.
    fn ports(&self) -> [u16; 6] {
        [0, 10, 11, 12, 13, 14].map(|offset| self.base + offset)
    }

    /// Runs a command of `scripts/servers`, such as `kill redis`.
    ///
    /// # Errors
    /// If the script fails; the error has its output.
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
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "scripts/servers {arguments:?} exited with {}: {stderr}",
            output.status
        );
        Ok(())
    }
}

/// The first of `count` consecutive free ports, below the ephemeral range.
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
