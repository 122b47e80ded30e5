//! Whom the fence concerns: the label of a task, of a socket, of a packet. Task and socket are joined: either one's
//! label binds, and two different labels refuse, since neither policy would be the right one.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::{
    bpf_get_current_ancestor_cgroup_id, bpf_get_current_cgroup_id, bpf_skb_ancestor_cgroup_id,
    bpf_skb_cgroup_id,
};
use weir_ebpf::{CGROUP_LEVELS, Counter, slot};

use crate::maps::{self, LABELS, STATE};
use crate::refusal::Refusal;

/// No label: the fence does not concern it.
pub const NONE: u64 = 0;

/// Is the current task the agent itself?
#[inline(always)]
pub fn is_agent() -> bool {
    // SAFETY: a helper without arguments.
    is_agent_cgroup(unsafe { bpf_get_current_cgroup_id() })
}

/// Did the agent's own socket send this packet?
///
/// # Safety
/// `skb` is the program's context.
#[inline(always)]
pub unsafe fn is_agent_packet(skb: *mut __sk_buff) -> bool {
    // SAFETY: the caller's promise.
    is_agent_cgroup(unsafe { bpf_skb_cgroup_id(skb) })
}

#[inline(always)]
fn is_agent_cgroup(id: u64) -> bool {
    STATE.get(slot::AGENT_CGROUP).is_some_and(|agent| *agent != 0 && *agent == id)
}

/// Label of the current task: the one set deepest on its cgroup's path.
#[inline(always)]
pub fn of_task() -> u64 {
    // SAFETY: a helper that answers 0 beyond the task's level.
    deepest(|level| unsafe { bpf_get_current_ancestor_cgroup_id(level) })
}

/// Label of the cgroup in which the packet's socket was born.
///
/// # Safety
/// `skb` is the program's context.
#[inline(always)]
pub unsafe fn of_packet(skb: *mut __sk_buff) -> u64 {
    // SAFETY: the caller's promise; answers 0 beyond the socket's level.
    deepest(|level| unsafe { bpf_skb_ancestor_cgroup_id(skb, level) })
}

/// Label of the socket joined with the task's.
///
/// # Safety
/// `sk` is a null-checked socket from the context.
#[inline(always)]
pub unsafe fn of_call<S>(sk: *mut S) -> Result<u64, Refusal> {
    // SAFETY: the caller's promise.
    let born = unsafe { maps::stamp(sk) }.map_or(NONE, |stamp| stamp.label);
    let task = of_task();
    if born == NONE {
        return Ok(task);
    }
    if task != NONE && task != born {
        return Err(Refusal::denied(Counter::Conflict));
    }
    Ok(born)
}

#[inline(always)]
fn deepest(ancestor: impl Fn(i32) -> u64) -> u64 {
    let mut label = NONE;
    // From the root down: the walk ends at the task's own level, which is shallow on most hosts.
    for level in 1..=CGROUP_LEVELS {
        let id = ancestor(level);
        if id == 0 {
            break;
        }
        // SAFETY: read once and copied; an entry replaced meanwhile is a label that was true a moment ago.
        if let Some(found) = unsafe { LABELS.get(id) } {
            label = *found;
        }
    }
    label
}
