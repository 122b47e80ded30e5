//! Commands about the session, transactions, locks, privileges and the server itself.
//! It refuses nothing by itself: what it does not know goes on to `ddl`, and from there to `unknown`.

use pg_query::NodeEnum;
use pg_query::protobuf::{GrantStmt, Node, ObjectType, VariableSetStmt};
use weir_core::action::{Access, Effect, Named, Object};

use crate::names;
use crate::resolver::Resolver;
use crate::scope::{Row, Scope};
use crate::statement::Result;
use crate::value::{Field, Value};

impl<'a> Resolver<'a> {
    pub fn session(&mut self, node: &'a NodeEnum) -> Result {
        match node {
            NodeEnum::TransactionStmt(_) | NodeEnum::ConstraintsSetStmt(_) => self.effect(Effect::Txn),
            NodeEnum::VariableSetStmt(set) => self.set(set),
            NodeEnum::VariableShowStmt(show) => {
                self.effect(Effect::Read);
                if show.name == "all" {
                    let field = |name: &str| Field { name: name.into(), value: Value::constant() };
                    let fields = ["name", "setting", "description"].map(field).into();
                    return Result::Rows(Row { fields, rest: None });
                }
                return self.setting(&show.name);
            }
            NodeEnum::DiscardStmt(_) => self.effect(Effect::Session),
            NodeEnum::DeallocateStmt(forget) => {
                self.effect(Effect::Session);
                self.named = Some(Named::Deallocate((!forget.isall).then(|| forget.name.clone())));
            }
            NodeEnum::ClosePortalStmt(close) => {
                self.effect(Effect::Txn);
                let name = close.portalname.as_str();
                self.named = Some(Named::Close((!name.is_empty()).then(|| name.into())));
            }
            NodeEnum::ListenStmt(_) | NodeEnum::UnlistenStmt(_) | NodeEnum::NotifyStmt(_) => {
                self.effect(Effect::Listen);
            }
            NodeEnum::LockStmt(lock) => {
                self.effect(Effect::Lock);
                self.relations_of(&lock.relations, Access::Write);
            }
            NodeEnum::DoStmt(_) => {
                self.effect(Effect::Do);
                self.opaque = true;
            }
            NodeEnum::CallStmt(call) => {
                self.effect(Effect::Call);
                self.opaque = true;
                if let Some(call) = call.funccall.as_deref() {
                    self.expressions(&call.args, &Scope::default());
                    if let Some((schema, name)) = names::qualified(&call.funcname) {
                        self.call(schema, name, true);
                    }
                }
                return Result::Rows(Row::open(Value::opaque()));
            }
            other => self.maintenance(other),
        }
        Result::Nothing
    }

    /// Whole tables, privileges, and the server's upkeep.
    fn maintenance(&mut self, node: &'a NodeEnum) {
        match node {
            NodeEnum::TruncateStmt(truncate) => {
                self.effect(Effect::Truncate);
                self.relations_of(&truncate.relations, Access::Write);
            }
            NodeEnum::RefreshMatViewStmt(refresh) => {
                self.effect(Effect::Update);
                self.effect(Effect::Read);
                self.object(Object::View);
                self.names(refresh.relation.as_ref(), Access::Write);
            }
            NodeEnum::GrantStmt(grant) => self.grant(grant),
            NodeEnum::GrantRoleStmt(_) => {
                self.effect(Effect::Grant);
                self.object(Object::Role);
            }
            NodeEnum::AlterDefaultPrivilegesStmt(change) => {
                self.effect(Effect::Grant);
                if let Some(grant) = &change.action {
                    self.grant(grant);
                }
            }
            NodeEnum::VacuumStmt(vacuum) => {
                self.effect(Effect::Admin);
                for node in &vacuum.rels {
                    match node.node.as_ref() {
                        Some(NodeEnum::VacuumRelation(one)) => {
                            self.names(one.relation.as_ref(), Access::Write)
                        }
                        Some(_) | None => drop(self.unknown()),
                    }
                }
            }
            NodeEnum::ClusterStmt(cluster) => {
                self.effect(Effect::Admin);
                self.names(cluster.relation.as_ref(), Access::Write);
            }
            NodeEnum::ReindexStmt(reindex) => {
                self.effect(Effect::Admin);
                self.object(Object::Index);
                self.names(reindex.relation.as_ref(), Access::Write);
            }
            NodeEnum::AlterSystemStmt(_) | NodeEnum::LoadStmt(_) | NodeEnum::CheckPointStmt(_) => {
                self.effect(Effect::Admin);
            }
            other => self.ddl(other),
        }
    }

    /// SET and RESET change the session; only the modes of the running transaction belong to the transaction.
    pub fn set(&mut self, set: &'a VariableSetStmt) {
        let transaction = matches!(set.name.as_str(), "TRANSACTION" | "TRANSACTION SNAPSHOT");
        self.effect(if transaction { Effect::Txn } else { Effect::Session });
    }

    fn grant(&mut self, grant: &'a GrantStmt) {
        self.effect(Effect::Grant);
        match ObjectType::try_from(grant.objtype) {
            Ok(kind) => self.object_kind(kind),
            Err(_) => drop(self.unknown()),
        }
        for node in &grant.objects {
            if let Some(NodeEnum::RangeVar(var)) = node.node.as_ref() {
                self.names(Some(var), Access::Write);
            }
        }
    }

    pub fn relations_of(&mut self, nodes: &'a [Node], access: Access) {
        for node in nodes {
            match node.node.as_ref() {
                Some(NodeEnum::RangeVar(var)) => self.names(Some(var), access),
                Some(_) | None => drop(self.unknown()),
            }
        }
    }
}
