//! Definitions that carry no expression: databases, roles, types, and what reaches beyond the database's own rows.
//! It refuses statements it has never heard of: `unknown`.

use pg_query::NodeEnum;
use weir_core::action::{Effect, Object};

use crate::resolver::Resolver;

impl Resolver<'_> {
    /// Definitions that carry no expression.
    pub fn plain_definition(&mut self, node: &NodeEnum) {
        match node {
            NodeEnum::CreatedbStmt(_) => self.made(Effect::Create, Object::Database),
            NodeEnum::AlterDatabaseStmt(_) | NodeEnum::AlterDatabaseRefreshCollStmt(_) => {
                self.made(Effect::Alter, Object::Database);
            }
            NodeEnum::AlterDatabaseSetStmt(_) => {
                self.effect(Effect::Session);
                self.made(Effect::Alter, Object::Database);
            }
            NodeEnum::DropdbStmt(_) => self.made(Effect::Drop, Object::Database),
            NodeEnum::CreateRoleStmt(_) => self.made(Effect::Create, Object::Role),
            NodeEnum::AlterRoleStmt(_) => self.made(Effect::Alter, Object::Role),
            NodeEnum::AlterRoleSetStmt(_) => {
                self.effect(Effect::Session);
                self.made(Effect::Alter, Object::Role);
            }
            NodeEnum::DropRoleStmt(_) => self.made(Effect::Drop, Object::Role),
            NodeEnum::CompositeTypeStmt(_) | NodeEnum::CreateEnumStmt(_) | NodeEnum::CreateRangeStmt(_) => {
                self.made(Effect::Create, Object::Type)
            }
            NodeEnum::AlterEnumStmt(_) | NodeEnum::AlterTypeStmt(_) => self.made(Effect::Alter, Object::Type),
            NodeEnum::AlterFunctionStmt(_) => self.made(Effect::Alter, Object::Function),
            NodeEnum::DefineStmt(define) => {
                self.effect(Effect::Create);
                self.kind(define.kind);
            }
            NodeEnum::CreateCastStmt(_)
            | NodeEnum::CreateOpClassStmt(_)
            | NodeEnum::CreateOpFamilyStmt(_)
            | NodeEnum::CreateConversionStmt(_)
            | NodeEnum::CreateTransformStmt(_) => self.made(Effect::Create, Object::Other),
            NodeEnum::AlterOpFamilyStmt(_)
            | NodeEnum::AlterOperatorStmt(_)
            | NodeEnum::AlterCollationStmt(_)
            | NodeEnum::AlterStatsStmt(_)
            | NodeEnum::AlterTsdictionaryStmt(_)
            | NodeEnum::AlterTsconfigurationStmt(_) => self.made(Effect::Alter, Object::Other),
            other => self.of_the_server(other),
        }
    }

    /// What reaches beyond the database's own rows: code, files, other servers, replication.
    fn of_the_server(&mut self, node: &NodeEnum) {
        let (first, effect, object) = match node {
            NodeEnum::CreateExtensionStmt(_) => (Effect::Admin, Effect::Create, Object::Extension),
            NodeEnum::AlterExtensionStmt(_) | NodeEnum::AlterExtensionContentsStmt(_) => {
                (Effect::Admin, Effect::Alter, Object::Extension)
            }
            NodeEnum::CreateFdwStmt(_)
            | NodeEnum::CreateForeignServerStmt(_)
            | NodeEnum::CreateUserMappingStmt(_)
            | NodeEnum::ImportForeignSchemaStmt(_)
            | NodeEnum::CreateTableSpaceStmt(_)
            | NodeEnum::CreateAmStmt(_)
            | NodeEnum::CreatePlangStmt(_)
            | NodeEnum::CreateEventTrigStmt(_) => (Effect::Admin, Effect::Create, Object::Other),
            NodeEnum::AlterFdwStmt(_)
            | NodeEnum::AlterForeignServerStmt(_)
            | NodeEnum::AlterUserMappingStmt(_)
            | NodeEnum::AlterTableSpaceOptionsStmt(_)
            | NodeEnum::AlterTableMoveAllStmt(_)
            | NodeEnum::AlterEventTrigStmt(_)
            | NodeEnum::ReassignOwnedStmt(_) => (Effect::Admin, Effect::Alter, Object::Other),
            NodeEnum::DropTableSpaceStmt(_)
            | NodeEnum::DropUserMappingStmt(_)
            | NodeEnum::DropOwnedStmt(_) => (Effect::Admin, Effect::Drop, Object::Other),
            NodeEnum::CreatePublicationStmt(_) | NodeEnum::CreateSubscriptionStmt(_) => {
                (Effect::Replication, Effect::Create, Object::Other)
            }
            NodeEnum::AlterPublicationStmt(_) | NodeEnum::AlterSubscriptionStmt(_) => {
                (Effect::Replication, Effect::Alter, Object::Other)
            }
            NodeEnum::DropSubscriptionStmt(_) => (Effect::Replication, Effect::Drop, Object::Other),
            // Newer than this list, or no statement at all.
            _ => {
                self.unknown();
                return;
            }
        };
        self.effect(first);
        self.made(effect, object);
    }
}
