//! Bytes read and not yet consumed. An idle connection holds no memory: empty buffers go back to the thread's pool.
//! It refuses to grow beyond its bound: a full buffer simply stops being read into.

use std::cell::RefCell;

use bytes::{Buf, BytesMut};
use weir_core::limits::{PG_JUDGED_BYTES, READ_BYTES};

/// Most bytes that may wait for one incomplete message; sessions refuse longer messages before this is reached.
const BOUND: usize = PG_JUDGED_BYTES + READ_BYTES;
/// Empty buffers that one worker thread keeps.
const POOLED: usize = 64;

thread_local! {
    static POOL: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// A read buffer whose start moves as its bytes are consumed.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    bytes: BytesMut,
}

impl Buffer {
    /// A buffer that already holds bytes (what sniffing read).
    pub(crate) fn holding(bytes: BytesMut) -> Self {
        Self { bytes }
    }

    pub(crate) fn unconsumed(&self) -> &[u8] {
        &self.bytes
    }

    pub(crate) fn is_full(&self) -> bool {
        self.bytes.len() >= BOUND
    }

    pub(crate) fn consume(&mut self, count: usize) {
        self.bytes.advance(count.min(self.bytes.len()));
    }

    /// Room for one read: `READ_BYTES`, or as much as is waiting already, so that long messages are read in few steps.
    pub(crate) fn room(&mut self) -> &mut BytesMut {
        if self.bytes.capacity() == 0 {
            self.bytes =
                POOL.with_borrow_mut(Vec::pop).unwrap_or_else(|| BytesMut::with_capacity(READ_BYTES));
        }
        if self.bytes.capacity() - self.bytes.len() < READ_BYTES / 4 {
            self.bytes.reserve(self.bytes.len().max(READ_BYTES));
        }
        &mut self.bytes
    }

    /// Gives the memory of an empty buffer back.
    pub(crate) fn release(&mut self) {
        if !self.bytes.is_empty() || self.bytes.capacity() == 0 {
            return;
        }
        let mut bytes = std::mem::take(&mut self.bytes);
        // Takes the consumed front back; the capacity is the whole allocation again.
        bytes.reserve(READ_BYTES);
        if bytes.capacity() <= 2 * READ_BYTES {
            POOL.with_borrow_mut(|pool| {
                if pool.len() < POOLED {
                    pool.push(bytes);
                }
            });
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.bytes.clear();
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consuming_moves_the_start_and_keeps_the_rest() {
        let mut buffer = Buffer::default();
        buffer.room().extend_from_slice(b"hello world");
        buffer.consume(6);
        assert_eq!(buffer.unconsumed(), b"world");
        buffer.consume(99);
        assert!(buffer.unconsumed().is_empty());
    }

    #[test]
    fn an_incomplete_message_grows_to_the_bound_and_not_beyond() {
        let mut buffer = Buffer::default();
        while !buffer.is_full() {
            let room = buffer.room();
            let count = room.capacity() - room.len();
            room.resize(room.len() + count, 0);
        }
        assert!(buffer.unconsumed().len() < 3 * BOUND);
    }
}
