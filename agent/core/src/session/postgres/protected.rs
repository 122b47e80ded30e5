//! Which columns of a database are protected: those the policy names, and those that share their rows or their statistics.
//! It refuses to forget an heir: what a child or a parent table shows is as protected as the table itself.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::judge::Rules;
use crate::action::Column;
use crate::detect::ClassId;
use crate::limits::PG_LINEAGE_DEPTH;
use crate::sql::Catalog;

/// Protected columns of one catalog under one policy, inheritance followed both ways.
#[derive(Debug, Default)]
pub struct Protected {
    pub(super) columns: BTreeMap<Column, BTreeSet<ClassId>>,
    pub(super) relations: BTreeMap<u32, BTreeSet<ClassId>>,
}

const STATISTICS: [&str; 5] =
    ["pg_statistic", "pg_stats", "pg_statistic_ext_data", "pg_stats_ext", "pg_stats_ext_exprs"];

impl Protected {
    pub fn of(rules: &dyn Rules, catalog: &Catalog) -> Self {
        let mut protected = Protected::default();
        for (column, class) in rules.protected_columns(catalog).columns {
            protected.columns.entry(column).or_default().insert(class);
        }
        if protected.columns.is_empty() {
            return protected;
        }
        protected.spread(catalog);
        protected.statistics(catalog);
        for (column, classes) in &protected.columns {
            protected.relations.entry(column.relation).or_default().extend(classes.iter().copied());
        }
        protected
    }

    pub fn holds_any(&self, columns: &[Column]) -> bool {
        !self.columns.is_empty() && columns.iter().any(|column| self.columns.contains_key(column))
    }

    /// The planner's statistics hold values of every column: their tables count as protected in every class.
    fn statistics(&mut self, catalog: &Catalog) {
        let every: BTreeSet<ClassId> = self.columns.values().flatten().copied().collect();
        for (oid, table) in &catalog.relations {
            if table.schema == "pg_catalog" && STATISTICS.contains(&table.name.as_str()) {
                for column in &table.columns {
                    let key = Column { relation: *oid, attribute: column.attribute };
                    self.columns.insert(key, every.clone());
                }
            }
        }
    }

    /// A row of a child shows under its parent's columns, and the other way round: equal names share their classes.
    fn spread(&mut self, catalog: &Catalog) {
        let kin: Vec<(u32, u32)> = catalog
            .relations
            .iter()
            .flat_map(|(child, table)| table.parents.iter().map(|parent| (*child, *parent)))
            .collect();
        for _ in 0..PG_LINEAGE_DEPTH {
            let mut changed = false;
            for (child, parent) in &kin {
                changed |= self.share(catalog, *child, *parent);
                changed |= self.share(catalog, *parent, *child);
            }
            if !changed {
                return;
            }
        }
    }

    fn share(&mut self, catalog: &Catalog, from: u32, to: u32) -> bool {
        let (Some(source), Some(target)) = (catalog.relations.get(&from), catalog.relations.get(&to)) else {
            return false;
        };
        let mut changed = false;
        for column in &source.columns {
            let key = Column { relation: from, attribute: column.attribute };
            let Some(classes) = self.columns.get(&key).cloned() else { continue };
            for twin in target.columns.iter().filter(|twin| twin.name == column.name) {
                let known =
                    self.columns.entry(Column { relation: to, attribute: twin.attribute }).or_default();
                let before = known.len();
                known.extend(&classes);
                changed |= known.len() > before;
            }
        }
        changed
    }
}
