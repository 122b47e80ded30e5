//! Definitions: what is created, altered or dropped, of which kind, and which relations and functions that names.
//! It refuses statements it has never heard of: `unknown`.

use pg_query::NodeEnum;
use pg_query::protobuf::{
    AlterTableStmt, ConstrType, Constraint, CreateFunctionStmt, CreateStmt, DefElem, DropStmt, Node,
    ObjectType, RangeVar, RuleStmt,
};
use weir_core::action::{Access, Effect, Object};

use crate::names;
use crate::object::{self, Owner};
use crate::resolver::Resolver;
use crate::scope::Scope;

impl<'a> Resolver<'a> {
    pub fn ddl(&mut self, node: &'a NodeEnum) {
        match node {
            NodeEnum::CreateStmt(create) => self.create_table(create),
            NodeEnum::CreateForeignTableStmt(create) => {
                self.effect(Effect::Admin);
                match &create.base_stmt {
                    Some(base) => self.create_table(base),
                    None => drop(self.unknown()),
                }
            }
            NodeEnum::ViewStmt(view) => {
                self.made(Effect::Create, Object::View);
                self.names(view.view.as_ref(), Access::Write);
                self.unrun(|this| match view.query.as_deref() {
                    Some(query) => {
                        let row = this.query(query, None);
                        this.store_anew(&row);
                    }
                    None => drop(this.unknown()),
                });
            }
            NodeEnum::IndexStmt(index) => {
                self.made(Effect::Create, Object::Index);
                self.names(index.relation.as_ref(), Access::Write);
                self.loosely(index.relation.as_ref(), |this, scope| {
                    this.expressions(&index.index_params, scope);
                    this.optional(index.where_clause.as_deref(), scope);
                });
            }
            NodeEnum::CreateSchemaStmt(create) => {
                self.made(Effect::Create, Object::Schema);
                for element in &create.schema_elts {
                    self.statement(element);
                }
            }
            NodeEnum::AlterTableStmt(alter) => self.alter_table(alter),
            NodeEnum::DropStmt(drop) => self.drop_objects(drop),
            NodeEnum::CreateFunctionStmt(create) => self.create_function(create),
            NodeEnum::RuleStmt(rule) => self.rule(rule),
            other => self.guards(other),
        }
    }

    /// Definitions that hang on a table or a type and hold conditions.
    fn guards(&mut self, node: &'a NodeEnum) {
        match node {
            NodeEnum::CreateTrigStmt(trigger) => {
                self.made(Effect::Create, Object::Other);
                self.names(trigger.relation.as_ref(), Access::Write);
                self.unrun(|this| {
                    this.loosely(trigger.relation.as_ref(), |this, scope| {
                        this.optional(trigger.when_clause.as_deref(), scope);
                    });
                });
            }
            NodeEnum::CreatePolicyStmt(policy) => {
                self.made(Effect::Create, Object::Other);
                self.names(policy.table.as_ref(), Access::Write);
                self.conditions(
                    policy.table.as_ref(),
                    [policy.qual.as_deref(), policy.with_check.as_deref()],
                );
            }
            NodeEnum::AlterPolicyStmt(policy) => {
                self.made(Effect::Alter, Object::Other);
                self.names(policy.table.as_ref(), Access::Write);
                self.conditions(
                    policy.table.as_ref(),
                    [policy.qual.as_deref(), policy.with_check.as_deref()],
                );
            }
            NodeEnum::CreateStatsStmt(stats) => {
                self.made(Effect::Create, Object::Other);
                self.relations_of(&stats.relations, Access::Read);
                let on = stats.relations.first().and_then(|node| match node.node.as_ref() {
                    Some(NodeEnum::RangeVar(var)) => Some(var),
                    Some(_) | None => None,
                });
                self.loosely(on, |this, scope| {
                    for node in &stats.exprs {
                        this.definition(node, scope);
                    }
                });
            }
            NodeEnum::CreateDomainStmt(domain) => {
                self.made(Effect::Create, Object::Type);
                self.unrun(|this| this.definitions(&domain.constraints));
            }
            NodeEnum::AlterDomainStmt(domain) => {
                self.made(Effect::Alter, Object::Type);
                if let Some(node) = domain.def.as_deref() {
                    self.loosely(None, |this, scope| this.definition(node, scope));
                }
            }
            NodeEnum::CreateSeqStmt(sequence) => {
                self.made(Effect::Create, Object::Sequence);
                self.names(sequence.sequence.as_ref(), Access::Write);
            }
            NodeEnum::AlterSeqStmt(sequence) => {
                self.made(Effect::Alter, Object::Sequence);
                self.names(sequence.sequence.as_ref(), Access::Write);
            }
            other => self.renamed(other),
        }
    }

    /// Changes that name one object of a kind.
    fn renamed(&mut self, node: &'a NodeEnum) {
        match node {
            NodeEnum::RenameStmt(rename) => {
                self.altered(rename.rename_type);
                self.names(rename.relation.as_ref(), Access::Write);
            }
            NodeEnum::AlterOwnerStmt(owner) => {
                self.altered(owner.object_type);
                self.names(owner.relation.as_ref(), Access::Write);
            }
            NodeEnum::AlterObjectSchemaStmt(moved) => {
                self.altered(moved.object_type);
                self.names(moved.relation.as_ref(), Access::Write);
            }
            NodeEnum::AlterObjectDependsStmt(depends) => {
                self.altered(depends.object_type);
                self.names(depends.relation.as_ref(), Access::Write);
            }
            NodeEnum::CommentStmt(comment) => {
                self.altered(comment.objtype);
                self.named_object(comment.objtype, comment.object.as_deref());
            }
            NodeEnum::SecLabelStmt(label) => {
                self.altered(label.objtype);
                self.named_object(label.objtype, label.object.as_deref());
            }
            other => self.plain_definition(other),
        }
    }

    pub fn made(&mut self, effect: Effect, object: Object) {
        self.effect(effect);
        self.object(object);
    }

    fn altered(&mut self, kind: i32) {
        self.effect(Effect::Alter);
        self.kind(kind);
    }

    pub fn kind(&mut self, kind: i32) {
        match ObjectType::try_from(kind) {
            Ok(kind) => self.object_kind(kind),
            Err(_) => drop(self.unknown()),
        }
    }

    pub fn object_kind(&mut self, kind: ObjectType) {
        self.object(object::describe(kind).0);
    }

    /// Runs `work` on a definition that is stored, not executed: what it calls or reads is named, its effects do not happen.
    fn unrun(&mut self, work: impl FnOnce(&mut Self)) {
        let before = (self.effects, self.opaque, self.without_where);
        work(self);
        let unknown = self.effects.has(Effect::Unknown);
        (self.effects, self.opaque, self.without_where) = before;
        if unknown {
            self.unknown();
        }
    }

    fn create_table(&mut self, create: &'a CreateStmt) {
        self.made(Effect::Create, Object::Table);
        self.names(create.relation.as_ref(), Access::Write);
        self.relations_of(&create.inh_relations, Access::Write);
        self.unrun(|this| {
            this.definitions(&create.table_elts);
            this.definitions(&create.constraints);
            if let Some(spec) = &create.partspec {
                this.definitions(&spec.part_params);
            }
        });
        if let Some(bound) = &create.partbound {
            // Partition bounds are computed now.
            self.loosely(None, |this, scope| {
                for list in [&bound.listdatums, &bound.lowerdatums, &bound.upperdatums] {
                    for node in list {
                        this.definition(node, scope);
                    }
                }
            });
        }
    }

    fn alter_table(&mut self, alter: &'a AlterTableStmt) {
        self.altered(alter.objtype);
        self.names(alter.relation.as_ref(), Access::Write);
        for node in &alter.cmds {
            let Some(NodeEnum::AlterTableCmd(command)) = node.node.as_ref() else {
                self.unknown();
                continue;
            };
            if let Some(definition) = command.def.as_deref() {
                self.loosely(alter.relation.as_ref(), |this, scope| this.definition(definition, scope));
            }
        }
    }

    fn create_function(&mut self, create: &'a CreateFunctionStmt) {
        self.made(Effect::Create, Object::Function);
        let language = create.options.iter().find_map(|node| match node.node.as_ref() {
            Some(NodeEnum::DefElem(option)) if option.defname == "language" => word(option),
            Some(_) | None => None,
        });
        // A body in SQL without LANGUAGE is SQL; other languages may leave the database.
        if !matches!(language, None | Some("sql" | "plpgsql")) {
            self.effect(Effect::Admin);
        }
    }

    /// The actions of a rule run later on behalf of others; they count as if they ran now.
    fn rule(&mut self, rule: &'a RuleStmt) {
        self.made(Effect::Create, Object::Other);
        self.names(rule.relation.as_ref(), Access::Write);
        self.loosely(rule.relation.as_ref(), |this, scope| {
            this.optional(rule.where_clause.as_deref(), scope);
            for action in &rule.actions {
                match action.node.as_ref() {
                    Some(
                        NodeEnum::SelectStmt(_)
                        | NodeEnum::InsertStmt(_)
                        | NodeEnum::UpdateStmt(_)
                        | NodeEnum::DeleteStmt(_),
                    ) => drop(this.query(action, Some(scope))),
                    Some(_) | None => drop(this.statement(action)),
                }
            }
        });
    }

    fn conditions(&mut self, on: Option<&'a RangeVar>, conditions: [Option<&'a Node>; 2]) {
        self.unrun(|this| {
            this.loosely(on, |this, scope| {
                for condition in conditions {
                    this.optional(condition, scope);
                }
            });
        });
    }

    fn definitions(&mut self, nodes: &'a [Node]) {
        self.loosely(None, |this, scope| {
            for node in nodes {
                this.definition(node, scope);
            }
        });
    }

    /// A part of a table's definition: column, constraint, key, bound, or an expression.
    fn definition(&mut self, node: &'a Node, scope: &Scope<'a, '_>) {
        match node.node.as_ref() {
            Some(NodeEnum::ColumnDef(column)) => {
                // A default sees no column; USING of a change of type does.
                let value = self.optional(column.raw_default.as_deref(), scope);
                self.store_computed(value);
                for constraint in &column.constraints {
                    self.definition(constraint, scope);
                }
            }
            Some(NodeEnum::Constraint(constraint)) => self.constraint(constraint, scope),
            Some(NodeEnum::TableLikeClause(like)) => self.names(like.relation.as_ref(), Access::Read),
            Some(NodeEnum::PartitionElem(element)) => drop(self.optional(element.expr.as_deref(), scope)),
            Some(NodeEnum::StatsElem(element)) => drop(self.optional(element.expr.as_deref(), scope)),
            Some(NodeEnum::PartitionRangeDatum(datum)) => drop(self.optional(datum.value.as_deref(), scope)),
            Some(NodeEnum::PartitionCmd(command)) => self.names(command.name.as_ref(), Access::Write),
            Some(NodeEnum::RangeVar(var)) => self.names(Some(var), Access::Write),
            // Options, replica identities and type names hold names only.
            Some(
                NodeEnum::DefElem(_)
                | NodeEnum::List(_)
                | NodeEnum::ReplicaIdentityStmt(_)
                | NodeEnum::RoleSpec(_)
                | NodeEnum::AtalterConstraint(_)
                | NodeEnum::TypeName(_),
            ) => {}
            Some(_) => drop(self.expression(node, scope)),
            None => {}
        }
    }

    fn constraint(&mut self, constraint: &'a Constraint, scope: &Scope<'a, '_>) {
        let value = self.optional(constraint.raw_expr.as_deref(), scope);
        if constraint.contype == ConstrType::ConstrGenerated as i32 {
            self.store_computed(value);
        }
        self.optional(constraint.where_clause.as_deref(), scope);
        self.names(constraint.pktable.as_ref(), Access::Read);
    }

    fn drop_objects(&mut self, drop: &'a DropStmt) {
        self.effect(Effect::Drop);
        self.kind(drop.remove_type);
        if ObjectType::try_from(drop.remove_type) == Ok(ObjectType::ObjectExtension) {
            self.effect(Effect::Admin);
        }
        for node in &drop.objects {
            self.named_object(drop.remove_type, Some(node));
        }
    }

    /// A relation that a DROP or COMMENT names by its parts; of other kinds the kind is enough.
    fn named_object(&mut self, kind: i32, node: Option<&'a Node>) {
        let Some(NodeEnum::List(list)) = node.and_then(|node| node.node.as_ref()) else { return };
        let parts = match ObjectType::try_from(kind).map(|kind| object::describe(kind).1) {
            Ok(Owner::Relation) => list.items.as_slice(),
            Ok(Owner::PartOfRelation) => {
                list.items.split_last().map_or(list.items.as_slice(), |(_, relation)| relation)
            }
            Ok(Owner::Other) | Err(_) => return,
        };
        let Some((schema, name)) = names::qualified(parts) else {
            self.unknown();
            return;
        };
        let found = self.schema.and_then(|known| known.catalog.find(schema, name));
        match found {
            Some((oid, table)) => {
                self.touch(Some(&table.schema), &table.name, oid, Access::Write);
            }
            None => self.touch(schema, name, 0, Access::Write),
        }
    }
}

/// The word an option is set to.
fn word(option: &DefElem) -> Option<&str> {
    names::text(option.arg.as_deref()?)
}
