//! Who acts: principals as policies write them, tested against the verified identity of the connection.
//! It refuses names that a process gives itself: there is no test on comm, argv or environment.

use alloc::string::String;
use alloc::vec::Vec;

use super::super::glob::Glob;
use crate::identity::Identity;

/// A list means any of them, `{all: […]}` every one.
#[derive(Debug)]
pub(in super::super) enum Who {
    Any(Vec<Principal>),
    All(Vec<Principal>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum Principal {
    Workload(Glob),
    User(Glob),
    Group(String),
    /// Path of the executable.
    Exe(Glob),
    /// SHA-256 of the executable, lower-case hex.
    ExeDigest(String),
    Uid(u32),
}

impl Who {
    pub(in super::super) fn is(&self, identity: &Identity) -> bool {
        match self {
            Who::Any(principals) => principals.iter().any(|principal| principal.is(identity)),
            Who::All(principals) => principals.iter().all(|principal| principal.is(identity)),
        }
    }
}

impl Principal {
    fn is(&self, identity: &Identity) -> bool {
        match self {
            Principal::Workload(name) => name.matches(&identity.workload),
            // No user is bound: no pattern means nobody, not even `*`.
            Principal::User(name) => !identity.user.is_empty() && name.matches(&identity.user),
            Principal::Group(name) => identity.groups.iter().any(|group| group == name),
            Principal::Exe(path) => !identity.process.exe.is_empty() && path.matches(&identity.process.exe),
            Principal::ExeDigest(digest) => identity.process.exe_sha256 == *digest,
            Principal::Uid(uid) => identity.process.uid == *uid,
        }
    }
}
