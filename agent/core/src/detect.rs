//! Finds protected values in text: built-in families (email, card, …), custom patterns, keywords.
//! It refuses to guess: what has a check digit is reported only when the check digit is right.
//!
//! Texts are bytes; what is not UTF-8 is searched all the same, and in UTF-8 text every finding begins and ends between
//! characters. Time is linear in the text (times the number of custom patterns, where one of them matches).

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

mod aws;
mod card;
mod custom;
mod edge;
mod email;
mod family;
mod iban;
mod jwt;
mod llm;
mod overlap;
mod phone;
mod private_key;
mod ssn;
mod token;
mod vendor;

#[cfg(test)]
mod tests;

use custom::{Keywords, Patterns};
use family::{FAMILIES, Families, Family, Triggers};

/// Index of a class in the policy's list of classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClassId(pub u16);

/// A set of classes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClassSet(pub Vec<ClassId>);

/// What a class of protected values is, as `classes.yaml` declares it (column and JSON-path parts are the policy's).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClassDefinition {
    pub name: String,
    /// Built-in families by name, see [`families`]: `EMAIL_ADDRESS`, `CREDIT_CARD`, `US_SSN`, `AWS_ACCESS_KEY`, `JWT`, …
    pub families: Vec<String>,
    /// Custom patterns (regex syntax of `regex-automata`, no look-around). Not anchored: `\b` and `^` must be written.
    pub patterns: Vec<String>,
    /// Literal keywords, matched without regard to ASCII case, on word boundaries.
    pub keywords: Vec<String>,
}

/// One finding: bytes `start..end` of the text are a value of `class`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finding {
    pub class: ClassId,
    pub start: usize,
    pub end: usize,
}

/// All classes of a policy, compiled once, searched in one pass.
#[derive(Debug, Default)]
pub struct Scanner {
    /// Per class: the built-in families it names.
    families: Vec<Families>,
    triggers: Triggers,
    patterns: Patterns,
    keywords: Keywords,
}

/// A class that cannot be compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DetectError {
    #[error("no built-in detector is named {0}")]
    UnknownFamily(String),
    #[error("pattern {pattern:?} cannot be used: {reason}")]
    Pattern { pattern: String, reason: String },
    #[error("keyword {keyword:?} cannot be used: {reason}")]
    Keyword { keyword: String, reason: String },
    #[error("there are more than {0} classes")]
    TooManyClasses(usize),
}

/// Names of the built-in families, in the order of the documentation.
pub fn families() -> impl Iterator<Item = &'static str> {
    FAMILIES.iter().map(|family| family.name)
}

impl Scanner {
    /// Finds nothing: the scanner of a policy without classes.
    #[must_use]
    pub const fn none() -> Scanner {
        Scanner {
            families: Vec::new(),
            triggers: Triggers::NONE,
            patterns: Patterns::NONE,
            keywords: Keywords::NONE,
        }
    }

    /// Class `n` of `classes` is `ClassId(n)`.
    ///
    /// # Errors
    /// A family that does not exist; a pattern that does not compile, is too large or matches the empty string; an
    /// empty keyword.
    pub fn new(classes: &[ClassDefinition]) -> Result<Scanner, DetectError> {
        if classes.len() > usize::from(u16::MAX) {
            return Err(DetectError::TooManyClasses(usize::from(u16::MAX)));
        }
        let mut families = Vec::with_capacity(classes.len());
        for class in classes {
            let mut named = Families::default();
            for name in &class.families {
                named.add(Family::named(name).ok_or_else(|| DetectError::UnknownFamily(name.to_owned()))?);
            }
            families.push(named);
        }
        Ok(Scanner {
            triggers: Triggers::new(families.iter().fold(Families::default(), |all, one| all.with(*one))),
            families,
            patterns: Patterns::new(classes)?,
            keywords: Keywords::new(classes)?,
        })
    }

    /// Finds values of the wanted classes, in order of position, without overlaps: the longer match wins, then the
    /// class listed first in the policy; what sticks out of the winner is still reported, so no byte that belongs to
    /// a wanted class is ever left out. `found` is cleared first.
    pub fn find(&self, text: &[u8], wanted: &ClassSet, found: &mut Vec<Finding>) {
        found.clear();
        let families = self.wanted_families(wanted);
        self.triggers.scan(text, families, &mut |family, start, end| {
            if let Some(class) = self.owner(family, wanted) {
                found.push(Finding { class, start, end });
            }
        });
        self.patterns.find(text, wanted, found);
        self.keywords.find(text, wanted, found);
        overlap::resolve(found);
    }

    /// True when nothing can ever be found for these classes, so that callers need not gather the text.
    #[must_use]
    pub fn is_idle(&self, wanted: &ClassSet) -> bool {
        self.wanted_families(wanted).is_empty() && !self.patterns.any(wanted) && !self.keywords.any(wanted)
    }

    /// Bytes that the longest match of the wanted classes may span: what a stream has to hold back at most.
    /// Unbounded matches (private keys, patterns with `*` or `+`) count as [`crate::limits::MATCH_BYTES`]. In a text
    /// that is there as a whole, longer matches are found all the same.
    #[must_use]
    pub fn longest(&self, wanted: &ClassSet) -> usize {
        self.wanted_families(wanted)
            .longest()
            .max(self.patterns.longest(wanted))
            .max(self.keywords.longest(wanted))
    }

    fn wanted_families(&self, wanted: &ClassSet) -> Families {
        wanted
            .0
            .iter()
            .filter_map(|class| self.families.get(usize::from(class.0)))
            .fold(Families::default(), |all, one| all.with(*one))
    }

    /// The wanted class listed first in the policy that names the family.
    fn owner(&self, family: usize, wanted: &ClassSet) -> Option<ClassId> {
        let names = |class: &&ClassId| {
            self.families.get(usize::from(class.0)).is_some_and(|families| families.has(family))
        };
        wanted.0.iter().filter(names).min().copied()
    }
}
