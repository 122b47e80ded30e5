//! How many callers the control socket serves at once, in all and for each user.
//! It refuses to let one user keep the others, or root, from `weir detach` and from answering.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Callers served at once.
pub const SEATS: usize = 64;
/// Callers of one user; root is not counted among them.
pub const SEATS_OF_A_USER: usize = 16;
/// Seats that only root can take.
pub const SEATS_OF_ROOT: usize = 8;

/// Who sits where.
#[derive(Debug, Clone, Default)]
pub struct Seats(Arc<Mutex<HashMap<u32, usize>>>);

/// One caller's place; given back when dropped.
#[derive(Debug)]
pub struct Seat {
    seats: Seats,
    uid: u32,
}

impl Seats {
    /// # Errors
    /// What the caller is told: the socket is full, or full for this user.
    pub fn take(&self, uid: u32) -> Result<Seat, String> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = taken.values().sum();
        let own = taken.get(&uid).copied().unwrap_or(0);
        let limit = if uid == 0 { SEATS } else { SEATS - SEATS_OF_ROOT };
        if all >= limit {
            return Err(format!("the agent serves {all} callers already; try again when one has ended"));
        }
        if uid != 0 && own >= SEATS_OF_A_USER {
            return Err(format!(
                "the agent serves {own} callers of uid {uid} already; end one (`weir approvals watch`?) and try again"
            ));
        }
        *taken.entry(uid).or_default() += 1;
        Ok(Seat { seats: self.clone(), uid })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = taken.get_mut(&self.uid) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                taken.remove(&self.uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_are_bounded_in_all_and_for_each_user_and_some_are_roots() {
        let seats = Seats::default();
        let own: Vec<Seat> = (0..SEATS_OF_A_USER).map(|_| seats.take(1000).unwrap()).collect();
        assert!(seats.take(1000).unwrap_err().contains("of uid 1000 already"));
        let mut others: Vec<Seat> = Vec::new();
        others.extend((2000..).map_while(|uid| seats.take(uid).ok()));
        assert_eq!(own.len() + others.len(), SEATS - SEATS_OF_ROOT);
        assert!(seats.take(1000).is_err());
        let root: Vec<Seat> = (0..SEATS).map_while(|_| seats.take(0).ok()).collect();
        assert_eq!(root.len(), SEATS_OF_ROOT);
        assert!(seats.take(0).unwrap_err().contains("64 callers already"));
        drop((own, root));
        assert_eq!(seats.take(1000).map(|seat| seat.uid), Ok(1000));
        drop(others);
        assert!(seats.0.lock().unwrap().is_empty());
    }
}
