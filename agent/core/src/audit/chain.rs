//! The hash chain over encoded records.
