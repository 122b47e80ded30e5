//! Log records of the kernel programs, passed on to the agent's own log. They hold process ids and reasons, never
//! payload. Off unless the debug level of `weir::kernel` is on when the fence is raised.

use std::os::fd::AsFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::FenceError;

/// Level of the programs' own filter (aya_log_common::Level): 0 is off, which the verifier prunes away.
pub(super) fn level() -> u8 {
    if is_on() { 4 } else { 0 }
}

fn is_on() -> bool {
    tracing::enabled!(target: "weir::kernel", tracing::Level::DEBUG)
}

/// Passes records on until it is dropped; ends at once when they are off.
pub(super) async fn forward(object: &std::sync::Mutex<aya::Ebpf>) -> Result<(), FenceError> {
    if !is_on() {
        return Ok(());
    }
    let fault = |fault: &dyn std::fmt::Display| FenceError::Object(format!("log records: {fault}"));
    let mut logger = {
        let mut object = object.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        aya_log::EbpfLogger::init_with_logger(&mut object, Trace).map_err(|found| fault(&found))?
    };
    let ready = logger.as_fd().try_clone_to_owned().map_err(|found| fault(&found))?;
    // SAFETY: the descriptor is owned, stays open and the same for as long as it is registered.
    let ready = unsafe { AsyncFd::register_with_interest(ready, Interest::READABLE) };
    let ready = ready.map_err(|found| fault(&found))?;
    loop {
        let mut guard = ready.readable().await.map_err(|found| fault(&found))?;
        logger.flush();
        guard.clear_ready();
    }
}

/// The `log` crate's records as `tracing` events.
#[derive(Debug)]
struct Trace;

impl log::Log for Trace {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        tracing::debug!(target: "weir::kernel", program = record.target(), "{}", record.args());
    }

    fn flush(&self) {}
}
