//! Birth of a socket: a labelled task's socket is stamped before the task can touch it, so that the label follows the
//! descriptor wherever it goes, and so that the record's memory is there when `connect` needs it.
//! It refuses every protocol that would carry data past the proxy.

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::bpf_get_netns_cookie;
use aya_ebpf::macros::cgroup_sock;
use aya_ebpf::programs::SockContext;
use core::ptr::{addr_of, read_volatile};
use weir_ebpf::{Counter, slot};

use crate::maps::{LISTENERS, STATE};
use crate::refusal::{Refusal, answer};
use crate::{label, maps};

pub const SOCK_STREAM: u32 = 1;
pub const SOCK_DGRAM: u32 = 2;
pub const IPPROTO_TCP: u32 = 6;
pub const IPPROTO_UDP: u32 = 17;

#[cgroup_sock(sock_create)]
pub fn sock_create(ctx: SockContext) -> i32 {
    answer(&ctx, stamp(&ctx))
}

#[inline(always)]
fn stamp(ctx: &SockContext) -> Result<(), Refusal> {
    let Some(cgroup) = label::cgroup() else { return Ok(()) };
    let label = label::known_of_task(cgroup)?;
    if label == label::NONE {
        return Ok(());
    }
    let sk = ctx.sock;
    // SAFETY: `sk` is the program's context, never null; one volatile load a field keeps the verifier's view simple.
    let (kind, protocol) =
        unsafe { (read_volatile(addr_of!((*sk).type_)), read_volatile(addr_of!((*sk).protocol))) };
    let spoken =
        (kind == SOCK_STREAM && protocol == IPPROTO_TCP) || (kind == SOCK_DGRAM && protocol == IPPROTO_UDP);
    if !spoken {
        return Err(Refusal::denied(Counter::Protocol));
    }
    // SAFETY: the context of this program.
    let netns = unsafe { bpf_get_netns_cookie(ctx.as_ptr()) };
    let is_host = STATE.get(slot::SERVED).is_some_and(|served| *served == netns);
    // SAFETY: of the map only presence is read.
    if !is_host && unsafe { LISTENERS.get(netns) }.is_none() {
        maps::report_stranger(ctx.tgid());
    }
    // SAFETY: as above.
    match unsafe { maps::stamp_or_new(sk) } {
        Some(stamp) => {
            stamp.label = label;
            Ok(())
        }
        None => Err(Refusal::denied(Counter::NoStorage)),
    }
}
