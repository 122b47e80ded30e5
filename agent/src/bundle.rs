//! The policy folder: YAML text, git commit, hash, hot reload.
