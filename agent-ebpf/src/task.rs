//! When the current process started: with its id the only key to a process that is never reused.
//! It refuses to guess the layout of the kernel: the agent reads the offsets from the kernel's own BTF.

use aya_ebpf::Global;
use aya_ebpf::helpers::generated::{bpf_get_current_task, bpf_probe_read_kernel};

/// Byte offsets in `task_struct`; 0 when unknown.
#[unsafe(no_mangle)]
static TASK_GROUP_LEADER: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
static TASK_START_BOOTTIME: Global<u32> = Global::new(0);

/// Nanoseconds since boot at which the current thread group started; 0 when the kernel cannot be read.
#[inline(always)]
pub fn start_boottime() -> u64 {
    let (leader_at, start_at) = (TASK_GROUP_LEADER.load(), TASK_START_BOOTTIME.load());
    if leader_at == 0 || start_at == 0 {
        return 0;
    }
    // SAFETY: a helper without arguments.
    let task = unsafe { bpf_get_current_task() };
    read(task + u64::from(leader_at)).and_then(|leader| read(leader + u64::from(start_at))).unwrap_or(0)
}

#[inline(always)]
fn read(address: u64) -> Option<u64> {
    let mut word = 0_u64;
    // SAFETY: the helper copies eight bytes or fails; it never faults.
    let failed = unsafe {
        bpf_probe_read_kernel(
            (&raw mut word).cast(),
            size_of::<u64>() as u32,
            address as *const core::ffi::c_void,
        )
    };
    (failed == 0).then_some(word)
}
