//! A refusal: what is counted and which error the task sees. It refuses to be silent: no refusal without a counter.

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::bpf_set_retval;
use aya_log_ebpf::debug;
use weir_ebpf::Counter;

use crate::maps;

pub const EPERM: i32 = 1;
pub const ENETUNREACH: i32 = 101;
pub const ECONNREFUSED: i32 = 111;

#[derive(Clone, Copy)]
pub struct Refusal {
    pub counter: Counter,
    pub errno: i32,
}

impl Refusal {
    #[inline(always)]
    pub fn denied(counter: Counter) -> Self {
        Self { counter, errno: EPERM }
    }

    #[inline(always)]
    pub fn unreachable(counter: Counter) -> Self {
        Self { counter, errno: ECONNREFUSED }
    }
}

/// What a hook returns to the kernel: 1 goes on, 0 refuses (EPERM unless the kernel lets us say more).
#[inline(always)]
pub fn answer<C: EbpfContext>(ctx: &C, verdict: Result<(), Refusal>) -> i32 {
    match verdict {
        Ok(()) => 1,
        Err(refusal) => {
            maps::count(refusal.counter);
            debug!(ctx, "refused tgid {}: reason {}", ctx.tgid(), refusal.counter as u32);
            if maps::has_set_retval() {
                // SAFETY: a helper that only sets the hook's return value; the verifier checks that this hook may.
                unsafe { bpf_set_retval(-refusal.errno) };
            }
            0
        }
    }
}
