//! The kernel programs: entry points only.
#![no_std]
#![no_main]
