//! A lab for black-box tests and the demo: real servers, a real agent, a cgroup parent of their own, and nothing left behind.
//! It refuses to touch the host: the fence attaches below a cgroup that the lab makes, pins go to a bpffs folder of its own.

pub mod agent;
pub mod clients;
pub mod far;
pub mod lab;
pub mod maps;
pub mod nameserver;
pub mod netns;
pub mod policies;
pub mod postgres;
pub mod process;
pub mod provision;
pub mod socket;
pub mod tap;
pub mod waiter;
pub mod web;

pub use agent::{Agent, Done, Setup};
pub use far::Far;
pub use lab::Lab;
pub use nameserver::Nameserver;
pub use netns::Netns;
pub use postgres::Postgres;
pub use tap::Tap;
pub use waiter::Waiter;
pub use web::Web;
pub use weir_clickhouse as clickhouse;
