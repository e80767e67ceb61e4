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
                format!("{name} is not set: run `tests/run`, or `eval \"$(tests/servers env)\"` after `tests/servers up`")
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

/// A set of servers that a test has for itself, by `tests/servers`. They end with it.
#[derive(Debug)]
pub struct OwnServers {
    data: PathBuf,
    ports: [u16; 6],
}

impl OwnServers {
    /// Starts all four and waits until each answers.
    ///
    /// # Errors
    /// With what the script said.
    pub fn start() -> Result<Self> {
        // `tests/run` names a folder that it clears, should this test be ended before it can do so itself.
        let folder = std::env::var_os("GODWIT_TEST_FOLDER").map_or_else(std::env::temp_dir, PathBuf::from);
        let data = folder.join(format!("godwit-own-servers-{}", unique()));
        // Kafka takes three ports in a row, so the ports are taken from a block, outside of what the system gives away.
        let base = (0..50)
            .map(|_| 12_000 + rand::random_range(0..800) * 10)
            .find(|base| (0..9).all(|port| TcpListener::bind(("127.0.0.1", base + port)).is_ok()))
            .context("no free ports")?;
        let servers = Self { data, ports: [base, base + 4, base + 5, base + 6, base + 7, base + 8] };
        servers.run(&["up"])?;
        Ok(servers)
    }

    /// Where they are.
    pub fn addresses(&self) -> Servers {
        let [kafka, postgres, redis, consul, ..] = self.ports;
        Servers {
            kafka: format!("127.0.0.1:{kafka}"),
            postgres: format!("postgres://godwit:godwit@127.0.0.1:{postgres}/godwit"),
            redis: format!("redis://127.0.0.1:{redis}"),
            consul: format!("http://127.0.0.1:{consul}"),
        }
    }

    /// A command of `tests/servers`, such as `kill redis`.
    ///
    /// # Errors
    /// With what the script said.
    pub fn run(&self, arguments: &[&str]) -> Result<()> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("servers");
        let names = ["KAFKA", "POSTGRES", "REDIS", "CONSUL", "CONSUL_SERVER", "CONSUL_SERF"];
        let ports = names
            .map(|name| format!("GODWIT_{name}_PORT"))
            .into_iter()
            .zip(self.ports.map(|p| p.to_string()));
        let output = Command::new(script)
            .args(arguments)
            .envs(ports)
            .env("GODWIT_SERVERS_DATA", &self.data)
            .env("KAFKA_NODES", "1")
            .output()
            .context("run tests/servers")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "tests/servers {arguments:?} ended with {}: {said}", output.status);
        Ok(())
    }
}

impl Drop for OwnServers {
    fn drop(&mut self) {
        let _ = self.run(&["wipe"]);
        let _ = std::fs::remove_dir_all(&self.data);
    }
}
