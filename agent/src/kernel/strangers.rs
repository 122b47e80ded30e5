//! Labelled processes that made a socket in a network namespace without a listener: the kernel tells of them as it
//! happens. A lost event is no harm: the agent also looks for itself.

use std::os::fd::{AsFd, OwnedFd};

use aya::maps::{MapData, RingBuf};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::FenceError;

/// The kernel's news.
pub struct Strangers {
    ring: RingBuf<MapData>,
    ready: AsyncFd<OwnedFd>,
}

impl Strangers {
    pub(super) fn of(object: &mut aya::Ebpf) -> Result<Self, FenceError> {
        let map = object.take_map(weir_ebpf::map::STRANGERS).ok_or_else(|| fault(&"it was taken before"))?;
        let ring = RingBuf::try_from(map).map_err(|found| fault(&found))?;
        let ready = ring.as_fd().try_clone_to_owned().map_err(|found| fault(&found))?;
        // SAFETY: the descriptor is owned, stays open and the same for as long as it is registered.
        let ready = unsafe { AsyncFd::register_with_interest(ready, Interest::READABLE) };
        Ok(Self { ring, ready: ready.map_err(|found| fault(&found))? })
    }

    /// Process ids, as many as are known.
    ///
    /// # Errors
    /// The ring buffer cannot be awaited.
    pub async fn next(&mut self) -> Result<Vec<u32>, FenceError> {
        let mut guard = self.ready.readable().await.map_err(|found| fault(&found))?;
        let mut pids = Vec::new();
        while let Some(item) = self.ring.next() {
            if let Ok(bytes) = <[u8; 4]>::try_from(&*item) {
                pids.push(u32::from_ne_bytes(bytes));
            }
        }
        guard.clear_ready();
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }
}

fn fault(found: &dyn std::fmt::Display) -> FenceError {
    FenceError::Object(format!("map {}: {found}", weir_ebpf::map::STRANGERS))
}
