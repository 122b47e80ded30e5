//! Local sockets that lead past the fence: a labelled task may not connect to a database's unix socket by its name.
//! It refuses names, not files: a symlink of another name is not seen here (a BPF LSM would see the file itself).
//!
//! The agent loads this program by itself (kernel 6.7), since its attach type is newer than the loader library; it may
//! use pinned maps only, and no function that is not inlined.

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use core::ffi::c_void;
use core::mem::MaybeUninit;
use core::ptr::{addr_of, read_volatile};
use weir_ebpf::{CAST_TO_KERN_CTX, Counter, SOCKET_NAME_BYTES, SocketName};

use crate::label;
use crate::maps::{self, SOCKET_NAMES};

/// `sun_path` (unix(7)).
const PATH_BYTES: usize = 108;
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
pub fn connect_unix(ctx: SockAddrContext) -> i32 {
    if label::is_agent() || label::of_task() == label::NONE || !is_refused(&ctx) {
        return 1;
    }
    maps::count(Counter::Unix);
    0
}

#[inline(always)]
fn is_refused(ctx: &SockAddrContext) -> bool {
    // Not zeroed: a call to memset would be a function that is not inlined. The helper fills it or fails.
    let mut path = MaybeUninit::<[u8; PATH_BYTES]>::uninit();
    // SAFETY: a kernel function by a number that the agent replaces with its BTF id before loading; the verifier
    // checks both loads; the helper writes the whole of `path`.
    let (path, length) = unsafe {
        let cast: unsafe extern "C" fn(*mut c_void) -> *const KernContext =
            core::mem::transmute(CAST_TO_KERN_CTX as usize);
        let context = cast(ctx.sock_addr.cast());
        let length = read_volatile(addr_of!((*context).length)) as usize;
        let address = read_volatile(addr_of!((*context).address));
        if !copy(path.as_mut_ptr().cast(), PATH_BYTES as u32, address.add(FAMILY_BYTES)) {
            // Unreadable: closed.
            return true;
        }
        (path.assume_init_ref(), length)
    };
    let mut start = 0;
    for at in 0..PATH_BYTES {
        // Beyond its length the kernel's copy holds whatever was there before.
        if at + FAMILY_BYTES >= length || path[at] == 0 {
            break;
        }
        if path[at] == b'/' {
            start = at + 1;
        }
    }
    if start > PATH_BYTES - SOCKET_NAME_BYTES {
        // Too short a name for any that is refused.
        return false;
    }
    let mut name = MaybeUninit::<SocketName>::uninit();
    // SAFETY: the name lies within `path`; the helper writes the whole of `name`; of the map only presence is read. A
    // helper copies because the verifier cannot follow eight loads at a moving index.
    unsafe {
        !copy(name.as_mut_ptr().cast(), SOCKET_NAME_BYTES as u32, path.as_ptr().add(start))
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
