//! What is done: the one word that policy and protocols share. Protocols fill it in, policy reads it, neither knows the other.

use alloc::string::String;
use alloc::vec::Vec;

use crate::destination::Destination;
use crate::identity::Identity;

/// Everything about the moment of an act that is not the act itself.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    pub identity: &'a Identity,
    pub destination: &'a Destination,
    pub protocol: Protocol,
    /// PostgreSQL: database and user of the start-up packet; empty elsewhere.
    pub database: &'a str,
    pub login: &'a str,
    /// Wall clock, nanoseconds since 1970 UTC.
    pub wall_ns: u64,
}

/// A protocol as policies and audit rows name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// Not known (yet), or one that weir does not speak.
    Opaque,
    Postgres,
    Http,
    Tls,
    Ssh,
}

impl Protocol {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Opaque => "opaque",
            Protocol::Postgres => "postgres",
            Protocol::Http => "http",
            Protocol::Tls => "tls",
            Protocol::Ssh => "ssh",
        }
    }
}

/// One act, as judged by policy.
#[derive(Debug, Clone, Copy)]
pub enum Action<'a> {
    /// Opening the connection itself, before any byte is read.
    Connect,
    /// One SQL statement (a simple query with several statements is judged statement by statement).
    Sql(&'a Statement),
    /// One HTTP request.
    Http(&'a Request<'a>),
    /// One HTTP response, for rules on `text: {in: response}` and `http: {status}`.
    Response(&'a Response<'a>),
}

/// What an HTTP request asks for.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    pub method: &'a str,
    /// Host field without port, lower case.
    pub host: &'a str,
    /// Normalised path: percent-decoded once, dot segments removed, no query.
    pub path: &'a str,
    /// The path's other readings, where servers differ (encoded slashes, backslashes): a rule that restricts needs one
    /// of all, a rule that admits needs every one.
    pub other_paths: &'a [String],
    /// The path as sent: what dot segments take away leaves the host all the same.
    pub sent_path: &'a str,
    /// Query as sent, without `?`; empty when absent.
    pub query: &'a str,
    /// Body bytes where a rule needs them (see `Policy::needs`), else `None`.
    pub body: Option<&'a [u8]>,
}

/// An HTTP response, as far as rules look at it.
#[derive(Debug, Clone, Copy)]
pub struct Response<'a> {
    pub request: Request<'a>,
    pub status: u16,
    pub body: Option<&'a [u8]>,
}

/// What a SQL statement does. A statement has a *set* of effects; an admitting rule must cover all of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Statement {
    pub effects: Effects,
    /// Relations named by the statement, views expanded when the catalog is known (a view *and* what it reads).
    pub relations: Vec<Relation>,
    /// Kinds of object that DDL touches.
    pub objects: Vec<Object>,
    /// Functions called, schema-qualified where known.
    pub functions: Vec<Function>,
    /// Stored values that it writes elsewhere.
    pub stores: Vec<Store>,
    /// Stored values that decide about rows; at most one entry of each kind.
    pub probes: Vec<Probe>,
    /// UPDATE or DELETE of a whole table.
    pub without_where: bool,
    /// Some part could not be resolved (unknown function, unresolvable name): outputs may hold anything.
    pub opaque: bool,
    /// Output columns in order, where the statement returns rows and the columns could be resolved.
    pub outputs: Option<Vec<Output>>,
    /// The prepared statement or cursor that this statement makes, runs or forgets. `Execute` and `Fetch` come with the
    /// effect `unknown`: only the session knows what the name stands for and replaces it by that statement's analysis.
    pub named: Option<Named>,
    /// This statement's own text.
    pub text: String,
}

/// What a statement does to the session's named statements and cursors. Names are as the server compares them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// `PREPARE name AS …`: the statement's effects, relations and outputs are those of the inner statement.
    Prepare(String),
    Execute(String),
    /// `DEALLOCATE name`; `None` is `ALL`.
    Deallocate(Option<String>),
    /// `DECLARE name CURSOR FOR …`: effects, relations and outputs are those of the query.
    Declare(String),
    /// `FETCH` or `MOVE`.
    Fetch(String),
    /// `CLOSE name`; `None` is `ALL`.
    Close(Option<String>),
}

/// A relation that a statement touches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    /// Resolved schema, or the one the statement itself names; `None` when the statement names none and the catalog is
    /// not known or does not hold the name.
    pub schema: Option<String>,
    pub name: String,
    /// OID from the catalog; 0 when not known.
    pub oid: u32,
    pub access: Access,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Object {
    Table,
    View,
    Index,
    Schema,
    Database,
    Function,
    Role,
    Sequence,
    Type,
    Extension,
    Other,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    pub schema: Option<String>,
    pub name: String,
    /// On the list of built-ins known to be free of side effects and hidden reads.
    pub safe: bool,
}

/// Where one output column's value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    pub name: String,
    pub kind: OutputKind,
    /// Base columns that flow into the value, through views, subqueries, CTEs and set operations.
    pub sources: Vec<Column>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputKind {
    /// Exactly the stored value of one base column in each row (each branch of a UNION its own).
    Direct,
    /// Computed from `sources`.
    Derived,
    /// Independent of the values of its sources: `count(*)`, `x IS NULL`, `EXISTS`.
    Neutral,
    /// Could not be resolved; may hold anything the statement's relations hold.
    Opaque,
}

/// A stored value that is written somewhere else, where its column's masks may not reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// The column it goes to, with those that share its rows; empty when that is not known or does not exist yet.
    pub into: Vec<Column>,
    pub kind: OutputKind,
    pub sources: Vec<Column>,
}

/// Stored values that show in which rows there are, and not as values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    pub kind: ProbeKind,
    /// Sorted, without duplicates.
    pub sources: Vec<Column>,
    /// Some of its sources could not be told.
    pub opaque: bool,
}

/// How much a probe can tell, from the least to the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProbeKind {
    /// The whole stored value compared with another: `=`, `<>`, `IN`, GROUP BY, DISTINCT, equi-joins.
    Equality,
    /// Rows in the order of the stored value.
    Order,
    /// Anything computed from the value admits rows: `LIKE`, `<`, a function of it.
    Condition,
    /// The value itself becomes a number of rows, time or a setting: LIMIT, OFFSET, `generate_series`, `pg_sleep`.
    Volume,
}

/// A column of a base relation: OID and attribute number, as RowDescription reports them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Column {
    pub relation: u32,
    pub attribute: i16,
}

/// A set of [`Effect`]s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Effects(u32);

macro_rules! effects {
    ($($variant:ident = $name:literal),* $(,)?) => {
        /// The closed vocabulary of what a statement can do.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Effect { $($variant),* }
        impl Effect {
            pub const ALL: &'static [Effect] = &[$(Effect::$variant),*];
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Effect::$variant => $name),* }
            }
            /// The effect that policies write as `name`.
            #[must_use]
            pub fn parse(name: &str) -> Option<Effect> {
                Effect::ALL.iter().copied().find(|effect| effect.name() == name)
            }
        }
    };
}

effects! {
    Read = "read", Insert = "insert", Update = "update", Delete = "delete", Truncate = "truncate",
    Create = "ddl:create", Alter = "ddl:alter", Drop = "ddl:drop", Grant = "grant", Call = "call", Do = "do",
    CopyIn = "copy_in", CopyOut = "copy_out", CopyProgram = "copy_program", Session = "session", Txn = "txn",
    Listen = "listen", Lock = "lock", Explain = "explain", Admin = "admin", Replication = "replication",
    Unknown = "unknown",
}

impl Effects {
    pub const NONE: Effects = Effects(0);

    #[must_use]
    pub fn of(effects: &[Effect]) -> Effects {
        effects.iter().fold(Effects::NONE, |set, effect| set.with(*effect))
    }

    #[must_use]
    pub fn with(self, effect: Effect) -> Effects {
        Effects(self.0 | 1 << effect as u32)
    }

    #[must_use]
    pub fn union(self, other: Effects) -> Effects {
        Effects(self.0 | other.0)
    }

    #[must_use]
    pub fn has(self, effect: Effect) -> bool {
        self.0 & 1 << effect as u32 != 0
    }

    /// Every effect of `self` is in `other`.
    #[must_use]
    pub fn within(self, other: Effects) -> bool {
        self.0 & !other.0 == 0
    }

    #[must_use]
    pub fn touches(self, other: Effects) -> bool {
        self.0 & other.0 != 0
    }

    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn iter(self) -> impl Iterator<Item = Effect> {
        Effect::ALL.iter().copied().filter(move |effect| self.has(*effect))
    }
}
