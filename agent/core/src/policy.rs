//! Judges acts: strictness decides, not order. Only [`Policy::judge`] and an approver's answer make a [`Permit`].
//! It refuses to know protocols on the wire (they meet in `action`) and to load what it cannot enforce.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::action::{Action, Column, Context};
use crate::approval::{Answer, Question};
use crate::audit::Durability;
use crate::detect::{ClassId, ClassSet, Scanner};
use crate::mask::Mask;
use crate::sql::Catalog;

/// A compiled bundle: every file of the policy folder, tied to its commit and SHA-256.
#[derive(Debug)]
pub struct Policy {}

/// Proof that policy admitted one act. Only this module can make one; it cannot be cloned.
#[derive(Debug)]
pub struct Permit(());

/// What policy says about one act.
#[derive(Debug)]
pub struct Judgement {
    pub verdict: Verdict,
    /// Policy file (`policy: NAME`) that applied; empty when no file targets the destination.
    pub target: Arc<str>,
    /// Rule that decided, `default` when none did.
    pub rule: Arc<str>,
    /// Masks on what the act sends and on what it returns. The session must apply them or refuse the act.
    pub masks: Arc<MaskPlan>,
    /// Credentials to put in after the verdict.
    pub injects: Vec<Arc<Inject>>,
    pub durability: Durability,
    /// Monitor mode: what enforcement would have decided, when it differs.
    pub would: Option<Would>,
}

#[derive(Debug)]
pub enum Verdict {
    Allow(Permit),
    Deny {
        /// The rule's message, shown to the user.
        message: Arc<str>,
    },
    /// Hold the act until a human answers.
    Approve(Arc<Approval>),
}

/// Who may answer for a held act, and for how long it waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    pub by: Vec<String>,
    /// Nanoseconds.
    pub within_ns: u64,
    pub message: Arc<str>,
}

/// What a monitored rule would have decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Would {
    pub decision: crate::audit::Decision,
    pub rule: Arc<str>,
}

/// Masks for one act.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MaskPlan {
    pub request: Vec<MaskRule>,
    pub response: Vec<MaskRule>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaskRule {
    pub class: ClassId,
    pub mask: Mask,
    pub rule: Arc<str>,
}

/// A credential that the workload never sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inject {
    /// Replaces or adds an HTTP header; `value` may hold one secret reference in text (`Bearer kv#name`).
    Header { name: String, prefix: String, secret: SecretName },
    /// PostgreSQL login. `user` is public, the password a reference.
    Login { user: String, password: SecretName },
}

/// `provider#name`, resolved at the rim after the verdict.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretName {
    pub provider: String,
    pub name: String,
}

/// How the upstream leg of a target is secured (`tls:` of a policy file).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TargetTls {
    pub engine: Engine,
    pub mode: TlsMode,
    /// PEM file with extra roots for this target; the system's roots when empty.
    pub ca: String,
    /// Name to verify instead of the client's; needed where the client gives none.
    pub name: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Engine {
    #[default]
    Rustls,
    Boring,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsMode {
    /// PostgreSQL: what the client asked for, verified when TLS; HTTP: as the client spoke.
    #[default]
    Auto,
    /// PostgreSQL: TLS upstream, verified, whatever the client asked for.
    Verify,
    /// PostgreSQL: plain text upstream even when the client asked for TLS.
    Off,
}

/// What a session must gather before [`Policy::judge`] can decide about an act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Needs {
    /// The request body, whole (keywords, classes, request masks).
    pub request_body: bool,
    /// The response body, whole (response masks, response rules).
    pub response_body: bool,
    /// The database's catalog (table patterns, column masks).
    pub catalog: bool,
}

/// How a connection goes on after its own verdict.
#[derive(Debug)]
pub struct ConnectionJudgement {
    pub verdict: Verdict,
    pub target: Arc<str>,
    pub rule: Arc<str>,
    /// Bytes weir does not understand may pass, metered.
    pub opaque: bool,
    /// A file would match if one of its names belonged to this address: sniff first, then judge again.
    pub needs_name: bool,
    /// A rule needs what is inside TLS, or a credential goes in: terminate.
    pub terminate_tls: bool,
    pub tls: TargetTls,
    pub login: Option<Arc<Inject>>,
    pub durability: Durability,
    pub would: Option<Would>,
}

/// Protected columns of one catalog under one policy: what masks apply to a (table OID, attribute).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProtectedColumns {
    /// Sorted by column; classes that the column's qualified name matches.
    pub columns: Vec<(Column, ClassId)>,
}

impl Policy {
    /// Judges an act. Admitting rules must cover every effect and relation; one restricting rule is enough.
    #[must_use]
    pub fn judge(&self, context: &Context<'_>, action: &Action<'_>) -> Judgement {
        let _ = (context, action);
        Judgement {
            verdict: Verdict::Deny { message: Arc::from("not built") },
            target: Arc::from(""),
            rule: Arc::from("default"),
            masks: Arc::default(),
            injects: Vec::new(),
            durability: Durability::Strict,
            would: None,
        }
    }

    /// Judges the connection itself.
    #[must_use]
    pub fn connection(&self, context: &Context<'_>) -> ConnectionJudgement {
        let judgement = self.judge(context, &Action::Connect);
        ConnectionJudgement {
            verdict: judgement.verdict,
            target: judgement.target,
            rule: judgement.rule,
            opaque: false,
            needs_name: false,
            terminate_tls: true,
            tls: TargetTls::default(),
            login: None,
            durability: Durability::Fast,
            would: None,
        }
    }

    /// What acts of this connection need gathered; for HTTP, `request` narrows it to one request's head.
    #[must_use]
    pub fn needs(&self, context: &Context<'_>, request: Option<&crate::action::Request<'_>>) -> Needs {
        let _ = (context, request);
        Needs::default()
    }

    /// The classes that columns of `catalog` belong to (by `schema.table.column` patterns).
    #[must_use]
    pub fn protected_columns(&self, catalog: &Catalog) -> ProtectedColumns {
        let _ = catalog;
        ProtectedColumns::default()
    }

    /// The class that an output column of this name belongs to, where only the name is known.
    pub fn classes_named(&self, column: &str) -> impl Iterator<Item = ClassId> + '_ {
        let _ = column;
        core::iter::empty()
    }

    /// JSON paths that belong to a class, for bodies.
    #[must_use]
    pub fn class_name(&self, class: ClassId) -> &str {
        let _ = class;
        ""
    }

    /// Every class the bundle declares, for texts that are kept (audit rows).
    #[must_use]
    pub fn classes(&self) -> &ClassSet {
        static NONE: ClassSet = ClassSet(Vec::new());
        &NONE
    }

    #[must_use]
    pub fn scanner(&self) -> &Scanner {
        static NONE: Scanner = Scanner {};
        &NONE
    }

    /// Git commit of the folder, `none` where it is no checkout.
    #[must_use]
    pub fn commit(&self) -> &str {
        ""
    }

    /// SHA-256 of the canonical bundle, lower-case hex.
    #[must_use]
    pub fn sha(&self) -> &str {
        ""
    }

    /// Turns an approver's answer into a permit. `None`: refused, expired, for other bytes, or by the wrong person.
    #[must_use]
    pub fn grant(question: &Question, answer: &Answer) -> Option<Permit> {
        (answer.granted && answer.id == question.id && answer.digest == question.digest).then_some(Permit(()))
    }
}
