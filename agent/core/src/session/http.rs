//! One http connection.

use super::{Host, Input, Now, Opening, Outbox};

#[derive(Debug)]
pub struct Conversation {}

impl Conversation {
    #[must_use]
    pub fn new(opening: Opening) -> Self {
        let _ = opening;
        Self {}
    }

    pub fn handle(&mut self, now: Now, input: Input<'_>, host: &mut dyn Host, out: &mut Outbox) -> usize {
        let _ = (now, input, host, out);
        0
    }
}
