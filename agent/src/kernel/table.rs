//! Pinned maps as typed tables. It refuses a pin whose sizes are not the ABI's: garbage is never read as a record.

use std::marker::PhantomData;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use weir_ebpf::{
    Counter, Dialled, Failure, HEARTBEAT_STALE_NS, Listener, Origin, Place, Segment, SocketName, SocketPath,
    Tuple, map, slot,
};

use super::{FenceError, monotonic_ns, sys};

/// A value that is nothing but its bytes.
///
/// # Safety
/// No padding, no pointers, and every bit pattern is a value.
pub unsafe trait Plain: Copy {
    /// All zeros.
    #[must_use]
    fn zeroed() -> Self {
        // SAFETY: every bit pattern is a value.
        unsafe { std::mem::zeroed() }
    }
}

// SAFETY: integers and arrays of integers; the ABI's structs are `repr(C)` without padding, with their sizes asserted.
unsafe impl Plain for u8 {}
// SAFETY: as above.
unsafe impl Plain for i32 {}
// SAFETY: as above.
unsafe impl Plain for u32 {}
// SAFETY: as above.
unsafe impl Plain for u64 {}
// SAFETY: as above.
unsafe impl<const N: usize> Plain for [u8; N] {}
// SAFETY: as above.
unsafe impl<const N: usize> Plain for [u64; N] {}
// SAFETY: as above.
unsafe impl Plain for Listener {}
// SAFETY: as above.
unsafe impl Plain for Origin {}
// SAFETY: as above.
unsafe impl Plain for Tuple {}
// SAFETY: as above.
unsafe impl Plain for Dialled {}
// SAFETY: as above.
unsafe impl Plain for Segment {}
// SAFETY: as above.
unsafe impl Plain for Place {}
// SAFETY: as above.
unsafe impl Plain for Failure {}

/// One pinned map.
#[derive(Debug)]
pub struct Table<K, V> {
    name: &'static str,
    fd: OwnedFd,
    types: PhantomData<fn(K) -> V>,
}

impl<K: Plain, V: Plain> Table<K, V> {
    /// # Errors
    /// No such pin, or a map of another layout.
    pub fn open(folder: &Path, name: &'static str) -> Result<Self, FenceError> {
        let fault = |source| FenceError::Map { map: name, source };
        let fd = sys::open_pin(&folder.join(name)).map_err(fault)?;
        let sizes = sys::map_sizes(fd.as_fd()).map_err(fault)?;
        if sizes != (size_of::<K>() as u32, size_of::<V>() as u32) {
            return Err(fault(std::io::Error::other(format!(
                "key and value have {sizes:?} bytes: the pin belongs to another version; run `weir detach` first"
            ))));
        }
        Ok(Self { name, fd, types: PhantomData })
    }

    /// # Errors
    /// The map cannot be read.
    pub fn lookup(&self, key: &K) -> Result<Option<V>, FenceError> {
        let mut value = V::zeroed();
        let found = sys::map_lookup(self.fd.as_fd(), bytes(key), bytes_mut(&mut value));
        Ok(found.map_err(|source| self.fault(source))?.then_some(value))
    }

    /// # Errors
    /// The map is full or cannot be written.
    pub fn insert(&self, key: &K, value: &V) -> Result<(), FenceError> {
        sys::map_update(self.fd.as_fd(), bytes(key), bytes(value)).map_err(|source| self.fault(source))
    }

    /// # Errors
    /// The map cannot be written. An absent key is no error.
    pub fn remove(&self, key: &K) -> Result<(), FenceError> {
        sys::map_delete(self.fd.as_fd(), bytes(key)).map(drop).map_err(|source| self.fault(source))
    }

    /// Everything in the map. Entries that come or go meanwhile may be missed.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn entries(&self) -> Result<Vec<(K, V)>, FenceError> {
        let mut entries = Vec::new();
        let mut key: Option<K> = None;
        // A key deleted meanwhile starts the walk anew; the bound ends it.
        for _ in 0..ENTRIES {
            let mut next = K::zeroed();
            let more = sys::map_next_key(self.fd.as_fd(), key.as_ref().map(bytes), bytes_mut(&mut next));
            if !more.map_err(|source| self.fault(source))? {
                break;
            }
            if let Some(value) = self.lookup(&next)? {
                entries.push((next, value));
            }
            key = Some(next);
        }
        Ok(entries)
    }

    fn fault(&self, source: std::io::Error) -> FenceError {
        FenceError::Map { map: self.name, source }
    }
}

/// The pinned maps of one fence, for the agent and for commands beside it.
#[derive(Debug)]
pub struct Pins {
    folder: PathBuf,
    state: Table<u32, u64>,
    pub(super) handshakes: Table<Tuple, Origin>,
    pub labels: Table<u64, u64>,
    pub uncalled: Table<u64, u8>,
    pub listeners: Table<u64, Listener>,
    pub origins: Table<i32, Origin>,
    pub failures: Table<Dialled, Failure>,
    pub questions: Table<Tuple, Origin>,
    pub socket_names: Table<SocketName, u8>,
    pub boxed: Table<u64, u8>,
    pub socket_paths: Table<SocketPath, u8>,
    counters: OwnedFd,
}

impl Pins {
    /// Opens the pins in `folder` (see [`super::bpffs::folder`]).
    ///
    /// # Errors
    /// [`FenceError::Down`] when no fence is up; a map of another layout.
    pub fn open(folder: &Path) -> Result<Self, FenceError> {
        if !folder.join(map::STATE).exists() {
            return Err(FenceError::Down(folder.into()));
        }
        let counters = sys::open_pin(&folder.join(map::COUNTERS))
            .map_err(|source| FenceError::Map { map: map::COUNTERS, source })?;
        Ok(Self {
            folder: folder.into(),
            state: Table::open(folder, map::STATE)?,
            handshakes: Table::open(folder, map::HANDSHAKES)?,
            labels: Table::open(folder, map::LABELS)?,
            uncalled: Table::open(folder, map::UNCALLED)?,
            listeners: Table::open(folder, map::LISTENERS)?,
            origins: Table::open(folder, map::ORIGINS)?,
            failures: Table::open(folder, map::FAILURES)?,
            questions: Table::open(folder, map::QUESTIONS)?,
            socket_names: Table::open(folder, map::SOCKET_NAMES)?,
            boxed: Table::open(folder, map::BOXED)?,
            socket_paths: Table::open(folder, map::SOCKET_PATHS)?,
            counters,
        })
    }

    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn set_state(&self, slot: u32, value: u64) -> Result<(), FenceError> {
        self.state.insert(&slot, &value)
    }

    pub(super) fn state(&self, slot: u32) -> Result<u64, FenceError> {
        Ok(self.state.lookup(&slot)?.unwrap_or(0))
    }

    /// Does an agent live behind this fence?
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn is_alive(&self) -> Result<bool, FenceError> {
        let beat = self.state.lookup(&slot::HEARTBEAT)?.unwrap_or(0);
        Ok(monotonic_ns().saturating_sub(beat) <= HEARTBEAT_STALE_NS)
    }

    /// Every counter, summed over the CPUs.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn counters(&self) -> Result<Vec<(&'static str, u64)>, FenceError> {
        let cpus =
            aya::util::nr_cpus().map_err(|(_, source)| FenceError::Map { map: map::COUNTERS, source })?;
        let mut cells = vec![0_u8; cpus * size_of::<u64>()];
        let mut counted = Vec::with_capacity(Counter::ALL.len());
        for (counter, name) in Counter::ALL {
            let found = sys::map_lookup(self.counters.as_fd(), bytes(&(counter as u32)), &mut cells);
            // The pin of an older agent lacks the newest counters.
            if !found.map_err(|source| FenceError::Map { map: map::COUNTERS, source })? {
                cells.fill(0);
            }
            let (words, _) = cells.as_chunks::<8>();
            counted.push((name, words.iter().map(|word| u64::from_ne_bytes(*word)).sum()));
        }
        Ok(counted)
    }
}

fn bytes<T: Plain>(value: &T) -> &[u8] {
    // SAFETY: `Plain` has no padding, so each of its bytes is initialised.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast(), size_of::<T>()) }
}

fn bytes_mut<T: Plain>(value: &mut T) -> &mut [u8] {
    // SAFETY: as above, and every bit pattern written is a value.
    unsafe { std::slice::from_raw_parts_mut(std::ptr::from_mut(value).cast(), size_of::<T>()) }
}

/// Most steps of one walk over a map; the largest one that is walked holds 16 384 labels.
const ENTRIES: usize = 65_536;
