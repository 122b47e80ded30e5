//! Pinned kernel maps from outside (bpf(2)): filled to the brim, to see what the fence does then.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const MAP_UPDATE_ELEM: i64 = 2;
const OBJ_GET: i64 = 7;
const OBJ_GET_INFO_BY_FD: i64 = 15;

/// Puts entries that mean nothing into a pinned hash map until it takes no more; returns how many it took.
///
/// # Errors
/// No such pin, or not root.
pub fn fill(pin: &Path) -> io::Result<usize> {
    let path = CString::new(pin.as_os_str().as_bytes())?;
    let fd = bpf(OBJ_GET, &[address(path.as_ptr().cast()), 0])?;
    // SAFETY: the kernel returned a new descriptor.
    let map = unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).unwrap_or(-1)) };
    let number = u64::from(map.as_raw_fd().unsigned_abs());
    // struct bpf_map_info: type, id, key size, value size, most entries.
    let mut facts = [0_u32; 16];
    let size = size_of_val(&facts) as u64;
    bpf(OBJ_GET_INFO_BY_FD, &[number | size << 32, address(facts.as_mut_ptr().cast())])?;
    let mut key = vec![0xee_u8; facts[2] as usize];
    let value = vec![0_u8; facts[3] as usize];
    for count in 0..=facts[4] as usize {
        key[..8].copy_from_slice(&(count as u64).to_ne_bytes());
        let entry = [number, address(key.as_ptr().cast()), address(value.as_ptr().cast()), 0];
        match bpf(MAP_UPDATE_ELEM, &entry) {
            Ok(_) => {}
            Err(fault) if fault.raw_os_error() == Some(libc::E2BIG) => return Ok(count),
            Err(fault) => return Err(fault),
        }
    }
    Err(io::Error::other("the map took more than it can hold"))
}

fn address(pointer: *const libc::c_void) -> u64 {
    pointer.expose_provenance() as u64
}

fn bpf(command: i64, attributes: &[u64]) -> io::Result<i64> {
    // SAFETY: the block is valid for its length, and the callers' pointers in it for the sizes that the kernel knows.
    let done = unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), size_of_val(attributes)) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(done) }
}
