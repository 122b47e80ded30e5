//! Where one value comes from, and how values combine. Combining may only add sources, never drop one.

use weir_core::action::{Column, Output, OutputKind};

/// The lineage of one expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Value {
    pub kind: OutputKind,
    /// Sorted, without duplicates.
    pub sources: Vec<Column>,
    /// Type of a direct value; 0 when not known.
    pub type_oid: u32,
}

/// A column of a row: its name and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Field {
    pub name: String,
    pub value: Value,
}

impl Value {
    /// A value that no stored value flows into.
    pub fn constant() -> Self {
        Self { kind: OutputKind::Derived, sources: Vec::new(), type_oid: 0 }
    }

    pub fn opaque() -> Self {
        Self { kind: OutputKind::Opaque, sources: Vec::new(), type_oid: 0 }
    }

    /// No value at all: where a recursive query starts, before its first round.
    pub fn nothing() -> Self {
        Self { kind: OutputKind::Derived, sources: Vec::new(), type_oid: NOTHING }
    }

    pub fn is_nothing(&self) -> bool {
        self.type_oid == NOTHING
    }

    /// Computed from `values`. What is computed from neutral values and constants alone stays neutral.
    pub fn derived(values: impl IntoIterator<Item = Value>) -> Self {
        let mut all = Self::constant();
        let (mut neutral, mut carried) = (false, false);
        let (mut some, mut nothing) = (false, false);
        for value in values {
            some |= !value.is_nothing();
            nothing |= value.is_nothing();
            match value.kind {
                OutputKind::Opaque => all.kind = OutputKind::Opaque,
                OutputKind::Neutral => neutral = true,
                OutputKind::Direct | OutputKind::Derived => carried |= !value.sources.is_empty(),
            }
            all.add(&value.sources);
        }
        if neutral && !carried && all.kind == OutputKind::Derived {
            all.kind = OutputKind::Neutral;
        }
        if nothing && !some { Self::nothing() } else { all }
    }

    /// Says nothing about the values it was computed from but whether they are there, and how many.
    pub fn neutral(self) -> Self {
        match self.kind {
            OutputKind::Opaque => self,
            OutputKind::Direct | OutputKind::Derived | OutputKind::Neutral => {
                Self { kind: OutputKind::Neutral, sources: self.sources, type_oid: 0 }
            }
        }
    }

    /// This value or that one, row by row: branches of a set operation, sides of a merged join column.
    pub fn either(self, other: Self) -> Self {
        if other.is_nothing() {
            return self;
        }
        if self.is_nothing() {
            return other;
        }
        let type_oid = match (self.type_oid, other.type_oid) {
            (a, b) if a == b => a,
            (a, b) if is_text(a) && is_text(b) => TEXT,
            (_, _) => 0,
        };
        if self.kind == OutputKind::Direct && other.kind == OutputKind::Direct && type_oid != 0 {
            let mut all = self;
            all.add(&other.sources);
            return Self { type_oid, ..all };
        }
        Self::derived([self, other])
    }

    pub fn add(&mut self, sources: &[Column]) {
        for source in sources {
            if let Err(at) = self.sources.binary_search(source) {
                self.sources.insert(at, *source);
            }
        }
    }

    pub fn with_sources(mut self, sources: &[Column]) -> Self {
        self.add(sources);
        self
    }

    pub fn output(self, name: String) -> Output {
        Output { name, kind: self.kind, sources: self.sources }
    }
}

/// Types among which a cast without length keeps every byte: text, varchar, name. (char(n) pads.)
pub(crate) fn is_text(type_oid: u32) -> bool {
    matches!(type_oid, TEXT | 1043 | 19)
}

pub(crate) const TEXT: u32 = 25;
/// No type has this OID.
const NOTHING: u32 = u32::MAX;
