//! The configured labels against what is there: cgroups that a pattern matches, and labelled systemd units that could
//! start without the fence or open sockets past it. It refuses to guess where systemd does not run.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

use super::Row;
use crate::config::Config;
use crate::kernel::Tree;
use crate::workload::{Workloads, label, run_cgroup};

/// The unit that raises the fence at boot. The agent's own will not do: it counts as started before the fence stands.
const FENCE_UNIT: &str = "weir-fence.service";

/// A service whose cgroup is labelled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Labelled {
    pub(crate) name: String,
    /// It does not start without the fence, and not before it.
    pub(crate) waits: bool,
    /// It belongs to the early boot, on which the fence itself waits.
    pub(crate) is_early: bool,
    /// It may open sockets of any family.
    any_family: bool,
}

pub(super) fn rows(config: &Config) -> Vec<Row> {
    let Ok(workloads) = Workloads::new(config) else { return Vec::new() };
    let mut rows = unmatched(config, &workloads);
    match labelled(config, &workloads) {
        Ok(units) => rows.extend(units.iter().flat_map(judge)),
        Err(fault) => rows.push(Row::less(
            "unit",
            format!("{fault:#}"),
            "nobody knows which labelled units wait for the fence",
            "ask again when systemd answers",
        )),
    }
    rows
}

/// Every service that is labelled, or will be once it is started (instances of templates: only those that are loaded);
/// none where systemd does not run.
///
/// # Errors
/// systemd does not answer.
pub(crate) fn labelled(config: &Config, workloads: &Workloads) -> anyhow::Result<Vec<Labelled>> {
    if !Path::new("/run/systemd/system").exists() {
        return Ok(Vec::new());
    }
    let ask = |words: &[&str]| {
        let output = Command::new("systemctl").args(words).output().context("systemctl cannot be started")?;
        if output.stdout.is_empty() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("systemctl {} says nothing: {}", words.first().unwrap_or(&""), said.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let files = ask(&["list-unit-files", "--type=service", "--no-legend", "--plain", "--no-pager"])?;
    // A template is no unit.
    let names = files.lines().filter_map(|line| line.split_whitespace().next());
    let names: Vec<&str> = names.filter(|name| !name.contains("@.")).collect();
    let properties =
        "--property=Id,Slice,ControlGroup,Requires,BindsTo,After,DefaultDependencies,RestrictAddressFamilies";
    let shown = ask(&[&["show", "--no-pager", properties, "*.service"], &names[..]].concat())?;
    Ok(of(&shown, &config.fence.attach, workloads))
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
fn of(text: &str, attach: &str, workloads: &Workloads) -> Vec<Labelled> {
    let mut units = BTreeMap::new();
    for block in text.split("\n\n") {
        let value = |name: &str| {
            block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).unwrap_or_default()
        };
        let name = value("Id");
        let cgroup = match value("ControlGroup") {
            // One that is not started has none yet.
            "" => format!("{}/{name}", slice_path(value("Slice"))),
            cgroup => cgroup.to_owned(),
        };
        let Some(below) = cgroup.strip_prefix(attach.trim_end_matches('/')) else { continue };
        let is_ours = [FENCE_UNIT, "weir.service"].contains(&name);
        if name.is_empty() || is_ours || workloads.of_path(below.trim_start_matches('/')).is_none() {
            continue;
        }
        let has = |list: &str| value(list).split(' ').any(|other| other == FENCE_UNIT);
        let families = value("RestrictAddressFamilies");
        let unit = Labelled {
            name: name.into(),
            waits: (has("Requires") || has("BindsTo")) && has("After"),
            is_early: value("DefaultDependencies") == "no",
            any_family: families.is_empty() || families.starts_with('~'),
        };
        units.insert(unit.name.clone(), unit);
    }
    units.into_values().collect()
}

/// The cgroup of a slice: `a-b.slice` is `/a.slice/a-b.slice` (systemd.slice(5)).
fn slice_path(slice: &str) -> String {
    // The root slice is called "-".
    let stem = slice.strip_suffix(".slice").filter(|stem| *stem != "-").unwrap_or_default();
    let ends = stem.match_indices('-').map(|(at, _)| at).chain([stem.len()]);
    let parts = ends.filter_map(|end| stem.get(..end)).filter(|part| !part.is_empty());
    parts.map(|part| format!("/{part}.slice")).collect()
}

fn judge(unit: &Labelled) -> Vec<Row> {
    let name = &unit.name;
    let mut rows = Vec::new();
    if !unit.waits && unit.is_early {
        rows.push(Row::less(
            "unit",
            format!("{name} starts in the early boot (DefaultDependencies=no), before {FENCE_UNIT} can"),
            "what it sends then does not pass the fence",
            "label it only if it sends nothing that early, or give it its default dependencies",
        ));
    } else if !unit.waits {
        rows.push(Row::less(
            "unit",
            format!("{name} does not wait for {FENCE_UNIT}"),
            "at boot it starts before the fence, or without it",
            "`weir fence --drop-ins /etc/systemd/system`, then `systemctl daemon-reload`",
        ));
    }
    if unit.any_family {
        rows.push(Row::less(
            "unit",
            format!("{name} may open sockets of any family"),
            "AF_VSOCK, AF_PACKET and others lead past the fence",
            format!("`systemctl edit {name}`, and below [Service]: RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK"),
        ));
    }
    rows
}

/// What makes a unit wait for the fence.
pub(crate) fn drop_in() -> String {
    format!(
        "# Written by `weir fence --drop-ins`: a labelled unit starts after the fence, and not without it.\n\
         [Unit]\nRequires={FENCE_UNIT}\nAfter={FENCE_UNIT}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labelled_units_without_fence_or_with_every_family_are_named() {
        let file = std::env::temp_dir().join(format!("weir-units-{}", std::process::id()));
        let text = "policies: /p\naudit: {dir: /a}\nworkloads: [{name: pay, cgroup: \"system.slice/pay*.service\"}, \
             {name: jobs, cgroup: \"jobs.slice\"}]\n";
        std::fs::write(&file, text).unwrap();
        let config = Config::load(&file).unwrap();
        std::fs::remove_file(file).unwrap();
        let workloads = Workloads::new(&config).unwrap();
        let shown = "Id=web.service\nControlGroup=/system.slice/web.service\nRequires=\n\n\
                     Id=pay-1.service\nControlGroup=/system.slice/pay-1.service\nRequires=sysinit.target\nBindsTo=\n\
                     RestrictAddressFamilies=\n\n\
                     Id=pay-2.service\nControlGroup=/system.slice/pay-2.service\nRequires=weir-fence.service system.slice\n\
                     After=weir-fence.service basic.target\nRestrictAddressFamilies=AF_UNIX AF_INET\n\n\
                     Id=pay-3.service\nSlice=system.slice\nControlGroup=\nRequires=weir-fence.service\nAfter=basic.target\n\
                     RestrictAddressFamilies=AF_UNIX\n\n\
                     Id=pay-1.service\nControlGroup=/system.slice/pay-1.service\n\n\
                     Id=in.service\nSlice=jobs-night.slice\nControlGroup=\n\n\
                     Id=pay-early.service\nSlice=system.slice\nDefaultDependencies=no\nRestrictAddressFamilies=AF_UNIX\n";
        let found: Vec<String> =
            of(shown, "/", &workloads).iter().flat_map(judge).map(|row| row.found).collect();
        let named = [
            "in.service does not wait for weir-fence.service",
            "in.service may open sockets of any family",
            "pay-1.service does not wait for weir-fence.service",
            "pay-1.service may open sockets of any family",
            "pay-3.service does not wait for weir-fence.service",
            "pay-early.service starts in the early boot (DefaultDependencies=no), before weir-fence.service can",
        ];
        assert_eq!(found, named);
        assert!(of("", "/", &workloads).is_empty());
        assert!(of("garbage\n\n=\n", "/x", &workloads).is_empty());
        assert_eq!(slice_path("-.slice"), "");
        assert_eq!(slice_path("a-b-c.slice"), "/a.slice/a-b.slice/a-b-c.slice");
    }
}
