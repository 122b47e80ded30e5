//! What is the agent's alone: its folders, its memory.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};

use weir_tests::process::until;
use weir_tests::{Agent, Lab, Setup, policies};

/// Soft and hard limit of a core file's size.
fn core_limit(pid: u32) -> String {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
    line.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
}

#[test]
fn neither_folders_nor_memory_are_anybody_elses() {
    let lab = Lab::new("private").unwrap();
    let setup =
        Setup::default().policy("classes.yaml", policies::CLASSES).policy("web.yaml", &policies::web(9));
    let agent = Agent::start(&lab, &setup).unwrap();
    let pins = lab.pins().unwrap();
    for folder in [lab.dir().join("bpf"), pins, lab.dir().join("audit")] {
        assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o777, 0o700, "{}", folder.display());
    }

    let status = agent.status().unwrap();
    let relay = u32::try_from(status["relay"]["pid"].as_u64().unwrap()).unwrap();
    for pid in [agent.pid(), relay] {
        assert_eq!(core_limit(pid), "0 0");
    }
    // Of a process that may not be dumped, /proc shows root's files, whoever it runs as (proc(5)).
    let uid = status["relay"]["uid"].as_u64().unwrap();
    assert_ne!(uid, 0);
    let owner = |pid: u32| fs::metadata(format!("/proc/{pid}/environ")).unwrap().uid();
    assert_eq!(owner(relay), 0);
    let mut control = Command::new("setpriv");
    control.args(["--reuid", &uid.to_string(), "--clear-groups", "sleep", "60"]).stdin(Stdio::null());
    let mut control = control.spawn().unwrap();
    until("another process of that user may be dumped", || u64::from(owner(control.id())) == uid).unwrap();
    control.kill().unwrap();
    control.wait().unwrap();
}
