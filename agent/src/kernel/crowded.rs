//! Cgroups that should be labelled and that no map has room for. It refuses to let them be: what is in them is refused
//! until there is room.

use std::path::Path;

use weir_ebpf::{Place, lacks, map, slot};

use super::{FenceError, Table, Tree, cgroup};

/// The map `CROWDED`, and what it takes to write it.
#[derive(Debug)]
pub(super) struct Crowded {
    table: Table<u64, u64>,
    state: Table<u32, u64>,
    places: Table<u64, Place>,
}

impl Crowded {
    pub(super) fn open(folder: &Path) -> Result<Self, FenceError> {
        Ok(Self {
            table: Table::open(folder, map::CROWDED)?,
            state: Table::open(folder, map::STATE)?,
            places: Table::open(folder, map::PLACES)?,
        })
    }

    /// The outcome of giving a cgroup what it is `lacking` (one bit of [`lacks`]): with no room for that, it is
    /// refused instead, and that is no fault.
    pub(super) fn settle(
        &self,
        cgroup: u64,
        lacking: u64,
        given: Result<(), FenceError>,
    ) -> Result<(), FenceError> {
        let before = self.table.lookup(&cgroup)?.unwrap_or(0);
        match given {
            Ok(()) if before & lacking == 0 => Ok(()),
            Ok(()) if before == lacking => self.table.remove(&cgroup),
            Ok(()) => self.table.insert(&cgroup, &(before & !lacking)),
            Err(fault) if is_full(&fault) => {
                tracing::error!(
                    cgroup,
                    "No room for another labelled cgroup: what is in this one is refused."
                );
                self.table.insert(&cgroup, &(before | lacking))?;
                self.state.insert(&slot::CROWDED, &1)
            }
            Err(fault) => Err(fault),
        }
    }

    /// Those without a label.
    pub(super) fn unlabelled(&self) -> Result<Vec<u64>, FenceError> {
        let all = self.table.entries()?.into_iter();
        Ok(all.filter(|(_, lacking)| lacking & lacks::LABEL != 0).map(|(id, _)| id).collect())
    }

    /// Not even the map of those without room has room: all of its siblings without a label that are as young are refused
    /// with it.
    pub(super) fn spill(&self, tree: &Tree, cgroup: u64) -> Result<(), FenceError> {
        let parent = tree.folder_of(cgroup).and_then(|folder| cgroup::id(folder.parent()?).ok());
        // Gone meanwhile.
        let Some(parent) = parent else { return Ok(()) };
        let place = self.places.lookup(&parent)?.unwrap_or(Place { mask: 0, depth: 0, bank: 0, spilled: 0 });
        if place.spilled == 0 || place.spilled > cgroup {
            self.places.insert(&parent, &Place { spilled: cgroup, ..place })?;
        }
        self.state.insert(&slot::CROWDED, &1)
    }
}

/// bpf(2).
pub(super) fn is_full(fault: &FenceError) -> bool {
    matches!(fault, FenceError::Map { source, .. } if source.raw_os_error() == Some(libc::E2BIG))
}
