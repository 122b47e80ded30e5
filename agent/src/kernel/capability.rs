//! What this process may do, by its effective set.
//! It refuses to guess: without /proc it says that nothing is held.

/// Without these no fence can be raised: name and bit (linux/capability.h).
pub const NEEDED: [(&str, u32); 3] = [("CAP_BPF", 39), ("CAP_NET_ADMIN", NET_ADMIN), ("CAP_PERFMON", 38)];

/// The effective set, from the text of `/proc/PID/status`.
#[must_use]
pub fn held(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[must_use]
pub fn has(held: u64, bit: u32) -> bool {
    held >> bit & 1 == 1
}

/// Those of [`NEEDED`] that are not held.
pub(super) fn missing() -> Vec<&'static str> {
    let held = held(&std::fs::read_to_string("/proc/self/status").unwrap_or_default());
    NEEDED
        .iter()
        .filter(|(_, bit)| !has(held, *bit) && !stands_in(held, *bit))
        .map(|(name, _)| *name)
        .collect()
}

/// CAP_SYS_ADMIN still counts as CAP_BPF and CAP_PERFMON (capabilities(7)).
fn stands_in(held: u64, bit: u32) -> bool {
    bit != NET_ADMIN && has(held, SYS_ADMIN)
}

const NET_ADMIN: u32 = 12;
const SYS_ADMIN: u32 = 21;
