//! The labels of cgroups to come: two tracepoints, and the patterns and places that they read. It refuses to be required:
//! a kernel that takes no such program leaves new cgroups to the agent's own watch, and this layer is reported missing.

use std::ffi::CStr;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use aya::programs::Program;
use weir_ebpf::{PATTERN_BANKS, PATTERN_COUNT, PATTERN_SEGMENTS, Place, Segment, lacks, map};

use super::btf::CgroupOffsets;
use super::crowded::Crowded;
use super::{Feature, FenceError, Table, load, sys};

/// Programs with their tracepoints (include/trace/events/cgroup.h). Removal first: what is added must be removed.
const PROGRAMS: [(&str, &CStr); 2] = [("death", c"cgroup_rmdir"), ("birth", c"cgroup_mkdir")];

/// One pattern, segment by segment; none beyond its last.
pub type Segments = [Option<Segment>; PATTERN_SEGMENTS as usize];

/// What the programs must know of this kernel. All zeros is never read: without offsets nothing is attached.
pub(super) fn globals(offsets: Option<CgroupOffsets>) -> [(&'static str, u32); 6] {
    let at = |field: fn(CgroupOffsets) -> u32| offsets.map_or(0, field);
    [
        ("CGROUP_KN", at(|cgroup| cgroup.kn)),
        ("CGROUP_ROOT", at(|cgroup| cgroup.root)),
        ("ROOT_HIERARCHY_ID", at(|cgroup| cgroup.hierarchy_id)),
        ("KN_ID", at(|cgroup| cgroup.id)),
        ("KN_PARENT", at(|cgroup| cgroup.parent)),
        ("KN_NAME", at(|cgroup| cgroup.name)),
    ]
}

/// Loads both programs, then attaches each beside the one that an earlier agent pinned, and takes over its pin.
pub(super) fn attach(object: &mut aya::Ebpf, folder: &Path) -> io::Result<()> {
    if !Feature::Birth.is_there()? {
        return Err(io::Error::other("the kernel has no tracepoints of cgroups, or no types that show them"));
    }
    for (name, _) in PROGRAMS {
        let Some(Program::RawTracePoint(program)) = object.program_mut(name) else {
            return Err(io::Error::other(format!("the object lacks {name}")));
        };
        program.load().map_err(|fault| io::Error::other(load::chain(&fault)))?;
    }
    for (name, tracepoint) in PROGRAMS {
        let Some(program) = object.program(name) else { continue };
        let program = program.fd().map_err(io::Error::other)?.as_fd();
        // A link to a tracepoint cannot change its program: for a moment both run, to the same effect.
        let link = sys::raw_tracepoint_open(program, tracepoint)?;
        let (pin, fresh) = (folder.join(name), folder.join(format!("{name}_new")));
        // Left by an agent that was killed here.
        let _ = std::fs::remove_file(&fresh);
        sys::pin(link.as_fd(), &fresh)?;
        std::fs::rename(&fresh, &pin)?;
    }
    Ok(())
}

/// The maps that the programs read, and the one that both sides write.
#[derive(Debug)]
pub struct Births {
    patterns: Table<u32, Segment>,
    places: Table<u64, Place>,
    crowded: Crowded,
    /// The bank in force.
    bank: AtomicU32,
}

impl Births {
    pub(super) fn open(folder: &Path) -> Result<Self, FenceError> {
        Ok(Self {
            patterns: Table::open(folder, map::PATTERNS)?,
            places: Table::open(folder, map::PLACES)?,
            crowded: Crowded::open(folder)?,
            bank: AtomicU32::new(0),
        })
    }

    /// Puts `patterns` in force from the cgroup `root` on. Patterns that differ from those in force are written beside
    /// them, so that no place ever speaks of another set than it was made for.
    ///
    /// # Errors
    /// A map cannot be read or written.
    pub fn learn(&self, root: u64, patterns: &[Segments]) -> Result<(), FenceError> {
        let all = patterns.iter().take(PATTERN_COUNT as usize);
        let mask = all.enumerate().fold(0, |mask, (bit, _)| mask | 1 << bit);
        let found = self.places.lookup(&root)?.filter(|place| place.depth == 0);
        if let Some(place) = found {
            self.bank.store(place.bank, Ordering::Relaxed);
            if place.mask == mask && self.holds(place, patterns)? {
                return Ok(());
            }
        } else {
            // The places of another attach point.
            for id in self.places()? {
                self.forget(id)?;
            }
        }
        let bank = found.map_or(0, |place| (place.bank + 1) % PATTERN_BANKS);
        let place = Place { mask, depth: 0, bank, spilled: 0 };
        for (index, segment) in each(place, patterns) {
            self.patterns.insert(&index, &segment)?;
        }
        self.bank.store(bank, Ordering::Relaxed);
        self.places.insert(&root, &place)
    }

    fn holds(&self, place: Place, patterns: &[Segments]) -> Result<bool, FenceError> {
        for (index, segment) in each(place, patterns) {
            if self.patterns.lookup(&index)? != Some(segment) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Says how far a cgroup's path has come: `depth` segments, which `mask`'s patterns share. An empty mask forgets it.
    /// With no room for it, whatever is below it without a label is refused.
    ///
    /// # Errors
    /// A map cannot be read or written.
    pub fn place(&self, cgroup: u64, mask: u64, depth: u32) -> Result<(), FenceError> {
        let place = Place { mask, depth, bank: self.bank.load(Ordering::Relaxed), spilled: 0 };
        let given = match self.places.lookup(&cgroup)? {
            None if mask == 0 => Ok(()),
            Some(_) if mask == 0 => self.places.remove(&cgroup),
            Some(found) if (Place { spilled: 0, ..found }) == place => Ok(()),
            _ => self.places.insert(&cgroup, &place),
        };
        self.crowded.settle(cgroup, lacks::PLACE, given)
    }

    /// The cgroup is gone.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn forget(&self, cgroup: u64) -> Result<(), FenceError> {
        self.places.remove(&cgroup)?;
        self.crowded.settle(cgroup, lacks::PLACE, Ok(()))
    }

    /// Every cgroup that has a place.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn places(&self) -> Result<Vec<u64>, FenceError> {
        Ok(self.places.entries()?.into_iter().map(|(id, _)| id).collect())
    }
}

/// Every slot of the bank with what belongs there.
fn each(root: Place, patterns: &[Segments]) -> impl Iterator<Item = (u32, Segment)> {
    (0..PATTERN_COUNT).flat_map(move |number| {
        (0..PATTERN_SEGMENTS).map(move |depth| {
            let segments = patterns.get(number as usize);
            let segment = segments.and_then(|segments| segments[depth as usize]);
            (Place { depth, ..root }.segment(number), segment.unwrap_or(NOTHING))
        })
    })
}

/// Fits no name.
const NOTHING: Segment = {
    let part = weir_ebpf::Part { bytes: [0; weir_ebpf::PART_WORDS], mask: [0; weir_ebpf::PART_WORDS] };
    Segment { label: 0, least: 0, most: 0, head: part, tail: part }
};
