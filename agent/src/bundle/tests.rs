//! Folders on a real file system: loading, the digest, hot reload.

use std::fs;
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use weir_core::policy::Surroundings;

use super::*;

const APPDB: &str = "\
policy: appdb
target: {protocol: postgres, host: \"127.0.0.1:5432\"}
rules:
  - {name: reads, match: {sql: {effects: [read]}}, then: allow}
";

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("weir-bundle-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) -> &Self {
        fs::write(self.0.join(name), text).unwrap();
        self
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn load_any(folder: &Folder) -> Result<Bundle, BundleError> {
    load(&folder.0, &Surroundings::default())
}

#[test]
fn a_folder_without_checkout_loads_with_commit_none() {
    let folder = Folder::new("none");
    folder.write("appdb.yaml", APPDB).write("appdb_test.yaml", "not: read").write("notes.txt", ":");
    let bundle = load_any(&folder).unwrap();
    assert_eq!(bundle.policy.commit(), "none");
    assert_eq!(bundle.policy.sha().len(), 64);
    assert_eq!(bundle.files.len(), 1);
}

#[test]
fn the_digest_follows_names_and_bytes() {
    let folder = Folder::new("digest");
    folder.write("a.yaml", APPDB);
    let first = load_any(&folder).unwrap().policy.sha().to_owned();
    assert_eq!(first, load_any(&folder).unwrap().policy.sha());
    folder.write("a.yaml", &format!("{APPDB}# a comment\n"));
    assert_ne!(first, load_any(&folder).unwrap().policy.sha());
    fs::rename(folder.0.join("a.yaml"), folder.0.join("b.yaml")).unwrap();
    folder.write("b.yaml", APPDB);
    assert_ne!(first, load_any(&folder).unwrap().policy.sha());
}

#[test]
fn every_problem_of_every_file_is_told_at_once() {
    let folder = Folder::new("problems");
    folder.write("a.yaml", &APPDB.replace("effects", "efects")).write("b.yaml", "policy: b\nx: [1\n");
    let message = load_any(&folder).unwrap_err().to_string();
    assert!(
        message.contains("a.yaml:4: unknown key \"efects\" in sql; did you mean \"effects\"?"),
        "{message}"
    );
    assert!(message.contains("b.yaml:") && message.contains("not YAML"), "{message}");
    assert!(matches!(load_any(&Folder::new("empty")), Err(BundleError::Empty { .. })));
    assert!(matches!(
        load(std::path::Path::new("/no/such/folder"), &Surroundings::default()),
        Err(BundleError::Folder { .. })
    ));
}

#[test]
fn a_change_is_in_force_within_a_second_and_a_mistake_never_is() {
    let folder = Folder::new("reload");
    folder.write("a.yaml", APPDB);
    let (tell, told) = mpsc::channel();
    let live = Live::start(&folder.0, Surroundings::default(), move |reload| {
        let _ = tell.send(matches!(reload, Reload::Swapped { .. }));
    })
    .unwrap();
    let first = live.policy();
    let start = Instant::now();
    folder.write("a.yaml", &APPDB.replace("read]", "read, txn]"));
    assert!(told.recv_timeout(Duration::from_secs(5)).unwrap());
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    let second = live.policy();
    assert_ne!(first.sha(), second.sha());
    folder.write("a.yaml", "policy: [");
    assert!(!told.recv_timeout(Duration::from_secs(5)).unwrap());
    assert_eq!(second.sha(), live.policy().sha());
    folder.write("a.yaml", APPDB);
    assert!(told.recv_timeout(Duration::from_secs(5)).unwrap());
    assert_eq!(first.sha(), live.policy().sha());
}

#[test]
fn a_checkout_names_its_commit_and_says_when_it_is_dirty() {
    let folder = Folder::new("git");
    folder.write("a.yaml", APPDB);
    let git = |arguments: &[&str]| {
        let identity =
            ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "init.defaultBranch=main"];
        let done = std::process::Command::new("git")
            .arg("-C")
            .arg(&folder.0)
            .args(identity)
            .args(arguments)
            .output();
        done.is_ok_and(|output| output.status.success())
    };
    if !git(&["init", "-q"]) {
        // Without git there is no checkout to test with.
        return;
    }
    assert_eq!(load_any(&folder).unwrap().policy.commit(), "none");
    assert!(git(&["add", "."]) && git(&["commit", "-q", "-m", "first"]));
    let clean = load_any(&folder).unwrap().policy.commit().to_owned();
    assert!(clean.len() == 40, "{clean}");
    folder.write("b.yaml", &APPDB.replace("policy: appdb", "policy: other"));
    assert_eq!(load_any(&folder).unwrap().policy.commit(), format!("{clean}-dirty"));
}
