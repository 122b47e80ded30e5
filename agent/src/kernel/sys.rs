//! The bpf(2) calls that aya does not offer for cgroup links and pinned maps. Every one returns the errno it got.
//! It refuses to know what the programs do.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

const BPF_MAP_LOOKUP_ELEM: u32 = 1;
const BPF_MAP_UPDATE_ELEM: u32 = 2;
const BPF_MAP_DELETE_ELEM: u32 = 3;
const BPF_MAP_GET_NEXT_KEY: u32 = 4;
const BPF_PROG_LOAD: u32 = 5;
const BPF_OBJ_PIN: u32 = 6;
const BPF_OBJ_GET: u32 = 7;
const BPF_OBJ_GET_INFO_BY_FD: u32 = 15;
const BPF_RAW_TRACEPOINT_OPEN: u32 = 17;
const BPF_PROG_QUERY: u32 = 16;
const BPF_LINK_CREATE: u32 = 28;
const BPF_LINK_UPDATE: u32 = 29;
const BPF_LINK_DETACH: u32 = 34;

/// `union bpf_attr` is larger on newer kernels; they take a shorter one as zero-filled.
#[repr(C, align(8))]
struct Attr([u8; 128]);

impl Attr {
    fn new() -> Self {
        Self([0; 128])
    }

    fn u32(mut self, at: usize, value: u32) -> Self {
        self.0[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        self
    }

    fn u64(mut self, at: usize, value: u64) -> Self {
        self.0[at..at + 8].copy_from_slice(&value.to_ne_bytes());
        self
    }

    fn fd(self, at: usize, fd: &impl AsRawFd) -> Self {
        self.u32(at, fd.as_raw_fd() as u32)
    }

    /// # Safety
    /// Every pointer laid into the block points to memory of the size this command reads or writes.
    unsafe fn call(&mut self, command: u32) -> io::Result<RawFd> {
        // SAFETY: the block is valid for its length; the rest is the caller's promise.
        let done = unsafe { libc::syscall(libc::SYS_bpf, command, self.0.as_mut_ptr(), self.0.len()) };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(done as RawFd) }
    }
}

/// Loads a program that uses no BTF of its own. `program_type` and `attach_type` as in `enum bpf_prog_type` and
/// `enum bpf_attach_type`.
pub(super) fn program_load(
    instructions: &[u8],
    license: &std::ffi::CStr,
    program_type: u32,
    attach_type: u32,
) -> io::Result<OwnedFd> {
    let mut log = vec![0_u8; VERIFIER_LOG_BYTES];
    let mut attr = Attr::new()
        .u32(0, program_type)
        .u32(4, (instructions.len() / 8) as u32)
        .u64(8, instructions.as_ptr().expose_provenance() as u64)
        .u64(16, license.as_ptr().expose_provenance() as u64)
        .u32(24, 1)
        .u32(28, log.len() as u32)
        .u64(32, log.as_mut_ptr().expose_provenance() as u64)
        .u32(68, attach_type);
    // SAFETY: the instructions are valid for the count given, the license ends with NUL, the log has the size given;
    // all outlive the call.
    let loaded = unsafe { attr.call(BPF_PROG_LOAD).map(|fd| OwnedFd::from_raw_fd(fd)) };
    loaded.map_err(|fault| {
        let text = log.split(|byte| *byte == 0).next().unwrap_or_default();
        let text = String::from_utf8_lossy(text);
        let last: Vec<&str> = text.lines().rev().take(3).collect();
        io::Error::new(fault.kind(), format!("{fault}; the verifier says: {}", last.join(" | ")))
    })
}

/// Attaches a program to a cgroup by a link.
pub(super) fn link_create(
    program: BorrowedFd<'_>,
    cgroup: BorrowedFd<'_>,
    attach_type: u32,
    flags: u32,
) -> io::Result<OwnedFd> {
    let mut attr = Attr::new().fd(0, &program).fd(4, &cgroup).u32(8, attach_type).u32(12, flags);
    // SAFETY: no pointers; the kernel returns a new descriptor.
    unsafe { attr.call(BPF_LINK_CREATE).map(|fd| OwnedFd::from_raw_fd(fd)) }
}

/// Attaches a program to a tracepoint of the kernel, by a link.
pub(super) fn raw_tracepoint_open(program: BorrowedFd<'_>, name: &std::ffi::CStr) -> io::Result<OwnedFd> {
    let mut attr = Attr::new().u64(0, name.as_ptr().expose_provenance() as u64).fd(8, &program);
    // SAFETY: the name ends with NUL and outlives the call; the kernel returns a new descriptor.
    unsafe { attr.call(BPF_RAW_TRACEPOINT_OPEN).map(|fd| OwnedFd::from_raw_fd(fd)) }
}

/// Swaps the program of a link without a gap.
pub(super) fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = Attr::new().fd(0, &link).fd(4, &program);
    // SAFETY: no pointers.
    unsafe { attr.call(BPF_LINK_UPDATE).map(drop) }
}

/// Takes a link's program off now; removing its pin alone lets the kernel do so when it finds the time, which is the
/// only way for a link to a tracepoint.
pub(super) fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = Attr::new().fd(0, &link);
    // SAFETY: no pointers.
    match unsafe { attr.call(BPF_LINK_DETACH) } {
        Err(fault) if fault.raw_os_error() != Some(libc::EOPNOTSUPP) => Err(fault),
        _ => Ok(()),
    }
}

/// Cgroup id a link is attached to; 0 after that cgroup was removed.
pub(super) fn link_cgroup(link: BorrowedFd<'_>) -> io::Result<u64> {
    // struct bpf_link_info: type, id, prog_id, (pad), then for cgroup links the id as u64 at 16.
    let mut facts = [0_u8; 64];
    object_facts(link, &mut facts)?;
    let mut id = [0; 8];
    id.copy_from_slice(&facts[16..24]);
    Ok(u64::from_ne_bytes(id))
}

/// Id of the program that a link runs.
pub(super) fn link_program(link: BorrowedFd<'_>) -> io::Result<u32> {
    // struct bpf_link_info: type, id, prog_id.
    let mut facts = [0_u8; 64];
    object_facts(link, &mut facts)?;
    Ok(u32::from_ne_bytes([facts[8], facts[9], facts[10], facts[11]]))
}

/// Ids of all programs that run for tasks of a cgroup at one kind of hook, those of its ancestors included.
pub(super) fn programs(cgroup: BorrowedFd<'_>, attach_type: u32) -> io::Result<Vec<u32>> {
    /// `BPF_F_QUERY_EFFECTIVE`.
    const EFFECTIVE: u32 = 1;
    let mut ids = [0_u32; 64];
    let mut attr = Attr::new()
        .fd(0, &cgroup)
        .u32(4, attach_type)
        .u32(8, EFFECTIVE)
        .u64(16, ids.as_mut_ptr().expose_provenance() as u64)
        .u32(24, ids.len() as u32);
    // SAFETY: `ids` has the room stated and outlives the call.
    unsafe { attr.call(BPF_PROG_QUERY)? };
    let count = u32::from_ne_bytes([attr.0[24], attr.0[25], attr.0[26], attr.0[27]]) as usize;
    Ok(ids[..count.min(ids.len())].to_vec())
}

/// Key and value size of a map.
pub(super) fn map_sizes(map: BorrowedFd<'_>) -> io::Result<(u32, u32)> {
    // struct bpf_map_info: type, id, key_size, value_size, …
    let mut facts = [0_u8; 64];
    object_facts(map, &mut facts)?;
    let word = |at: usize| u32::from_ne_bytes([facts[at], facts[at + 1], facts[at + 2], facts[at + 3]]);
    Ok((word(8), word(12)))
}

fn object_facts(object: BorrowedFd<'_>, facts: &mut [u8; 64]) -> io::Result<()> {
    let mut attr = Attr::new()
        .fd(0, &object)
        .u32(4, facts.len() as u32)
        .u64(8, facts.as_mut_ptr().expose_provenance() as u64);
    // SAFETY: `facts` is valid for the length given and outlives the call.
    unsafe { attr.call(BPF_OBJ_GET_INFO_BY_FD).map(drop) }
}

pub(super) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_string(path)?;
    let mut attr = Attr::new().u64(0, path.as_ptr().expose_provenance() as u64).fd(8, &object);
    // SAFETY: the path ends with NUL and outlives the call.
    unsafe { attr.call(BPF_OBJ_PIN).map(drop) }
}

pub(super) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = c_string(path)?;
    let mut attr = Attr::new().u64(0, path.as_ptr().expose_provenance() as u64);
    // SAFETY: the path ends with NUL and outlives the call; the kernel returns a new descriptor.
    unsafe { attr.call(BPF_OBJ_GET).map(|fd| OwnedFd::from_raw_fd(fd)) }
}

/// Reads a value into `value`; false when the key is absent.
pub(super) fn map_lookup(map: BorrowedFd<'_>, key: &[u8], value: &mut [u8]) -> io::Result<bool> {
    let mut attr = map_attr(map, key, value.as_mut_ptr());
    // SAFETY: the table checked both sizes against the map's when it was opened.
    absent_is_false(unsafe { attr.call(BPF_MAP_LOOKUP_ELEM) })
}

pub(super) fn map_update(map: BorrowedFd<'_>, key: &[u8], value: &[u8]) -> io::Result<()> {
    let mut attr = map_attr(map, key, value.as_ptr().cast_mut());
    // SAFETY: as above; the kernel only reads the value.
    unsafe { attr.call(BPF_MAP_UPDATE_ELEM).map(drop) }
}

/// Removes a key; false when it was absent.
pub(super) fn map_delete(map: BorrowedFd<'_>, key: &[u8]) -> io::Result<bool> {
    let mut attr = map_attr(map, key, std::ptr::null_mut());
    // SAFETY: as above.
    absent_is_false(unsafe { attr.call(BPF_MAP_DELETE_ELEM) })
}

/// Writes the key after `key` (the first one for `None`) to `next`; false at the end.
pub(super) fn map_next_key(map: BorrowedFd<'_>, key: Option<&[u8]>, next: &mut [u8]) -> io::Result<bool> {
    let mut attr = map_attr(map, key.unwrap_or(&[]), next.as_mut_ptr());
    if key.is_none() {
        attr = attr.u64(8, 0);
    }
    // SAFETY: as above; a null key asks for the first.
    absent_is_false(unsafe { attr.call(BPF_MAP_GET_NEXT_KEY) })
}

fn map_attr(map: BorrowedFd<'_>, key: &[u8], value: *mut u8) -> Attr {
    Attr::new()
        .fd(0, &map)
        .u64(8, key.as_ptr().expose_provenance() as u64)
        .u64(16, value.expose_provenance() as u64)
}

fn absent_is_false(done: io::Result<RawFd>) -> io::Result<bool> {
    match done {
        Ok(_) => Ok(true),
        Err(fault) if fault.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(fault) => Err(fault),
    }
}

fn c_string(path: &Path) -> io::Result<std::ffi::CString> {
    use std::os::unix::ffi::OsStrExt;
    std::ffi::CString::new(path.as_os_str().as_bytes())
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

/// Room for what the verifier says of a program it refuses.
const VERIFIER_LOG_BYTES: usize = 1 << 20;

/// Cookie of a socket's network namespace, as the kernel programs see it.
///
/// # Errors
/// The kernel is older than 5.14.
pub fn netns_cookie(socket: &impl std::os::fd::AsFd) -> io::Result<u64> {
    use std::os::fd::AsRawFd;
    /// `SO_NETNS_COOKIE` (Linux 5.14).
    const SO_NETNS_COOKIE: i32 = 71;
    let mut cookie = 0_u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: eight bytes for a value of eight bytes.
    let failed = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if failed == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}

/// The network namespace of a socket, as a descriptor.
///
/// # Errors
/// Needs CAP_NET_ADMIN over the namespace.
pub fn netns_of(socket: &impl std::os::fd::AsFd) -> io::Result<OwnedFd> {
    /// `SIOCGSKNS` (include/uapi/linux/sockios.h).
    const SIOCGSKNS: libc::Ioctl = 0x894C;
    // SAFETY: a request without argument; the kernel returns a new descriptor or an error.
    unsafe {
        let fd = libc::ioctl(socket.as_fd().as_raw_fd(), SIOCGSKNS);
        if fd >= 0 { Ok(OwnedFd::from_raw_fd(fd)) } else { Err(io::Error::last_os_error()) }
    }
}
