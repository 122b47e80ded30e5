//! DNS through the agent.

pub mod sockets;
