//! Analyses by exact text, and what was derived from a catalog by its epoch.
//! It refuses to grow: two generations of bounded size, the older one dropped when the younger is full.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use weir_core::action::Statement;
use weir_core::limits;
use weir_core::sql::{Catalog, Dialect};

use crate::view::Schema;

/// What an analysis depends on besides the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key {
    pub epoch: Option<u64>,
    pub dialect: Dialect,
}

#[derive(Default)]
pub(crate) struct Caches {
    analyses: Mutex<Analyses>,
    schemas: Mutex<Vec<Arc<Schema>>>,
}

impl Caches {
    pub fn analysis(&self, key: Key, sql: &str) -> Option<Arc<Vec<Statement>>> {
        if sql.len() > TEXT_BYTES {
            return None;
        }
        lock(&self.analyses).find(key, sql)
    }

    pub fn remember(&self, key: Key, sql: &str, statements: &Arc<Vec<Statement>>) {
        if sql.len() <= TEXT_BYTES {
            lock(&self.analyses).keep(key, sql, statements);
        }
    }

    /// What was derived from this catalog, newest first; the oldest catalog makes room.
    pub fn schema(&self, catalog: &Arc<Catalog>) -> Arc<Schema> {
        let mut schemas = lock(&self.schemas);
        if let Some(found) = schemas.iter().position(|schema| schema.catalog.epoch == catalog.epoch) {
            schemas[..=found].rotate_right(1);
        } else {
            schemas.truncate(CATALOGS - 1);
            schemas.insert(0, Arc::new(Schema::new(catalog)));
        }
        Arc::clone(&schemas[0])
    }
}

type Texts = HashMap<Box<str>, Arc<Vec<Statement>>>;

#[derive(Default)]
struct Analyses {
    young: Vec<(Key, Texts)>,
    old: Vec<(Key, Texts)>,
    entries: usize,
    bytes: usize,
}

impl Analyses {
    fn find(&mut self, key: Key, sql: &str) -> Option<Arc<Vec<Statement>>> {
        if let Some(found) = texts(&self.young, key).and_then(|texts| texts.get(sql)) {
            return Some(Arc::clone(found));
        }
        let found = texts(&self.old, key).and_then(|texts| texts.get(sql)).cloned()?;
        self.keep(key, sql, &found);
        Some(found)
    }

    fn keep(&mut self, key: Key, sql: &str, statements: &Arc<Vec<Statement>>) {
        if self.entries >= limits::SQL_CACHE / 2 || self.bytes + sql.len() > CACHE_BYTES / 2 {
            self.old = std::mem::take(&mut self.young);
            (self.entries, self.bytes) = (0, 0);
        }
        let texts = match self.young.iter().position(|(of, _)| *of == key) {
            Some(at) => &mut self.young[at].1,
            None => {
                self.young.push((key, Texts::new()));
                let last = self.young.len() - 1;
                &mut self.young[last].1
            }
        };
        if texts.insert(sql.into(), Arc::clone(statements)).is_none() {
            self.entries += 1;
            self.bytes += sql.len();
        }
    }
}

fn texts(generation: &[(Key, Texts)], key: Key) -> Option<&Texts> {
    generation.iter().find(|(of, _)| *of == key).map(|(_, texts)| texts)
}

/// A panic of another thread leaves a cache that is at worst incomplete.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Longer texts are rarely sent twice.
const TEXT_BYTES: usize = 16 * 1024;
/// Texts of both generations together; an analysis is about as large as its text.
const CACHE_BYTES: usize = 8 * 1024 * 1024;
/// Catalogs (databases × search paths) one worker sees at a time.
const CATALOGS: usize = 16;
