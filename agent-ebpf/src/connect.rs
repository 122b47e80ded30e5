//! The turn: a labelled `connect` is written down on its socket and sent to the agent of its network namespace.
//! It refuses whatever it cannot write down or hand over; a refusal is never a pass.

use aya_ebpf::bindings::bpf_sock;
use aya_ebpf::helpers::generated::{
    bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_ktime_get_ns, bpf_setsockopt,
};
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use aya_ebpf::{EbpfContext, bindings::bpf_sock_addr};
use core::ptr::{addr_of, read_volatile};
use weir_ebpf::{Address, Counter, Dialled, HEARTBEAT_STALE_NS, Listener, NO_ROUTE6, Origin, Stamp, slot};

use crate::create::{IPPROTO_TCP, SOCK_DGRAM, SOCK_STREAM};
use crate::maps::{self, FAILURES, LISTENERS, STATE};
use crate::peer::{self, Peer, Words};
use crate::refusal::{ENETUNREACH, Refusal, answer};
use crate::{guard, label, origin, task, udp};

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const SOL_SOCKET: i32 = 1;
const SO_BINDTODEVICE: i32 = 25;

#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    answer(&ctx, turn::<false>(&ctx))
}

#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    answer(&ctx, turn::<true>(&ctx))
}

/// The application asks who is at the other end: it sees the address it dialled.
#[cgroup_sock_addr(getpeername4)]
pub fn getpeername4(ctx: SockAddrContext) -> i32 {
    show_peer::<false>(&ctx);
    1
}

#[cgroup_sock_addr(getpeername6)]
pub fn getpeername6(ctx: SockAddrContext) -> i32 {
    show_peer::<true>(&ctx);
    1
}

#[inline(always)]
fn turn<const V6: bool>(ctx: &SockAddrContext) -> Result<(), Refusal> {
    let Some(cgroup) = label::cgroup() else { return Ok(()) };
    let peer = Peer::<V6>::of(ctx);
    // Each field of the context is read once: a second read of one would keep its address in a register, which the
    // verifier takes for a modified context.
    let (asked, port, sk) = (peer.words(), peer.port(), peer.socket());
    let (kind, protocol) = (peer.kind(), peer.protocol());
    // SAFETY: the context of this program.
    let netns = unsafe { bpf_get_netns_cookie(ctx.as_ptr()) };
    // SAFETY: read once and copied.
    let listener = unsafe { LISTENERS.get(netns) }.copied();
    if is_direct_dial(listener, kind, asked, port) {
        return Err(Refusal::denied(Counter::DirectDial));
    }
    if sk.is_null() {
        return Err(Refusal::denied(Counter::NoStorage));
    }
    // SAFETY: `sk` is not null and comes from the context.
    let stamp = unsafe { maps::stamp(sk) };
    let label = label::of_call(cgroup, stamp.as_deref())?;
    if label == label::NONE {
        return Ok(());
    }
    if kind == SOCK_DGRAM {
        // SAFETY: the context of this program.
        let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
        let address = peer::bytes(asked);
        return udp::turn::<V6>(&peer, sk, listener, Called { cgroup, label, netns, cookie, address, port });
    }
    if kind != SOCK_STREAM || protocol != IPPROTO_TCP {
        return Err(Refusal::denied(Counter::Protocol));
    }
    let (listener_port, now) = serving::<V6>(listener, asked)?;
    if V6 && listener.is_some_and(|listener| listener.routes & NO_ROUTE6 != 0) && is_global6(asked) {
        return Err(Refusal { counter: Counter::NoRoute, errno: ENETUNREACH });
    }
    let address = peer::bytes(asked);
    check_failure(label, netns, address, port, now)?;
    let made = match stamp {
        None => unsafe { maps::stamp_or_new(sk) },
        born => born,
    };
    let Some(stamp) = made else { return Err(Refusal::denied(Counter::NoStorage)) };
    // The entry of an earlier try that led nowhere.
    origin::retract(stamp);
    // SAFETY: the context of this program.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    stamp.label = label;
    stamp.turned = u32::from(listener_port);
    write_down::<V6>(stamp, sk, Called { cgroup, label, netns, cookie, address, port }, now);
    if stamp.origin.ifindex != 0 {
        release_device(ctx.sock_addr)?;
    }
    peer.set(hop::<V6>(asked, cookie), listener_port);
    maps::count(Counter::Turned);
    Ok(())
}

/// 2000::/3.
#[inline(always)]
fn is_global6(asked: Words) -> bool {
    u32::from_be(asked[0]) >> 29 == 1
}

/// The agent's port is for the fence alone: a stranger that dialled it could inherit a record that is not its own.
#[inline(always)]
pub fn is_direct_dial(listener: Option<Listener>, kind: u32, asked: Words, port: u16) -> bool {
    listener.is_some_and(|listener| guard::is_ours(&listener, kind, port)) && peer::is_loopback(asked)
}

/// Port of the living agent for this family, in this network namespace; and what time it is.
#[inline(always)]
fn serving<const V6: bool>(listener: Option<Listener>, asked: Words) -> Result<(u16, u64), Refusal> {
    let Some(listener) = listener else {
        return Err(Refusal::unreachable(Counter::NoListener));
    };
    let port = if V6 && !peer::is_mapped(asked) { listener.port6 } else { listener.port4 };
    if port == 0 {
        return Err(Refusal::unreachable(Counter::NoListener));
    }
    Ok((port, check_alive()?))
}

/// The time (`CLOCK_MONOTONIC`), at which the agent is alive.
#[inline(always)]
pub fn check_alive() -> Result<u64, Refusal> {
    let beat = STATE.get(slot::HEARTBEAT).copied().unwrap_or(0);
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    if now.saturating_sub(beat) > HEARTBEAT_STALE_NS {
        return Err(Refusal::unreachable(Counter::Stale));
    }
    Ok(now)
}

/// The turn lets every `connect` succeed; a destination that just failed is refused here as it would have been.
#[inline(always)]
fn check_failure(label: u64, netns: u64, address: Address, port: u16, now: u64) -> Result<(), Refusal> {
    if STATE.get(slot::FAILING).is_none_or(|until| now >= *until) {
        return Ok(());
    }
    let dialled = Dialled { label, netns, address, port: u32::from(port), reserved: 0 };
    // SAFETY: read once; an entry replaced meanwhile is another failure of a moment ago.
    let Some(failure) = (unsafe { FAILURES.get(dialled) }) else { return Ok(()) };
    if now >= failure.until {
        return Ok(());
    }
    // Errnos end at 4095; anything else would be no errno to the kernel.
    let errno = (failure.errno & 0xfff) as i32;
    Err(Refusal { counter: Counter::Failed, errno })
}

#[derive(Clone, Copy)]
pub struct Called {
    pub cgroup: u64,
    pub label: u64,
    pub netns: u64,
    pub cookie: u64,
    pub address: Address,
    pub port: u16,
}

#[inline(always)]
pub fn write_down<const V6: bool>(stamp: &mut Stamp, sk: *mut bpf_sock, called: Called, now: u64) {
    let origin: &mut Origin = &mut stamp.origin;
    origin.address = called.address;
    origin.port = called.port;
    origin.family = if V6 { AF_INET6 } else { AF_INET };
    origin.label = called.label;
    origin.netns = called.netns;
    origin.cookie = called.cookie;
    origin.cgroup = called.cgroup;
    origin.ktime = now;
    origin.start_boottime = task::start_boottime();
    // SAFETY: helpers without arguments; `sk` is not null, and each field is loaded by itself.
    unsafe {
        origin.tgid = (aya_ebpf::helpers::bpf_get_current_pid_tgid() >> 32) as u32;
        let user = aya_ebpf::helpers::bpf_get_current_uid_gid();
        origin.uid = user as u32;
        origin.gid = (user >> 32) as u32;
        origin.mark = read_volatile(addr_of!((*sk).mark));
        origin.ifindex = read_volatile(addr_of!((*sk).bound_dev_if));
        origin.source = source::<V6>(sk);
    }
}

/// # Safety
/// `sk` is not null.
#[inline(always)]
unsafe fn source<const V6: bool>(sk: *mut bpf_sock) -> Address {
    // SAFETY: the caller's promise.
    unsafe {
        if V6 {
            peer::bytes([
                read_volatile(addr_of!((*sk).src_ip6[0])),
                read_volatile(addr_of!((*sk).src_ip6[1])),
                read_volatile(addr_of!((*sk).src_ip6[2])),
                read_volatile(addr_of!((*sk).src_ip6[3])),
            ])
        } else {
            match read_volatile(addr_of!((*sk).src_ip4)) {
                0 => [0; 16],
                word => peer::bytes(peer::mapped(word)),
            }
        }
    }
}

/// A socket bound to a device would send its SYN there instead of to the loopback; the record keeps the device.
#[inline(always)]
fn release_device(ctx: *mut bpf_sock_addr) -> Result<(), Refusal> {
    let mut none = [0_u8; 4];
    // SAFETY: an empty name of four bytes on our own stack.
    let failed = unsafe {
        bpf_setsockopt(ctx.cast(), SOL_SOCKET, SO_BINDTODEVICE, none.as_mut_ptr().cast(), none.len() as i32)
    };
    if failed == 0 { Ok(()) } else { Err(Refusal::denied(Counter::NoStorage)) }
}

/// Where the agent listens. v4 is spread over 1000 addresses by socket cookie, since one address has 28 000 ports and
/// is slow beyond 14 000; v6 has one loopback address and no more.
#[inline(always)]
fn hop<const V6: bool>(asked: Words, cookie: u64) -> Words {
    if V6 && !peer::is_mapped(asked) {
        return [0, 0, 0, 1_u32.to_be()];
    }
    let host = 1 + (cookie % 250) as u32;
    let net = (cookie / 250 % 4) as u32;
    peer::mapped((127 << 24 | net << 8 | host).to_be())
}

#[inline(always)]
fn show_peer<const V6: bool>(ctx: &SockAddrContext) {
    let peer = Peer::<V6>::of(ctx);
    let sk = peer.socket();
    if sk.is_null() || label::is_agent() {
        return;
    }
    if peer.kind() == SOCK_DGRAM {
        return udp::show_server::<V6>(&peer, sk);
    }
    // SAFETY: not null, from the context.
    let Some(stamp) = (unsafe { maps::stamp(sk) }) else { return };
    // Only what was turned is shown otherwise: the port tells an accepted or unturned socket apart.
    if stamp.turned == 0 || u32::from(peer.port()) != stamp.turned {
        return;
    }
    peer.set(peer::words(stamp.origin.address), stamp.origin.port);
}
