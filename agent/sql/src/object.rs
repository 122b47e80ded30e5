//! Kinds of object: what policies call them, and how a statement names them.

use pg_query::protobuf::ObjectType;
use weir_core::action::Object;

/// How a kind of object is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// By a relation's name.
    Relation,
    /// By a relation's name, then its own.
    PartOfRelation,
    Other,
}

/// A constraint on a table is the table's; triggers, rules and policies are no kind of their own in the vocabulary.
pub(crate) fn describe(kind: ObjectType) -> (Object, Owner) {
    match kind {
        ObjectType::ObjectTable | ObjectType::ObjectForeignTable => (Object::Table, Owner::Relation),
        ObjectType::ObjectColumn | ObjectType::ObjectTabconstraint => (Object::Table, Owner::PartOfRelation),
        ObjectType::ObjectView | ObjectType::ObjectMatview => (Object::View, Owner::Relation),
        ObjectType::ObjectSequence => (Object::Sequence, Owner::Relation),
        ObjectType::ObjectTrigger | ObjectType::ObjectRule | ObjectType::ObjectPolicy => {
            (Object::Other, Owner::PartOfRelation)
        }
        ObjectType::ObjectIndex => (Object::Index, Owner::Other),
        ObjectType::ObjectSchema => (Object::Schema, Owner::Other),
        ObjectType::ObjectDatabase => (Object::Database, Owner::Other),
        ObjectType::ObjectFunction
        | ObjectType::ObjectProcedure
        | ObjectType::ObjectRoutine
        | ObjectType::ObjectAggregate => (Object::Function, Owner::Other),
        ObjectType::ObjectRole => (Object::Role, Owner::Other),
        ObjectType::ObjectType
        | ObjectType::ObjectDomain
        | ObjectType::ObjectAttribute
        | ObjectType::ObjectDomconstraint => (Object::Type, Owner::Other),
        ObjectType::ObjectExtension => (Object::Extension, Owner::Other),
        ObjectType::Undefined
        | ObjectType::ObjectAccessMethod
        | ObjectType::ObjectAmop
        | ObjectType::ObjectAmproc
        | ObjectType::ObjectCast
        | ObjectType::ObjectCollation
        | ObjectType::ObjectConversion
        | ObjectType::ObjectDefault
        | ObjectType::ObjectDefacl
        | ObjectType::ObjectEventTrigger
        | ObjectType::ObjectFdw
        | ObjectType::ObjectForeignServer
        | ObjectType::ObjectLanguage
        | ObjectType::ObjectLargeobject
        | ObjectType::ObjectOpclass
        | ObjectType::ObjectOperator
        | ObjectType::ObjectOpfamily
        | ObjectType::ObjectParameterAcl
        | ObjectType::ObjectPublication
        | ObjectType::ObjectPublicationNamespace
        | ObjectType::ObjectPublicationRel
        | ObjectType::ObjectSubscription
        | ObjectType::ObjectStatisticExt
        | ObjectType::ObjectTablespace
        | ObjectType::ObjectTransform
        | ObjectType::ObjectTsconfiguration
        | ObjectType::ObjectTsdictionary
        | ObjectType::ObjectTsparser
        | ObjectType::ObjectTstemplate
        | ObjectType::ObjectUserMapping => (Object::Other, Owner::Other),
    }
}
