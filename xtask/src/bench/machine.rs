//! What this machine says about itself and its processes. It refuses clock ticks: processor time comes in nanoseconds.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::Wish;

/// What a reader needs to judge the figures: name, value.
pub(super) type Facts = Vec<(&'static str, String)>;

pub(super) fn facts(binary: &Path, wish: &Wish) -> Result<Facts> {
    let load = fs::read_to_string("/proc/loadavg")?;
    let load = load.split(' ').take(3).collect::<Vec<_>>().join(" ");
    let cpu = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = cpu.lines().filter(|line| line.starts_with("processor")).count();
    let limits = fs::read_to_string("/proc/self/limits")?;
    let files =
        limits.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next());
    Ok(vec![
        ("kernel", version("uname", &["-r"])),
        ("processor", format!("{cores} × {}", model.map_or("unknown", |(_, model)| model))),
        ("load average", load),
        ("open files", files.unwrap_or("unknown").to_owned()),
        ("weir", version(binary, &["--version"])),
        ("postgres", version("psql", &["--version"])),
        ("pgbouncer", version("pgbouncer", &["--version"])),
        ("nginx", version("nginx", &["-v"])),
        ("haproxy", version("haproxy", &["-v"])),
        ("wrk", version("wrk", &["-v"])),
        ("protocol", format!("{} rounds of {} s in turns, after one to warm up", wish.rounds, wish.seconds)),
        ("pinning", "clients on core 0, servers and proxies on core 1".to_owned()),
    ])
}

/// The first line that a program prints about itself, on whichever stream.
pub(super) fn version(program: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> String {
    let Ok(output) = Command::new(program).args(arguments).output() else { return "not installed".into() };
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).lines().next().unwrap_or_default().trim().to_owned()
}

/// The cores this process may use, as the kernel lists them.
pub(super) fn cores() -> Result<String> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    Ok(line.context("the kernel does not list the allowed cores")?.trim().to_owned())
}

/// Processor time of a process and of its children that live, so far, nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Spent {
    pub(super) all: u64,
    /// The part of weir's relaying threads.
    pub(super) relay: u64,
}

impl Spent {
    /// Reads `/proc/PID/task/*/schedstat`: time on a processor, time waiting, slices.
    pub(super) fn read(pid: u32) -> Result<Spent> {
        let mut spent = Spent::of_one(pid)?;
        for child in children(pid) {
            // One may end between the listing and the look.
            let child = Spent::of_one(child).unwrap_or_default();
            (spent.all, spent.relay) = (spent.all + child.all, spent.relay + child.relay);
        }
        Ok(spent)
    }

    fn of_one(pid: u32) -> Result<Spent> {
        let mut spent = Spent::default();
        let tasks = format!("/proc/{pid}/task");
        for task in fs::read_dir(&tasks).with_context(|| tasks.clone())? {
            let task = task?.path();
            // A thread may end between the listing and the look.
            let Ok(text) = fs::read_to_string(task.join("schedstat")) else { continue };
            let time: u64 = text.split(' ').next().unwrap_or_default().parse().context("schedstat")?;
            spent.all += time;
            if fs::read_to_string(task.join("comm")).is_ok_and(|name| name.starts_with("relay-")) {
                spent.relay += time;
            }
        }
        Ok(spent)
    }

    pub(super) fn since(self, before: Spent) -> Spent {
        Spent { all: self.all.saturating_sub(before.all), relay: self.relay.saturating_sub(before.relay) }
    }
}

/// Processes whose parent it is (proc_pid_stat(5)).
fn children(pid: u32) -> Vec<u32> {
    let parent = |child: u32| {
        let stat = fs::read_to_string(format!("/proc/{child}/stat")).ok()?;
        // The name before it may hold anything.
        stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse::<u32>().ok()
    };
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let all = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    all.filter(|child| parent(*child) == Some(pid)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_of_this_process_grows_with_work() {
        let before = Spent::read(std::process::id()).unwrap();
        let mut sum = 0_u64;
        for number in 0..20_000_000_u64 {
            sum = std::hint::black_box(sum.wrapping_add(number));
        }
        assert!(Spent::read(std::process::id()).unwrap().since(before).all > 1_000_000);
    }
}
