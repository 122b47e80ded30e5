//! Cgroups that appear and disappear. A new one is labelled here, within mkdir(2), before it can be seen or entered, so
//! that neither a race nor a dead agent leaves a restarted service without its label. It refuses the hierarchies of
//! cgroup v1, whose ids are not ours, and what is not below a cgroup that the agent gave a place.

use aya_ebpf::Global;
use aya_ebpf::helpers::generated::{bpf_probe_read_kernel, bpf_probe_read_kernel_str};
use aya_ebpf::macros::raw_tracepoint;
use aya_ebpf::programs::RawTracePointContext;
use core::mem::MaybeUninit;
use core::ptr::{addr_of, addr_of_mut};
use weir_ebpf::{Counter, NAME_BYTES, PART_BYTES, Place, lacks, slot};

use crate::fits::{self, Name};
use crate::maps::{self, CROWDED, LABELS, PATTERNS, PLACES, STATE};

/// Byte offsets in `cgroup`, `cgroup_root` and `kernfs_node`, from the kernel's own BTF.
#[unsafe(no_mangle)]
static CGROUP_KN: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static CGROUP_ROOT: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static ROOT_HIERARCHY_ID: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static KN_ID: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static KN_PARENT: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static KN_NAME: Global<u32> = Global::new(0);

#[raw_tracepoint(tracepoint = "cgroup_mkdir")]
pub fn birth(ctx: RawTracePointContext) {
    // What cannot be read is not ours: the offsets are this kernel's, and the object is alive.
    let _ = born(ctx.arg(0));
}

#[raw_tracepoint(tracepoint = "cgroup_rmdir")]
pub fn death(ctx: RawTracePointContext) {
    let Some(id) = node(ctx.arg(0)).and_then(|node| read::<u64>(node, KN_ID.load())) else { return };
    // Most cgroups have none of these.
    let _ = LABELS.remove(id);
    let _ = PLACES.remove(id);
    let _ = CROWDED.remove(id);
}

#[inline(always)]
fn born(cgroup: u64) -> Option<()> {
    let node = node(cgroup)?;
    let parent = read::<u64>(read(node, KN_PARENT.load())?, KN_ID.load())?;
    // SAFETY: copied at once; a place replaced meanwhile was true a moment ago.
    let place: Place = unsafe { *PLACES.get(parent)? };
    let id: u64 = read(node, KN_ID.load())?;
    let name = read::<u64>(node, KN_NAME.load())?;

    let scratch = maps::scratch()?;
    // SAFETY: both copies stay within their fields; the second one's source is this CPU's scratch, whatever it holds, and
    // words are compared only where the name is.
    let birth = unsafe {
        let name_at = addr_of_mut!((*scratch).name);
        let length = bpf_probe_read_kernel_str(name_at.cast(), (NAME_BYTES + 1) as u32, name as *const _);
        if length <= 1 {
            return None;
        }
        let length = length as u64 - 1;
        // It ends where the name ends.
        let window = addr_of!((*scratch).before) as u64 + length;
        let tail = addr_of_mut!((*scratch).tail);
        if bpf_probe_read_kernel(tail.cast(), PART_BYTES as u32, window as *const _) != 0 {
            return None;
        }
        let name = Name { length: length as u32, head: &*name_at.cast(), tail: &*tail };
        fits::step(&place, &name, |index| PATTERNS.get(index))
    };
    let mut lacking = 0;
    if birth.label != 0 && LABELS.insert(id, birth.label, 0).is_err() {
        lacking |= lacks::LABEL;
    }
    if birth.mask != 0 {
        let own = Place { mask: birth.mask, depth: place.depth + 1, bank: place.bank, spilled: 0 };
        if PLACES.insert(id, own, 0).is_err() {
            lacking |= lacks::PLACE;
        }
    }
    if lacking != 0 {
        crowd(parent, id, lacking);
    }
    Some(())
}

/// Nobody is in the new cgroup yet: whoever enters it will be refused. Births come one at a time.
#[inline(always)]
fn crowd(parent: u64, id: u64, lacking: u64) {
    maps::count(Counter::Unlabelled);
    if let Some(crowded) = STATE.get_ptr_mut(slot::CROWDED) {
        // SAFETY: the map's value, valid until the program ends.
        unsafe { *crowded = 1 };
    }
    if CROWDED.insert(id, lacking, 0).is_ok() {
        return;
    }
    if let Some(place) = PLACES.get_ptr_mut(parent) {
        // SAFETY: as above.
        unsafe {
            if (*place).spilled == 0 {
                (*place).spilled = id;
            }
        }
    }
}

/// The `kernfs_node` of a cgroup of the v2 hierarchy, which is the one with id 0 (cgroups(7)).
#[inline(always)]
fn node(cgroup: u64) -> Option<u64> {
    let root: u64 = read(cgroup, CGROUP_ROOT.load())?;
    if read::<u32>(root, ROOT_HIERARCHY_ID.load())? != 0 {
        return None;
    }
    read(cgroup, CGROUP_KN.load())
}

#[inline(always)]
fn read<T>(object: u64, offset: u32) -> Option<T> {
    let mut found = MaybeUninit::<T>::uninit();
    let from = object + u64::from(offset);
    // SAFETY: the helper writes the whole of `found` or fails; it never faults. `T` is a word, used with any bits.
    unsafe {
        let failed =
            bpf_probe_read_kernel(found.as_mut_ptr().cast(), size_of::<T>() as u32, from as *const _);
        (failed == 0).then(|| found.assume_init())
    }
}
