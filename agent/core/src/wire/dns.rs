//! DNS messages (RFC 1035, RFC 6891): a query is read whole and written anew, a reply is walked record by record.
//! It refuses whatever a plain resolver does not say: several questions, records in a query, pointers in a question.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

use crate::limits::{DNS_CHAIN, DNS_MESSAGE_BYTES, DNS_RECORDS, DNS_UDP_BYTES};

mod name;
mod reply;
mod svcb;

pub use reply::Reply;

/// Length of the header (RFC 1035, 4.1.1).
const HEADER: usize = 12;
const CLASS_IN: u16 = 1;
/// Bytes that a reply has at least, whatever the client says (RFC 1035, 4.2.1).
const PLAIN_UDP_BYTES: u16 = 512;

const QR: u16 = 1 << 15;
const OPCODE: u16 = 0xf << 11;
const TC: u16 = 1 << 9;
const RD: u16 = 1 << 8;
const RA: u16 = 1 << 7;
const AD: u16 = 1 << 5;
const CD: u16 = 1 << 4;
/// DNSSEC OK, in the TTL of OPT.
const DO: u32 = 1 << 15;

/// Types that weir looks at (IANA, DNS parameters).
pub mod kind {
    pub const A: u16 = 1;
    pub const CNAME: u16 = 5;
    pub const NULL: u16 = 10;
    pub const AAAA: u16 = 28;
    pub const OPT: u16 = 41;
    pub const SVCB: u16 = 64;
    pub const HTTPS: u16 = 65;
    pub const IXFR: u16 = 251;
    pub const AXFR: u16 = 252;
    pub const ANY: u16 = 255;
}

/// What an answer says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    FormErr = 1,
    ServFail = 2,
    NotImp = 4,
    Refused = 5,
}

/// A query with one question of class IN, or of another class, which is for the judge to refuse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    id: u16,
    /// RD, AD and CD as they were asked.
    flags: u16,
    /// The question as it came: labels, type, class.
    question: Vec<u8>,
    name: String,
    kind: u16,
    class: u16,
    edns: Option<Edns>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Edns {
    size: u16,
    wants_dnssec: bool,
}

/// Bytes that are no query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Malformed {
    /// Not even a header, or a reply: it is not answered.
    Silent,
    /// Answered with these bytes.
    Answer(Code, Vec<u8>),
}

/// What a reply proves about the name that was asked: addresses, each with its time to live in seconds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Proof {
    pub addresses: Vec<(IpAddr, u32)>,
}

/// Bytes that do not answer the query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoReply {
    /// Another id, another question, or no reply at all: whoever sent it, the answer may still come.
    #[error("the reply is for another question")]
    Other,
    #[error("the reply breaks the format")]
    Malformed,
}

impl Query {
    /// # Errors
    /// See [`Malformed`].
    pub fn read(bytes: &[u8]) -> Result<Query, Malformed> {
        let header: &[u8; HEADER] = bytes.first_chunk().ok_or(Malformed::Silent)?;
        let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let (id, flags) = (word(0), word(2));
        if flags & QR != 0 {
            return Err(Malformed::Silent);
        }
        let bad = |code: Code| {
            let mut out = Vec::with_capacity(HEADER);
            write_header(&mut out, id, QR | flags & (OPCODE | RD) | code as u16, [0; 4]);
            Malformed::Answer(code, out)
        };
        if flags & OPCODE != 0 {
            return Err(bad(Code::NotImp));
        }
        let [questions, answers, authorities, additional] = [4, 6, 8, 10].map(word);
        if questions != 1 || answers != 0 || authorities != 0 || additional > 1 || flags & TC != 0 {
            return Err(bad(Code::FormErr));
        }
        let Some((name, end)) = name::plain(bytes, HEADER) else { return Err(bad(Code::FormErr)) };
        let Some(&[kind_high, kind_low, class_high, class_low]) = bytes.get(end..end + 4) else {
            return Err(bad(Code::FormErr));
        };
        let rest = &bytes[end + 4..];
        let edns = match (additional, rest) {
            (0, []) => None,
            (1, rest) => Some(Edns::read(rest).ok_or_else(|| bad(Code::FormErr))?),
            // Bytes after the end of the message.
            (_, _) => return Err(bad(Code::FormErr)),
        };
        Ok(Query {
            id,
            flags: flags & (RD | AD | CD),
            question: bytes[HEADER..end + 4].to_vec(),
            name,
            kind: u16::from_be_bytes([kind_high, kind_low]),
            class: u16::from_be_bytes([class_high, class_low]),
            edns,
        })
    }

    /// The name as text (RFC 1035, 5.1): lower case, no trailing dot, `.` for the root, odd bytes as `\DDD`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    #[must_use]
    pub fn kind(&self) -> u16 {
        self.kind
    }

    #[must_use]
    pub fn is_internet(&self) -> bool {
        self.class == CLASS_IN
    }

    /// Largest reply that this client takes in one datagram.
    #[must_use]
    pub fn most_bytes(&self) -> usize {
        let said = self.edns.map_or(PLAIN_UDP_BYTES, |edns| edns.size);
        usize::from(said.clamp(PLAIN_UDP_BYTES, DNS_UDP_BYTES))
    }

    /// The query as it goes to the server: nothing but what was read of it, so no option or padding carries a word.
    #[must_use]
    pub fn forwarded(&self, id: u16) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER + self.question.len() + OPT_BYTES);
        write_header(&mut out, id, self.flags, [1, 0, 0, self.edns.is_some().into()]);
        out.extend_from_slice(&self.question);
        if let Some(edns) = self.edns {
            edns.write(&mut out);
        }
        out
    }

    /// An answer without records.
    #[must_use]
    pub fn refused(&self, code: Code) -> Vec<u8> {
        self.empty(code as u16)
    }

    /// An answer that tells the client to ask over TCP.
    #[must_use]
    pub fn truncated(&self) -> Vec<u8> {
        self.empty(TC)
    }

    fn empty(&self, flags: u16) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER + self.question.len() + OPT_BYTES);
        let echoed = self.flags & (RD | CD);
        write_header(&mut out, self.id, QR | RA | echoed | flags, [1, 0, 0, self.edns.is_some().into()]);
        out.extend_from_slice(&self.question);
        if let Some(edns) = self.edns {
            Edns { size: DNS_UDP_BYTES, ..edns }.write(&mut out);
        }
        out
    }
}

const OPT_BYTES: usize = 11;

impl Edns {
    /// One OPT record of version 0, and nothing after it. Its options are read past.
    fn read(bytes: &[u8]) -> Option<Edns> {
        let (fixed, options) = bytes.split_first_chunk::<OPT_BYTES>()?;
        let word = |at: usize| u16::from_be_bytes([fixed[at], fixed[at + 1]]);
        let ttl = u32::from_be_bytes([fixed[5], fixed[6], fixed[7], fixed[8]]);
        let (extended, version) = (ttl >> 24, ttl >> 16 & 0xff);
        let fits = usize::from(word(9)) == options.len();
        if fixed[0] != 0 || word(1) != kind::OPT || extended != 0 || version != 0 || !fits {
            return None;
        }
        Some(Edns { size: word(3), wants_dnssec: ttl & DO != 0 })
    }

    fn write(self, out: &mut Vec<u8>) {
        out.push(0);
        out.extend_from_slice(&kind::OPT.to_be_bytes());
        out.extend_from_slice(&self.size.clamp(PLAIN_UDP_BYTES, DNS_UDP_BYTES).to_be_bytes());
        out.extend_from_slice(&(if self.wants_dnssec { DO } else { 0 }).to_be_bytes());
        out.extend_from_slice(&[0, 0]);
    }
}

fn write_header(out: &mut Vec<u8>, id: u16, flags: u16, counts: [u16; 4]) {
    for word in [id, flags].into_iter().chain(counts) {
        out.extend_from_slice(&word.to_be_bytes());
    }
}

/// The name of a type, for audit rows: `A`, `AAAA`, `TYPE65280`.
#[must_use]
pub fn kind_name(kind: u16) -> String {
    match KIND_NAMES.iter().find(|(number, _)| *number == kind) {
        Some((_, name)) => (*name).into(),
        None => alloc::format!("TYPE{kind}"),
    }
}

/// What a reply says of itself (RCODE, RFC 1035, 4.1.1), as tools show it.
#[must_use]
pub fn code_name(reply: &[u8]) -> String {
    let code = reply.get(3).map_or(2, |flags| flags & 0xf);
    match ["NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED"].get(usize::from(code)) {
        Some(name) => (*name).into(),
        None => alloc::format!("RCODE{code}"),
    }
}

const KIND_NAMES: [(u16, &str); 24] = [
    (kind::A, "A"),
    (2, "NS"),
    (kind::CNAME, "CNAME"),
    (6, "SOA"),
    (kind::NULL, "NULL"),
    (12, "PTR"),
    (13, "HINFO"),
    (15, "MX"),
    (16, "TXT"),
    (kind::AAAA, "AAAA"),
    (33, "SRV"),
    (35, "NAPTR"),
    (39, "DNAME"),
    (43, "DS"),
    (46, "RRSIG"),
    (47, "NSEC"),
    (48, "DNSKEY"),
    (52, "TLSA"),
    (kind::SVCB, "SVCB"),
    (kind::HTTPS, "HTTPS"),
    (257, "CAA"),
    (kind::IXFR, "IXFR"),
    (kind::AXFR, "AXFR"),
    (kind::ANY, "ANY"),
];

const _: () = assert!(DNS_MESSAGE_BYTES == u16::MAX as usize && DNS_RECORDS > DNS_CHAIN);

#[cfg(test)]
mod tests;
