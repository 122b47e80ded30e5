//! The configured labels against what is there: cgroups that a pattern matches, and labelled systemd units that could
//! start without the fence or open sockets past it. It refuses to guess where systemd does not run.

use std::path::Path;
use std::process::Command;

use super::Row;
use crate::config::Config;
use crate::kernel::Tree;
use crate::workload::{Workloads, label, run_cgroup};

/// The unit that raises the fence at boot, and the agent's.
const FENCE_UNITS: [&str; 2] = ["weir-fence.service", "weir.service"];

pub(super) fn rows(config: &Config) -> Vec<Row> {
    let Ok(workloads) = Workloads::new(config) else { return Vec::new() };
    let mut rows = unmatched(config, &workloads);
    if Path::new("/run/systemd/system").exists() {
        let properties = "--property=Id,ControlGroup,Requires,BindsTo,RestrictAddressFamilies";
        let shown = Command::new("systemctl").args(["show", "*.service", properties]).output();
        let text =
            shown.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        rows.extend(units(&text, &config.fence.attach, &workloads));
    }
    rows
}

/// Workloads whose pattern matches no cgroup there is.
fn unmatched(config: &Config, workloads: &Workloads) -> Vec<Row> {
    // Looking must not make it.
    if !Tree::is_there(&config.fence.attach) {
        return Vec::new();
    }
    let Ok(tree) = Tree::open(&config.fence.attach) else { return Vec::new() };
    let mut found = Vec::new();
    crate::workload::walk(tree.root(), &mut |folder| {
        // The cgroups of `weir run` say nothing of the pattern: they are there because the agent is.
        let below = tree.below(folder).filter(|below| !below.starts_with(&run_cgroup("")));
        found.extend(below.and_then(|below| workloads.number_for(&below)));
    });
    let named = config.workloads.iter().filter_map(|workload| Some((workload, workload.cgroup.as_ref()?)));
    let idle = named.filter(|(workload, _)| !found.contains(&label(&workload.name)));
    idle.map(|(workload, pattern)| {
        Row::less(
            "workload",
            format!("{}: no cgroup matches {pattern:?} now", workload.name),
            "nothing is labelled by it until one appears",
            "compare it with /proc/PID/cgroup; it is relative to fence.attach",
        )
    })
    .collect()
}

/// Of `systemctl show`: blocks of `Name=value` lines with an empty line between them.
fn units(text: &str, attach: &str, workloads: &Workloads) -> Vec<Row> {
    let mut rows = Vec::new();
    for block in text.split("\n\n") {
        let value = |name: &str| {
            block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).unwrap_or_default()
        };
        let unit = value("Id");
        let Some(below) = value("ControlGroup").strip_prefix(attach.trim_end_matches('/')) else { continue };
        if below.is_empty() || workloads.number_for(below.trim_start_matches('/')).is_none() {
            continue;
        }
        let needed = [value("Requires"), value("BindsTo")].join(" ");
        if !needed.split(' ').any(|other| FENCE_UNITS.contains(&other)) {
            rows.push(Row::less(
                "unit",
                format!("{unit} does not require weir-fence.service"),
                "it starts at boot also when the fence could not be raised",
                format!(
                    "`systemctl edit {unit}`: [Unit] Requires=weir-fence.service After=weir-fence.service"
                ),
            ));
        }
        let families = value("RestrictAddressFamilies");
        if families.is_empty() || families.starts_with('~') {
            rows.push(Row::less(
                "unit",
                format!("{unit} may open sockets of any family"),
                "AF_VSOCK, AF_PACKET and others lead past the fence",
                format!("`systemctl edit {unit}`: [Service] RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK"),
            ));
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labelled_units_without_fence_or_with_every_family_are_named() {
        let file = std::env::temp_dir().join(format!("weir-units-{}", std::process::id()));
        let text = "policies: /p\naudit: {dir: /a}\nworkloads: [{name: pay, cgroup: \"system.slice/pay*.service\"}]\n";
        std::fs::write(&file, text).unwrap();
        let config = Config::load(&file).unwrap();
        std::fs::remove_file(file).unwrap();
        let workloads = Workloads::new(&config).unwrap();
        let shown = "Id=web.service\nControlGroup=/system.slice/web.service\nRequires=\n\n\
                     Id=pay-1.service\nControlGroup=/system.slice/pay-1.service\nRequires=sysinit.target\nBindsTo=\n\
                     RestrictAddressFamilies=\n\n\
                     Id=pay-2.service\nControlGroup=/system.slice/pay-2.service\nRequires=weir-fence.service system.slice\n\
                     RestrictAddressFamilies=AF_UNIX AF_INET\n\nId=pay-3.service\nControlGroup=\n";
        let found: Vec<String> = units(shown, "/", &workloads).into_iter().map(|row| row.found).collect();
        let named = [
            "pay-1.service does not require weir-fence.service",
            "pay-1.service may open sockets of any family",
        ];
        assert_eq!(found, named);
        assert!(units("", "/", &workloads).is_empty());
        assert!(units("garbage\n\n=\n", "/x", &workloads).is_empty());
    }
}
