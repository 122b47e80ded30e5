//! What SQL analysis must say, without saying how: libpg_query needs std and C, so it lives in `weir-sql` behind [`Grammar`].

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::action::Statement;

/// Reads SQL as the server would. Implementations cache by the exact text.
pub trait Grammar {
    /// The statements of one query string, in order; never fails: what cannot be parsed comes back as one statement with
    /// the effect `unknown`. An empty string has no statements.
    ///
    /// With a catalog the relations are resolved, views expanded, and output columns traced to base columns.
    fn analyse(&self, sql: &str, dialect: Dialect, catalog: Option<&Arc<Catalog>>) -> Arc<Vec<Statement>>;

    /// Where each column of a view or materialised view comes from, in attribute order; empty when it cannot be told
    /// (then every column of it counts as opaque).
    fn view(&self, catalog: &Arc<Catalog>, view: u32) -> Arc<Vec<crate::action::Output>>;
}

/// Session settings that change how the server reads the same text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Dialect {
    /// Off: a backslash in `'…'` escapes. Reported by the server as a parameter status.
    pub standard_conforming_strings: bool,
}

impl Default for Dialect {
    fn default() -> Self {
        Self { standard_conforming_strings: true }
    }
}

/// The part of one database's system catalog that naming and masking need, as read in a client's own session.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Catalog {
    /// Distinguishes catalogs in caches: made of their [`CatalogKey`], so that equal catalogs share what was derived.
    pub epoch: u64,
    /// `current_schemas(true)`: the order in which unqualified names are looked up.
    pub search_path: Vec<String>,
    /// Keyed by OID.
    pub relations: BTreeMap<u32, Table>,
    /// (schema, name) → OID.
    pub by_name: BTreeMap<(String, String), u32>,
    /// User-defined functions that shadow or extend the built-ins: (schema, name).
    pub functions: Vec<(String, String)>,
    /// OIDs of user-defined string types (citext; domains are reported as their base).
    pub texts: Vec<u32>,
}

/// Names one state of one database's catalog.
pub type CatalogKey = [u8; 32];

/// A relation of the catalog.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Table {
    pub schema: String,
    pub name: String,
    /// `pg_class.relkind`: r, p, v, m, f, S, …
    pub kind: char,
    /// Live columns by attribute number (1-based; dropped ones are absent).
    pub columns: Vec<TableColumn>,
    /// `pg_get_viewdef` of views and materialised views; empty otherwise.
    pub definition: String,
    /// Inheritance parents and partitioned ancestors (direct).
    pub parents: Vec<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableColumn {
    pub attribute: i16,
    pub name: String,
    /// OID of the column's type.
    pub type_oid: u32,
}

impl Catalog {
    /// The relation a name means: `schema.name`, or `name` looked up along the search path.
    #[must_use]
    pub fn find(&self, schema: Option<&str>, name: &str) -> Option<(u32, &Table)> {
        let oid = match schema {
            Some(schema) => self.by_name.get(&(schema.into(), name.into())).copied(),
            None => self
                .search_path
                .iter()
                .find_map(|schema| self.by_name.get(&(schema.clone(), name.into())).copied()),
        }?;
        self.relations.get(&oid).map(|table| (oid, table))
    }
}
