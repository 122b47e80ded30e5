//! Catalogs that one session read and the next need not: a new connection asks for a digest, not for thousands of rows.
//! It refuses to grow: the catalog that was not asked for the longest makes room.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use weir_core::sql::{Catalog, CatalogKey};

/// Shared by all relaying threads; the newest use is at the back.
#[derive(Debug, Default)]
pub struct Catalogs(Mutex<VecDeque<(CatalogKey, Arc<Catalog>)>>);

/// Databases times search paths; each holds what one session would hold for itself.
const MOST: usize = 32;

impl Catalogs {
    pub fn get(&self, key: &CatalogKey) -> Option<Arc<Catalog>> {
        let mut kept = self.0.lock().ok()?;
        let at = kept.iter().position(|(known, _)| known == key)?;
        let entry = kept.remove(at)?;
        let catalog = Arc::clone(&entry.1);
        kept.push_back(entry);
        Some(catalog)
    }

    pub fn keep(&self, key: CatalogKey, catalog: &Arc<Catalog>) {
        let Ok(mut kept) = self.0.lock() else { return };
        kept.retain(|(known, _)| *known != key);
        if kept.len() >= MOST {
            kept.pop_front();
        }
        kept.push_back((key, Arc::clone(catalog)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalog_that_was_used_longest_ago_makes_room() {
        let (catalogs, catalog) = (Catalogs::default(), Arc::default());
        let key = |number: usize| [u8::try_from(number).unwrap(); 32];
        (0..MOST).for_each(|number| catalogs.keep(key(number), &catalog));
        assert!(catalogs.get(&key(0)).is_some());
        catalogs.keep(key(MOST), &catalog);
        assert!(catalogs.get(&key(0)).is_some(), "it was used since");
        assert!(catalogs.get(&key(1)).is_none());
    }
}
