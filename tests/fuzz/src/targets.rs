//! THE list of fuzz targets. A new parser gets a file here and a line in the list.

use crate::Target;

mod detect;
mod dns;
mod http1;
mod json;
mod mask;
mod policy;
mod postgres;
mod session;
mod sniff;
mod sql;

pub const TARGETS: &[Target] = &[
    Target { name: "sniff", run: sniff::run, seeds: sniff::SEEDS },
    Target { name: "http1", run: http1::heads, seeds: http1::HEADS },
    Target { name: "chunked", run: http1::chunked, seeds: http1::CHUNKS },
    Target { name: "dns-query", run: dns::query, seeds: dns::QUERIES },
    Target { name: "dns-reply", run: dns::reply, seeds: dns::REPLIES },
    Target { name: "json", run: json::run, seeds: json::SEEDS },
    Target { name: "postgres-startup", run: postgres::startup, seeds: postgres::STARTUPS },
    Target { name: "postgres-frontend", run: postgres::frontend, seeds: postgres::FRONTENDS },
    Target { name: "postgres-backend", run: postgres::backend, seeds: postgres::BACKENDS },
    Target { name: "sql", run: sql::run, seeds: sql::SEEDS },
    Target { name: "policy", run: policy::run, seeds: policy::SEEDS },
    Target { name: "detect", run: detect::run, seeds: detect::SEEDS },
    Target { name: "mask", run: mask::run, seeds: detect::SEEDS },
    Target { name: "session-http", run: session::http, seeds: session::HTTP },
    Target { name: "session-postgres", run: session::postgres, seeds: session::POSTGRES },
];
