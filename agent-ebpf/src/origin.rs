//! The record's way from socket to socket: published by the full tuple as the SYN leaves, moved onto the accepted socket
//! when the handshake ends. It refuses to guess: no entry, no record, and the agent resets the connection.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, bpf_sock, bpf_sock_ops};
use aya_ebpf::helpers::generated::bpf_get_netns_cookie;
use aya_ebpf::macros::sock_ops;
use aya_ebpf::programs::{SockContext, SockOpsContext};
use core::ptr::{addr_of, read_volatile};
use weir_ebpf::{Address, Counter, Origin, Stamp, Tuple};

use crate::label;
use crate::maps::{self, HANDSHAKES};
use crate::peer::{self, Words};

/// Address, and port in host order.
type End = (Address, u32);

const AF_INET: u32 = 2;
const TCP_SYN_SENT: u32 = 2;
const TCP_CLOSE: u32 = 7;

/// Attached at the cgroup of the agents alone: the kernel calls it nine times for each connection, mostly for nothing.
#[sock_ops]
pub fn handover(ctx: SockOpsContext) -> u32 {
    // Other events carry no record.
    if ctx.op() == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB {
        accept(&ctx);
    }
    1
}

/// Workload's side, as the SYN leaves: its tuple is what the agent's socket will have. A SYN that is sent again finds its
/// entry there. One that cannot be published leaves all the same: the agent resets it, which is sooner than silence.
#[inline(always)]
pub fn publish(stamp: &mut Stamp, source: (Words, u16), end: (Words, u16)) {
    if stamp.published.netns != 0 {
        return;
    }
    // Written where it stays: the stack has no room for more copies.
    stamp.published = Tuple {
        netns: stamp.origin.netns,
        source: peer::bytes(source.0),
        destination: peer::bytes(end.0),
        source_port: u32::from(source.1),
        destination_port: u32::from(end.1),
    };
    let key = &stamp.published;
    if HANDSHAKES.insert(key, &stamp.origin, BPF_NOEXIST.into()).is_err() {
        // Left by a socket that still is open, failed, and has lost its port to this one; or the map is full.
        let is_left = HANDSHAKES.get_ptr(key).is_some();
        if !is_left || HANDSHAKES.insert(key, &stamp.origin, BPF_ANY.into()).is_err() {
            stamp.published.netns = 0;
            maps::count(Counter::Lost);
            return;
        }
        maps::count(Counter::Aborted);
    }
    maps::count(Counter::Published);
}

/// Agent's side: the handshake is over and nobody has accepted the socket yet.
#[inline(always)]
fn accept(ctx: &SockOpsContext) {
    // SAFETY: the context of this program.
    let netns = unsafe { bpf_get_netns_cookie(ctx.as_ptr()) };
    let (local, remote) = ends(ctx);
    let sk = socket(ctx);
    if sk.is_null() {
        return;
    }
    let key = Tuple {
        netns,
        source: remote.0,
        destination: local.0,
        source_port: remote.1,
        destination_port: local.1,
    };
    // A connection without entry is none of ours; the agent sees no record and resets it.
    // SAFETY: copied at once; whoever removes the entry has it.
    let Some(mut origin) = (unsafe { HANDSHAKES.get(&key) }).copied() else { return };
    if HANDSHAKES.remove(&key).is_err() {
        return;
    }
    // SAFETY: `sk` is not null.
    let counter = if unsafe { maps::hand_over(sk, &mut origin) } { Counter::Handed } else { Counter::Lost };
    maps::count(counter);
}

/// Workload's side: a socket that is closed before its handshake ended takes its entry with it. Once it was established
/// the entry is the agent's side's, which may be later by a moment.
#[inline(always)]
pub fn abandon(ctx: &SockContext) {
    // SAFETY: the program's context, never null.
    let state = unsafe { read_volatile(addr_of!((*ctx.sock).state)) };
    // The agent's sockets have none; to learn that from the socket takes longer.
    if (state != TCP_SYN_SENT && state != TCP_CLOSE) || label::is_agent() {
        return;
    }
    // SAFETY: as above.
    if let Some(stamp) = unsafe { maps::stamp(ctx.sock) } {
        retract(stamp);
    }
}

/// Takes back what this socket published, if it still is there.
#[inline(always)]
pub fn retract(stamp: &mut Stamp) {
    let key = &stamp.published;
    if key.netns == 0 {
        return;
    }
    if HANDSHAKES.get_ptr(key).is_some_and(|found| is_from(found, stamp.origin.cookie))
        && HANDSHAKES.remove(key).is_ok()
    {
        maps::count(Counter::Aborted);
    }
    stamp.published.netns = 0;
}

#[inline(always)]
fn is_from(origin: *const Origin, cookie: u64) -> bool {
    // SAFETY: the map's value, valid until the program ends.
    unsafe { (*origin).cookie == cookie }
}

#[inline(always)]
fn socket(ctx: &SockOpsContext) -> *mut bpf_sock {
    // SAFETY: the context of this program.
    unsafe { read_volatile(addr_of!((*ctx.ops).__bindgen_anon_2.sk)) }
}

/// Local and remote end, ports in host order.
#[inline(always)]
fn ends(ctx: &SockOpsContext) -> (End, End) {
    let ops: *mut bpf_sock_ops = ctx.ops;
    // Both families are loaded before one is chosen: loads in two branches are merged by LLVM into one with a computed
    // offset, which the verifier rejects.
    // SAFETY: the context of this program, one volatile load a word.
    unsafe {
        let local4 = read_volatile(addr_of!((*ops).local_ip4));
        let remote4 = read_volatile(addr_of!((*ops).remote_ip4));
        let local6 = [
            read_volatile(addr_of!((*ops).local_ip6[0])),
            read_volatile(addr_of!((*ops).local_ip6[1])),
            read_volatile(addr_of!((*ops).local_ip6[2])),
            read_volatile(addr_of!((*ops).local_ip6[3])),
        ];
        let remote6 = [
            read_volatile(addr_of!((*ops).remote_ip6[0])),
            read_volatile(addr_of!((*ops).remote_ip6[1])),
            read_volatile(addr_of!((*ops).remote_ip6[2])),
            read_volatile(addr_of!((*ops).remote_ip6[3])),
        ];
        let local_port = read_volatile(addr_of!((*ops).local_port));
        // In network order in its upper half's place: swap the whole word.
        let remote_port = u32::from_be(read_volatile(addr_of!((*ops).remote_port)));
        let is_v4 = read_volatile(addr_of!((*ops).family)) == AF_INET;
        let choose = |v4, v6| peer::bytes(if is_v4 { peer::mapped(v4) } else { v6 });
        ((choose(local4, local6), local_port), (choose(remote4, remote6), remote_port))
    }
}
