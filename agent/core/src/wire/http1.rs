//! HTTP/1.0 and 1.1 messages (RFC 9112): heads are parsed where they lie, bodies are measured, nothing is re-written.
//! It refuses every form that two parsers could read differently, instead of repairing it.

mod chunked;
mod framing;
mod head;
mod path;
mod request;
mod response;
mod target;

#[cfg(test)]
mod tests;

pub use framing::{Body, Framing, Step};
pub use head::{Field, Fields, HeadScan, Version, tokens};
pub use path::Readings;
pub use request::{RequestHead, Upgrade};
pub use response::ResponseHead;
pub use target::{Authority, Target};

/// How a peer broke the protocol. The text is fixed: it never carries bytes of the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    #[error("more than one empty line before the request line")]
    EmptyLines,
    #[error("a line ends without CR LF")]
    BareLineEnd,
    #[error("the request line is too long")]
    LongTarget,
    #[error("the head is too large")]
    LargeHead,
    #[error("too many header fields")]
    ManyFields,
    #[error("the request line is malformed")]
    RequestLine,
    #[error("the status line is malformed")]
    StatusLine,
    #[error("the HTTP version is not 1.0 or 1.1")]
    Version,
    #[error("a header field is malformed")]
    Field,
    #[error("a header line is folded")]
    Folded,
    #[error("there is a space between a field name and its colon")]
    SpaceBeforeColon,
    #[error("a header field holds a control byte")]
    ControlByte,
    #[error("the request target is malformed")]
    Target,
    #[error("the request target does not fit the method")]
    TargetForm,
    #[error("the path holds a percent-encoding that cannot be read")]
    PercentEncoding,
    #[error("the path cannot be read like every server (encoded NUL, or a dot segment with parameters)")]
    AmbiguousPath,
    #[error("HTTP/1.1 needs a Host field")]
    NoHost,
    #[error("there is more than one Host field")]
    ManyHosts,
    #[error("the Host field is malformed")]
    Host,
    #[error("the Host field and the request target name different hosts")]
    HostMismatch,
    #[error("Content-Length and Transfer-Encoding stand side by side")]
    LengthAndEncoding,
    #[error("there is more than one Content-Length field")]
    ManyLengths,
    #[error("Content-Length is not a number")]
    Length,
    #[error("Transfer-Encoding is not exactly chunked")]
    TransferEncoding,
    #[error("Transfer-Encoding in HTTP/1.0")]
    OldTransferEncoding,
    #[error("the Expect field asks for something unknown")]
    Expect,
    #[error("a response that cannot have a body announces one")]
    ForbiddenBody,
    #[error("a chunk size is malformed")]
    ChunkSize,
    #[error("a chunk line is too long")]
    LongChunkLine,
    #[error("a chunk does not end with CR LF")]
    ChunkEnd,
    #[error("a trailer field is malformed or not allowed there")]
    Trailer,
}

impl Violation {
    /// The status that answers a request broken in this way (RFC 9110 section 15, RFC 6585 section 5).
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Violation::LongTarget => 414,
            Violation::LargeHead | Violation::ManyFields => 431,
            Violation::Version => 505,
            Violation::Expect => 417,
            Violation::EmptyLines
            | Violation::BareLineEnd
            | Violation::RequestLine
            | Violation::StatusLine
            | Violation::Field
            | Violation::Folded
            | Violation::SpaceBeforeColon
            | Violation::ControlByte
            | Violation::Target
            | Violation::TargetForm
            | Violation::PercentEncoding
            | Violation::AmbiguousPath
            | Violation::NoHost
            | Violation::ManyHosts
            | Violation::Host
            | Violation::HostMismatch
            | Violation::LengthAndEncoding
            | Violation::ManyLengths
            | Violation::Length
            | Violation::TransferEncoding
            | Violation::OldTransferEncoding
            | Violation::ForbiddenBody
            | Violation::ChunkSize
            | Violation::LongChunkLine
            | Violation::ChunkEnd
            | Violation::Trailer => 400,
        }
    }
}
