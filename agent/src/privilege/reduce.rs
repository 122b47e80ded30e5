//! What the agent keeps of root's power, from before its first thread on. It refuses to start with more than the list
//! below, to leave a core file, and to let a program that it starts gain anything.

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, remove_capability_from_bounding_set, set_capabilities,
    set_no_new_privs,
};

/// Why each is kept. An agent that was given fewer goes on with fewer; `weir check` says what is lost then.
const KEPT: [(CapabilitySet, &str); 10] = [
    (CapabilitySet::BPF, "programs and maps, also after an upgrade"),
    (CapabilitySet::PERFMON, "programs that read kernel structures"),
    (CapabilitySet::NET_ADMIN, "attaching to cgroups, marks and devices of upstream sockets, ending strays"),
    (CapabilitySet::SYS_ADMIN, "sockets inside other network namespaces; mounting bpffs"),
    (CapabilitySet::SYS_PTRACE, "executables and sockets of other users' processes"),
    (CapabilitySet::DAC_READ_SEARCH, "cgroups by id; hashing executables"),
    (CapabilitySet::DAC_OVERRIDE, "its own files where they belong to another user"),
    (CapabilitySet::SETUID, "the relaying process's own user"),
    (CapabilitySet::SETGID, "the same, its group"),
    (CapabilitySet::KILL, "ending the relaying process, which is another user's"),
];

/// Gives up everything else for this thread and all that come from it.
///
/// # Errors
/// The kernel refuses, which it has no reason to.
pub fn to_what_is_needed() -> std::io::Result<()> {
    set_no_new_privs(true)?;
    // The CA's key and the secrets live in memory: no core file, and no look from outside but root's.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    let kept = KEPT.iter().fold(CapabilitySet::empty(), |kept, (one, _)| kept | *one);
    let held = capabilities(None)?;
    for one in CapabilitySet::all().difference(kept) {
        // Without CAP_SETPCAP, or for one that this kernel does not know, the bounding set stays; no_new_privs holds.
        let _ = remove_capability_from_bounding_set(one);
    }
    let reduced = CapabilitySets {
        effective: held.effective & kept,
        permitted: held.permitted & kept,
        inheritable: CapabilitySet::empty(),
    };
    Ok(set_capabilities(None, reduced)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_the_list_is_left_to_the_thread_and_its_children() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        // On a thread of its own: what is given up is gone for good. The core limit is the process's; no test wants one.
        let status = std::thread::spawn(|| {
            to_what_is_needed().unwrap();
            let child = std::thread::spawn(|| std::fs::read_to_string("/proc/thread-self/status").unwrap());
            child.join().unwrap()
        });
        let status = status.join().unwrap();
        set_dumpable_behavior(DumpableBehavior::Dumpable).unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            u64::from_str_radix(line.trim(), 16).unwrap()
        };
        let kept = KEPT.iter().fold(CapabilitySet::empty(), |kept, (one, _)| kept | *one).bits();
        assert_eq!(field("CapEff:") & !kept, 0, "{status}");
        assert_eq!(field("CapPrm:") & !kept, 0);
        assert_eq!((field("CapInh:"), field("NoNewPrivs:")), (0, 1));
        assert_ne!(field("CapEff:"), 0, "it can still do its work");
    }
}
