//! What the kernel programs cost: nanoseconds of each kind for one connection, by the kernel's own account.
//! It refuses to leave the account running: it is switched back however the bench ends.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};
use weir_tests::{Agent, Lab, Setup, Web};

use super::report::{Goal, Report};
use super::rounds::{DIRECT, Rounds, Run};
use super::web::{POLICY, requests};
use super::{Wish, client, output};

/// Kinds of programs by `enum bpf_prog_type`.
const KINDS: [(u32, &str); 4] = [
    (9, "socket made (sock)"),
    (18, "connect (sock_addr)"),
    (13, "handover (sock_ops)"),
    (8, "packets (skb)"),
];
/// Packets are not part of setting a connection up, but for what the first ones cost more than others.
const SET_UP: [u32; 3] = [9, 18, 13];
const PACKETS: u32 = 8;

pub(super) fn run(wish: &Wish, report: &mut Report) -> Result<()> {
    let lab = Lab::new("bench-fence")?;
    let web = Web::start(&lab)?;
    let setup = Setup::default()
        .policy("classes.yaml", weir_tests::policies::CLASSES)
        .policy("web.yaml", &POLICY.replace("@port@", &web.port.to_string()));
    let agent = Agent::start(&lab, &setup)?;
    bystander(wish, report, &lab, &web)?;
    let _stats = Stats::open()?;
    let url = format!("http://127.0.0.1:{}/kilobyte", web.port);
    let seconds = format!("-d{}s", wish.seconds);
    let load = |headers: &[&str]| {
        let words = client(&[&["wrk", "-t1", "-c8", &seconds], headers, &[url.as_str()]].concat());
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let before = spent(agent.pid())?;
        let text = output(&mut agent.app(&words)?)?;
        Ok::<_, anyhow::Error>((since(&before, &spent(agent.pid())?), requests(&text)?))
    };
    // Hardly anything but packets of connections that are open.
    let (open, _) = load(&[])?;
    let packet = open.get(&PACKETS).copied().unwrap_or_default();
    let plain = packet.time as f64 / packet.runs.max(1) as f64;
    let (closing, connections) = load(&["-H", "Connection: close"])?;
    let spent = |kind: u32| closing.get(&kind).copied().unwrap_or_default();
    let each = |kind: u32| spent(kind).time as f64 / connections;
    let first = (spent(PACKETS).time as f64 - plain * spent(PACKETS).runs as f64).max(0.0) / connections;
    let case = "kernel programs, one connection";
    let set_up = SET_UP.map(each).iter().sum::<f64>() + first;
    report.hook(case, "set-up", set_up, Some(Goal::Hook(2_500.0)));
    for (kind, name) in KINDS {
        report.hook(case, name, each(kind), None);
    }
    report.hook(case, "of those, first packets", first, None);
    // Whatever its length: the program looks at the head.
    report.hook("kernel programs, a connection that is open", "each packet", plain, None);
    Ok(())
}

/// What programs of one kind have run.
#[derive(Debug, Clone, Copy, Default)]
struct Account {
    /// Nanoseconds.
    time: u64,
    runs: u64,
}

fn since(before: &BTreeMap<u32, Account>, after: &BTreeMap<u32, Account>) -> BTreeMap<u32, Account> {
    let was = |kind| before.get(kind).copied().unwrap_or_default();
    after
        .iter()
        .map(|(kind, now)| {
            let (time, runs) = (now.time - was(kind).time, now.runs - was(kind).runs);
            (*kind, Account { time, runs })
        })
        .collect()
}

/// What an unlabelled process pays for the hooks it runs through: connects below the attach point against others outside.
fn bystander(wish: &Wish, report: &mut Report, lab: &Lab, web: &Web) -> Result<()> {
    let folder = lab.cgroups().join("bystander");
    fs::create_dir_all(&folder)?;
    let url = format!("http://127.0.0.1:{}/kilobyte", web.port);
    let seconds = format!("-d{}s", wish.seconds);
    let words = client(&["wrk", "-t1", "-c8", &seconds, "-H", "Connection: close", &url]);
    let case = "connects of an unlabelled process";
    let rounds = Rounds::take(case, &[DIRECT, BESIDE], wish.rounds, |name| {
        let mut command = Command::new("sh");
        command.arg("-c");
        match name {
            DIRECT => command.args(["exec \"$@\"", "sh"]),
            _ => command.arg("echo 0 > \"$0/cgroup.procs\" && exec \"$@\"").arg(&folder),
        };
        let acts = requests(&output(command.args(&words))?)?;
        Ok(Run { acts, rate: acts / wish.seconds as f64, ..Run::default() })
    })?;
    report.add(case, &rounds, &[(BESIDE, Goal::Rate(DIRECT, 0.9))]);
    Ok(())
}

/// Below the attach point, without a label.
const BESIDE: &str = "weir's fence above";

/// By kind, of the programs that the agent holds.
fn spent(pid: u32) -> Result<BTreeMap<u32, Account>> {
    let mut spent: BTreeMap<u32, Account> = BTreeMap::new();
    for descriptor in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        let Ok(text) = fs::read_to_string(descriptor?.path()) else { continue };
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|value| value.trim().parse::<u64>().ok())
        };
        if let (Some(kind), Some(time), Some(runs)) =
            (field("prog_type:"), field("run_time_ns:"), field("run_cnt:"))
        {
            let account = spent.entry(kind as u32).or_default();
            account.time += time;
            account.runs += runs;
        }
    }
    if spent.is_empty() {
        bail!("the agent holds no kernel programs");
    }
    Ok(spent)
}

/// The kernel's account of programs' run time (sysctl kernel.bpf_stats_enabled), put back when dropped.
struct Stats {
    before: String,
}

impl Stats {
    fn open() -> Result<Stats> {
        let before = fs::read_to_string(SWITCH).context(SWITCH)?;
        fs::write(SWITCH, "1").context(SWITCH)?;
        Ok(Stats { before })
    }
}

impl Drop for Stats {
    fn drop(&mut self) {
        if let Err(fault) = fs::write(SWITCH, &self.before) {
            eprintln!("bench: put {SWITCH} back to {} by hand: {fault}", self.before.trim());
        }
    }
}

const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";
