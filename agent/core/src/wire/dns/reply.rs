//! A server's reply: checked against its query, walked to its end, scrubbed of what would lead past weir, and read for
//! what it proves. It refuses a reply with a record that cannot be walked.

use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{CLASS_IN, HEADER, NoReply, OPCODE, Proof, QR, Query, TC, kind, name, svcb};
use crate::limits::{DNS_CHAIN, DNS_RECORDS};

/// A reply made ready for the client that asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    Whole(Proof),
    /// The server says that there is more over TCP.
    Truncated,
}

impl Query {
    /// Checks a reply to [`Query::forwarded`] with `id`, and makes it one to this query, in place.
    ///
    /// # Errors
    /// See [`NoReply`].
    pub fn accept(&self, id: u16, reply: &mut [u8]) -> Result<Reply, NoReply> {
        let header: &[u8; HEADER] = reply.first_chunk().ok_or(NoReply::Other)?;
        let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
        let (replied, flags) = (word(0), word(2));
        let [questions, answers, authorities, additional] = [4, 6, 8, 10].map(|at| usize::from(word(at)));
        if replied != id || flags & QR == 0 || flags & OPCODE != 0 {
            return Err(NoReply::Other);
        }
        let end = HEADER + self.question.len();
        if questions == 0 && flags & 0xf != 0 {
            // Some servers refuse without repeating the question.
            return Err(NoReply::Malformed);
        }
        let repeated = reply.get(HEADER..end).is_some_and(|text| text.eq_ignore_ascii_case(&self.question));
        if questions != 1 || !repeated {
            return Err(NoReply::Other);
        }
        reply[..2].copy_from_slice(&self.id.to_be_bytes());
        // The client's own letters: some clients check that their case comes back.
        reply[HEADER..end].copy_from_slice(&self.question);
        if flags & TC != 0 {
            return Ok(Reply::Truncated);
        }
        if answers + authorities + additional > DNS_RECORDS {
            return Err(NoReply::Malformed);
        }
        let (mut at, mut found) = (end, Vec::new());
        for number in 0..answers + authorities + additional {
            let record = Record::read(reply, at).ok_or(NoReply::Malformed)?;
            at = record.end;
            if record.kind == kind::SVCB || record.kind == kind::HTTPS {
                svcb::scrub(&mut reply[record.data..record.end]).ok_or(NoReply::Malformed)?;
            }
            if number < answers && record.class == CLASS_IN {
                found.push(record);
            }
        }
        if at != reply.len() {
            return Err(NoReply::Malformed);
        }
        Ok(Reply::Whole(self.proof(reply, &found)))
    }

    /// The addresses at the end of the aliases that begin at the name asked for. A time to live is the chain's shortest.
    fn proof(&self, reply: &[u8], records: &[Record]) -> Proof {
        let mut proof = Proof::default();
        let Some((mut owner, _)) = name::folded(reply, HEADER) else { return proof };
        let mut most = u32::MAX;
        for _ in 0..DNS_CHAIN {
            let own = || records.iter().filter(|record| record.owner == owner);
            for record in own() {
                if let Some(address) = record.address(reply) {
                    proof.addresses.push((address, record.ttl.min(most)));
                }
            }
            let alias = own().find(|record| record.kind == kind::CNAME);
            let Some((next, ttl)) =
                alias.and_then(|record| Some((name::folded(reply, record.data)?.0, record.ttl)))
            else {
                break;
            };
            (owner, most) = (next, most.min(ttl));
        }
        proof
    }
}

struct Record {
    owner: Vec<u8>,
    kind: u16,
    class: u16,
    ttl: u32,
    data: usize,
    end: usize,
}

impl Record {
    fn read(message: &[u8], at: usize) -> Option<Record> {
        let (owner, fixed) = name::folded(message, at)?;
        let head: &[u8; 10] = message.get(fixed..)?.first_chunk()?;
        let word = |at: usize| u16::from_be_bytes([head[at], head[at + 1]]);
        let data = fixed + head.len();
        let end = data + usize::from(word(8));
        // A time to live with its highest bit set counts as 0 (RFC 2181, 8).
        let ttl = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
        let ttl = if ttl > i32::MAX as u32 { 0 } else { ttl };
        (end <= message.len()).then_some(Record { owner, kind: word(0), class: word(2), ttl, data, end })
    }

    fn address(&self, message: &[u8]) -> Option<IpAddr> {
        let data = message.get(self.data..self.end)?;
        match self.kind {
            kind::A => Some(Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?).into()),
            kind::AAAA => Some(Ipv6Addr::from(<[u8; 16]>::try_from(data).ok()?).to_canonical()),
            // Other records name no address.
            _ => None,
        }
    }
}
