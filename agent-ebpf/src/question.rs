//! Who asks, and whom: a DNS question carries its server's slot in the loopback address it is turned to, and its asker
//! is published before it leaves. It refuses to share: an entry belongs to one socket, and a full table drops.

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use aya_ebpf::macros::cgroup_sock;
use aya_ebpf::programs::SockContext;
use core::arch::asm;
use core::ptr::{addr_of, read_volatile};
use weir_ebpf::{
    Address, Asked, Asker, Counter, DNS_NET, DNS_NET_MASK, DNS_PORT, DNS_SLOT_NS, DNS_SLOTS, Listener, Stamp,
    Tuple,
};

use crate::create::SOCK_DGRAM;
use crate::maps::{self, LISTENERS, QUESTIONS, SHARES};
use crate::origin;
use crate::peer::{self, Words};

/// Entries that one label may have: the table holds those of sixteen greedy ones.
const SHARE: u64 = 4_096;

/// The socket's slot for this server; `None` while all are in use for others.
#[inline(always)]
pub fn slot(asker: &mut Asker, server: &Address) -> Option<usize> {
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let server = peer::words(*server);
    let (mut found, mut free) = (DNS_SLOTS, DNS_SLOTS);
    for at in 0..DNS_SLOTS {
        let asked = &asker.slots[at];
        if asked.used != 0 && peer::words(asked.server) == server {
            found = at;
        } else if free == DNS_SLOTS && now.saturating_sub(asked.used) > DNS_SLOT_NS {
            free = at;
        }
    }
    let at = if found < DNS_SLOTS { found } else { free };
    if at >= DNS_SLOTS {
        return None;
    }
    let asked = &mut asker.slots[at];
    asked.server = peer::bytes(server);
    asked.used = now;
    Some(at)
}

#[inline(always)]
pub fn at(asker: &mut Asker, slot: usize) -> &mut Asked {
    &mut asker.slots[slot % DNS_SLOTS]
}

/// The loopback address of one slot of one socket. Twenty bits of the cookie keep sockets apart that follow each other
/// on one port.
#[inline(always)]
pub fn hop4(cookie: u64, slot: usize) -> Words {
    let host = ((cookie as u32) << 2 | slot as u32) & !DNS_NET_MASK;
    peer::mapped((DNS_NET | host).to_be())
}

#[inline(always)]
pub fn port6(listener: &Listener, slot: usize) -> u16 {
    listener.dns6[slot % DNS_SLOTS]
}

/// The slot behind an end of the loopback hop; `None` when it is none of this socket's.
#[inline(always)]
pub fn slot_of(listener: &Listener, cookie: u64, end: Words, port: u16) -> Option<usize> {
    if port == 0 {
        return None;
    }
    if peer::is_mapped(end) {
        let slot = (u32::from_be(end[3]) as usize) % DNS_SLOTS;
        return (port == listener.dns4 && end[3] == hop4(cookie, slot)[3]).then_some(slot);
    }
    if end != [0, 0, 0, 1_u32.to_be()] {
        return None;
    }
    let mut slot = None;
    for at in 0..DNS_SLOTS {
        if listener.dns6[at] == port {
            slot = Some(at);
        }
    }
    slot
}

/// Publishes who sends this datagram; false when it must not leave. The end is its destination.
#[inline(always)]
pub fn publish(stamp: &Stamp, asker: &mut Asker, source: (Words, u16), end: (Words, u16)) -> bool {
    let cookie = stamp.origin.cookie;
    // The agent of now: a socket connected in the time of another one must ask anew.
    // SAFETY: read once and copied.
    let Some(listener) = (unsafe { LISTENERS.get(stamp.origin.netns) }).copied() else { return false };
    let Some(slot) = slot_of(&listener, cookie, end.0, end.1) else { return false };
    let asked = at(asker, slot);
    if asked.used == 0 {
        return false;
    }
    let key = Tuple {
        netns: stamp.origin.netns,
        source: peer::bytes(source.0),
        destination: peer::bytes(end.0),
        source_port: u32::from(source.1),
        destination_port: u32::from(end.1),
    };
    let mut origin = stamp.origin;
    origin.address = asked.server;
    origin.port = DNS_PORT;
    // SAFETY: a helper without arguments.
    origin.ktime = unsafe { bpf_ktime_get_ns() };
    if let Some(entry) = QUESTIONS.get_ptr(key) {
        // SAFETY: the map's value, valid until the program ends.
        let (owner, since) = unsafe { ((*entry).cookie, (*entry).ktime) };
        // Two sockets on one port: the agent could not tell whose question it reads.
        if owner != cookie {
            return false;
        }
        // Since when this tuple is this socket's: what the agent received before is somebody else's.
        origin.ktime = since;
        return QUESTIONS.insert(key, origin, BPF_ANY.into()).is_ok();
    }
    retract(asked, origin.label, cookie);
    if !take_share(origin.label) {
        return false;
    }
    if QUESTIONS.insert(key, origin, BPF_NOEXIST.into()).is_err() {
        give_back(origin.label);
        return false;
    }
    asked.published = key;
    true
}

/// The socket is closed: nobody may be taken for it.
#[cgroup_sock(sock_release)]
pub fn sock_release(ctx: SockContext) -> i32 {
    // SAFETY: the program's context, never null.
    if unsafe { read_volatile(addr_of!((*ctx.sock).type_)) } != SOCK_DGRAM {
        origin::abandon(&ctx);
        return 1;
    }
    // SAFETY: as above.
    if let (Some(stamp), Some(asker)) = unsafe { (maps::stamp(ctx.sock), maps::asker(ctx.sock)) } {
        for at in 0..DNS_SLOTS {
            retract(&mut asker.slots[at], stamp.label, stamp.origin.cookie);
        }
    }
    1
}

#[inline(always)]
fn retract(asked: &mut Asked, label: u64, cookie: u64) {
    let key = asked.published;
    if key.netns == 0 {
        return;
    }
    asked.published.netns = 0;
    // SAFETY: the map's value, valid until the program ends.
    if QUESTIONS.get_ptr(key).is_some_and(|entry| unsafe { (*entry).cookie } == cookie)
        && QUESTIONS.remove(key).is_ok()
    {
        give_back(label);
    }
}

#[inline(always)]
fn take_share(label: u64) -> bool {
    if SHARES.get_ptr(label).is_none() {
        // Another CPU may have been first, which is as good.
        let _ = SHARES.insert(label, 0, BPF_NOEXIST.into());
    }
    let Some(share) = SHARES.get_ptr_mut(label) else { return false };
    // SAFETY: the map's value, valid until the program ends.
    unsafe {
        if read_volatile(share) >= SHARE {
            return false;
        }
        add(share, 1);
    }
    true
}

#[inline(always)]
fn give_back(label: u64) {
    if let Some(share) = SHARES.get_ptr_mut(label) {
        // SAFETY: as above.
        unsafe { add(share, u64::MAX) };
    }
}

/// Adds atomically, wrapping.
///
/// # Safety
/// `to` is a map's value, aligned and valid.
#[inline(always)]
unsafe fn add(to: *mut u64, count: u64) {
    // SAFETY: the caller's promise; one instruction that touches nothing else.
    unsafe { asm!("lock *(u64 *)({to} + 0) += {count}", to = in(reg) to, count = in(reg) count) };
}
