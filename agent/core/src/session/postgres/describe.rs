//! Which cells of a result are protected: by origin, by name and by what the analysis says flows into them.
//! It refuses a result that may hold a protected value it cannot point at.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::judge::{Rules, strictest};
use super::ledger::Rows;
use super::mask::{Cell, Layout, Shape};
use super::protected::Protected;
use crate::action::{
    Access, Column, Effect, Effects, Output, OutputKind, Probe, ProbeKind, Relation, Statement, Store,
};
use crate::detect::{ClassId, ClassSet};
use crate::limits::PG_LINEAGE_DEPTH;
use crate::mask::Mask;
use crate::policy::{Filter, MaskPlan, MaskRule};
use crate::sql::{Catalog, Grammar};
use crate::wire::postgres::backend;

/// Why a result cannot be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    pub rule: Arc<str>,
    pub message: String,
}

/// Everything a decision about a result's columns looks at.
pub struct View<'a> {
    pub rules: &'a Arc<dyn Rules>,
    pub plan: &'a Arc<MaskPlan>,
    /// `None`: the catalog could not be read, or names may mean something else by now.
    pub catalog: Option<&'a Arc<Catalog>>,
    pub protected: &'a Protected,
    pub grammar: &'a dyn Grammar,
    /// Column masks are in force: without a catalog nothing with relations may be shown.
    pub guarded: bool,
    /// User-defined string types.
    pub texts: &'a [u32],
}

/// What is known of one column of a result.
#[derive(Debug, Default)]
struct Taint {
    /// The value is a stored value of these classes.
    direct: BTreeSet<ClassId>,
    /// Something protected may be in it in a form that cannot be masked.
    hidden: bool,
}

impl View<'_> {
    fn masks(&self, class: ClassId) -> bool {
        self.plan.response.iter().any(|rule| rule.class == class)
    }

    fn masks_any(&self, classes: Option<&BTreeSet<ClassId>>) -> bool {
        classes.is_some_and(|classes| classes.iter().any(|class| self.masks(*class)))
    }

    /// Some column of this database is masked for this act.
    fn masks_something(&self) -> bool {
        self.protected.columns.values().any(|classes| self.masks_any(Some(classes)))
    }

    /// The relation holds a masked column, or cannot be told apart from one that does.
    fn holds(&self, relation: &Relation) -> bool {
        if relation.oid == 0 {
            self.masks_something()
        } else {
            self.masks_any(self.protected.relations.get(&relation.oid))
        }
    }

    /// Statement `statement` touches a relation with a masked column, as far as names were resolved.
    pub fn touches(&self, statement: &Statement) -> bool {
        match self.catalog {
            Some(_) => statement.relations.iter().any(|relation| self.holds(relation)),
            None => self.guarded && !statement.relations.is_empty(),
        }
    }

    /// Anything may be in a value of unknown origin.
    fn hides(&self, statement: &Statement) -> bool {
        self.touches(statement)
            || (statement.opaque && self.guarded && (self.catalog.is_none() || self.masks_something()))
    }

    /// What can be told before the statement runs, without its column types.
    pub fn obstacle(&self, statement: &Statement) -> Option<Obstacle> {
        if self.plan.response.is_empty() {
            return None;
        }
        if statement.effects.has(Effect::CopyOut) {
            return self.copy_obstacle(statement);
        }
        if !self.guarded || statement.effects.has(Effect::Explain) {
            return None;
        }
        match &statement.outputs {
            Some(outputs) => {
                if !outputs.is_empty() && self.catalog.is_none() && self.touches(statement) {
                    return Some(
                        self.refusal("the database's catalog is not known, so its columns cannot be masked"),
                    );
                }
                outputs.iter().find_map(|output| self.output_obstacle(statement, output))
            }
            None => {
                let reads =
                    statement.effects.within(Effects::of(&[Effect::Read, Effect::Lock, Effect::Call]))
                        && statement.effects.has(Effect::Read);
                let returns = reads || statement.text.to_ascii_lowercase().contains("returning");
                let resolved = statement.relations.iter().all(|relation| relation.oid != 0);
                (returns && resolved && self.hides(statement)).then(|| {
                    self.refusal("where its columns come from cannot be told, and it touches masked ones")
                })
            }
        }
    }

    /// What gets masked values out without showing them: stores and conditions.
    pub fn covert_obstacle(&self, statement: &Statement) -> Option<Obstacle> {
        self.store_obstacle(statement).or_else(|| self.probe_obstacle(statement))
    }

    /// A masked value that would be written where it is not masked, or in a form in which it is not.
    fn store_obstacle(&self, statement: &Statement) -> Option<Obstacle> {
        if self.plan.response.is_empty() || !self.guarded {
            return None;
        }
        let hidden = statement.stores.iter().any(|store| match store.kind {
            OutputKind::Neutral => false,
            OutputKind::Derived => self.tainted(&store.sources),
            OutputKind::Direct => self.tainted(&store.sources) && !self.keeps(store),
            OutputKind::Opaque => {
                self.tainted(&store.sources)
                    || self.catalog.is_none()
                    || statement.relations.iter().any(|each| each.access == Access::Read && self.holds(each))
            }
        });
        hidden.then(|| self.refusal("it would store masked values where they are not masked"))
    }

    /// A masked value that would show in which rows there are.
    fn probe_obstacle(&self, statement: &Statement) -> Option<Obstacle> {
        if self.plan.response.is_empty() || !self.guarded {
            return None;
        }
        let unread = match self.catalog {
            None => true,
            Some(_) => self.masks_something() && statement.relations.iter().any(|relation| relation.oid == 0),
        };
        let each = |probe: &Probe| {
            let told = probe.sources.iter().find_map(|source| self.probed(probe.kind, *source));
            told.or_else(|| if probe.opaque && unread { self.unread(probe.kind) } else { None })
        };
        statement.probes.iter().find_map(each)
    }

    /// A condition on columns that could not be looked up.
    fn unread(&self, kind: ProbeKind) -> Option<Obstacle> {
        let rule = self.plan.response.iter().find(|rule| !rule.filter.admits(kind))?;
        let message = "whether its conditions look at masked columns cannot be told: send the statement by itself, \
                       after those that change names or settings";
        Some(Obstacle { rule: rule.rule.clone(), message: message.into() })
    }

    fn probed(&self, kind: ProbeKind, source: Column) -> Option<Obstacle> {
        let classes = self.protected.columns.get(&source)?;
        let refuses = |rule: &&MaskRule| classes.contains(&rule.class) && !rule.filter.admits(kind);
        let rule = self.plan.response.iter().find(refuses)?;
        let table = self.catalog.and_then(|catalog| catalog.relations.get(&source.relation));
        let column = table.and_then(|table| {
            let column = table.columns.iter().find(|column| column.attribute == source.attribute)?;
            Some(format!("{}.{}", table.name, column.name))
        });
        let column = column.unwrap_or_else(|| "a column".to_string());
        let message = match kind {
            ProbeKind::Volume => {
                format!("{column} is masked, and would show as a number of rows, as time or as a setting")
            }
            ProbeKind::Condition if rule.filter == Filter::Equality => format!(
                "{column} is masked: compare whole values with =, or have `filter: allow` set on its mask in rule {}",
                rule.rule
            ),
            ProbeKind::Equality | ProbeKind::Order | ProbeKind::Condition => {
                format!("{column} is masked with `filter: deny`: it may only be selected, or tested for NULL")
            }
        };
        Some(Obstacle { rule: rule.rule.clone(), message })
    }

    fn tainted(&self, sources: &[Column]) -> bool {
        sources.iter().any(|source| self.taint(*source, 0).is_tainted(self))
    }

    /// The value goes, as it is, to a column of the same classes.
    fn keeps(&self, store: &Store) -> bool {
        let from: Vec<Taint> = store.sources.iter().map(|source| self.taint(*source, 0)).collect();
        !store.into.is_empty()
            && store.into.iter().all(|into| {
                let target = self.taint(*into, 0);
                from.iter().all(|from| !from.hidden && from.direct.is_subset(&target.direct))
            })
    }

    fn output_obstacle(&self, statement: &Statement, output: &Output) -> Option<Obstacle> {
        let hidden = match output.kind {
            OutputKind::Direct | OutputKind::Neutral => false,
            OutputKind::Derived => {
                output.sources.iter().any(|source| self.taint(*source, 0).is_tainted(self))
            }
            OutputKind::Opaque => self.hides(statement),
        };
        let why = match output.kind {
            OutputKind::Opaque => "cannot be traced, and the statement reads masked columns",
            OutputKind::Direct | OutputKind::Neutral | OutputKind::Derived => {
                "is computed from masked columns; select them as they are"
            }
        };
        hidden.then(|| self.refusal(&format!("column {:?} {why}", output.name)))
    }

    /// COPY … TO names no columns: it passes only when nothing masked is in reach.
    fn copy_obstacle(&self, statement: &Statement) -> Option<Obstacle> {
        if statement.text.to_ascii_lowercase().contains("binary") {
            return Some(self.refusal("COPY in binary format cannot be masked"));
        }
        let clean = match (&statement.outputs, self.catalog) {
            (Some(outputs), Some(_)) if !outputs.is_empty() => {
                outputs.iter().all(|output| match output.kind {
                    OutputKind::Neutral => true,
                    OutputKind::Direct | OutputKind::Derived => {
                        output.sources.iter().all(|source| !self.taint(*source, 0).is_tainted(self))
                            && !self.rules.classes_named(&output.name).iter().any(|class| self.masks(*class))
                    }
                    OutputKind::Opaque => !self.hides(statement),
                })
            }
            _ => !self.hides(statement),
        };
        (!clean).then(|| self.refusal("COPY of masked columns is refused; select them instead"))
    }

    /// The masked cells of a result with these columns; `format` gives each column's format.
    pub fn layout(
        &self,
        statement: Option<&Statement>,
        columns: &[backend::Column],
        format: impl Fn(usize) -> i16,
    ) -> Result<Rows, Obstacle> {
        if self.plan.response.is_empty() {
            return Ok(Rows::Plain);
        }
        let outputs = statement
            .and_then(|each| each.outputs.as_deref())
            .filter(|outputs| outputs.len() == columns.len());
        let mut cells = Vec::with_capacity(columns.len());
        for (index, column) in columns.iter().enumerate() {
            let output = outputs.and_then(|outputs| outputs.get(index));
            let name = String::from_utf8_lossy(&column.name).to_string();
            let taint = self.column(statement, column, output, &name);
            if taint.hidden {
                return Err(self.refusal(&format!("where column {name:?} comes from cannot be told")));
            }
            let rule = strictest(&self.plan.response, |class| taint.direct.contains(&class));
            let shape = Shape::of(column.type_oid, self.texts);
            let binary = format(index) != 0;
            if let Some((_, rule)) = rule
                && rule.mask != Mask::Nullify
                && !shape.takes_text(binary)
            {
                return Err(Obstacle {
                    rule: rule.rule.clone(),
                    message: format!("column {name:?} cannot be masked in binary format; ask for text"),
                });
            }
            cells.push(Cell { name, rule: rule.map(|(index, _)| index), shape, binary });
        }
        let wanted = ClassSet(self.plan.response.iter().map(|rule| rule.class).collect());
        Ok(Rows::Masked(Arc::new(Layout {
            rules: self.rules.clone(),
            plan: self.plan.clone(),
            wanted,
            cells,
        })))
    }

    fn column(
        &self,
        statement: Option<&Statement>,
        column: &backend::Column,
        output: Option<&Output>,
        name: &str,
    ) -> Taint {
        let mut taint = Taint::default();
        if output.is_some_and(|output| output.kind == OutputKind::Neutral) {
            return taint;
        }
        taint.direct.extend(self.rules.classes_named(name));
        if !self.guarded || statement.is_some_and(|each| each.effects.has(Effect::Explain)) {
            return taint;
        }
        let origin = Column { relation: column.relation, attribute: column.attribute };
        let known = self.catalog.is_some_and(|catalog| catalog.relations.contains_key(&origin.relation));
        if origin.relation != 0 && origin.attribute > 0 && known {
            taint.add(self.taint(origin, 0));
        }
        match output {
            Some(output) if output.kind == OutputKind::Direct => {
                for source in &output.sources {
                    taint.add(self.taint(*source, 0));
                }
            }
            Some(output) => {
                taint.hidden |= statement.is_none_or(|each| self.output_obstacle(each, output).is_some());
            }
            None => {
                let resolved = origin.relation != 0 && origin.attribute != 0 && known;
                taint.hidden |= !resolved
                    && statement.map_or_else(|| self.masks_something(), |statement| self.hides(statement));
            }
        }
        if origin.relation != 0 && !known {
            // A relation that weir has never seen: made or replaced since the catalog was read.
            taint.hidden |= self.catalog.is_none() || self.masks_something();
        }
        if origin.relation != 0 && origin.attribute == 0 {
            taint.hidden |= self.masks_any(self.protected.relations.get(&origin.relation));
        }
        taint
    }

    /// What a column of a relation shows, views followed to their base.
    fn taint(&self, column: Column, depth: usize) -> Taint {
        let mut taint = Taint::default();
        if let Some(classes) = self.protected.columns.get(&column) {
            taint.direct.extend(classes.iter().copied().filter(|class| self.masks(*class)));
        }
        let Some(catalog) = self.catalog else { return taint };
        let Some(table) = catalog.relations.get(&column.relation) else { return taint };
        if !matches!(table.kind, 'v' | 'm') {
            return taint;
        }
        if depth >= PG_LINEAGE_DEPTH {
            taint.hidden = true;
            return taint;
        }
        let outputs = self.grammar.view(catalog, column.relation);
        let index = table.columns.iter().position(|each| each.attribute == column.attribute);
        match index.and_then(|index| outputs.get(index)) {
            Some(output) => match output.kind {
                OutputKind::Neutral => {}
                OutputKind::Direct => {
                    for source in output.sources.iter().filter(|source| **source != column) {
                        taint.add(self.taint(*source, depth + 1));
                    }
                }
                OutputKind::Derived => {
                    taint.hidden |=
                        output.sources.iter().any(|source| self.taint(*source, depth + 1).is_tainted(self));
                }
                OutputKind::Opaque => taint.hidden |= self.masks_something(),
            },
            None => taint.hidden |= self.masks_something(),
        }
        taint
    }

    fn refusal(&self, why: &str) -> Obstacle {
        let rule = self.plan.response.first().map_or_else(|| Arc::from("default"), |rule| rule.rule.clone());
        Obstacle { rule, message: why.to_string() }
    }
}

impl Taint {
    fn add(&mut self, other: Taint) {
        self.direct.extend(other.direct);
        self.hidden |= other.hidden;
    }

    fn is_tainted(&self, view: &View<'_>) -> bool {
        self.hidden || view.masks_any(Some(&self.direct))
    }
}
