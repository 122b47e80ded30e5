//! Address → names, as a workload's answers from the host's own servers proved them, for as long as they hold.
//! It refuses names that are no host names, and to grow: what would end soonest goes first.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::IpAddr;

use hashbrown::HashMap;

use crate::limits::{DNS_ADDRESSES, DNS_NAMES, DNS_PROOF_LEAST_S, DNS_PROOF_MOST_S};
use crate::wire::dns::Proof;

/// See the module.
#[derive(Debug, Default)]
pub struct Proved {
    by_address: HashMap<IpAddr, Vec<Name>>,
}

#[derive(Debug)]
struct Name {
    host: Arc<str>,
    until: u64,
}

impl Proved {
    /// Notes what an answer for `name` proves at `now`.
    pub fn learn(&mut self, name: &str, proof: &Proof, now: u64) {
        if !is_host(name) || proof.addresses.is_empty() {
            return;
        }
        let host: Arc<str> = String::from(name).into();
        for (address, ttl) in &proof.addresses {
            let seconds = (*ttl).clamp(DNS_PROOF_LEAST_S, DNS_PROOF_MOST_S);
            let until = now.saturating_add(u64::from(seconds) * 1_000_000_000);
            if !self.by_address.contains_key(address) {
                self.make_room(now);
            }
            let names = self.by_address.entry(*address).or_default();
            // The newest last: it is the name that the connection to come is most likely for.
            let former = names.iter().position(|name| name.host == host).map(|at| names.remove(at).until);
            if names.len() >= DNS_NAMES {
                names.retain(|name| name.until > now);
            }
            if names.len() >= DNS_NAMES {
                let soonest = (0..names.len()).min_by_key(|at| names[*at].until);
                soonest.map(|at| names.remove(at));
            }
            names.push(Name { host: Arc::clone(&host), until: until.max(former.unwrap_or(0)) });
        }
    }

    /// The names of an address that hold at `now`, the newest last.
    #[must_use]
    pub fn of(&self, address: IpAddr, now: u64) -> Vec<Arc<str>> {
        let names = self.by_address.get(&address).map(Vec::as_slice).unwrap_or_default();
        names.iter().filter(|name| name.until > now).map(|name| Arc::clone(&name.host)).collect()
    }

    fn make_room(&mut self, now: u64) {
        if self.by_address.len() < DNS_ADDRESSES {
            return;
        }
        self.by_address.retain(|_, names| names.iter().any(|name| name.until > now));
        if self.by_address.len() < DNS_ADDRESSES {
            return;
        }
        let last = |names: &[Name]| names.iter().map(|name| name.until).max().unwrap_or(0);
        // An eighth at a time, so that a full table is not walked for each new address.
        let mut ends: Vec<u64> = self.by_address.values().map(|names| last(names)).collect();
        let (_, border, _) = ends.select_nth_unstable(DNS_ADDRESSES / 8);
        let border = *border;
        self.by_address.retain(|_, names| last(names) > border);
    }
}

/// Letters, digits, `-` and `_` in labels: what a policy can name.
fn is_host(name: &str) -> bool {
    name.split('.').all(|label| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use core::net::Ipv4Addr;

    const SECOND: u64 = 1_000_000_000;

    fn proof(addresses: &[(&str, u32)]) -> Proof {
        Proof { addresses: addresses.iter().map(|(ip, ttl)| (ip.parse().unwrap(), *ttl)).collect() }
    }

    fn names(proved: &Proved, address: &str, now: u64) -> Vec<Arc<str>> {
        proved.of(address.parse().unwrap(), now)
    }

    #[test]
    fn a_name_holds_for_as_long_as_its_answer_said_within_bounds() {
        let mut proved = Proved::default();
        proved.learn("a.example", &proof(&[("192.0.2.1", 60), ("192.0.2.2", 0)]), 0);
        proved.learn("b.example", &proof(&[("192.0.2.1", u32::MAX)]), 0);
        assert_eq!(names(&proved, "192.0.2.1", 59 * SECOND).len(), 2);
        assert_eq!(&*names(&proved, "192.0.2.1", 60 * SECOND)[0], "b.example");
        assert!(names(&proved, "192.0.2.1", 86_400 * SECOND).is_empty());
        assert_eq!(names(&proved, "192.0.2.2", 29 * SECOND).len(), 1);
        assert!(names(&proved, "192.0.2.2", 30 * SECOND).is_empty());
    }

    #[test]
    fn the_newest_is_last_and_the_longer_time_counts() {
        let mut proved = Proved::default();
        proved.learn("a.example", &proof(&[("192.0.2.1", 600)]), 0);
        proved.learn("b.example", &proof(&[("192.0.2.1", 600)]), 0);
        proved.learn("a.example", &proof(&[("192.0.2.1", 30)]), SECOND);
        assert_eq!(&*names(&proved, "192.0.2.1", 500 * SECOND)[1], "a.example");
    }

    #[test]
    fn it_does_not_grow_beyond_its_bounds() {
        let mut proved = Proved::default();
        for number in 0..DNS_ADDRESSES as u32 * 2 {
            let addresses = alloc::vec![(IpAddr::from(Ipv4Addr::from(number)), 60)];
            proved.learn("a.example", &Proof { addresses }, u64::from(number));
            assert!(proved.by_address.len() <= DNS_ADDRESSES);
        }
        assert_eq!(names(&proved, "0.0.31.255", 8_192).len(), 1, "the newest is there");
        for number in 0..40 {
            proved.learn(&format!("n{number}.example"), &proof(&[("192.0.2.1", 60)]), number);
        }
        assert_eq!(names(&proved, "192.0.2.1", SECOND).len(), DNS_NAMES);
    }

    #[test]
    fn odd_names_prove_nothing() {
        let mut proved = Proved::default();
        for name in [".", "a\\.b.example", "a..b", "\\200.example", "*.example"] {
            proved.learn(name, &proof(&[("192.0.2.1", 60)]), 0);
        }
        assert!(names(&proved, "192.0.2.1", 0).is_empty());
    }
}
