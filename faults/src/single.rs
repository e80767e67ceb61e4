//! The one-process program on a small filesystem of its own, behind a proxy.

mod disk;

use super::{
    fault::{Action, Breakable, Fault, Kind, Part},
    proxy::{Mode, Proxy},
    store::StoreView,
};
use anyhow::{Result, bail};
use disk::Disk;
use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};
use tests::system::{Embedded, free_ports};
use tokio::{task::block_in_place, time::sleep};

/// How long the program can still overwrite existing files on a full disk. After that all its writes fail until healing. So
/// the fault covers both: some failing writes, then only failing ones.
const WRITES_IN_PLACE: Duration = Duration::from_secs(4);

/// The running program.
#[derive(Debug)]
pub struct Single {
    program: Embedded,
    killed: bool,
    devices: Proxy,
    disk: Disk,
    folder: PathBuf,
}

impl Single {
    /// Starts it, with its data and its log in a folder.
    ///
    /// # Errors
    /// If it does not start; the error has its output.
    pub async fn start(folder: &Path, settings: &[String]) -> Result<Self> {
        std::fs::create_dir_all(folder.join("logs"))?;
        let disk = Disk::start(&folder.join("disk")).await?;
        let base = free_ports(2)?;
        let [listen, proxy] = [base, base + 1].map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        let data = disk.data();
        let program =
            Embedded::start_wrapped(disk.command_prefix(), data, &settings, &listen.to_string()).await?;
        let devices = Proxy::start(proxy, listen).await?;
        let mut single = Self { program, killed: false, devices, disk, folder: folder.to_owned() };
        single.keep_log()?;
        Ok(single)
    }

    /// Address of the proxy in front of the program.
    pub fn gateways(&self) -> Vec<String> {
        vec![self.devices.address().to_string()]
    }

    /// Whether the data is on a filesystem that can be full. Otherwise a limit on the size of files simulates a full disk.
    pub fn has_own_filesystem(&self) -> bool {
        self.disk.has_own_filesystem()
    }

    /// Stops the program and reads its store. An exit code other than 0 becomes a finding.
    ///
    /// # Errors
    /// If it does not exit, or its store can't be read.
    pub async fn stop_and_read_store(&mut self, findings: &mut Vec<String>) -> Result<StoreView> {
        self.program.process().signal("TERM")?;
        let status = self.program.process().ended().await?;
        if !status.success() {
            findings.push(format!("godwit exited with {status} after SIGTERM"));
        }
        let data = self.folder.join("data");
        block_in_place(|| self.disk.copy(&data))?;
        StoreView::sqlite(&data)
    }

    fn keep_log(&mut self) -> Result<()> {
        self.program.process().log_to(&self.folder.join("logs/godwit.log"))
    }

    async fn start_again(&mut self) -> Result<()> {
        self.program.start_again().await?;
        self.killed = false;
        self.keep_log()
    }
}

impl Breakable for Single {
    fn kinds(&self) -> Vec<Kind> {
        use Action::{Cut, Delay, Fill, HalfOpen, Kill, Pause, Reset};
        [
            Kind::of(Part::Service("godwit"), &[Kill, Pause]),
            Kind::of(Part::Disk, &[Fill]),
            Kind::of(Part::Link("devices"), &[Cut, Delay, HalfOpen, Reset]),
        ]
        .concat()
    }

    fn instances(&self, part: Part) -> usize {
        // All devices share one link, so the only target is "all instances".
        if matches!(part, Part::Link(_)) { 0 } else { 1 }
    }

    fn target(&self, fault: &Fault) -> String {
        match fault.kind.part {
            Part::Link(_) => "all".to_owned(),
            Part::Disk => "data directory".to_owned(),
            _ => "godwit".to_owned(),
        }
    }

    async fn inject(&mut self, fault: &Fault) -> Result<()> {
        match (fault.kind.action, fault.kind.part) {
            (Action::Kill, _) => {
                self.program.kill();
                self.killed = true;
            }
            (Action::Pause, _) => self.program.process().signal("STOP")?,
            (Action::Fill, _) => {
                block_in_place(|| self.disk.fill())?;
                sleep(WRITES_IN_PLACE).await;
                Disk::deny_writes(self.program.process().id())?;
            }
            (_, Part::Link(_)) => self.devices.set(fault.mode),
            other => bail!("this system has no fault {other:?}"),
        }
        Ok(())
    }

    async fn heal(&mut self, fault: &Fault) -> Result<()> {
        match fault.kind.action {
            Action::Kill => self.start_again().await?,
            Action::Pause => self.program.process().signal("CONT")?,
            Action::Fill => {
                let process = self.program.process().id();
                self.disk.free(process)?;
            }
            _ => self.devices.set(Mode::Pass),
        }
        Ok(())
    }

    async fn wait_for_healing(&mut self) -> Result<()> {
        Ok(())
    }

    async fn restart_exited(&mut self) -> Result<Vec<String>> {
        if self.killed {
            return Ok(vec![]);
        }
        let Some(status) = self.program.process().try_ended()? else { return Ok(vec![]) };
        let output = self.program.process().output();
        let last = output.iter().rev().take(5).rev().map(String::as_str).collect::<Vec<_>>().join(" / ");
        self.start_again().await?;
        Ok(vec![format!("godwit exited by itself with {status}: {last}")])
    }
}
