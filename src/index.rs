//! Finds by its name what is kept under a number, such as the key of a slab.
//!
//! It stores the numbers alone. What they stand for is asked of the caller, so that no name is kept
//! twice where there may be millions.

use std::hash::{BuildHasher, Hash};

use hashbrown::DefaultHashBuilder;
use hashbrown::hash_table::HashTable;

/// Numbers, by the hash of what each stands for.
#[derive(Debug, Default)]
pub(crate) struct Index {
    ids: HashTable<u32>,
    hasher: DefaultHashBuilder,
}

impl Index {
    /// The number that stands for `name`; `is` says whether a number does.
    pub(crate) fn find(&self, name: impl Hash, is: impl Fn(u32) -> bool) -> Option<u32> {
        let hash = self.hasher.hash_one(name);
        self.ids.find(hash, |id| is(*id)).copied()
    }

    /// Adds a number that is not there. `name_of` gives what it, or any of those that are there,
    /// stands for.
    pub(crate) fn insert<N: Hash>(&mut self, id: u32, name_of: impl Fn(u32) -> Option<N>) {
        let Self { ids, hasher } = self;
        let hash = |id: &u32| name_of(*id).map_or(0, |name| hasher.hash_one(name));
        ids.insert_unique(hash(&id), id, hash);
    }

    /// Removes the number, if it is there; `name` is what it stood for.
    pub(crate) fn remove(&mut self, name: impl Hash, id: u32) {
        let hash = self.hasher.hash_one(name);
        if let Ok(found) = self.ids.find_entry(hash, |other| *other == id) {
            found.remove();
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_by_what_they_stand_for() {
        let names: Vec<String> = (0..1000).map(|number| format!("name {number}")).collect();
        let mut index = Index::default();
        for id in 0..1000 {
            index.insert(id, |id| names.get(id as usize).map(String::as_str));
        }
        let find = |index: &Index, name: &str| index.find(name, |id| names[id as usize] == name);
        for (id, name) in names.iter().enumerate() {
            assert_eq!(find(&index, name), Some(id as u32));
        }
        assert_eq!(find(&index, "another name"), None);

        index.remove("name 7", 7);
        index.remove("name 7", 7);
        assert_eq!(find(&index, "name 7"), None);
        assert_eq!(index.len(), 999);
    }
}
