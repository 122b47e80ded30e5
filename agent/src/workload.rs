//! Cgroup → label → identity. Labels are set by path: of new cgroups by the kernel programs, of what is there by a walk;
//! the kernel hands a label's number back with each connection, and the identity is made here, once a connection.
//! It refuses to trust a process name, and to make an identity for a label that the configuration does not know.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Mutex;

use weir_core::identity::{Class, Identity, Process};

use crate::config::{Config, IdentityClass, Inbound, Person, Workload};
use crate::kernel::{Births, Fence, FenceError, cgroup};
use crate::listen::Origin;

pub mod executable;
mod form;
mod glob;
mod watch;

pub use watch::{Watch, walk};

/// Number of a label in the kernel: FNV-1a of its name, so that it means the same after a restart with another
/// configuration, and sockets stamped before it keep their meaning. Never 0, which is "no label".
#[must_use]
pub fn label(name: &str) -> u64 {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    hash.max(1)
}

/// A connection whose label the configuration does not know (any more): it must be refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the kernel's label {0:#x} belongs to no configured workload")]
pub struct UnknownLabel(pub u64);

/// Two workload names with one number.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("workloads {0:?} and {1:?} have the same number: rename one")]
pub struct SameNumber(String, String);

/// The configured workloads and the people behind uids.
#[derive(Debug)]
pub struct Workloads {
    by_label: HashMap<u64, Workload>,
    /// In the order of the configuration: the first match wins.
    patterns: Vec<(glob::Pattern, u64)>,
    /// Those that the kernel programs know.
    forms: form::Forms,
    people: Vec<Person>,
    executables: Mutex<executable::Cache>,
}

impl Workloads {
    /// # Errors
    /// Two names that share a number.
    pub fn new(config: &Config) -> Result<Self, SameNumber> {
        let mut by_label = HashMap::new();
        let mut patterns = Vec::new();
        for workload in &config.workloads {
            let number = label(&workload.name);
            if let Some(other) = by_label.insert(number, workload.clone()) {
                return Err(SameNumber(other.name, workload.name.clone()));
            }
            // `weir run` puts its commands here.
            patterns.push((glob::Pattern::new(&run_cgroup(&workload.name)), number));
        }
        for workload in &config.workloads {
            if let Some(cgroup) = &workload.cgroup {
                patterns.push((glob::Pattern::new(cgroup), label(&workload.name)));
            }
        }
        let forms = form::Forms::of(&patterns, config.workloads.len());
        Ok(Self { by_label, patterns, forms, people: config.people.clone(), executables: Mutex::default() })
    }

    /// Number for a cgroup path below the attach point; `None` is unlabelled by itself (its parents may be labelled).
    #[must_use]
    pub fn number_for(&self, path: &str) -> Option<u64> {
        self.patterns.iter().find(|(pattern, _)| pattern.matches(path)).map(|(_, number)| *number)
    }

    /// Patterns that the kernel programs cannot know, with the reason: their new cgroups are labelled by the watch.
    pub fn beyond_kernel(&self) -> impl Iterator<Item = (&str, &'static str)> {
        self.forms.beyond.iter().map(|(pattern, why)| (pattern.as_str(), *why))
    }

    /// Teaches the kernel programs, makes the cgroups of `weir run`, and labels everything that is there now. Labels
    /// that no longer hold are removed.
    ///
    /// # Errors
    /// A cgroup cannot be made or a label cannot be set.
    pub fn apply(&self, fence: &Fence) -> Result<(), FenceError> {
        if let Some(births) = fence.births() {
            births.learn(fence.tree().id(), &self.forms.patterns)?;
        }
        for workload in self.by_label.values() {
            let folder = fence.tree().make(&run_cgroup(&workload.name))?;
            cgroup::sweep(&folder);
        }
        let boxed: Vec<_> = self
            .by_label
            .iter()
            .filter_map(|(label, workload)| Some((*label, workload.name.as_str(), workload.unix.as_deref()?)))
            .collect();
        fence.boxed(&boxed)?;
        let closed = self.by_label.iter().filter(|(_, workload)| workload.inbound == Inbound::Deny);
        fence.uncalled(&closed.map(|(label, _)| *label).collect::<Vec<_>>())?;
        // Before the walk: what the kernel labels meanwhile is not ours to judge.
        let places = fence.births().map(Births::places).transpose()?.unwrap_or_default();
        let labels = fence.labels()?;
        let (mut wanted, mut found) = (HashMap::new(), HashMap::new());
        watch::walk(fence.tree().root(), &mut |folder| {
            let Some(below) = fence.tree().below(folder) else { return };
            let Ok(id) = cgroup::id(folder) else { return };
            wanted.extend(self.number_for(&below).map(|number| (id, number)));
            found.insert(id, self.forms.place(&below));
        });
        // New labels first: no cgroup is without one in between.
        for (id, number) in &wanted {
            if labels.get(id) != Some(number) {
                fence.label(*id, *number)?;
            }
        }
        for id in labels.keys().filter(|id| !wanted.contains_key(id)) {
            fence.unlabel(*id)?;
        }
        let Some(births) = fence.births() else { return Ok(()) };
        found.iter().try_for_each(|(id, (mask, depth))| births.place(*id, *mask, *depth))?;
        places.into_iter().filter(|id| !found.contains_key(id)).try_for_each(|id| births.forget(id))
    }

    /// Labels a cgroup that has just appeared, where the kernel has not done it.
    fn appeared(&self, fence: &Fence, folder: &Path) -> Result<(), FenceError> {
        let Some(below) = fence.tree().below(folder) else { return Ok(()) };
        let Ok(id) = cgroup::id(folder) else { return Ok(()) };
        if let Some(number) = self.number_for(&below) {
            fence.label(id, number)?;
        }
        if let Some(births) = fence.births() {
            let (mask, depth) = self.forms.place(&below);
            births.place(id, mask, depth)?;
        }
        // It may have gone meanwhile, and what the kernel removed has been written again.
        if cgroup::id(folder).ok() == Some(id) { Ok(()) } else { self.disappeared(fence, id) }
    }

    /// Forgets a cgroup that is gone.
    fn disappeared(&self, fence: &Fence, id: u64) -> Result<(), FenceError> {
        fence.unlabel(id)?;
        fence.births().map_or(Ok(()), |births| births.forget(id))
    }

    /// Every labelled cgroup and the cgroups below them, each once: id, folder, workload. The label deepest on the path
    /// holds.
    pub fn each_cgroup(&self, fence: &Fence, visit: &mut dyn FnMut(u64, &Path, &str)) {
        let mut visited = HashSet::new();
        for labelled in fence.labelled().unwrap_or_default() {
            watch::walk(&labelled, &mut |folder| {
                let Some(below) = fence.tree().below(folder) else { return };
                let (Some(workload), Ok(id)) = (self.of_path(&below), cgroup::id(folder)) else { return };
                if visited.insert(id) {
                    visit(id, folder, workload);
                }
            });
        }
    }

    /// The processes of all labelled cgroups, and of the cgroups below them.
    #[must_use]
    pub fn processes(&self, fence: &Fence) -> Vec<u32> {
        let mut pids = Vec::new();
        self.each_cgroup(fence, &mut |_, folder, _| {
            let text = std::fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
            pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
        });
        pids
    }

    /// The workload of a cgroup path below the attach point.
    pub fn of_path(&self, below: &str) -> Option<&str> {
        let mut labels = Path::new(below).ancestors().filter_map(Path::to_str);
        let number = labels.find_map(|path| self.number_for(path))?;
        self.by_label.get(&number).map(|workload| workload.name.as_str())
    }

    /// The workload whose label a process is under, by its cgroup and that cgroup's ancestors.
    ///
    /// # Errors
    /// The process is gone, or its cgroup cannot be read.
    pub fn of_process(&self, fence: &Fence, pid: u32) -> std::io::Result<Option<&str>> {
        let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        // cgroups(7): the unified hierarchy is the line with id 0 and no controllers.
        let path = groups.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
        let Some(below) = fence.tree().below(&fence.tree().mount().join(path)) else { return Ok(None) };
        Ok(self.of_path(&below))
    }

    /// The label, if it belongs to a workload of this configuration, else 0.
    #[must_use]
    pub fn known(&self, label: u64) -> u64 {
        if self.by_label.contains_key(&label) { label } else { 0 }
    }

    /// Who is behind a connection. Blocks for as long as hashing a new executable takes; results are kept.
    ///
    /// # Errors
    /// The label belongs to no workload of this configuration.
    pub fn identify(&self, fence: &Fence, origin: &Origin) -> Result<Identity, UnknownLabel> {
        let workload = self.by_label.get(&origin.label).ok_or(UnknownLabel(origin.label))?;
        let person = self.people.iter().find(|person| person.uids.contains(&origin.uid));
        let folder = fence.tree().folder_of(origin.cgroup);
        let cgroup = folder.and_then(|folder| fence.tree().below(&folder)).unwrap_or_default();
        let executable = executable::of(origin.pid, origin.start_time, &self.executables).unwrap_or_default();
        Ok(Identity {
            workload: workload.name.clone(),
            owner: workload.owner.clone(),
            user: person.map(|person| person.user.clone()).unwrap_or_default(),
            groups: person.map(|person| person.groups.clone()).unwrap_or_default(),
            class: class(workload.class),
            process: Process {
                pid: origin.pid,
                start_time: origin.start_time,
                uid: origin.uid,
                exe: executable.path,
                exe_sha256: executable.sha256,
                container: container(&cgroup),
                cgroup,
            },
        })
    }
}

/// Where `weir run --workload NAME` puts its commands, below the attach point.
#[must_use]
pub fn run_cgroup(name: &str) -> String {
    format!("weir.run/{name}")
}

fn class(class: IdentityClass) -> Class {
    match class {
        IdentityClass::Human => Class::Human,
        IdentityClass::Service => Class::Service,
        IdentityClass::Ci => Class::Ci,
        IdentityClass::Agent => Class::Agent,
    }
}

/// The id of the innermost container that a cgroup path names: 64 hex digits in a segment, as Docker, containerd,
/// CRI-O and Podman write them (`docker-<id>.scope`, `cri-containerd-<id>.scope`, `/docker/<id>`, `libpod-<id>.scope`).
fn container(path: &str) -> String {
    let id_of = |segment: &str| {
        let bare = segment.strip_suffix(".scope").unwrap_or(segment);
        let id = bare.rsplit('-').next()?;
        (id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| id.to_owned())
    };
    path.rsplit('/').find_map(id_of).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(workloads: &str) -> Config {
        let folder =
            std::env::temp_dir().join(format!("weir-workload-{}-{}", std::process::id(), label(workloads)));
        std::fs::write(&folder, format!("policies: /p\naudit: {{dir: /a}}\nworkloads: {workloads}\n"))
            .unwrap();
        let config = Config::load(&folder).unwrap();
        std::fs::remove_file(folder).unwrap();
        config
    }

    #[test]
    fn the_first_match_wins_and_runs_are_always_their_own() {
        let config = config(
            "[{name: a, cgroup: \"system.slice/pay*.service\"}, {name: b, cgroup: \"*/*.service\"}, {name: c}]",
        );
        let workloads = Workloads::new(&config).unwrap();
        assert_eq!(workloads.number_for("system.slice/pay-2.service"), Some(label("a")));
        assert_eq!(workloads.number_for("system.slice/web.service"), Some(label("b")));
        assert_eq!(workloads.number_for("weir.run/c"), Some(label("c")));
        assert_eq!(workloads.number_for("system.slice"), None);
    }

    #[test]
    fn containers_are_read_from_the_path() {
        let id = "0123456789abcdef".repeat(4);
        assert_eq!(container(&format!("system.slice/docker-{id}.scope")), id);
        assert_eq!(container(&format!("docker/{id}/init")), id);
        assert_eq!(container("system.slice/web.service"), "");
        assert_eq!(container(&format!("x/{}", &id[..63])), "");
    }

    #[test]
    fn labels_differ_and_are_never_zero() {
        assert_ne!(label("a"), label("b"));
        assert_ne!(label(""), 0);
    }
}
