//! Cgroups that appear, with and without an agent: labelled before anybody can enter them. What the kernel programs say
//! is held against the patterns themselves, with random patterns and names.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use weir::kernel::{Fence, Pins, Table, bpffs, cgroup};
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

    a_full_map_is_counted(stage);
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

fn a_full_map_is_counted(stage: &Stage) {
    let pins = Pins::open(&pins(stage)).unwrap();
    let count = || pins.counters().unwrap().iter().find(|(name, _)| *name == "unlabelled").unwrap().1;
    let before = count();
    // No cgroup has such ids.
    let ids = || (1_u64..20_000).map(|id| u64::MAX - id);
    let _full = ids().find(|id| pins.labels.insert(id, &1).is_err()).expect("a map with an end");
    std::fs::create_dir(stage.root().join("units/pay-5.service")).unwrap();
    check("a map without room is counted", count() == before + 1, &count().to_string());
    std::fs::remove_dir(stage.root().join("units/pay-5.service")).unwrap();
    ids().for_each(|id| pins.labels.remove(&id).unwrap());
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
