//! What black-box tests share: the real servers they run against.
//! It refuses fakes: a server here is the real one, or named for what it is.

pub use weir_clickhouse as clickhouse;
