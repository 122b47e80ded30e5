//! Addresses in a `connect`, `sendmsg` or `getpeername` call: read and written one word at a time.
//! It refuses to read the context as a whole: a load that LLVM moves or merges is one the verifier rejects.

use aya_ebpf::bindings::{bpf_sock, bpf_sock_addr};
use aya_ebpf::programs::SockAddrContext;
use core::ptr::{addr_of, addr_of_mut, read_volatile, write_volatile};
use weir_ebpf::Address;

/// Words of an address in network order, v4 as `::ffff:a.b.c.d`.
pub type Words = [u32; 4];

const MAPPED: u32 = 0xffff_u32.to_be();

/// One `bpf_sock_addr`; `V6` says which of its fields this hook may touch.
pub struct Peer<const V6: bool> {
    ctx: *mut bpf_sock_addr,
}

impl<const V6: bool> Peer<V6> {
    #[inline(always)]
    pub fn of(ctx: &SockAddrContext) -> Self {
        Self { ctx: ctx.sock_addr }
    }

    #[inline(always)]
    pub fn socket(&self) -> *mut bpf_sock {
        // SAFETY: the context outlives the program.
        unsafe { read_volatile(addr_of!((*self.ctx).__bindgen_anon_1.sk)) }
    }

    #[inline(always)]
    pub fn kind(&self) -> u32 {
        // SAFETY: as above.
        unsafe { read_volatile(addr_of!((*self.ctx).type_)) }
    }

    #[inline(always)]
    pub fn protocol(&self) -> u32 {
        // SAFETY: as above.
        unsafe { read_volatile(addr_of!((*self.ctx).protocol)) }
    }

    /// Port in host order.
    #[inline(always)]
    pub fn port(&self) -> u16 {
        // SAFETY: as above.
        u16::from_be(unsafe { read_volatile(addr_of!((*self.ctx).user_port)) } as u16)
    }

    #[inline(always)]
    pub fn words(&self) -> Words {
        // SAFETY: as above; the fields of the other family are never loaded.
        unsafe {
            if V6 {
                [
                    read_volatile(addr_of!((*self.ctx).user_ip6[0])),
                    read_volatile(addr_of!((*self.ctx).user_ip6[1])),
                    read_volatile(addr_of!((*self.ctx).user_ip6[2])),
                    read_volatile(addr_of!((*self.ctx).user_ip6[3])),
                ]
            } else {
                [0, 0, MAPPED, read_volatile(addr_of!((*self.ctx).user_ip4))]
            }
        }
    }

    #[inline(always)]
    pub fn set(&self, words: Words, port: u16) {
        // SAFETY: as above; these hooks may write the address and the port.
        unsafe {
            if V6 {
                write_volatile(addr_of_mut!((*self.ctx).user_ip6[0]), words[0]);
                write_volatile(addr_of_mut!((*self.ctx).user_ip6[1]), words[1]);
                write_volatile(addr_of_mut!((*self.ctx).user_ip6[2]), words[2]);
            }
            if V6 {
                write_volatile(addr_of_mut!((*self.ctx).user_ip6[3]), words[3]);
            } else {
                write_volatile(addr_of_mut!((*self.ctx).user_ip4), words[3]);
            }
            write_volatile(addr_of_mut!((*self.ctx).user_port), u32::from(port.to_be()));
        }
    }
}

/// 127.0.0.0/8, ::1, their mapped forms, and the unspecified addresses, which the kernel takes for loopback.
#[inline(always)]
pub fn is_loopback(words: Words) -> bool {
    if words[0] != 0 || words[1] != 0 {
        return false;
    }
    if is_mapped(words) {
        return is_loopback4(words[3]);
    }
    words[2] == 0 && (words[3] == 1_u32.to_be() || words[3] == 0)
}

/// 127.0.0.0/8 and 0.0.0.0, in network order.
#[inline(always)]
pub fn is_loopback4(word: u32) -> bool {
    word == 0 || u32::from_be(word) >> 24 == 127
}

#[inline(always)]
pub fn is_mapped(words: Words) -> bool {
    words[0] == 0 && words[1] == 0 && words[2] == MAPPED
}

#[inline(always)]
pub fn mapped(word: u32) -> Words {
    [0, 0, MAPPED, word]
}

// An array of bytes is moved byte by byte, unless it is seen as words all the way: hence by value, and not one by one.

#[inline(always)]
pub fn bytes(words: Words) -> Address {
    // SAFETY: both are sixteen bytes, and any will do.
    unsafe { core::mem::transmute(words) }
}

#[inline(always)]
pub fn words(bytes: Address) -> Words {
    // SAFETY: as above.
    unsafe { core::mem::transmute(bytes) }
}
