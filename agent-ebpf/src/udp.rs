//! Labelled UDP: questions to the host's DNS servers pass and are counted; QUIC and the rest are refused at once, so
//! that clients fall back to TCP. It refuses by errno, not by silence.

use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use weir_ebpf::Counter;

use crate::create::IPPROTO_UDP;
use crate::label;
use crate::maps::{self, RESOLVERS};
use crate::peer::{self, Peer, Words};
use crate::refusal::{Refusal, answer};

const DNS_PORT: u16 = 53;

#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(ctx: SockAddrContext) -> i32 {
    answer(&ctx, send::<false>(&ctx))
}

#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(ctx: SockAddrContext) -> i32 {
    answer(&ctx, send::<true>(&ctx))
}

#[inline(always)]
fn send<const V6: bool>(ctx: &SockAddrContext) -> Result<(), Refusal> {
    if label::is_agent() {
        return Ok(());
    }
    let peer = Peer::<V6>::of(ctx);
    let (asked, port, sk) = (peer.words(), peer.port(), peer.socket());
    if sk.is_null() {
        return Err(Refusal::denied(Counter::NoStorage));
    }
    // SAFETY: not null, from the context.
    if unsafe { label::of_call(sk) }? == label::NONE {
        return Ok(());
    }
    admit(asked, port, peer.protocol())
}

/// May a labelled socket talk UDP to this address?
#[inline(always)]
pub fn admit(asked: Words, port: u16, protocol: u32) -> Result<(), Refusal> {
    if protocol != IPPROTO_UDP {
        return Err(Refusal::denied(Counter::Protocol));
    }
    if port == DNS_PORT && is_resolver(asked) {
        maps::count(Counter::Dns);
        return Ok(());
    }
    Err(Refusal::denied(Counter::Udp))
}

#[inline(always)]
pub fn is_resolver(asked: Words) -> bool {
    // SAFETY: only its presence is read.
    unsafe { RESOLVERS.get(peer::bytes(asked)) }.is_some()
}
