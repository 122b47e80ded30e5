//! Whom the fence concerns: the label of a task, of a socket, of a packet. Task and socket are joined: either one's
//! label binds, and two different labels refuse, since neither policy would be the right one.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::{
    bpf_get_current_ancestor_cgroup_id, bpf_get_current_cgroup_id, bpf_skb_ancestor_cgroup_id,
    bpf_skb_cgroup_id,
};
use weir_ebpf::{CGROUP_LEVELS, CROWDED, Counter, Stamp, slot};

use crate::maps::{self, LABELS, PLACES, STATE};
use crate::refusal::Refusal;

/// No label: the fence does not concern it.
pub const NONE: u64 = 0;

/// The current task's cgroup; `None` when the task is the agent itself.
#[inline(always)]
pub fn cgroup() -> Option<u64> {
    // SAFETY: a helper without arguments.
    let id = unsafe { bpf_get_current_cgroup_id() };
    (!is_agent_cgroup(id)).then_some(id)
}

/// Is the current task the agent itself?
#[inline(always)]
pub fn is_agent() -> bool {
    cgroup().is_none()
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

/// Label of the current task, which is in `cgroup`: the one set deepest on its path.
#[inline(always)]
pub fn of_task(cgroup: u64) -> u64 {
    // SAFETY: a helper that answers 0 beyond the task's level.
    deepest(cgroup, |level| unsafe { bpf_get_current_ancestor_cgroup_id(level) })
}

/// Label of the cgroup in which the packet's socket was born.
///
/// # Safety
/// `skb` is the program's context.
#[inline(always)]
pub unsafe fn of_packet(skb: *mut __sk_buff) -> u64 {
    // SAFETY: the caller's promise; answers 0 beyond the socket's level.
    unsafe { deepest(bpf_skb_cgroup_id(skb), |level| bpf_skb_ancestor_cgroup_id(skb, level)) }
}

/// Label of the current task, which is in `cgroup` and must not be in want of one.
#[inline(always)]
pub fn known_of_task(cgroup: u64) -> Result<u64, Refusal> {
    match of_task(cgroup) {
        CROWDED => Err(Refusal::denied(Counter::Crowded)),
        label => Ok(label),
    }
}

/// Label of a socket, whose stamp this is, joined with that of the current task, which is in `cgroup`.
#[inline(always)]
pub fn of_call(cgroup: u64, stamp: Option<&Stamp>) -> Result<u64, Refusal> {
    let born = stamp.map_or(NONE, |stamp| stamp.label);
    let task = known_of_task(cgroup)?;
    if born == NONE {
        return Ok(task);
    }
    if task != NONE && task != born {
        return Err(Refusal::denied(Counter::Conflict));
    }
    Ok(born)
}

#[inline(always)]
fn deepest(own: u64, ancestor: impl Fn(i32) -> u64) -> u64 {
    // Most labels are set where the processes are.
    // SAFETY: read once and copied; an entry replaced meanwhile is a label that was true a moment ago.
    if let Some(found) = unsafe { LABELS.get(own) } {
        return *found;
    }
    let is_crowded = STATE.get(slot::CROWDED).is_some_and(|crowded| *crowded != 0);
    let (mut label, mut spilled) = (NONE, if is_crowded { spilled_below(ancestor(0)) } else { 0 });
    // From the root down: the walk ends at the task's own level, which is shallow on most hosts.
    for level in 1..=CGROUP_LEVELS {
        let id = ancestor(level);
        if id == 0 || (id == own && !is_crowded) {
            break;
        }
        // SAFETY: as above.
        if let Some(found) = unsafe { LABELS.get(id) } {
            label = *found;
        } else if is_crowded && lacks_label(id, spilled) {
            label = CROWDED;
        }
        if is_crowded {
            spilled = spilled_below(id);
        }
    }
    label
}

/// Should this cgroup have a label that no map had room for? A child that has a place has been judged.
#[inline(always)]
fn lacks_label(id: u64, spilled: u64) -> bool {
    // SAFETY: of both maps only presence is read.
    unsafe { maps::CROWDED.get(id).is_some() || (spilled != 0 && id >= spilled && PLACES.get(id).is_none()) }
}

/// The first child of this cgroup that may lack a label; 0 when none does.
#[inline(always)]
fn spilled_below(id: u64) -> u64 {
    // SAFETY: one word, read once.
    unsafe { PLACES.get(id) }.map_or(0, |place| place.spilled)
}
