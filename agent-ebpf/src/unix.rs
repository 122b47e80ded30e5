//! Local sockets that lead past the fence: a labelled task may neither connect nor send to a database's unix socket by its
//! name; where its workload lists paths, to those and no others. It refuses names, not files: a symlink or a mount of another name is
//! not seen here (a BPF LSM would see the file itself).
//!
//! The agent loads this program by itself (kernel 6.7), since its attach type is newer than the loader library; it may
//! use pinned maps only, and no function that is not inlined.

use aya_ebpf::helpers::generated::{bpf_probe_read_kernel, bpf_probe_read_kernel_str};
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use core::ffi::c_void;
use core::mem::MaybeUninit;
use core::ptr::{addr_of, read_volatile, write_volatile};
use weir_ebpf::{CAST_TO_KERN_CTX, CROWDED, Counter, SOCKET_NAME_BYTES, SocketName, SocketPath};

use crate::label;
use crate::maps::{self, BOXED, SOCKET_NAMES, SOCKET_PATHS};

/// `sun_path` (unix(7)).
const PATH_BYTES: usize = 108;
/// Room for a path, its NUL and a name that begins in its last byte.
const PATH_WORDS: usize = (PATH_BYTES + SOCKET_NAME_BYTES).div_ceil(8);
/// `sun_family`.
const FAMILY_BYTES: usize = 2;

/// `struct bpf_sock_addr_kern` (include/linux/filter.h); the verifier checks each load against the kernel's own BTF.
#[repr(C)]
struct KernContext {
    sk: *const c_void,
    address: *const u8,
    scratch: u64,
    hook: *const c_void,
    length: u32,
}

// Its section only says which kind of program it is; the agent gives the attach type.
#[cgroup_sock_addr(connect4)]
pub fn to_unix(ctx: SockAddrContext) -> i32 {
    let Some(cgroup) = label::cgroup() else { return 1 };
    let label = label::of_task(cgroup);
    if label == CROWDED {
        maps::count(Counter::Crowded);
        return 0;
    }
    if label == label::NONE || !is_refused(&ctx, label) {
        return 1;
    }
    maps::count(Counter::Unix);
    0
}

#[inline(always)]
fn is_refused(ctx: &SockAddrContext, label: u64) -> bool {
    let mut key = MaybeUninit::<[u64; 1 + PATH_WORDS]>::uninit();
    let words = key.as_mut_ptr().cast::<u64>();
    // SAFETY: within `key`. Volatile, since a call to memset would be a function that is not inlined.
    unsafe { write_volatile(words, label) };
    for word in 1..=PATH_WORDS {
        // SAFETY: as above.
        unsafe { write_volatile(words.add(word), 0) };
    }
    // SAFETY: within `key`.
    let path = unsafe { words.add(1) }.cast::<u8>();
    // SAFETY: a kernel function by a number that the agent replaces with its BTF id before loading; the verifier
    // checks both loads, and that the copy stays within `path`.
    let unreadable = unsafe {
        let cast: unsafe extern "C" fn(*mut c_void) -> *const KernContext =
            core::mem::transmute(CAST_TO_KERN_CTX as usize);
        let context = cast(ctx.sock_addr.cast());
        let length = read_volatile(addr_of!((*context).length));
        let from = read_volatile(addr_of!((*context).address)).add(FAMILY_BYTES);
        // The kernel's name ends at the first NUL or with the address, whichever comes first; the helper adds a NUL.
        let size = length.saturating_sub(FAMILY_BYTES as u32).min(PATH_BYTES as u32) + 1;
        bpf_probe_read_kernel_str(path.cast(), size, from.cast()) < 0
    };
    if unreadable {
        return true;
    }
    // SAFETY: of the maps only presence is read; the key is the label and the path before it, all written.
    unsafe {
        if BOXED.get(label).is_some() {
            return SOCKET_PATHS.get(&*words.cast::<SocketPath>()).is_none();
        }
    }
    let mut start = 0;
    // From the end, so that the verifier leaves the loop with one known place; the rest of `path` is zero.
    for at in (0..PATH_BYTES).rev() {
        // SAFETY: within `path`, which is written.
        if unsafe { read_volatile(path.add(at)) } == b'/' {
            start = at + 1;
            break;
        }
    }
    let mut name = MaybeUninit::<SocketName>::uninit();
    // SAFETY: `path` has room for a name after its last place; the helper writes the whole of `name`; of the map only
    // presence is read.
    unsafe {
        !copy(name.as_mut_ptr().cast(), SOCKET_NAME_BYTES as u32, path.add(start))
            || SOCKET_NAMES.get(name.assume_init_ref()).is_some()
    }
}

/// # Safety
/// `to` has room for `count` bytes. `from` may be anything: a fault is an answer.
#[inline(always)]
unsafe fn copy(to: *mut c_void, count: u32, from: *const u8) -> bool {
    // SAFETY: the caller's promise.
    unsafe { bpf_probe_read_kernel(to, count, from.cast()) == 0 }
}
