//! The control socket: what the CLI asks a running agent.
