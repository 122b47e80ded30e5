//! Ports of the agent's own sockets. `listen` and `connect` of a socket without a port draw one behind the back of every
//! hook, and might draw that of an agent that has just died. It refuses to take one that can be drawn, where there are
//! others.

use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::ops::RangeInclusive;

/// Opens sockets on a port that nobody can draw in the calling thread's network namespace.
///
/// # Errors
/// Those of `open` but for a port that is taken; that one, when so many in a row are.
pub(crate) fn open<T>(open: impl Fn(u16) -> io::Result<T>) -> io::Result<T> {
    let (drawn, dice) = (drawn(), RandomState::new());
    let mut taken = io::Error::from(io::ErrorKind::AddrInUse);
    for attempt in 0..TRIES {
        // 0: the kernel draws one.
        let port = kept(&drawn).map_or(0, |kept| {
            let count = u64::from(kept.end() - kept.start()) + 1;
            kept.start() + (dice.hash_one(attempt) % count) as u16
        });
        match open(port) {
            Err(fault) if fault.kind() == io::ErrorKind::AddrInUse => taken = fault,
            done => return done,
        }
    }
    Err(taken)
}

/// Could the kernel give this port to a socket that asks for none?
pub(crate) fn is_drawn(port: u16) -> bool {
    drawn().contains(&port)
}

/// The range from which this network namespace draws (ip(7)).
fn drawn() -> RangeInclusive<u16> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut ends = text.split_whitespace().filter_map(|end| end.parse().ok());
    match (ends.next(), ends.next()) {
        (Some(first), Some(last)) => first..=last,
        _ => USUALLY_DRAWN,
    }
}

/// Ports beside that range: close below it, where few services have theirs, else any that needs no privilege.
fn kept(drawn: &RangeInclusive<u16>) -> Option<RangeInclusive<u16>> {
    let below = |first: u16| first..=drawn.start().saturating_sub(1);
    let above = drawn.end().saturating_add(1)..=u16::MAX;
    [below(FEW_SERVICES), above, below(UNPRIVILEGED)].into_iter().find(|kept| kept.len() >= ENOUGH)
}

const USUALLY_DRAWN: RangeInclusive<u16> = 32_768..=60_999;
const FEW_SERVICES: u16 = 20_000;
const UNPRIVILEGED: u16 = 1_024;
/// A range with fewer ports than this might have none that is free.
const ENOUGH: usize = 1_024;
const TRIES: u32 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_taken_that_nobody_can_draw() {
        let socket = open(|port| std::net::TcpListener::bind(("127.0.0.1", port))).unwrap();
        assert!(!is_drawn(socket.local_addr().unwrap().port()));
        // The control: one that asks for none has it drawn.
        let drawn = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        assert!(is_drawn(drawn.local_addr().unwrap().port()));
    }

    #[test]
    fn ranges_leave_what_they_leave() {
        assert_eq!(kept(&(32_768..=60_999)), Some(20_000..=32_767));
        assert_eq!(kept(&(15_000..=60_999)), Some(61_000..=65_535));
        assert_eq!(kept(&(10_000..=65_535)), Some(1_024..=9_999));
        assert_eq!(kept(&(1_024..=65_535)), None);
        assert_eq!(kept(&(1..=65_535)), None);
    }

    #[test]
    fn one_that_is_taken_is_passed_over_and_other_faults_are_not() {
        let asked = std::cell::Cell::new(0);
        let opened = open(|port| {
            asked.set(asked.get() + 1);
            if asked.get() < 3 { Err(io::ErrorKind::AddrInUse.into()) } else { Ok(port) }
        });
        assert!(opened.is_ok());
        assert_eq!(asked.get(), 3);
        let refused = open(|_| -> io::Result<()> { Err(io::ErrorKind::PermissionDenied.into()) });
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        let full = open(|_| -> io::Result<()> { Err(io::ErrorKind::AddrInUse.into()) });
        assert_eq!(full.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
