//! How long a body is (RFC 9112 section 6), and a meter that follows it byte by byte without copying.
//! It refuses to guess where a message ends: the end is known or the message is refused.

use core::ops::Range;

use super::Violation;
use super::chunked::Chunked;

/// How a message's body is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    Empty,
    /// Never 0.
    Length(u64),
    Chunked,
    /// A response that ends with its connection.
    UntilClose,
}

/// Follows one body through a stream.
#[derive(Debug, Clone)]
pub struct Body(State);

#[derive(Debug, Clone)]
enum State {
    Length(u64),
    Chunked(Chunked),
    UntilClose,
    Done,
}

/// What one look at the stream found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Bytes that belong to this body, framing included; 0: more bytes are needed.
    pub taken: usize,
    /// Which of them are content.
    pub content: Range<usize>,
}

impl Body {
    #[must_use]
    pub fn new(framing: Framing) -> Self {
        Self(match framing {
            Framing::Empty => State::Done,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Chunked(Chunked::default()),
            Framing::UntilClose => State::UntilClose,
        })
    }

    /// Takes the next piece of the body from the front of `input`.
    ///
    /// # Errors
    /// Chunk framing outside the grammar or beyond the limits.
    pub fn step(&mut self, input: &[u8]) -> Result<Step, Violation> {
        let step = match &mut self.0 {
            State::Length(left) => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                *left -= taken as u64;
                let done = *left == 0;
                if done {
                    self.0 = State::Done;
                }
                Step { taken, content: 0..taken }
            }
            State::Chunked(chunked) => {
                let step = chunked.step(input)?;
                if chunked.is_done() {
                    self.0 = State::Done;
                }
                step
            }
            State::UntilClose => Step { taken: input.len(), content: 0..input.len() },
            State::Done => Step { taken: 0, content: 0..0 },
        };
        Ok(step)
    }

    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self.0, State::Done)
    }

    /// The end of the stream is the end of this body, not a cut.
    #[must_use]
    pub fn ends_with_stream(&self) -> bool {
        matches!(self.0, State::UntilClose | State::Done)
    }
}
