//! Ledger to ClickHouse.
