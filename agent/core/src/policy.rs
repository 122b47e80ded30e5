//! Judges acts: strictness decides, not order. Only [`Policy::judge`] and an approver's answer make a [`Permit`].
//! It refuses to know protocols on the wire (they meet in `action`) and to load what it cannot enforce.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::action::{Action, Column, Context, ProbeKind};
use crate::approval::{Answer, Question};
use crate::audit::Durability;
use crate::detect::{ClassDefinition, ClassId, ClassSet, Scanner};
use crate::mask::Mask;
use crate::sql::Catalog;

mod classes;
mod condition;
mod connection;
mod explain;
mod glob;
mod host;
mod index;
mod judge;
mod listing;
mod node;
mod outcome;
mod parse;
mod parts;
mod problem;
mod rule;
mod spelling;
#[cfg(test)]
pub(crate) mod tests;

pub use condition::when::Zone;
pub use explain::{Explanation, FileTrace, RuleTrace, mask_name};
pub use listing::{RuleSummary, Sample};
pub use node::{Document, Key, Node, Value};
pub use parse::{Surroundings, zone_names};
pub use problem::Problem;

/// A compiled bundle: every file of the policy folder, tied to its commit and SHA-256.
#[derive(Debug)]
pub struct Policy {
    mode: rule::Mode,
    /// Something in it is in monitor mode.
    monitored: bool,
    /// Sorted by name.
    files: Vec<rule::PolicyFile>,
    /// Sorted by file, then name.
    rules: Vec<rule::Rule>,
    index: index::Index,
    classes: Vec<ClassDefinition>,
    every_class: ClassSet,
    patterns: classes::Patterns,
    scanner: Scanner,
    version: Version,
    names: Names,
}

/// Where a bundle comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Git commit, `none` where the folder is no checkout; `-dirty` is appended when files differ from it.
    pub commit: String,
    /// SHA-256 of the bundle's files, lower-case hex.
    pub sha: String,
}

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
    /// PostgreSQL: what masked columns may be asked about.
    pub filter: Filter,
    pub rule: Arc<str>,
}

/// How masked columns may occur in conditions, joins, grouping and order. Whether a value is there may always be asked;
/// what turns the value into a number of rows, time or a setting never passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Filter {
    Allow,
    /// Whole values only: compared with `=`, grouped, ordered.
    #[default]
    Equality,
    Deny,
}

impl Filter {
    #[must_use]
    pub fn admits(self, probe: ProbeKind) -> bool {
        match probe {
            ProbeKind::Equality | ProbeKind::Order => self != Filter::Deny,
            ProbeKind::Condition => self == Filter::Allow,
            ProbeKind::Volume => false,
        }
    }
}

/// A credential that the workload never sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inject {
    /// Replaces or adds an HTTP header; `value` may hold one secret reference in text (`Bearer kv#name`).
    Header { name: String, prefix: String, secret: SecretName },
    /// PostgreSQL login. `user` is public, the password a reference. With `clear_text` a server may be told the password
    /// itself, over verified TLS; else only proofs of it.
    Login { user: String, password: SecretName, clear_text: bool },
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
    /// Name to verify instead of the client's; needed where the client gives none. It vouches for the names of the target.
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
    /// Names of the destination that the certificate for `tls.name` proves as well: those of the target that says so.
    pub stands_for: Vec<String>,
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

impl ConnectionJudgement {
    /// A rule lets the connection pass whatever it says, and no other rule wants to read it.
    #[must_use]
    pub fn passes_unread(&self) -> bool {
        self.passes_opaque() && !self.terminate_tls
    }

    /// A rule lets the connection pass where weir cannot read it.
    #[must_use]
    pub fn passes_opaque(&self) -> bool {
        matches!(self.verdict, Verdict::Allow(_)) && self.opaque
    }
}

impl Policy {
    /// Compiles a bundle.
    ///
    /// # Errors
    /// Every problem of every file, sorted by file and line.
    pub fn compile(
        documents: &[Document],
        surroundings: &Surroundings,
        version: Version,
    ) -> Result<Policy, Vec<Problem>> {
        parse::compile(documents, surroundings, version)
    }

    /// Judges an act. Admitting rules must cover every effect and relation; one restricting rule is enough.
    #[must_use]
    pub fn judge(&self, context: &Context<'_>, action: &Action<'_>) -> Judgement {
        match action {
            Action::Connect => self.connection(context).into(),
            Action::Sql(_) | Action::Http(_) | Action::Response(_) => judge::judge(self, context, action),
        }
    }

    /// Judges the connection itself. Judge again whenever more is known of it (protocol, names, database).
    #[must_use]
    pub fn connection(&self, context: &Context<'_>) -> ConnectionJudgement {
        connection::judge(self, context)
    }

    /// What acts of this connection need gathered; for HTTP, `request` narrows it to one request's head.
    /// A request or response without a body has the body `Some(&[])`; `None` means that it was not read.
    #[must_use]
    pub fn needs(&self, context: &Context<'_>, request: Option<&crate::action::Request<'_>>) -> Needs {
        connection::needs(self, context, request)
    }

    /// Why an act is judged as it is.
    #[must_use]
    pub fn explain(&self, context: &Context<'_>, action: &Action<'_>) -> Explanation {
        explain::explain(self, context, action)
    }

    /// The classes that columns of `catalog` belong to (by `schema.table.column` patterns), also through the tables
    /// they inherit from.
    #[must_use]
    pub fn protected_columns(&self, catalog: &Catalog) -> ProtectedColumns {
        self.patterns.protected(catalog)
    }

    /// The classes that an output column of this name may belong to, where only the name is known.
    pub fn classes_named<'a>(&'a self, column: &'a str) -> impl Iterator<Item = ClassId> + 'a {
        self.patterns.named(column)
    }

    /// The classes of a JSON value by its path of object keys from the root; arrays add no key. What is below a
    /// protected value belongs to its class too.
    pub fn json_classes<'a>(&'a self, path: &'a [&'a str]) -> impl Iterator<Item = ClassId> + 'a {
        self.patterns.at(path)
    }

    /// Some class has JSON paths, so bodies must be read by structure.
    #[must_use]
    pub fn has_json_classes(&self) -> bool {
        !self.patterns.json.is_empty()
    }

    /// The class's name in `classes:`; empty for a number of another policy.
    #[must_use]
    pub fn class_name(&self, class: ClassId) -> &str {
        self.classes.get(usize::from(class.0)).map_or("", |class| &class.name)
    }

    #[must_use]
    pub fn class_named(&self, name: &str) -> Option<ClassId> {
        let place = self.classes.iter().position(|class| class.name == name)?;
        u16::try_from(place).ok().map(ClassId)
    }

    /// Every class the bundle declares, for texts that are kept (audit rows).
    #[must_use]
    pub fn classes(&self) -> &ClassSet {
        &self.every_class
    }

    #[must_use]
    pub fn scanner(&self) -> &Scanner {
        &self.scanner
    }

    /// Git commit of the folder, `none` where it is no checkout.
    #[must_use]
    pub fn commit(&self) -> &str {
        &self.version.commit
    }

    /// SHA-256 of the canonical bundle, lower-case hex.
    #[must_use]
    pub fn sha(&self) -> &str {
        &self.version.sha
    }

    /// Turns an approver's answer into a permit. `None`: refused, expired, for other bytes, or by the wrong person.
    #[must_use]
    pub fn grant(question: &Question, answer: &Answer) -> Option<Permit> {
        (answer.granted && answer.id == question.id && answer.digest == question.digest).then_some(Permit(()))
    }

    fn file_name(&self, file: Option<usize>) -> Arc<str> {
        let file = file.and_then(|file| self.files.get(file));
        file.map_or_else(|| self.names.nowhere.clone(), |file| file.name.clone())
    }

    fn default_rule(&self) -> Arc<str> {
        self.names.default.clone()
    }
}

impl From<ConnectionJudgement> for Judgement {
    fn from(connection: ConnectionJudgement) -> Self {
        Judgement {
            verdict: connection.verdict,
            target: connection.target,
            rule: connection.rule,
            masks: Arc::default(),
            injects: Vec::new(),
            durability: connection.durability,
            would: connection.would,
        }
    }
}

/// Values that most judgements share, made once.
#[derive(Debug)]
struct Names {
    /// The rule that decides when no rule does.
    default: Arc<str>,
    /// The target of what no file targets.
    nowhere: Arc<str>,
    unmasked: Arc<MaskPlan>,
}

impl Default for Names {
    fn default() -> Self {
        Self { default: Arc::from("default"), nowhere: Arc::from(""), unmasked: Arc::default() }
    }
}
