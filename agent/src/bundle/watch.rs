//! The policy in force, and the thread that swaps it when the folder changes.
//! It refuses to swap in a bundle with a problem: the old one stays, and the callback hears why.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use weir_core::policy::{Policy, Surroundings};

use super::{BundleError, folder, load};
use crate::lane::message::Sources;

/// What became of a change.
#[derive(Debug)]
pub enum Reload {
    /// The new policy is in force.
    Swapped { old: Arc<Policy>, new: Arc<Policy>, sources: Sources },
    /// The old policy stays in force.
    Refused(BundleError),
}

/// The policy in force. Dropping it ends the watch.
#[derive(Debug)]
pub struct Live {
    current: Arc<ArcSwap<Policy>>,
    first: Sources,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Live {
    /// Loads the folder and watches it; `report` hears of every change after that, on the watching thread.
    ///
    /// # Errors
    /// The folder is no sound bundle now: there is no policy to start with.
    pub fn start(
        folder: &Path,
        surroundings: Surroundings,
        report: impl Fn(Reload) + Send + 'static,
    ) -> Result<Live, BundleError> {
        // Taken before loading, so that a change while loading is seen as one.
        let seen = fingerprint(folder);
        let first = load(folder, &surroundings)?;
        let current = Arc::new(ArcSwap::from_pointee(first.policy));
        let stop = Arc::new(AtomicBool::new(false));
        let watch = Watch { folder: folder.into(), surroundings, seen, current: current.clone() };
        let ended = stop.clone();
        let thread = std::thread::Builder::new()
            .name("weir-policies".into())
            .spawn(move || watch.run(&ended, &report))
            .map_err(|source| BundleError::Folder { path: folder.into(), source })?;
        Ok(Live { current, first: first.sources, stop, thread: Some(thread) })
    }

    /// The policy in force now. An act keeps the one it started with.
    #[must_use]
    pub fn policy(&self) -> Arc<Policy> {
        self.current.load_full()
    }

    /// The text of what was loaded first.
    #[must_use]
    pub fn first(&self) -> &Sources {
        &self.first
    }

    /// The cell itself, for threads that read it often.
    #[must_use]
    pub fn shared(&self) -> Arc<ArcSwap<Policy>> {
        self.current.clone()
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A panic of the thread was reported when it happened.
            let _ = thread.join();
        }
    }
}

struct Watch {
    folder: PathBuf,
    surroundings: Surroundings,
    seen: Fingerprint,
    current: Arc<ArcSwap<Policy>>,
}

impl Watch {
    fn run(mut self, stop: &AtomicBool, report: &impl Fn(Reload)) {
        while !stop.load(Ordering::Relaxed) {
            std::thread::park_timeout(PERIOD);
            let now = fingerprint(&self.folder);
            if now == self.seen {
                continue;
            }
            self.seen = now;
            match load(&self.folder, &self.surroundings) {
                Ok(bundle) => {
                    let new = Arc::new(bundle.policy);
                    let old = self.current.load_full();
                    // A checkout that is committed without a change of text still has a new commit.
                    if (old.sha(), old.commit()) != (new.sha(), new.commit()) {
                        self.current.store(new.clone());
                        report(Reload::Swapped { old, new, sources: bundle.sources });
                    }
                }
                Err(fault) => report(Reload::Refused(fault)),
            }
        }
    }
}

/// Path, time of change, length and file number of each policy file, and of the checkout's HEAD and index.
type Fingerprint = Vec<(PathBuf, Option<SystemTime>, u64, u64)>;

fn fingerprint(folder: &Path) -> Fingerprint {
    use std::os::unix::fs::MetadataExt;
    let mut files = folder::paths(folder, folder::is_policy).unwrap_or_default();
    let checkout = folder.ancestors().map(|folder| folder.join(".git")).find(|git| git.is_dir());
    files.extend(checkout.iter().flat_map(|git| ["HEAD", "index", "logs/HEAD"].map(|name| git.join(name))));
    let stamp = |path: PathBuf| {
        let meta = std::fs::metadata(&path).ok();
        let time = meta.as_ref().and_then(|meta| meta.modified().ok());
        (path, time, meta.as_ref().map_or(0, MetadataExt::size), meta.as_ref().map_or(0, MetadataExt::ino))
    };
    files.into_iter().map(stamp).collect()
}

/// A change is in force within a second: two looks and a load.
const PERIOD: Duration = Duration::from_millis(250);
