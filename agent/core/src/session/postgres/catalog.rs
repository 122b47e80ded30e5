//! The database's catalog, read unseen in the client's own session: same role, same search path, same temporary tables.
//! First its digest is asked for, and the rows only if no session of this agent has read that state before.
//! It refuses to be half a catalog: too many rows, an error or a cut leave none, and masks then refuse.

use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec::Vec;

use sha2::{Digest, Sha256};

use super::judge::{Rules, same};
use super::protected::Protected;
use crate::action::Statement;
use crate::limits::{PG_CATALOG_AGE_NS, PG_CATALOG_BYTES, PG_CATALOG_ROWS};
use crate::session::Host;
use crate::sql::{Catalog, CatalogKey, Table, TableColumn};
use crate::wire::postgres::{frontend, row};

/// What is known of the catalog, and whether it is being read.
#[derive(Debug)]
pub struct Reading {
    /// With the monotonic time of the question it answers.
    catalog: Option<(Arc<Catalog>, u64)>,
    /// Something may have changed since it was read.
    pub stale: bool,
    /// Definitions of the system's own views are read too.
    deep: bool,
    draft: Option<Draft>,
    protected: Option<(Arc<dyn Rules>, u64, Arc<Protected>)>,
}

/// An answer under way.
#[derive(Debug, Default)]
struct Draft {
    catalog: Catalog,
    /// The server's digest of the state that the rows, if they were asked for, belong to.
    digest: Option<Vec<u8>>,
    /// The rows were asked for, not only the digest.
    rows_asked: bool,
    asked_at: u64,
    rows: usize,
    bytes: usize,
    whole: bool,
}

/// What the end of an answer calls for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finished {
    Done,
    /// The state is new to this agent: its rows must be asked for.
    Unknown,
}

impl Default for Reading {
    fn default() -> Self {
        Self { catalog: None, stale: true, deep: false, draft: None, protected: None }
    }
}

impl Reading {
    pub fn catalog(&self) -> Option<&Arc<Catalog>> {
        self.catalog.as_ref().map(|(catalog, _)| catalog)
    }

    /// Other sessions may have changed the database since it was read.
    pub fn is_old(&self, mono_ns: u64) -> bool {
        self.catalog.as_ref().is_some_and(|(_, at)| mono_ns.saturating_sub(*at) > PG_CATALOG_AGE_NS)
    }

    pub fn texts(&self) -> &[u32] {
        self.catalog().map_or(&[], |catalog| &catalog.texts)
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

    /// Writes weir's own question: for the digest, or for the rows with their digest.
    pub fn begin(&mut self, out: &mut Vec<u8>, rows_asked: bool, mono_ns: u64) {
        self.draft = Some(Draft { rows_asked, asked_at: mono_ns, ..Draft::default() });
        let question = if rows_asked {
            let shallow = if self.deep { "'{}'" } else { "'{pg_catalog,information_schema}'" };
            [DIGEST, ROWS].join(" UNION ALL ").replace("$SHALLOW", shallow)
        } else {
            DIGEST.to_string()
        };
        // A named statement and portal, so that the client's unnamed ones live on.
        const NAME: &[u8] = b"\x01weir";
        frontend::parse_message(out, NAME, question.as_bytes());
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

    /// ReadyForQuery after the answer. `place` is the server and the database.
    pub fn finish(&mut self, host: &mut dyn Host, place: &[&[u8]]) -> Finished {
        self.stale = false;
        let Some(mut draft) = self.draft.take() else { return Finished::Done };
        let Some(digest) = draft.digest.take().filter(|_| draft.whole) else {
            self.catalog = None;
            return Finished::Done;
        };
        let key = key(place, self.deep, &digest);
        let epoch = key.first_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        let held = self.catalog().filter(|known| known.epoch == epoch).cloned();
        let catalog = match held.or_else(|| host.known_catalog(&key)) {
            Some(known) => known,
            None if !draft.rows_asked => return Finished::Unknown,
            None => {
                for table in draft.catalog.relations.values_mut() {
                    table.columns.sort_unstable_by_key(|column| column.attribute);
                    table.parents.sort_unstable();
                }
                draft.catalog.epoch = epoch;
                let catalog = Arc::new(draft.catalog);
                host.share_catalog(key, &catalog);
                catalog
            }
        };
        self.catalog = Some((catalog, draft.asked_at));
        Finished::Done
    }

    /// The protected columns, worked out once for each catalog and policy.
    pub fn protected(&mut self, rules: &Arc<dyn Rules>) -> Arc<Protected> {
        let Some((catalog, _)) = &self.catalog else { return Arc::default() };
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
        let mut cells = row::cells(body).ok()?;
        let mut next =
            || -> Option<&str> { core::str::from_utf8(cells.cell().ok()??.unwrap_or_default()).ok() };
        let (kind, a, b, c, d, e) = (next()?, next()?, next()?, next()?, next()?, next()?);
        let catalog = &mut self.catalog;
        match kind {
            "d" => self.digest = Some(a.as_bytes().to_vec()),
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
            "t" => catalog.texts.push(a.parse().ok()?),
            _ => return None,
        }
        Some(())
    }
}

/// States of the same database with the same views read are one; all else is kept apart.
fn key(place: &[&[u8]], deep: bool, digest: &[u8]) -> CatalogKey {
    let mut hash = Sha256::new();
    for part in place.iter().copied().chain([&[u8::from(deep)], digest]) {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// One row, `d` and a digest of everything that [`ROWS`] looks at: a row of the catalog that changes gets another xmin
/// (PostgreSQL documentation, "System Columns"). Statistics are updated in place and change nothing here.
const DIGEST: &str = "\
SELECT 'd'::pg_catalog.text, pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(pg_catalog.concat_ws('|', pg_catalog.version(), \
pg_catalog.array_to_string(pg_catalog.current_schemas(true), ','), \
(SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', n.oid, n.xmin, n.nspname), ',' ORDER BY n.oid) FROM pg_catalog.pg_namespace n \
WHERE NOT pg_catalog.pg_is_other_temp_schema(n.oid)), \
(SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', c.oid, c.xmin), ',' ORDER BY c.oid) FROM pg_catalog.pg_class c \
WHERE c.relkind OPERATOR(pg_catalog.=) ANY ('{r,p,v,m,f,S}'::pg_catalog.\"char\"[]) AND NOT pg_catalog.pg_is_other_temp_schema(c.relnamespace)), \
(SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', r.oid, r.xmin), ',' ORDER BY r.oid) FROM pg_catalog.pg_rewrite r \
JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) r.ev_class WHERE NOT pg_catalog.pg_is_other_temp_schema(c.relnamespace)), \
(SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', a.attrelid, a.attnum, a.xmin), ',' ORDER BY a.attrelid, a.attnum) \
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) a.attrelid \
WHERE a.attnum OPERATOR(pg_catalog.>) 0 AND c.oid OPERATOR(pg_catalog.>=) '16384'::pg_catalog.oid \
AND c.relkind OPERATOR(pg_catalog.=) ANY ('{r,p,v,m,f,S}'::pg_catalog.\"char\"[]) AND NOT pg_catalog.pg_is_other_temp_schema(c.relnamespace)), \
(SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', i.inhrelid, i.inhparent, i.xmin), ',' ORDER BY i.inhrelid, i.inhseqno) \
FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) i.inhrelid \
WHERE NOT pg_catalog.pg_is_other_temp_schema(c.relnamespace)), \
(SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', p.oid, p.xmin), ',' ORDER BY p.oid) FROM pg_catalog.pg_proc p \
JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) p.pronamespace \
WHERE n.nspname OPERATOR(pg_catalog.<>) ALL ('{pg_catalog,information_schema}'::pg_catalog.name[])), \
(SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', t.oid, t.xmin), ',' ORDER BY t.oid) FROM pg_catalog.pg_type t \
WHERE t.typcategory OPERATOR(pg_catalog.=) 'S' AND t.oid OPERATOR(pg_catalog.>=) '16384'::pg_catalog.oid)\
), 'UTF8')), 'hex'), NULL::pg_catalog.text, NULL::pg_catalog.text, NULL::pg_catalog.text, NULL::pg_catalog.text";

/// Six text columns: kind, and what the kind needs. Names and operators are qualified, since the search path is the client's.
const ROWS: &str = "\
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
