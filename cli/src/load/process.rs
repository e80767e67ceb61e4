//! CPU time and memory of processes, from `/proc`.

use anyhow::{Context as _, Result};
use std::{
    collections::{HashMap, HashSet},
    fs,
};

/// Clock ticks per second (`USER_HZ`), 100 on all common Linux architectures.
const TICKS: f64 = 100.0;

/// Processes and their descendants.
#[derive(Debug)]
pub(super) struct Processes {
    roots: Vec<u32>,
}

struct Stat {
    parent: u32,
    /// CPU time, including children that have ended.
    ticks: u64,
}

impl Processes {
    /// Fails if a process does not exist.
    pub(super) fn new(roots: &[u32]) -> Result<Self> {
        for pid in roots {
            stat(*pid).with_context(|| format!("there is no process {pid}"))?;
        }
        Ok(Self { roots: roots.to_vec() })
    }

    /// CPU seconds since their start; `None` without processes.
    pub(super) fn cpu_seconds(&self) -> Option<f64> {
        let tree = self.tree()?;
        Some(tree.values().map(|stat| stat.ticks).sum::<u64>() as f64 / TICKS)
    }

    /// Resident memory in bytes; `None` without processes.
    pub(super) fn resident_bytes(&self) -> Option<u64> {
        let tree = self.tree()?;
        Some(tree.keys().filter_map(|pid| resident(*pid)).sum())
    }

    fn tree(&self) -> Option<HashMap<u32, Stat>> {
        if self.roots.is_empty() {
            return None;
        }
        let pids =
            fs::read_dir("/proc").ok()?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let mut all: HashMap<u32, Stat> = pids.filter_map(|pid| Some((pid, stat(pid)?))).collect();
        let mut members: HashSet<u32> = self.roots.iter().copied().collect();
        loop {
            let more: Vec<u32> = all
                .iter()
                .filter(|(pid, stat)| !members.contains(pid) && members.contains(&stat.parent))
                .map(|(pid, _)| *pid)
                .collect();
            if more.is_empty() {
                break;
            }
            members.extend(more);
        }
        all.retain(|pid, _| members.contains(pid));
        Some(all)
    }
}

/// CPU seconds of this process.
pub(super) fn own_cpu_seconds() -> f64 {
    stat(std::process::id()).map_or(0.0, |stat| stat.ticks as f64 / TICKS)
}

fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The process name, in parentheses, may contain any character.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Stat {
        parent: u32::try_from(number(1)?).ok()?,
        ticks: number(11)? + number(12)? + number(13)? + number(14)?,
    })
}

fn resident(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    Some(kib * 1_024)
}

/// Limit of open files of this process.
pub(super) fn max_open_files() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/limits").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_and_memory_include_child_processes() {
        let mut child = std::process::Command::new("sleep").arg("30").spawn().unwrap();
        let own = Processes::new(&[std::process::id()]).unwrap();
        let tree = own.tree().unwrap();
        assert!(tree.contains_key(&child.id()));
        assert!(own.resident_bytes().unwrap() > 100_000);
        assert!(own.cpu_seconds().unwrap() >= 0.0);
        assert!(max_open_files().unwrap() > 0);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(Processes::new(&[child.id()]).is_err());
        assert_eq!(Processes::new(&[]).unwrap().cpu_seconds(), None);
    }
}
