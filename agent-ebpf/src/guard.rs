//! The agent's ports stay the agent's, also while it is dead: nobody else may bind it, by name or by luck.
//! The hook runs after the kernel has chosen the port, so `bind(0)` is judged by what it got.

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::generated::bpf_get_netns_cookie;
use aya_ebpf::macros::cgroup_sock;
use aya_ebpf::programs::SockContext;
use core::ptr::{addr_of, read_volatile};
use weir_ebpf::{Counter, Listener};

use crate::create::{SOCK_DGRAM, SOCK_STREAM};
use crate::label;
use crate::maps::LISTENERS;
use crate::peer::{self, Words};
use crate::refusal::Refusal;

#[cgroup_sock(post_bind4)]
pub fn post_bind4(ctx: SockContext) -> i32 {
    judge::<false>(&ctx)
}

#[cgroup_sock(post_bind6)]
pub fn post_bind6(ctx: SockContext) -> i32 {
    judge::<true>(&ctx)
}

#[inline(always)]
fn judge<const V6: bool>(ctx: &SockContext) -> i32 {
    crate::refusal::answer(ctx, keep_port::<V6>(ctx))
}

#[inline(always)]
fn keep_port<const V6: bool>(ctx: &SockContext) -> Result<(), Refusal> {
    // SAFETY: the context of this program, one volatile load a field.
    let (kind, port) = unsafe {
        (read_volatile(addr_of!((*ctx.sock).type_)), read_volatile(addr_of!((*ctx.sock).src_port)))
    };
    // SAFETY: the context of this program.
    let netns = unsafe { bpf_get_netns_cookie(ctx.as_ptr()) };
    // SAFETY: read once.
    let Some(listener) = (unsafe { LISTENERS.get(netns) }) else { return Ok(()) };
    let ours = is_ours(listener, kind, port as u16);
    // Another v6 address shares no port with ::1, so `bind(0)` may get one of ours there, and nothing is turned to it.
    if V6 && kind == SOCK_DGRAM && !peer::is_loopback(source6(ctx)) {
        return Ok(());
    }
    if ours && !label::is_agent() { Err(Refusal::denied(Counter::Bind)) } else { Ok(()) }
}

#[inline(always)]
fn source6(ctx: &SockContext) -> Words {
    // SAFETY: the context of this program, one volatile load a word.
    unsafe {
        [
            read_volatile(addr_of!((*ctx.sock).src_ip6[0])),
            read_volatile(addr_of!((*ctx.sock).src_ip6[1])),
            read_volatile(addr_of!((*ctx.sock).src_ip6[2])),
            read_volatile(addr_of!((*ctx.sock).src_ip6[3])),
        ]
    }
}

/// Does the agent listen on this port, for this kind of socket? Port in host order.
#[inline(always)]
pub fn is_ours(listener: &Listener, kind: u32, port: u16) -> bool {
    match kind {
        _ if port == 0 => false,
        SOCK_STREAM => port == listener.port4 || port == listener.port6,
        SOCK_DGRAM => port == listener.dns4 || listener.dns6.iter().any(|slot| port == *slot),
        // Other kinds have no ports of ours.
        _ => false,
    }
}
