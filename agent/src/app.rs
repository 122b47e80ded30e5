//! The wiring of the agent on one screen.
