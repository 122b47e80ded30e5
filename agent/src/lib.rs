//! The rim: does what the core decides. Sockets, files, clocks, the kernel, TLS and the ledger live here.
//! It refuses to decide: every verdict comes from `weir_core`.

pub mod app;
pub mod bundle;
pub mod catalogs;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod coverage;
pub mod credential;
pub mod desk;
pub mod dns;
mod keeper;
pub mod kernel;
pub mod lane;
pub mod ledger;
pub mod listen;
pub mod live;
pub mod names;
pub mod neighbours;
pub mod netns;
mod ports;
pub mod privilege;
pub mod relay;
pub mod ship;
mod sweep;
pub mod tls;
pub mod upgrade;
pub mod upstream;
pub mod workload;
