//! Labelled UDP: questions to any DNS server are turned to the agent, which asks the host's own servers for them; QUIC
//! and the rest are refused at once, so that clients fall back to TCP. It refuses by errno, not by silence.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::bpf_sock;
use aya_ebpf::helpers::generated::{bpf_get_netns_cookie, bpf_get_socket_cookie};
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use core::ptr::{addr_of, read_volatile};
use weir_ebpf::{Counter, DNS_PORT, Listener};

use crate::connect::{self, Called};
use crate::create::{IPPROTO_UDP, SOCK_DGRAM};
use crate::maps::{self, LISTENERS};
use crate::peer::{self, Peer, Words};
use crate::refusal::{Refusal, answer};
use crate::{label, question};

/// Index of `lo` in every network namespace (LOOPBACK_IFINDEX).
pub const LOOPBACK: u32 = 1;

#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(ctx: SockAddrContext) -> i32 {
    answer(&ctx, send::<false>(&ctx))
}

#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(ctx: SockAddrContext) -> i32 {
    answer(&ctx, send::<true>(&ctx))
}

/// The application reads an answer: it sees the server it asked.
#[cgroup_sock_addr(recvmsg4)]
pub fn recvmsg4(ctx: SockAddrContext) -> i32 {
    receive::<false>(&ctx);
    1
}

#[cgroup_sock_addr(recvmsg6)]
pub fn recvmsg6(ctx: SockAddrContext) -> i32 {
    receive::<true>(&ctx);
    1
}

#[inline(always)]
fn send<const V6: bool>(ctx: &SockAddrContext) -> Result<(), Refusal> {
    let Some(cgroup) = label::cgroup() else { return Ok(()) };
    let peer = Peer::<V6>::of(ctx);
    let (asked, port, sk) = (peer.words(), peer.port(), peer.socket());
    // SAFETY: the context of this program.
    let netns = unsafe { bpf_get_netns_cookie(ctx.as_ptr()) };
    // SAFETY: read once and copied.
    let listener = unsafe { LISTENERS.get(netns) }.copied();
    if connect::is_direct_dial(listener, SOCK_DGRAM, asked, port) {
        return Err(Refusal::denied(Counter::DirectDial));
    }
    if sk.is_null() {
        return Err(Refusal::denied(Counter::NoStorage));
    }
    // SAFETY: not null, from the context.
    let label = label::of_call(cgroup, unsafe { maps::stamp(sk) }.as_deref())?;
    if label == label::NONE {
        return Ok(());
    }
    // SAFETY: the context of this program.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    let address = peer::bytes(asked);
    turn::<V6>(&peer, sk, listener, Called { cgroup, label, netns, cookie, address, port })
}

/// Turns a labelled `connect` or `sendmsg` to port 53; refuses every other one.
#[inline(always)]
pub fn turn<const V6: bool>(
    peer: &Peer<V6>,
    sk: *mut bpf_sock,
    listener: Option<Listener>,
    called: Called,
) -> Result<(), Refusal> {
    if peer.protocol() != IPPROTO_UDP {
        return Err(Refusal::denied(Counter::Protocol));
    }
    if called.port != DNS_PORT {
        return Err(Refusal::denied(Counter::Udp));
    }
    let Some(listener) = listener else {
        return Err(Refusal::unreachable(Counter::NoListener));
    };
    let now = connect::check_alive()?;
    // A socket bound to a device would send there what is meant for the loopback.
    // SAFETY: the caller has checked that `sk` is not null.
    let device = unsafe { read_volatile(addr_of!((*sk).bound_dev_if)) };
    if device != 0 && device != LOOPBACK {
        return Err(Refusal::denied(Counter::Udp));
    }
    // SAFETY: as above.
    let (stamp, asker) = match unsafe { (maps::stamp_or_new(sk), maps::asker_or_new(sk)) } {
        (Some(stamp), Some(asker)) => (stamp, asker),
        (None, _) | (_, None) => return Err(Refusal::denied(Counter::NoStorage)),
    };
    let slot = question::slot(asker, &called.address).ok_or(Refusal::denied(Counter::Udp))?;
    let native6 = V6 && !peer::is_mapped(peer::words(called.address));
    let (hop, port) = if native6 {
        ([0, 0, 0, 1_u32.to_be()], question::port6(&listener, slot))
    } else {
        (question::hop4(called.cookie, slot), listener.dns4)
    };
    if port == 0 {
        return Err(Refusal::unreachable(Counter::NoListener));
    }
    stamp.label = called.label;
    connect::write_down::<V6>(stamp, sk, called, now);
    peer.set(hop, port);
    maps::count(Counter::Dns);
    Ok(())
}

#[inline(always)]
fn receive<const V6: bool>(ctx: &SockAddrContext) {
    let peer = Peer::<V6>::of(ctx);
    let sk = peer.socket();
    if !sk.is_null() {
        show_server::<V6>(&peer, sk);
    }
}

/// Shows the server that was asked in place of the agent that answers for it.
#[inline(always)]
pub fn show_server<const V6: bool>(peer: &Peer<V6>, sk: *mut bpf_sock) {
    // SAFETY: not null, from the context.
    let (Some(stamp), Some(asker)) = (unsafe { (maps::stamp(sk), maps::asker(sk)) }) else { return };
    // SAFETY: read once and copied.
    let Some(listener) = (unsafe { LISTENERS.get(stamp.origin.netns) }).copied() else { return };
    let shown: Words = peer.words();
    let Some(slot) = question::slot_of(&listener, stamp.origin.cookie, shown, peer.port()) else { return };
    let asked = question::at(asker, slot);
    if asked.used != 0 {
        peer.set(peer::words(asked.server), DNS_PORT);
    }
}
