//! The maps. They refuse to lose what outlives a handshake: long-lived state lies on the socket, nothing is evicted.

use aya_ebpf::Global;
use aya_ebpf::bindings::{BPF_F_NO_PREALLOC, BPF_SK_STORAGE_GET_F_CREATE};
use aya_ebpf::btf_maps::SkStorage;
use aya_ebpf::helpers::generated::bpf_sk_storage_get;
use aya_ebpf::macros::{btf_map, map};
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf};
use weir_ebpf::{
    Asker, Counter, Dialled, Failure, Listener, NAME_BYTES, Origin, PART_WORDS, PATTERN_BANKS, PATTERN_COUNT,
    PATTERN_SEGMENTS, Place, Segment, SocketName, SocketPath, Stamp, Tuple, slot,
};

#[map]
pub static STATE: Array<u64> = Array::with_max_entries(slot::COUNT, 0);
/// Written by a tracepoint, too, where old kernels (before 6.1) allocate nothing safely: room is taken beforehand.
#[map]
pub static LABELS: HashMap<u64, u64> = HashMap::with_max_entries(16_384, 0);
/// As `LABELS`.
#[map]
pub static PLACES: HashMap<u64, Place> = HashMap::with_max_entries(16_384, 0);
/// As `LABELS`.
#[map]
pub static CROWDED: HashMap<u64, u64> = HashMap::with_max_entries(16_384, 0);
#[map]
pub static PATTERNS: Array<Segment> =
    Array::with_max_entries(PATTERN_BANKS * PATTERN_COUNT * PATTERN_SEGMENTS, 0);
#[map]
pub static UNCALLED: HashMap<u64, u8> = HashMap::with_max_entries(4_096, BPF_F_NO_PREALLOC);
#[map]
pub static LISTENERS: HashMap<u64, Listener> = HashMap::with_max_entries(4_096, BPF_F_NO_PREALLOC);
/// A plain hash on purpose: eviction would be a wrong answer, a full map is only a refusal.
#[map]
pub static HANDSHAKES: HashMap<Tuple, Origin> = HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);
/// Evicting a failure costs one more dial.
#[map]
pub static FAILURES: LruHashMap<Dialled, Failure> = LruHashMap::with_max_entries(4_096, 0);
/// A plain hash as well; a socket takes its entries with it when it is closed.
#[map]
pub static QUESTIONS: HashMap<Tuple, Origin> = HashMap::with_max_entries(65_536, BPF_F_NO_PREALLOC);
#[map]
pub static SHARES: HashMap<u64, u64> = HashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);
#[map]
pub static SOCKET_NAMES: HashMap<SocketName, u8> = HashMap::with_max_entries(64, BPF_F_NO_PREALLOC);
#[map]
pub static BOXED: HashMap<u64, u8> = HashMap::with_max_entries(4_096, BPF_F_NO_PREALLOC);
#[map]
pub static SOCKET_PATHS: HashMap<SocketPath, u8> = HashMap::with_max_entries(4_096, BPF_F_NO_PREALLOC);
#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Counter::ALL.len() as u32, 0);

/// Where a new cgroup's name is looked at: more than the stack has room for. Births do not interrupt each other.
#[map]
static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// A name and its NUL, behind room for a tail that begins before it; then the tail.
#[repr(C)]
pub struct Scratch {
    pub before: [u64; PART_WORDS],
    pub name: [u64; (NAME_BYTES + 1) / size_of::<u64>()],
    pub tail: [u64; PART_WORDS],
}

#[inline(always)]
pub fn scratch() -> Option<*mut Scratch> {
    SCRATCH.get_ptr_mut(0)
}

/// News, not a record: what does not fit is found by the agent's own look.
#[map]
static STRANGERS: RingBuf = RingBuf::with_byte_size(16 * 1024, 0);

#[btf_map]
static STAMPS: SkStorage<Stamp> = SkStorage::new();
#[btf_map]
static ORIGINS: SkStorage<Origin> = SkStorage::new();
#[btf_map]
static ASKERS: SkStorage<Asker> = SkStorage::new();

/// 1 where the kernel has `bpf_set_retval` (5.18); without it every refusal is EPERM.
#[unsafe(no_mangle)]
static HAS_SET_RETVAL: Global<u32> = Global::new(0);

pub fn has_set_retval() -> bool {
    HAS_SET_RETVAL.load() != 0
}

#[inline(always)]
pub fn count(counter: Counter) {
    if let Some(cell) = COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: the cell belongs to this CPU, and programs of this kind do not interrupt themselves.
        unsafe { *cell += 1 }
    }
}

/// Tells the agent that this process lives where it does not listen yet.
#[inline(always)]
pub fn report_stranger(tgid: u32) {
    // A full buffer: see `STRANGERS`.
    let _ = STRANGERS.output::<u32>(tgid, 0);
}

/// The stamp of a socket, if it has one.
///
/// # Safety
/// `sk` is null-checked and came from the context or from `bpf_sk_fullsock`.
#[inline(always)]
pub unsafe fn stamp<'a, S>(sk: *mut S) -> Option<&'a mut Stamp> {
    // SAFETY: the caller's promise; the helper returns null or the value's address, valid until the program ends.
    unsafe {
        let map = core::ptr::addr_of!(STAMPS).cast_mut().cast();
        bpf_sk_storage_get(map, sk.cast(), core::ptr::null_mut(), 0).cast::<Stamp>().as_mut()
    }
}

/// The stamp of a socket, made (as zeros) if it has none. `None`: the kernel has no room, which a workload can bring
/// about by filling its own option memory, so it must end in a refusal.
///
/// # Safety
/// As [`stamp`].
#[inline(always)]
pub unsafe fn stamp_or_new<'a, S>(sk: *mut S) -> Option<&'a mut Stamp> {
    // SAFETY: as above.
    unsafe {
        let map = core::ptr::addr_of!(STAMPS).cast_mut().cast();
        let flags = u64::from(BPF_SK_STORAGE_GET_F_CREATE);
        bpf_sk_storage_get(map, sk.cast(), core::ptr::null_mut(), flags).cast::<Stamp>().as_mut()
    }
}

/// The DNS servers that a socket asks, if it asks any.
///
/// # Safety
/// As [`stamp`].
#[inline(always)]
pub unsafe fn asker<'a, S>(sk: *mut S) -> Option<&'a mut Asker> {
    // SAFETY: as above.
    unsafe {
        let map = core::ptr::addr_of!(ASKERS).cast_mut().cast();
        bpf_sk_storage_get(map, sk.cast(), core::ptr::null_mut(), 0).cast::<Asker>().as_mut()
    }
}

/// The same, made (as zeros) if there is none. `None`: the kernel has no room.
///
/// # Safety
/// As [`stamp`].
#[inline(always)]
pub unsafe fn asker_or_new<'a, S>(sk: *mut S) -> Option<&'a mut Asker> {
    // SAFETY: as above.
    unsafe {
        let map = core::ptr::addr_of!(ASKERS).cast_mut().cast();
        let flags = u64::from(BPF_SK_STORAGE_GET_F_CREATE);
        bpf_sk_storage_get(map, sk.cast(), core::ptr::null_mut(), flags).cast::<Asker>().as_mut()
    }
}

/// Lays `origin` on an accepted socket; false when the kernel has no room.
///
/// # Safety
/// As [`stamp`].
#[inline(always)]
pub unsafe fn hand_over<S>(sk: *mut S, origin: *mut Origin) -> bool {
    // SAFETY: as above; `origin` points to a whole record.
    unsafe {
        let map = core::ptr::addr_of!(ORIGINS).cast_mut().cast();
        let flags = u64::from(BPF_SK_STORAGE_GET_F_CREATE);
        !bpf_sk_storage_get(map, sk.cast(), origin.cast(), flags).is_null()
    }
}
