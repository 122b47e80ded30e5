//! What PostgreSQL's own functions do. The harmless ones are listed in `functions.txt`; the others that a policy can name
//! an effect for are here; all that is left is a call of something unknown.

use std::collections::HashMap;
use std::sync::OnceLock;

use weir_core::action::{Effect, Effects};

/// What calling a built-in amounts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// Its result depends on its arguments, the clock and public facts alone.
    Safe,
    /// Advances or sets a sequence.
    Sequence,
    /// Changes the session (`set_config`).
    Session,
    /// Takes or releases advisory locks.
    Lock,
    /// `pg_notify`.
    Notify,
    /// Touches replication slots, origins or the logical stream.
    Replication,
    /// Reads or writes files of the server, ends sessions, or steers the server.
    Admin,
    /// [`Class::Session`], [`Class::Lock`] or [`Class::Notify`] with a stored value among the arguments: a way out of the rows.
    Leak(Effect),
    /// Not known, or known to run SQL it is given.
    Unknown,
}

impl Class {
    pub fn is_safe(self) -> bool {
        match self {
            Class::Safe | Class::Sequence | Class::Session | Class::Lock | Class::Notify => true,
            Class::Replication | Class::Admin | Class::Leak(_) | Class::Unknown => false,
        }
    }

    pub fn is_builtin(self) -> bool {
        self != Class::Unknown
    }

    pub fn effects(self) -> Effects {
        match self {
            Class::Safe => Effects::NONE,
            Class::Sequence => Effects::of(&[Effect::Update]),
            Class::Session => Effects::of(&[Effect::Session]),
            Class::Lock => Effects::of(&[Effect::Lock]),
            Class::Notify => Effects::of(&[Effect::Listen]),
            Class::Replication => Effects::of(&[Effect::Replication, Effect::Call]),
            Class::Admin => Effects::of(&[Effect::Admin, Effect::Call]),
            Class::Leak(effect) => Effects::of(&[effect, Effect::Call]),
            Class::Unknown => Effects::of(&[Effect::Call]),
        }
    }

    /// The class when stored values flow into the arguments.
    pub fn carrying(self) -> Self {
        match self {
            Class::Session => Class::Leak(Effect::Session),
            Class::Lock => Class::Leak(Effect::Lock),
            Class::Notify => Class::Leak(Effect::Listen),
            Class::Sequence => Class::Leak(Effect::Update),
            Class::Safe | Class::Replication | Class::Admin | Class::Leak(_) | Class::Unknown => self,
        }
    }
}

pub(crate) fn classify(name: &str) -> Class {
    if listed().contains_key(name) {
        return Class::Safe;
    }
    match name {
        "nextval" | "setval" => Class::Sequence,
        "set_config" => Class::Session,
        "pg_notify" => Class::Notify,
        _ if name.starts_with("pg_advisory") || name.starts_with("pg_try_advisory") => Class::Lock,
        _ if name.contains("replication") || name.starts_with("pg_logical_") => Class::Replication,
        _ if ADMIN.iter().any(|prefix| name.starts_with(prefix)) => Class::Admin,
        _ => Class::Unknown,
    }
}

/// The columns that a built-in function has in FROM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// One column, named like the function.
    Scalar,
    /// These columns.
    Columns(&'static str),
    /// Depends on the arguments.
    Varies,
}

pub(crate) fn shape(name: &str) -> Shape {
    match listed().get(name).copied() {
        Some("") => Shape::Scalar,
        Some("*") | None => Shape::Varies,
        Some(columns) => Shape::Columns(columns),
    }
}

/// What it is given shows without being returned: as a number of rows, as time, or as a state that can be asked for later.
pub(crate) fn shows_by_volume(name: &str) -> bool {
    const TIME: [&str; 4] = ["pg_sleep", "pg_sleep_for", "pg_sleep_until", "setseed"];
    const ROWS: [&str; 31] = [
        "aclexplode",
        "generate_series",
        "generate_subscripts",
        "json_array_elements",
        "json_array_elements_text",
        "json_each",
        "json_each_text",
        "json_object_keys",
        "json_populate_recordset",
        "json_to_recordset",
        "jsonb_array_elements",
        "jsonb_array_elements_text",
        "jsonb_each",
        "jsonb_each_text",
        "jsonb_object_keys",
        "jsonb_path_query",
        "jsonb_path_query_tz",
        "jsonb_populate_recordset",
        "jsonb_to_recordset",
        "pg_options_to_table",
        "pg_partition_ancestors",
        "pg_partition_tree",
        "pg_snapshot_xip",
        "regexp_matches",
        "regexp_split_to_table",
        "string_to_table",
        "ts_debug",
        "ts_parse",
        "ts_token_type",
        "txid_snapshot_xip",
        "unnest",
    ];
    let leaks = matches!(classify(name).carrying(), Class::Leak(_) | Class::Admin | Class::Replication);
    leaks || TIME.contains(&name) || ROWS.contains(&name)
}

/// A type of PostgreSQL's own, as its catalog names it (`int4`, not `integer`; the grammar has already translated).
pub(crate) fn is_builtin_type(name: &str) -> bool {
    TYPES.binary_search(&name).is_ok()
}

/// A domain of the `information_schema`: its views cast every column to one.
pub(crate) fn is_standard_domain(name: &str) -> bool {
    matches!(name, "cardinal_number" | "character_data" | "sql_identifier" | "time_stamp" | "yes_or_no")
}

/// A function the views of the `information_schema` are written with; each looks at its arguments and at the catalog alone.
pub(crate) fn is_standard_function(schema: Option<&str>, name: &str) -> bool {
    schema == Some("information_schema") && name.starts_with("_pg_")
}

/// Name → columns in FROM.
fn listed() -> &'static HashMap<&'static str, &'static str> {
    static LISTED: OnceLock<HashMap<&'static str, &'static str>> = OnceLock::new();
    LISTED.get_or_init(|| {
        let lines = include_str!("functions.txt").lines().filter(|line| !line.starts_with('#'));
        lines.map(|line| line.split_once(' ').unwrap_or((line, ""))).collect()
    })
}

/// Prefixes of functions that reach files, other sessions or the server itself; `dblink` reaches another server.
const ADMIN: [&str; 22] = [
    "pg_read_",
    "pg_ls_",
    "pg_stat_file",
    "pg_terminate_backend",
    "pg_cancel_backend",
    "pg_reload_conf",
    "pg_rotate_logfile",
    "pg_switch_wal",
    "pg_promote",
    "pg_backup_",
    "pg_start_backup",
    "pg_stop_backup",
    "pg_create_restore_point",
    "pg_wal_replay_",
    "pg_log_",
    "pg_hba_file_rules",
    "pg_show_all_file_settings",
    "pg_stat_reset",
    "binary_upgrade_",
    "lo_import",
    "lo_export",
    "dblink",
];

/// Base, range and pseudo types of `pg_catalog` in PostgreSQL 15, sorted; array types are written with `[]`.
const TYPES: [&str; 81] = [
    "aclitem",
    "bit",
    "bool",
    "box",
    "bpchar",
    "bytea",
    "char",
    "cid",
    "cidr",
    "circle",
    "cstring",
    "date",
    "datemultirange",
    "daterange",
    "float4",
    "float8",
    "inet",
    "int2",
    "int2vector",
    "int4",
    "int4multirange",
    "int4range",
    "int8",
    "int8multirange",
    "int8range",
    "interval",
    "json",
    "jsonb",
    "jsonpath",
    "line",
    "lseg",
    "macaddr",
    "macaddr8",
    "money",
    "name",
    "numeric",
    "nummultirange",
    "numrange",
    "oid",
    "oidvector",
    "path",
    "pg_dependencies",
    "pg_lsn",
    "pg_mcv_list",
    "pg_ndistinct",
    "pg_node_tree",
    "pg_snapshot",
    "point",
    "polygon",
    "record",
    "refcursor",
    "regclass",
    "regcollation",
    "regconfig",
    "regdictionary",
    "regnamespace",
    "regoper",
    "regoperator",
    "regproc",
    "regprocedure",
    "regrole",
    "regtype",
    "text",
    "tid",
    "time",
    "timestamp",
    "timestamptz",
    "timetz",
    "tsmultirange",
    "tsquery",
    "tsrange",
    "tstzmultirange",
    "tstzrange",
    "tsvector",
    "txid_snapshot",
    "uuid",
    "varbit",
    "varchar",
    "xid",
    "xid8",
    "xml",
];
