//! The only clock: one reading a wake, handed to the core as a value.

use std::sync::LazyLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use weir_core::session::Now;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Both clocks, now.
#[must_use]
pub fn now() -> Now {
    Now { wall_ns: wall_ns(), mono_ns: u64::try_from(START.elapsed().as_nanos()).unwrap_or(u64::MAX) }
}

/// Nanoseconds since 1970 UTC; 0 for a clock set before that.
#[must_use]
pub fn wall_ns() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}
