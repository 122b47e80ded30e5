//! The database's catalog, read unseen in the client's own session: same role, same search path, same temporary tables.
//! It refuses to be half a catalog: too many rows, an error or a cut leave none, and masks then refuse.

use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec::Vec;

use sha2::{Digest, Sha256};

use super::judge::{Rules, same};
use super::protected::Protected;
use crate::action::Statement;
use crate::limits::{PG_CATALOG_BYTES, PG_CATALOG_ROWS};
use crate::sql::{Catalog, Table, TableColumn};
use crate::wire::postgres::{frontend, row};

/// What is known of the catalog, and whether it is being read.
#[derive(Debug)]
pub struct Reading {
    catalog: Option<Arc<Catalog>>,
    /// OIDs of user-defined string types (citext, domains are reported as their base).
    texts: Vec<u32>,
    /// Something may have changed since it was read.
    pub stale: bool,
    /// Definitions of the system's own views are read too.
    deep: bool,
    draft: Option<Draft>,
    protected: Option<(Arc<dyn Rules>, u64, Arc<Protected>)>,
}

#[derive(Debug)]
struct Draft {
    catalog: Catalog,
    texts: Vec<u32>,
    digest: Sha256,
    rows: usize,
    bytes: usize,
    whole: bool,
}

impl Default for Reading {
    fn default() -> Self {
        Self { catalog: None, texts: Vec::new(), stale: true, deep: false, draft: None, protected: None }
    }
}

impl Reading {
    pub fn catalog(&self) -> Option<&Arc<Catalog>> {
        self.catalog.as_ref()
    }

    pub fn texts(&self) -> &[u32] {
        &self.texts
    }

    pub fn is_reading(&self) -> bool {
        self.draft.is_some()
    }

    /// A statement reads a view whose definition was left out.
    pub fn lacks_views(&self, catalog: &Catalog, statements: &[Statement]) -> bool {
        let lacks = |table: &Table| matches!(table.kind, 'v' | 'm') && table.definition.is_empty();
        !self.deep
            && statements
                .iter()
                .flat_map(|statement| &statement.relations)
                .any(|relation| catalog.relations.get(&relation.oid).is_some_and(lacks))
    }

    /// From now on the definitions of the system's views are read as well.
    pub fn deepen(&mut self) {
        self.deep = true;
        self.stale = true;
    }

    /// Writes weir's own question. Named statement and portal, so that the client's unnamed ones live on.
    pub fn begin(&mut self, out: &mut Vec<u8>) {
        const NAME: &[u8] = b"\x01weir";
        self.draft = Some(Draft {
            catalog: Catalog::default(),
            texts: Vec::new(),
            digest: Sha256::new(),
            rows: 0,
            bytes: 0,
            whole: false,
        });
        let shallow = if self.deep { "'{}'" } else { "'{pg_catalog,information_schema}'" };
        frontend::parse_message(out, NAME, QUESTION.replace("$SHALLOW", shallow).as_bytes());
        frontend::bind_message(out, NAME, NAME);
        frontend::execute(out, NAME, i32::try_from(PG_CATALOG_ROWS).unwrap_or(i32::MAX));
        frontend::close(out, frontend::Target::Portal, NAME);
        frontend::close(out, frontend::Target::Statement, NAME);
        frontend::sync(out);
    }

    /// Takes in one row of the answer.
    pub fn row(&mut self, body: &[u8]) {
        let Some(draft) = &mut self.draft else { return };
        draft.rows += 1;
        draft.bytes += body.len();
        if draft.rows > PG_CATALOG_ROWS || draft.bytes > PG_CATALOG_BYTES || draft.take(body).is_none() {
            draft.rows = usize::MAX - 1;
        }
    }

    /// CommandComplete: every row was sent.
    pub fn complete(&mut self) {
        if let Some(draft) = &mut self.draft {
            draft.whole = draft.rows <= PG_CATALOG_ROWS;
        }
    }

    /// ReadyForQuery after the answer.
    pub fn finish(&mut self) {
        self.stale = false;
        let Some(mut draft) = self.draft.take() else { return };
        if !draft.whole {
            self.catalog = None;
            return;
        }
        for table in draft.catalog.relations.values_mut() {
            table.columns.sort_unstable_by_key(|column| column.attribute);
            table.parents.sort_unstable();
        }
        let digest = draft.digest.finalize();
        draft.catalog.epoch = digest.first_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        self.texts = draft.texts;
        if self.catalog.as_ref().is_none_or(|known| known.epoch != draft.catalog.epoch) {
            self.catalog = Some(Arc::new(draft.catalog));
        }
    }

    /// The protected columns, worked out once for each catalog and policy.
    pub fn protected(&mut self, rules: &Arc<dyn Rules>) -> Arc<Protected> {
        let Some(catalog) = &self.catalog else { return Arc::default() };
        if let Some((known, epoch, protected)) = &self.protected
            && *epoch == catalog.epoch
            && same(known, rules)
        {
            return protected.clone();
        }
        let protected = Arc::new(Protected::of(rules.as_ref(), catalog));
        self.protected = Some((rules.clone(), catalog.epoch, protected.clone()));
        protected
    }
}

impl Draft {
    /// `None` when the row is not one of the question's.
    fn take(&mut self, body: &[u8]) -> Option<()> {
        self.digest.update(body);
        let mut cells = row::cells(body).ok()?;
        let mut next =
            || -> Option<&str> { core::str::from_utf8(cells.cell().ok()??.unwrap_or_default()).ok() };
        let (kind, a, b, c, d, e) = (next()?, next()?, next()?, next()?, next()?, next()?);
        let catalog = &mut self.catalog;
        match kind {
            "p" => catalog.search_path.push(b.to_string()),
            "r" => {
                let oid = a.parse().ok()?;
                let table = catalog.relations.entry(oid).or_default();
                table.schema = b.to_string();
                table.name = c.to_string();
                table.kind = d.chars().next()?;
                table.definition = e.to_string();
                catalog.by_name.insert((b.to_string(), c.to_string()), oid);
            }
            "c" => {
                let table: &mut Table = catalog.relations.entry(a.parse().ok()?).or_default();
                table.columns.push(TableColumn {
                    attribute: b.parse().ok()?,
                    name: c.to_string(),
                    type_oid: d.parse().ok()?,
                });
            }
            "i" => catalog.relations.entry(a.parse().ok()?).or_default().parents.push(b.parse().ok()?),
            "f" => catalog.functions.push((b.to_string(), c.to_string())),
            "t" => self.texts.push(a.parse().ok()?),
            _ => return None,
        }
        Some(())
    }
}

/// Six text columns: kind, and what the kind needs. Names and operators are qualified, since the search path is the client's.
const QUESTION: &str = "\
SELECT 'p'::pg_catalog.text, o::pg_catalog.text, s::pg_catalog.text, NULL::pg_catalog.text, NULL::pg_catalog.text, NULL::pg_catalog.text \
FROM pg_catalog.unnest(pg_catalog.current_schemas(true)) WITH ORDINALITY AS p(s, o) \
UNION ALL SELECT 'r', c.oid::pg_catalog.text, n.nspname::pg_catalog.text, c.relname::pg_catalog.text, c.relkind::pg_catalog.text, \
CASE WHEN c.relkind OPERATOR(pg_catalog.=) ANY ('{v,m}'::pg_catalog.\"char\"[]) \
AND n.nspname OPERATOR(pg_catalog.<>) ALL ($SHALLOW::pg_catalog.name[]) THEN pg_catalog.pg_get_viewdef(c.oid) ELSE '' END \
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace \
WHERE c.relkind OPERATOR(pg_catalog.=) ANY ('{r,p,v,m,f,S}'::pg_catalog.\"char\"[]) AND NOT pg_catalog.pg_is_other_temp_schema(n.oid) \
UNION ALL (SELECT 'c', a.attrelid::pg_catalog.text, a.attnum::pg_catalog.text, a.attname::pg_catalog.text, a.atttypid::pg_catalog.text, NULL \
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) a.attrelid \
JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace \
WHERE a.attnum OPERATOR(pg_catalog.>) 0 AND NOT a.attisdropped AND c.relkind OPERATOR(pg_catalog.=) ANY ('{r,p,v,m,f,S}'::pg_catalog.\"char\"[]) \
AND NOT pg_catalog.pg_is_other_temp_schema(n.oid)) \
UNION ALL SELECT 'i', i.inhrelid::pg_catalog.text, i.inhparent::pg_catalog.text, NULL, NULL, NULL FROM pg_catalog.pg_inherits i \
JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) i.inhrelid JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace \
WHERE c.relkind OPERATOR(pg_catalog.=) ANY ('{r,p,f}'::pg_catalog.\"char\"[]) AND NOT pg_catalog.pg_is_other_temp_schema(n.oid) \
UNION ALL SELECT 'f', NULL, n.nspname::pg_catalog.text, p.proname::pg_catalog.text, NULL, NULL FROM pg_catalog.pg_proc p \
JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) p.pronamespace \
WHERE n.nspname OPERATOR(pg_catalog.<>) ALL ('{pg_catalog,information_schema}'::pg_catalog.name[]) \
UNION ALL SELECT 't', t.oid::pg_catalog.text, NULL, NULL, NULL, NULL FROM pg_catalog.pg_type t \
WHERE t.typcategory OPERATOR(pg_catalog.=) 'S' AND t.oid OPERATOR(pg_catalog.>=) '16384'::pg_catalog.oid AND t.typtype OPERATOR(pg_catalog.=) 'b'";
