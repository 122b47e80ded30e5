//! What the kernel lacks, each with what is lost: it is asked, not its version. It refuses to guess where it may not ask.

use super::Row;
use crate::kernel::Feature;

pub(super) fn rows() -> Vec<Row> {
    Feature::ALL.map(|feature| row(feature, feature.is_there().ok())).into()
}

/// `None`: this process may not ask.
fn row(feature: Feature, is_there: Option<bool>) -> Row {
    let (what, since, lost, mend) = facts(feature);
    match is_there {
        Some(true) => Row::good(what, "kernel has it"),
        Some(false) if feature.is_needed() => Row::missing(what, since, lost, mend),
        Some(false) => Row::less(what, since, lost, mend),
        None => Row::less(what, "not known without privileges", lost, "run `weir check` as root"),
    }
}

/// What, who has it, what is lost without it, what to do.
fn facts(feature: Feature) -> (&'static str, &'static str, &'static str, &'static str) {
    match feature {
        Feature::NetnsCookie => (
            "kernel: network namespaces in socket hooks",
            "the kernel does not have them (Linux 5.15 does)",
            "the fence: the agent does not start",
            "boot Linux 5.15 or newer",
        ),
        Feature::Birth => (
            "kernel: labels of new cgroups",
            "no tracepoints of cgroups, or no types that show them",
            "a restarted service is labelled a moment late, and not at all while the agent is dead: it goes direct",
            "use a kernel built with CONFIG_TRACEPOINTS, CONFIG_BPF_EVENTS and CONFIG_DEBUG_INFO_BTF",
        ),
        Feature::Errno => (
            "kernel: errors of refusals",
            "the kernel refuses with EPERM alone (Linux 5.18 lets hooks choose)",
            "refused workloads see EPERM instead of ECONNREFUSED or the server's own error",
            "boot Linux 5.18 or newer",
        ),
        Feature::Unix => (
            "kernel: unix sockets",
            "no connect_unix hook (Linux 6.7 has it)",
            "labelled workloads reach local PostgreSQL by its unix socket, unseen",
            "boot Linux 6.7 or newer, or keep such sockets out of their mount namespace",
        ),
        Feature::Preorder => (
            "kernel: order of hooks",
            "programs of child cgroups run first (Linux 6.15 lets the fence go first)",
            "a program that rewrites addresses on a workload's own cgroup falsifies the recorded destination",
            "boot Linux 6.15 or newer, or let nobody attach programs below",
        ),
        Feature::Destroy => (
            "kernel: ending connections",
            "no tcp_diag with CONFIG_INET_DIAG_DESTROY",
            "connections older than a label stay open, unseen",
            "modprobe tcp_diag, or use a kernel built with it; restart the workload",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn what_is_lacking_is_named_with_its_loss_and_only_what_is_needed_is_missing() {
        for feature in Feature::ALL {
            assert_eq!(row(feature, Some(true)).state, State::Good);
            let lacking = row(feature, Some(false));
            let expected = if feature.is_needed() { State::Missing } else { State::Less };
            assert_eq!(lacking.state, expected, "{feature:?}");
            assert!(!lacking.lost.is_empty() && !lacking.mend.is_empty());
            assert!(lacking.what.ends_with(feature.text()), "{feature:?}");
            assert_eq!(row(feature, None).state, State::Less, "an unprivileged look is no verdict");
        }
    }
}
