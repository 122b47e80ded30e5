//! aya: load, attach, pin, take over, detach.
