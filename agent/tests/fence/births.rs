//! Cgroups that appear, with and without an agent: labelled before anybody can enter them. What the kernel programs say
//! is held against the patterns themselves, with random patterns and names.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use weir::kernel::{Fence, Pins, Plain, Table, bpffs, cgroup};
use weir::workload::Workloads;
use weir_ebpf::{Place, map};

use crate::stage::{Stage, check};

/// Often enough that a race would be lost now and then.
const OFTEN: u32 = 200;
/// Often enough that nothing was luck.
const SOME: u32 = 10;

pub fn live(stage: &mut Stage) {
    if !stage.has("birth") {
        println!("  (this kernel takes no program for new cgroups)");
        return;
    }
    make(stage, &["alpha", "beta", "alpha/deep"]);
    let seen = newborn(stage, "units/pay-2.service", OFTEN);
    check("200 new units are labelled before their first connection", seen == "turned workload=units", &seen);
    let seen = newborn(stage, "units/web-2.service", SOME);
    check("other new units are not", seen == "direct ", &seen);
    let seen = newborn(stage, "alpha/b-1.service", SOME);
    check("nested patterns", seen == "turned workload=nested", &seen);
    let soon = std::time::Duration::from_millis(200);
    let [v4, ..] = stage.servers();
    let seen = stage.new_unit("x1y2z", soon, &["tcp", &v4]);
    check("the watch labels what the kernel cannot", seen.contains("workload=stars "), &seen);
    for other in ["beta/b-1.service", "alpha/c.service", "alpha/deep/b-1.service", "b-1.service"] {
        let seen = newborn(stage, other, SOME);
        check(&format!("nested patterns do not fit {other}"), seen == "direct ", &seen);
    }
    walks_meanwhile(stage);
    full_maps(stage, &|seen| seen.starts_with("turned "));
}

/// A walk over the whole tree removes labels that no longer hold, while others make cgroups.
fn walks_meanwhile(stage: &Stage) {
    let workloads = Workloads::new(&weir::config::Config::load(&stage.config()).unwrap()).unwrap();
    let (root, pins) = (stage.root(), Pins::open(&pins(stage)).unwrap());
    let (over, lost) = (AtomicBool::new(false), AtomicU32::new(0));
    let born = std::thread::scope(|threads| {
        let makes = threads.spawn(|| {
            let mut born = 0_u32;
            while !over.load(Ordering::Relaxed) {
                let folder = root.join(format!("units/pay-{born}-meanwhile.service"));
                std::fs::create_dir(&folder).unwrap();
                let id = cgroup::id(&folder).unwrap();
                // For about as long as a walk takes.
                for _ in 0..50 {
                    let is_there = pins.labels.lookup(&id).unwrap().is_some();
                    lost.fetch_add(u32::from(!is_there), Ordering::Relaxed);
                }
                std::fs::remove_dir(&folder).unwrap();
                born += 1;
            }
            born
        });
        (0..300).for_each(|_| workloads.apply(stage.fence()).unwrap());
        over.store(true, Ordering::Relaxed);
        makes.join().unwrap()
    });
    let lost = lost.into_inner();
    check("no walk takes a new cgroup's label away", lost == 0 && born > 100, &format!("{lost} of {born}"));
}

pub fn dead(stage: &mut Stage) {
    if !stage.has("birth") {
        return;
    }
    stage.kill_agent();
    let seen = newborn(stage, "units/pay-3.service", OFTEN);
    check("a dead agent: 200 new units are refused", is_refused(stage, &seen), &seen);
    let seen = newborn(stage, "units/web-3.service", SOME);
    check("a dead agent: other new units go direct", seen == "direct ", &seen);
    let seen = newborn(stage, "alpha/b-1.service", SOME);
    check("a dead agent: nested patterns", is_refused(stage, &seen), &seen);
    make(stage, &["always"]);
    let seen = newborn(stage, "always/b-1.service", SOME);
    check("a dead agent: below a cgroup that is as new", is_refused(stage, &seen), &seen);

    let before = known(stage);
    let id = make(stage, &["units/pay-4.service"])[0];
    check("a new cgroup has its label", labels(stage).contains_key(&id), "none");
    std::fs::remove_dir(stage.root().join("units/pay-4.service")).unwrap();
    std::fs::remove_dir(stage.root().join("always")).unwrap();
    check("a removed one has none", known(stage) < before, &format!("{:?}", known(stage)));
    check("and its label is gone", !labels(stage).contains_key(&id), "it stays");

    full_maps(stage, &|seen| is_refused(stage, seen));
    full_places(stage);
    spilled(stage);
    until_an_agent_comes(stage);
    names_of_any_length(stage);
    random_patterns(stage);
    foreign_hierarchies(stage);
    stage.raise_again();
}

/// At first by the closed port, then by the hooks.
fn is_refused(stage: &Stage, seen: &str) -> bool {
    let refusal = stage.refusal("ECONNREFUSED");
    seen.split(" and ").all(|errno| errno.trim() == "ECONNREFUSED" || errno.trim() == refusal)
}

/// So many times: made, entered, connected from, left, removed.
fn newborn(stage: &Stage, cgroup: &str, times: u32) -> String {
    let [v4, ..] = stage.servers();
    let folder = stage.root().join(cgroup);
    stage.plain(&["newborn-tcp", &v4, folder.to_str().unwrap(), &times.to_string()])
}

fn make(stage: &Stage, paths: &[&str]) -> Vec<u64> {
    let folders = paths.iter().map(|path| stage.root().join(path));
    folders
        .map(|folder| std::fs::create_dir_all(&folder).and_then(|()| cgroup::id(&folder)).unwrap())
        .collect()
}

fn pins(stage: &Stage) -> PathBuf {
    bpffs::folder(&stage.settings().bpffs)
}

fn labels(stage: &Stage) -> HashMap<u64, u64> {
    Pins::open(&pins(stage)).unwrap().labels.entries().unwrap().into_iter().collect()
}

fn places(stage: &Stage) -> Table<u64, Place> {
    Table::open(&pins(stage), map::PLACES).unwrap()
}

/// How many labels and places there are.
fn known(stage: &Stage) -> (usize, usize) {
    (labels(stage).len(), places(stage).entries().unwrap().len())
}

/// An agent comes with these patterns, and dies.
fn come_and_go(stage: &Stage, patterns: &[String]) -> Workloads {
    let mut text = String::from("policies: /nowhere\naudit: {dir: /nowhere}\nworkloads:\n");
    for (number, pattern) in patterns.iter().enumerate() {
        text += &format!("  - {{name: w{number}, cgroup: \"{pattern}\"}}\n");
    }
    let path = stage.folder().join("births.yaml");
    std::fs::write(&path, text).unwrap();
    let workloads = Workloads::new(&weir::config::Config::load(&path).unwrap()).unwrap();
    let fence = Fence::raise(stage.settings()).unwrap();
    workloads.apply(&fence).unwrap();
    // As the agent does: what appeared between the walks is found by the second.
    workloads.apply(&fence).unwrap();
    workloads
}

/// Makes every path, then holds the kernel's labels against the patterns; removes what it made.
#[track_caller]
fn agree(stage: &Stage, workloads: &Workloads, paths: &[String]) -> usize {
    let before = known(stage);
    let mut made = Vec::new();
    for path in paths {
        let mut folder = stage.root();
        for segment in path.split('/') {
            folder.push(segment);
            if std::fs::create_dir(&folder).is_ok() {
                made.push(folder.clone());
            }
        }
    }
    let labels = labels(stage);
    let mut labelled = 0;
    for folder in &made {
        let path = folder.strip_prefix(stage.root()).unwrap().to_str().unwrap();
        let (said, wanted) = (labels.get(&cgroup::id(folder).unwrap()).copied(), workloads.number_for(path));
        assert_eq!(said, wanted, "FAILED the kernel's label for {path:?}");
        labelled += usize::from(wanted.is_some());
    }
    for folder in made.iter().rev() {
        std::fs::remove_dir(folder).unwrap();
    }
    assert_eq!(known(stage), before, "FAILED the maps after all removals");
    labelled
}

/// A map without room for another cgroup, until it is dropped. No cgroup has such ids.
struct Full<V: Plain> {
    table: Table<u64, V>,
    ids: Vec<u64>,
}

impl<V: Plain> Full<V> {
    fn fill(stage: &Stage, name: &'static str) -> Self {
        let table: Table<u64, V> = Table::open(&pins(stage), name).unwrap();
        let ids = (1_u64..20_000).map(|id| u64::MAX - id);
        let ids: Vec<u64> = ids.take_while(|id| table.insert(id, &V::zeroed()).is_ok()).collect();
        assert!(ids.len() > 10_000 && ids.len() < 19_000, "{name} took {}", ids.len());
        Self { table, ids }
    }
}

impl<V: Plain> Drop for Full<V> {
    fn drop(&mut self) {
        self.ids.iter().for_each(|id| self.table.remove(id).unwrap());
    }
}

fn counted(stage: &Stage, name: &str) -> u64 {
    let pins = Pins::open(&pins(stage)).unwrap();
    pins.counters().unwrap().iter().find(|(found, _)| *found == name).unwrap().1
}

/// What no map has room for is refused, and nothing else is. With a living agent `labelled` is turned, else refused.
fn full_maps(stage: &Stage, labelled: &dyn Fn(&str) -> bool) {
    let refused = |seen: &str| seen.trim() == "EPERM";
    make(stage, &["alpha"]);
    let labels = Full::<u64>::fill(stage, map::LABELS);
    let before = (counted(stage, "unlabelled"), counted(stage, "crowded"));
    let seen = newborn(stage, "units/pay-5.service", SOME);
    check("labels without room: a new unit is refused", refused(&seen), &seen);
    let after = (counted(stage, "unlabelled"), counted(stage, "crowded"));
    let some = u64::from(SOME);
    check(
        "and counted",
        after.0 == before.0 + some && after.1 >= before.1 + some,
        &format!("{before:?} {after:?}"),
    );
    for other in ["units/web-5.service", "alpha/c.service", "beta/b-1.service"] {
        let seen = newborn(stage, other, SOME);
        check(&format!("labels without room: {other} goes direct"), seen == "direct ", &seen);
    }
    let [v4, ..] = stage.servers();
    let seen = stage.labelled(&["tcp", &v4]);
    check("labels without room: who has one keeps it", labelled(&seen), &seen);
    drop(labels);
    let seen = newborn(stage, "units/pay-5.service", SOME);
    check("room again: a new unit is labelled", labelled(&seen), &seen);
}

/// Born without room it is refused, also when there is room again, until an agent comes.
fn until_an_agent_comes(stage: &mut Stage) {
    let labels = Full::<u64>::fill(stage, map::LABELS);
    make(stage, &["units/pay-6.service"]);
    drop(labels);
    let seen = inside(stage, "units/pay-6.service");
    check("one that was born without room stays refused", seen == "EPERM", &seen);
    stage.raise_again();
    let seen = inside(stage, "units/pay-6.service");
    check("an agent that comes labels it", seen.starts_with("turned "), &seen);
    stage.kill_agent();
    std::fs::remove_dir(stage.root().join("units/pay-6.service")).unwrap();
}

/// A process that enters this cgroup and connects.
fn inside(stage: &Stage, cgroup: &str) -> String {
    let [v4, ..] = stage.servers();
    stage.plain(&["entering-tcp", &v4, stage.root().join(cgroup).to_str().unwrap()])
}

/// Nobody can tell what belongs below a cgroup that has no place. A living agent's watch may tell it in time.
fn full_places(stage: &Stage) {
    let places = Full::<Place>::fill(stage, map::PLACES);
    make(stage, &["adam"]);
    for below in ["adam/b-1.service", "adam/c.service"] {
        let seen = newborn(stage, below, SOME);
        check(&format!("places without room: {below} is refused"), seen.trim() == "EPERM", &seen);
    }
    let seen = newborn(stage, "elsewhere", SOME);
    check("places without room: a cgroup beside it goes direct", seen == "direct ", &seen);
    drop(places);
    std::fs::remove_dir(stage.root().join("adam")).unwrap();
}

/// Not even the map of those without room has room: the parent knows from which child on.
fn spilled(stage: &Stage) {
    let refused = |seen: &str| seen.trim() == "EPERM";
    make(stage, &["alpha", "units/web-old.service"]);
    let (labels, crowded) = (Full::<u64>::fill(stage, map::LABELS), Full::<u64>::fill(stage, map::CROWDED));
    let seen = newborn(stage, "units/web-6.service", SOME);
    check("both maps without room: another new unit goes direct", seen == "direct ", &seen);
    let seen = newborn(stage, "units/pay-7.service", SOME);
    check("both maps without room: a new unit is refused", refused(&seen), &seen);
    let seen = inside(stage, "units/web-old.service");
    check("an older cgroup beside it goes direct", seen.starts_with("direct "), &seen);
    for other in ["alpha/c.service", "beta/b-1.service", "elsewhere"] {
        let seen = newborn(stage, other, SOME);
        check(&format!("both maps without room: {other} goes direct"), seen == "direct ", &seen);
    }
    let seen = newborn(stage, "units/web-7.service", SOME);
    check("younger ones beside it are refused with it", refused(&seen), &seen);
    drop((labels, crowded));
    std::fs::remove_dir(stage.root().join("units/web-old.service")).unwrap();
}

fn names_of_any_length(stage: &Stage) {
    let long = |count: usize| "n".repeat(count);
    let (n64, n128) = (long(64), long(128));
    let patterns = [
        format!("{n64}*{n64}"),
        n128.clone(),
        format!("*{n64}e"),
        format!("{}.scope", long(58)),
        "q*q".into(),
    ];
    let workloads = come_and_go(stage, &patterns);
    let beyond: Vec<_> = workloads.beyond_kernel().map(|(pattern, _)| pattern.to_owned()).collect();
    check("a part of more than 64 bytes is named", beyond == [format!("*{n64}e")], &format!("{beyond:?}"));
    let mut paths: Vec<String> = [1, 63, 64, 65, 127, 129, 191, 192, 254, 255].map(long).into();
    paths.push(n128);
    paths.extend([
        format!("{}.scope", long(58)),
        format!("{}.scope", long(59)),
        "q".into(),
        "qq".into(),
        "qqq".into(),
    ]);
    paths.push(format!("q{}q", long(253)));
    let labelled = agree(stage, &workloads, &paths);
    check("names of any length", labelled == 10, &labelled.to_string());
}

fn random_patterns(stage: &Stage) {
    let mut random = Random(u64::from(std::process::id()));
    println!("  (random patterns from {})", random.0);
    let mut labelled = 0;
    for _ in 0..8 {
        let patterns: Vec<String> = (0..30).map(|_| random.path(true)).collect();
        let workloads = come_and_go(stage, &patterns);
        assert_eq!(workloads.beyond_kernel().count(), 0);
        let paths: Vec<String> = (0..150).map(|_| random.path(false)).collect();
        labelled += agree(stage, &workloads, &paths);
    }
    check("random names under random patterns, banks in turn", labelled > 100, &labelled.to_string());
}

/// Cgroups of v1 have ids of their own, which may be the same numbers: its roots and v2's have all the same one.
fn foreign_hierarchies(stage: &Stage) {
    let name = format!("weir-test-{}-foreign", std::process::id());
    come_and_go(stage, std::slice::from_ref(&name));
    let tree = cgroup::Tree::open("/").unwrap();
    let places = places(stage);
    let own = places.lookup(&cgroup::id(&stage.root()).unwrap()).unwrap().unwrap();
    places.insert(&cgroup::id(tree.root()).unwrap(), &own).unwrap();
    let before = labels(stage).len();
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    for line in table.lines().filter(|line| line.contains(" - cgroup")) {
        let root = PathBuf::from(line.split(' ').nth(4).unwrap());
        let folder = root.join(&name);
        // A read-only mount proves nothing.
        if std::fs::create_dir(&folder).is_err() {
            continue;
        }
        let labelled = labels(stage).len() - before;
        std::fs::remove_dir(&folder).unwrap();
        let is_ours = root == tree.root();
        check(
            &format!("a cgroup in {} is labelled: {is_ours}", root.display()),
            labelled == usize::from(is_ours),
            &labelled.to_string(),
        );
    }
    places.remove(&cgroup::id(tree.root()).unwrap()).unwrap();
}

/// Linear congruential: enough to choose by, and the same again from the same number.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    fn text(&mut self) -> String {
        (0..self.below(3)).map(|_| ['g', 'h'][self.below(2) as usize]).collect()
    }

    /// A path of one to four short segments of two letters, so that many fit; they clash with nothing on the stage.
    fn path(&mut self, star: bool) -> String {
        let segments = (0..=self.below(4)).map(|_| {
            let middle = if star && self.below(2) == 0 { "*" } else { "g" };
            format!("{}{middle}{}", self.text(), self.text())
        });
        segments.collect::<Vec<_>>().join("/")
    }
}
