//! The record's way from socket to socket: published by the full tuple before the SYN leaves, moved onto the accepted
//! socket when the handshake ends. It refuses to guess: no entry, no record, and the agent resets the connection.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::{
    BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG,
    BPF_SOCK_OPS_TCP_CONNECT_CB, bpf_sock, bpf_sock_ops,
};
use aya_ebpf::helpers::generated::{bpf_get_netns_cookie, bpf_sock_ops_cb_flags_set};
use aya_ebpf::macros::sock_ops;
use aya_ebpf::programs::SockOpsContext;
use core::ptr::{addr_of, read_volatile};
use weir_ebpf::{Address, Counter, Origin, Tuple};

use crate::maps::{self, HANDSHAKES, LISTENERS};
use crate::peer;

/// Address, and port in host order.
type End = (Address, u32);

const AF_INET: u32 = 2;
const TCP_CLOSE: u32 = 7;

#[sock_ops]
pub fn handover(ctx: SockOpsContext) -> u32 {
    match ctx.op() {
        BPF_SOCK_OPS_TCP_CONNECT_CB => publish(&ctx),
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => accept(&ctx),
        BPF_SOCK_OPS_STATE_CB => forget(&ctx),
        // Other events carry no record.
        _ => {}
    }
    1
}

/// Workload's side: the source port is chosen, the SYN has not left.
#[inline(always)]
fn publish(ctx: &SockOpsContext) {
    let sk = socket(ctx);
    if sk.is_null() {
        return;
    }
    // SAFETY: not null, from the context.
    let Some(stamp) = (unsafe { maps::stamp(sk) }) else { return };
    if stamp.turned == 0 || stamp.turned != remote_port(ctx) {
        return;
    }
    let (local, remote) = ends(ctx);
    let key = Tuple {
        netns: stamp.origin.netns,
        source: local.0,
        destination: remote.0,
        source_port: local.1,
        destination_port: remote.1,
    };
    if HANDSHAKES.insert(key, stamp.origin, 0).is_err() {
        maps::count(Counter::Lost);
        return;
    }
    maps::count(Counter::Published);
    // SAFETY: the context of this program. Without the flag an aborted handshake would leave its entry behind.
    unsafe { bpf_sock_ops_cb_flags_set(ctx.ops, BPF_SOCK_OPS_STATE_CB_FLAG as i32) };
}

/// Agent's side: the handshake is over and nobody has accepted the socket yet.
#[inline(always)]
fn accept(ctx: &SockOpsContext) {
    // SAFETY: the context of this program.
    let netns = unsafe { bpf_get_netns_cookie(ctx.as_ptr()) };
    // SAFETY: read once.
    let Some(listener) = (unsafe { LISTENERS.get(netns) }) else { return };
    let (local, remote) = ends(ctx);
    if local.1 != u32::from(listener.port4) && local.1 != u32::from(listener.port6) {
        return;
    }
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
    let Some(origin) = HANDSHAKES.get_ptr_mut(key) else { return };
    // SAFETY: `sk` is not null; the map's value is a whole record until it is removed below.
    let counter = if unsafe { maps::hand_over(sk, origin) } { Counter::Handed } else { Counter::Lost };
    maps::count(counter);
    let _ = HANDSHAKES.remove(key);
}

/// Workload's side: a socket that closes before its handshake ended takes its entry with it.
#[inline(always)]
fn forget(ctx: &SockOpsContext) {
    // SAFETY: the context of this program.
    let next = unsafe { read_volatile(addr_of!((*ctx.ops).__bindgen_anon_1.args[1])) };
    if next != TCP_CLOSE {
        return;
    }
    let sk = socket(ctx);
    if sk.is_null() {
        return;
    }
    // SAFETY: not null, from the context.
    let Some(stamp) = (unsafe { maps::stamp(sk) }) else { return };
    let (local, remote) = ends(ctx);
    let key = Tuple {
        netns: stamp.origin.netns,
        source: local.0,
        destination: remote.0,
        source_port: local.1,
        destination_port: remote.1,
    };
    if HANDSHAKES.get_ptr(key).is_some_and(|found| is_from(found, stamp.origin.cookie))
        && HANDSHAKES.remove(key).is_ok()
    {
        maps::count(Counter::Aborted);
    }
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
        let remote_port = remote_port(ctx);
        let is_v4 = read_volatile(addr_of!((*ops).family)) == AF_INET;
        let choose = |v4, v6| peer::bytes(if is_v4 { peer::mapped(v4) } else { v6 });
        ((choose(local4, local6), local_port), (choose(remote4, remote6), remote_port))
    }
}

/// `remote_port` holds the port in network order in its upper half's place: swap the whole word.
#[inline(always)]
fn remote_port(ctx: &SockOpsContext) -> u32 {
    // SAFETY: the context of this program.
    u32::from_be(unsafe { read_volatile(addr_of!((*ctx.ops).remote_port)) })
}
