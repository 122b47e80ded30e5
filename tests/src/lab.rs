//! One lab: a folder, a cgroup parent and a bpffs of its own, removed when it is dropped, also after a failed test.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, bail};

use crate::process;

/// See the module.
#[derive(Debug)]
pub struct Lab {
    dir: PathBuf,
    attach: String,
    cgroups: PathBuf,
    keep: bool,
}

impl Lab {
    /// Makes a lab. Set `WEIR_KEEP=1` to keep its folder for a look after a failure.
    ///
    /// # Errors
    /// Not root, or no cgroup v2 hierarchy is mounted.
    pub fn new(name: &str) -> anyhow::Result<Lab> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        static SWEPT: Once = Once::new();
        SWEPT.call_once(|| cgroup_mount().map_or((), |mount| sweep(&mount)));
        let unique = format!("{name}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(format!("weir-{unique}"));
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let attach = format!("/weir-lab-{unique}");
        let cgroups = cgroup_mount()?.join(&attach[1..]);
        std::fs::create_dir(&cgroups)
            .with_context(|| format!("cannot make cgroup {}: these tests need root", cgroups.display()))?;
        Ok(Lab { dir, attach, cgroups, keep: std::env::var_os("WEIR_KEEP").is_some() })
    }

    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The folder of the fence's pins, of whichever layout.
    ///
    /// # Errors
    /// No fence is up.
    pub fn pins(&self) -> std::io::Result<PathBuf> {
        let mut layouts = std::fs::read_dir(self.dir.join("bpf"))?;
        Ok(layouts.next().ok_or(std::io::ErrorKind::NotFound)??.path())
    }

    /// The cgroup below which this lab's fence attaches, relative to the v2 mount.
    #[must_use]
    pub fn attach(&self) -> &str {
        &self.attach
    }

    /// The same, as a folder.
    #[must_use]
    pub fn cgroups(&self) -> &Path {
        &self.cgroups
    }

    /// Writes a file below the lab's folder, making folders on the way.
    ///
    /// # Errors
    /// As the file system says.
    pub fn write(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let path = self.dir.join(name);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// A folder below the lab's that `user` owns.
    ///
    /// # Errors
    /// As the file system says.
    pub fn folder_of(&self, name: &str, user: &str) -> anyhow::Result<PathBuf> {
        let path = self.dir.join(name);
        std::fs::create_dir_all(&path)?;
        let status = Command::new("chown").arg(format!("{user}:")).arg(&path).status()?;
        if !status.success() {
            bail!("cannot give {} to {user}", path.display());
        }
        Ok(path)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        unmount(&self.dir);
        remove_cgroups(&self.cgroups);
        if self.keep {
            eprintln!("kept {}", self.dir.display());
        } else {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

fn unmount(dir: &Path) {
    let _ =
        Command::new("umount").arg("-l").arg(dir.join("bpf")).stderr(std::process::Stdio::null()).status();
}

/// Clears away the labs of runs that were killed before they could do it: those whose process is gone.
fn sweep(mount: &Path) {
    let Ok(entries) = std::fs::read_dir(mount) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(unique) = name.to_str().and_then(|name| name.strip_prefix("weir-lab-")) else { continue };
        let owner = unique.rsplit('-').nth(1).and_then(|pid| pid.parse::<u32>().ok());
        if owner.is_none_or(|pid| Path::new("/proc").join(pid.to_string()).exists()) {
            continue;
        }
        let dir = std::env::temp_dir().join(format!("weir-{unique}"));
        process::end_all_of(&dir);
        unmount(&dir);
        remove_cgroups(&entry.path());
        let _ = std::fs::remove_dir_all(&dir);
    }
}

/// Removes a cgroup and everything below it. A cgroup that just lost its last process may be busy for a moment.
fn remove_cgroups(folder: &Path) {
    if let Ok(children) = std::fs::read_dir(folder) {
        for child in children.flatten().filter(|child| child.path().is_dir()) {
            remove_cgroups(&child.path());
        }
    }
    for _ in 0..200 {
        match std::fs::remove_dir(folder) {
            Err(fault) if fault.raw_os_error() == Some(libc::EBUSY) => {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            Ok(()) | Err(_) => return,
        }
    }
}

/// Where the cgroup v2 hierarchy is mounted, alone or beside v1.
///
/// # Errors
/// It is not mounted.
pub fn cgroup_mount() -> anyhow::Result<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ');
            let (_, target, kind) = (fields.next()?, fields.next()?, fields.next()?);
            (kind == "cgroup2").then(|| PathBuf::from(target))
        })
        .next()
        .context("no cgroup v2 hierarchy is mounted")
}
