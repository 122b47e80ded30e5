//! Coverage: the connections that the kernel turned against those that agents took, one by one accounted for. It refuses
//! to explain away: a difference that stays is written to the audit and shown by `weir status`.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use weir_core::audit::Decision;

use crate::app::Agent;
use crate::kernel::FenceError;

/// The account since the fence was raised.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    /// Calls of `connect` that were turned; one whose SYN never left has no origin laid out.
    pub turned: u64,
    /// Origins that the kernel laid out before a SYN left.
    pub published: u64,
    /// Those whose connection ended before its handshake did.
    pub aborted: u64,
    /// Those whose handshake is under way.
    pub in_handshake: u64,
    /// Those that the kernel handed to an accepted socket.
    pub handed: u64,
    /// Those that an agent took. The difference to `handed` waits in the listeners' queues.
    pub accepted: u64,
    /// Origins that no map had room for: their connections were reset.
    pub lost: u64,
}

/// What this agent has taken, on top of what those before it had.
#[derive(Debug, Default)]
pub struct Taken {
    count: AtomicU64,
    /// The last look found a difference.
    differs: AtomicBool,
}

impl Taken {
    /// One more connection with its origin.
    pub fn add(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether the account does not add up, at the last look.
    #[must_use]
    pub fn differs(&self) -> bool {
        self.differs.load(Ordering::Relaxed)
    }

    /// Goes on from where the agents before ended. What was handed to one that died and was never taken is gone: it is
    /// returned, for the audit, and the account begins anew.
    ///
    /// # Errors
    /// A map cannot be read or written.
    pub fn resume(&self, agent: &Agent, is_upgrade: bool) -> Result<u64, FenceError> {
        let (before, handed) = (agent.fence.accepted()?, counter(&agent.fence.counters()?, "handed"));
        let lost = if is_upgrade { 0 } else { handed.saturating_sub(before) };
        self.count.store(if is_upgrade { before } else { handed }, Ordering::Relaxed);
        self.write_down(agent)?;
        Ok(lost)
    }

    /// Writes the account where the next agent finds it.
    ///
    /// # Errors
    /// The map cannot be written.
    pub fn write_down(&self, agent: &Agent) -> Result<(), FenceError> {
        agent.fence.set_accepted(self.count.load(Ordering::Relaxed))
    }
}

impl Coverage {
    /// # Errors
    /// A map cannot be read.
    pub fn of(agent: &Agent) -> Result<Self, FenceError> {
        // What grows last is read first, so that a connection in between never looks lost.
        let accepted = agent.taken.count.load(Ordering::Relaxed);
        let ended = agent.fence.counters()?;
        let (handed, aborted) = (counter(&ended, "handed"), counter(&ended, "aborted"));
        let begun = agent.fence.counters()?;
        let (turned, published, lost) =
            (counter(&begun, "turned"), counter(&begun, "published"), counter(&begun, "lost"));
        let settled = handed + aborted >= published;
        let in_handshake = if settled { 0 } else { agent.fence.handshakes()? };
        Ok(Coverage { turned, published, aborted, in_handshake, handed, accepted, lost })
    }

    /// Connections that went neither way: turned, and not known to have ended or arrived.
    #[must_use]
    pub fn unexplained(&self) -> u64 {
        self.published.abs_diff(self.handed + self.aborted + self.in_handshake)
    }

    /// Connections that wait to be taken.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.handed.saturating_sub(self.accepted)
    }

    /// Is something wrong that was wrong before, with nothing moving?
    fn differs(&self, before: &Coverage) -> bool {
        let stuck = self.waiting() > 0 && self.accepted == before.accepted && before.waiting() > 0;
        let unexplained =
            self.unexplained().min(before.unexplained()) > 0 && self.published == before.published;
        stuck || unexplained || self.accepted > self.handed || self.lost > before.lost
    }
}

impl std::fmt::Display for Coverage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "turned={} published={} handed={} accepted={} aborted={} in_handshake={} waiting={} lost={} unexplained={}",
            self.turned,
            self.published,
            self.handed,
            self.accepted,
            self.aborted,
            self.in_handshake,
            self.waiting(),
            self.lost,
            self.unexplained()
        )
    }
}

/// Keeps the account: looks every few seconds, writes a row when it has moved, and at once when it does not add up.
pub(crate) async fn keep(agent: &Agent) {
    // What was lost before is told already.
    let mut before = Coverage::of(agent).unwrap_or_default();
    let (mut told, mut looks) = (Coverage::default(), 0_u32);
    loop {
        tokio::time::sleep(LOOK).await;
        let Ok(now) = Coverage::of(agent) else { continue };
        if let Err(fault) = agent.taken.write_down(agent) {
            tracing::warn!(%fault, "What was taken could not be written down.");
        }
        looks += 1;
        let differs = now.differs(&before);
        agent.taken.differs.store(differs, Ordering::Relaxed);
        if differs && now != told {
            tracing::error!(%now, "The kernel turned connections that did not arrive.");
            agent.record_as("coverage", &now.to_string(), Decision::Failed);
            told = now;
        } else if looks.is_multiple_of(ROWS) && now != told {
            agent.record_as("coverage", &now.to_string(), Decision::Allowed);
            told = now;
        }
        before = now;
    }
}

fn counter(counters: &[(&str, u64)], name: &str) -> u64 {
    counters.iter().find(|(found, _)| *found == name).map_or(0, |(_, count)| *count)
}

/// Between two looks.
const LOOK: Duration = Duration::from_secs(2);
/// Looks for each row, when nothing is wrong.
const ROWS: u32 = 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_difference_that_stays_is_one() {
        let sound = Coverage {
            turned: 11,
            published: 10,
            aborted: 2,
            in_handshake: 1,
            handed: 7,
            accepted: 7,
            lost: 0,
        };
        assert_eq!((sound.unexplained(), sound.waiting()), (0, 0));
        assert!(!sound.differs(&sound));
        let lost = Coverage { in_handshake: 0, ..sound };
        assert_eq!(lost.unexplained(), 1);
        assert!(!lost.differs(&sound), "the first time it may be a moment's");
        assert!(lost.differs(&lost));
        assert!(!lost.differs(&Coverage { published: 9, ..lost }), "it still moves");
        let queued = Coverage { accepted: 6, ..sound };
        assert!(queued.differs(&queued) && !queued.differs(&Coverage { accepted: 5, ..sound }));
        let forged = Coverage { accepted: 8, ..sound };
        assert!(forged.differs(&sound), "more were taken than handed over");
        let full = Coverage { lost: 1, ..sound };
        assert!(full.differs(&sound) && !full.differs(&full), "what was lost is told once");
    }
}
