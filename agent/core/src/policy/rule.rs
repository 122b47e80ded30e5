//! A rule and a policy file as the judge sees them: parsed, checked, with modes resolved.
//! It refuses to hold text that has not been understood.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::condition::{Condition, Side, Test};
use super::glob::Glob;
use super::host::{self, HostPattern, Reach};
use super::{Approval, Inject, MaskPlan, TargetTls};
use crate::action::{Action, Context, Effect, Protocol};
use crate::audit::Durability;

#[derive(Debug)]
pub(super) struct Rule {
    pub(super) name: Arc<str>,
    /// Place of its file in the policy's list.
    pub(super) file: usize,
    pub(super) line: u32,
    pub(super) mode: Mode,
    pub(super) condition: Condition,
    pub(super) then: Then,
    pub(super) durability: Option<Durability>,
    pub(super) stage: Stage,
    /// Names the effect `unknown`, so it may admit what was not understood.
    pub(super) names_unknown: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Mode {
    #[default]
    Enforce,
    Monitor,
}

/// When the facts of a rule are all there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    Connection,
    Act,
    Response,
}

#[derive(Debug)]
pub(super) enum Then {
    Allow,
    Deny(Arc<str>),
    Approve(Arc<Approval>),
    Mask(Arc<MaskPlan>),
    Inject(Vec<Arc<Inject>>),
    Opaque,
}

/// One `policy:` document.
#[derive(Debug)]
pub(super) struct PolicyFile {
    pub(super) name: Arc<str>,
    /// Path below the bundle's folder.
    pub(super) path: Arc<str>,
    pub(super) line: u32,
    pub(super) target: Target,
    pub(super) mode: Mode,
    /// `default: allow`.
    pub(super) allows: bool,
    pub(super) injects: Vec<FileInject>,
    pub(super) tls: TargetTls,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// `None`: whatever is spoken.
    pub(super) protocol: Option<Protocol>,
    pub(super) hosts: Vec<HostPattern>,
    /// Empty: every port.
    pub(super) ports: Vec<u16>,
    /// Empty: every database.
    pub(super) databases: Vec<Glob>,
}

/// A credential for every act that goes to the file's target, or to some hosts of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileInject {
    pub(super) inject: Arc<Inject>,
    /// Empty: the whole target.
    pub(super) hosts: Vec<HostPattern>,
}

impl Then {
    pub(super) fn side(&self) -> Side {
        match self {
            Then::Deny(_) | Then::Approve(_) | Then::Mask(_) => Side::Restrict,
            Then::Allow | Then::Inject(_) | Then::Opaque => Side::Admit,
        }
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Then::Allow => "allow",
            Then::Deny(_) => "deny",
            Then::Approve(_) => "approve",
            Then::Mask(_) => "mask",
            Then::Inject(_) => "inject",
            Then::Opaque => "opaque: allow",
        }
    }
}

impl Stage {
    pub(super) fn of(condition: &Condition) -> Stage {
        if condition.has(Test::about_response) {
            Stage::Response
        } else if condition.has(|test| !test.about_connection()) {
            Stage::Act
        } else {
            Stage::Connection
        }
    }

    /// Whether rules of this stage are looked at for `action`.
    pub(super) fn judges(self, action: &Action<'_>) -> bool {
        match action {
            Action::Connect => self == Stage::Connection,
            Action::Sql(_) | Action::Http(_) => self != Stage::Response,
            Action::Response(_) => self == Stage::Response,
        }
    }
}

impl Rule {
    pub(super) fn names_unknown(condition: &Condition) -> bool {
        let mut named = false;
        condition.each_test(&mut |test, negated| {
            if let Test::Effects(effects) = test {
                named |= !negated && effects.has(Effect::Unknown);
            }
        });
        named
    }
}

impl Target {
    /// How well it is known that an act of this connection goes to this target.
    pub(super) fn reach(
        &self,
        context: &Context<'_>,
        protocol: Protocol,
        request_host: Option<&str>,
    ) -> Reach {
        let spoken = self.protocol.is_none_or(|own| own == protocol);
        let database =
            self.databases.is_empty() || self.databases.iter().any(|own| own.matches(context.database));
        if spoken && database { self.place(context, request_host) } else { Reach::No }
    }

    /// As `reach`, for a connection whose protocol or database may still be unknown.
    pub(super) fn may_reach(&self, context: &Context<'_>) -> Reach {
        let database = self.databases.is_empty()
            || context.database.is_empty()
            || self.databases.iter().any(|own| own.matches(context.database));
        if self.may_speak(context) && database { self.place(context, None) } else { Reach::No }
    }

    /// The connection speaks, or may turn out to speak, the target's protocol.
    pub(super) fn may_speak(&self, context: &Context<'_>) -> bool {
        match (self.protocol, context.protocol) {
            (None, _) | (Some(_), Protocol::Opaque) => true,
            // What is inside TLS is known once it is terminated.
            (Some(Protocol::Postgres | Protocol::Http), Protocol::Tls) => true,
            (Some(own), spoken) => own == spoken,
        }
    }

    /// Address, port and name alone.
    pub(super) fn place(&self, context: &Context<'_>, request_host: Option<&str>) -> Reach {
        let port = context.destination.port();
        if !self.ports.is_empty() && !self.ports.contains(&port) {
            return Reach::No;
        }
        host::best(&self.hosts, context.destination, request_host)
    }

    pub(super) fn sample(&self) -> super::Sample {
        let pattern = self.hosts.first();
        let usual = match self.protocol {
            Some(Protocol::Postgres) => 5432,
            Some(Protocol::Http | Protocol::Tls | Protocol::Opaque) | None => 443,
            Some(Protocol::Ssh) => 22,
        };
        let port = pattern.and_then(|pattern| pattern.port).or(self.ports.first().copied());
        super::Sample {
            host: pattern.map_or_else(Default::default, |pattern| pattern.host.sample()),
            port: port.unwrap_or(usual),
            database: self.databases.iter().find_map(Glob::exact).unwrap_or_default().into(),
            protocol: self.protocol,
        }
    }

    /// Some name of this target, on this port, could turn out to be the destination's.
    pub(super) fn waits_for_name(&self, context: &Context<'_>) -> bool {
        let port = context.destination.port();
        (self.ports.is_empty() || self.ports.contains(&port))
            && self.hosts.iter().any(|pattern| {
                pattern.port.is_none_or(|own| own == port)
                    && match pattern.host {
                        host::Host::Name(_) | host::Host::Below(_) => true,
                        host::Host::Any | host::Host::Address(_) | host::Host::Network(..) => false,
                    }
            })
    }
}
