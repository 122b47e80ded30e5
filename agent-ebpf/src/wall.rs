//! The wall: what leaves a labelled socket must be a turned connection, an answer on one, or a turned DNS question.
//! The hooks before it give good errors; this one is the guarantee for IP. It refuses by dropping, and counts.

use aya_ebpf::bindings::{__sk_buff, bpf_sock};
use aya_ebpf::helpers::generated::bpf_sk_fullsock;
use aya_ebpf::macros::cgroup_skb;
use aya_ebpf::programs::SkBuffContext;
use core::ptr::{addr_of, read_volatile};
use weir_ebpf::{CROWDED, Counter, Stamp};

use crate::create::{IPPROTO_TCP, IPPROTO_UDP};
use crate::maps::UNCALLED;
use crate::peer::{self, Words};
use crate::udp::LOOPBACK;
use crate::{label, maps, origin, question};

const PASS: i32 = 1;
const DROP: i32 = 0;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

#[cgroup_skb(egress)]
pub fn egress(ctx: SkBuffContext) -> i32 {
    // SAFETY: the context of this program.
    if carries_on(&ctx) || unsafe { label::is_agent_packet(ctx.skb.skb) } {
        return PASS;
    }
    match may_leave(&ctx) {
        Ok(()) => PASS,
        Err(counter) => {
            maps::count(counter);
            DROP
        }
    }
}

/// Most packets carry a TCP connection on whose first one was judged: told by two bytes where they lie.
#[inline(always)]
fn carries_on(ctx: &SkBuffContext) -> bool {
    let skb = ctx.skb.skb;
    // SAFETY: the context of this program; each load from the packet lies below its end.
    unsafe {
        let data = read_volatile(addr_of!((*skb).data)) as usize as *const u8;
        let end = read_volatile(addr_of!((*skb).data_end)) as usize as *const u8;
        if data.add(TCP_FLAGS4 + 1) > end {
            return false;
        }
        let first = read_volatile(data);
        if first == PLAIN_V4 && u32::from(read_volatile(data.add(9))) == IPPROTO_TCP {
            return read_volatile(data.add(TCP_FLAGS4)) & SYN == 0;
        }
        first >> 4 == 6
            && u32::from(read_volatile(data.add(6))) == IPPROTO_TCP
            && data.add(TCP_FLAGS6 + 1) <= end
            && read_volatile(data.add(TCP_FLAGS6)) & SYN == 0
    }
}

/// Version 4, a header of five words.
const PLAIN_V4: u8 = 0x45;
/// Where the flags of TCP lie after an IPv4 header without options, and after an IPv6 header.
const TCP_FLAGS4: usize = 20 + 13;
const TCP_FLAGS6: usize = 40 + 13;

#[inline(always)]
fn may_leave(ctx: &SkBuffContext) -> Result<(), Counter> {
    let Some(packet) = Packet::of(ctx) else {
        // Unreadable for us: only unlabelled sockets may send it.
        return if is_free(ctx.skb.skb) { Ok(()) } else { Err(Counter::Wall) };
    };
    if packet.answers() {
        return if may_be_called(ctx.skb.skb) { Ok(()) } else { Err(Counter::Called) };
    }
    if packet.continues() || calls(ctx.skb.skb, &packet) || is_free(ctx.skb.skb) {
        return Ok(());
    }
    let passes = match packet.protocol {
        // See `calls`.
        IPPROTO_TCP => false,
        IPPROTO_UDP => asks(ctx, &packet),
        // ICMP, SCTP, fragments with their header elsewhere, v6 extension headers: nothing a labelled socket needs.
        _ => false,
    };
    if passes { Ok(()) } else { Err(Counter::Wall) }
}

/// The first answer to somebody who calls: the socket is the listener's, or its child's.
#[inline(always)]
fn may_be_called(skb: *mut __sk_buff) -> bool {
    // SAFETY: the context of this program; of the map only presence is read.
    unsafe {
        let label = label::of_packet(skb);
        label == label::NONE || (label != CROWDED && UNCALLED.get(label).is_none())
    }
}

/// Does the fence not concern this packet's socket?
#[inline(always)]
fn is_free(skb: *mut __sk_buff) -> bool {
    // SAFETY: the context of this program.
    unsafe {
        label::of_packet(skb) == label::NONE && stamp(skb).is_none_or(|stamp| stamp.label == label::NONE)
    }
}

/// The SYN of a turned connection on its way to the agent: who calls is published now, under the tuple that it shows.
#[inline(always)]
fn calls(skb: *mut __sk_buff, packet: &Packet) -> bool {
    if packet.protocol != IPPROTO_TCP {
        return false;
    }
    let Some(stamp) = stamp(skb) else { return false };
    if stamp.turned == 0 || u32::from(packet.port) != stamp.turned || !peer::is_loopback(packet.destination) {
        return false;
    }
    origin::publish(stamp, (packet.source, packet.source_port), (packet.destination, packet.port));
    true
}

/// A DNS question on its way to the agent, whose asker is published now: the agent cannot read it earlier.
#[inline(always)]
fn asks(ctx: &SkBuffContext, packet: &Packet) -> bool {
    // SAFETY: the context of this program.
    let device = unsafe { read_volatile(addr_of!((*ctx.skb.skb).ifindex)) };
    let Some(sk) = socket(ctx.skb.skb) else { return false };
    // SAFETY: a full socket, null-checked.
    let (Some(stamp), Some(asker)) = (unsafe { (maps::stamp(sk), maps::asker(sk)) }) else { return false };
    if device != LOOPBACK || stamp.label == label::NONE {
        return false;
    }
    let (source, end) = ((packet.source, packet.source_port), (packet.destination, packet.port));
    question::publish(stamp, asker, source, end)
}

#[inline(always)]
fn stamp<'a>(skb: *mut __sk_buff) -> Option<&'a mut Stamp> {
    // SAFETY: a full socket, null-checked.
    unsafe { maps::stamp(socket(skb)?) }
}

#[inline(always)]
fn socket(skb: *mut __sk_buff) -> Option<*mut bpf_sock> {
    // SAFETY: the context of this program; both pointers are null-checked before use.
    unsafe {
        let sk = read_volatile(addr_of!((*skb).__bindgen_anon_2.sk));
        if sk.is_null() {
            return None;
        }
        let full = bpf_sk_fullsock(sk);
        if full.is_null() { None } else { Some(full) }
    }
}

struct Packet {
    source: Words,
    destination: Words,
    protocol: u32,
    /// Ports in host order.
    source_port: u16,
    port: u16,
    /// TCP flags.
    flags: u8,
}

impl Packet {
    #[inline(always)]
    fn of(ctx: &SkBuffContext) -> Option<Self> {
        Self::plain4(ctx.skb.skb).or_else(|| Self::parse(ctx))
    }

    /// TCP over IPv4 without options, read where it lies: what most connections begin with.
    #[inline(always)]
    fn plain4(skb: *mut __sk_buff) -> Option<Self> {
        // SAFETY: the context of this program; each load from the packet lies below its end.
        unsafe {
            let data = read_volatile(addr_of!((*skb).data)) as usize as *const u8;
            let end = read_volatile(addr_of!((*skb).data_end)) as usize as *const u8;
            if data.add(TCP_FLAGS4 + 1) > end || read_volatile(data) != PLAIN_V4 {
                return None;
            }
            let protocol = u32::from(read_volatile(data.add(9)));
            let port = |at: usize| {
                u16::from_be_bytes([read_volatile(data.add(at)), read_volatile(data.add(at + 1))])
            };
            (protocol == IPPROTO_TCP).then(|| Self {
                source: peer::mapped(data.add(12).cast::<u32>().read_unaligned()),
                destination: peer::mapped(data.add(16).cast::<u32>().read_unaligned()),
                protocol,
                source_port: port(20),
                port: port(22),
                flags: read_volatile(data.add(TCP_FLAGS4)),
            })
        }
    }

    #[inline(always)]
    fn parse(ctx: &SkBuffContext) -> Option<Self> {
        let first: u8 = ctx.load(0).ok()?;
        let (protocol, source, destination, header) = match first >> 4 {
            4 => (
                ctx.load::<u8>(9).ok()?,
                peer::mapped(ctx.load(12).ok()?),
                peer::mapped(ctx.load(16).ok()?),
                usize::from(first & 0x0f) * 4,
            ),
            6 => (ctx.load::<u8>(6).ok()?, ctx.load::<Words>(8).ok()?, ctx.load::<Words>(24).ok()?, 40),
            _ => return None,
        };
        let protocol = u32::from(protocol);
        let (mut source_port, mut port, mut flags) = (0, 0, 0);
        if protocol == IPPROTO_TCP || protocol == IPPROTO_UDP {
            source_port = u16::from_be(ctx.load(header).ok()?);
            port = u16::from_be(ctx.load(header + 2).ok()?);
        }
        if protocol == IPPROTO_TCP {
            flags = ctx.load(header + 13).ok()?;
        }
        Some(Self { source, destination, protocol, source_port, port, flags })
    }

    /// Part of a TCP connection whose first packet was judged.
    #[inline(always)]
    fn continues(&self) -> bool {
        self.protocol == IPPROTO_TCP && self.flags & SYN == 0
    }

    /// The first packet of a TCP connection that came from outside.
    #[inline(always)]
    fn answers(&self) -> bool {
        self.protocol == IPPROTO_TCP && self.flags & SYN != 0 && self.flags & ACK != 0
    }
}
