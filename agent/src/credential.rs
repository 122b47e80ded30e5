//! Secrets from files and the environment; PostgreSQL login upstream.
