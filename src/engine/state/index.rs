//! Hash to row numbers: a table of chains.
//!
//! Numbers of one hash form a list, linked in both directions so that one can be taken out at once. Whether keys
//! of one hash are really equal is for the caller to see.

use hashbrown::HashTable;

use crate::engine::state::NONE;

struct Chain {
    hash: u64,
    head: u32,
    len: u32,
}

/// An index of numbers by hash.
#[derive(Default)]
pub struct HashIndex {
    chains: HashTable<Chain>,
    // By number: the next and the previous one of its chain.
    links: Vec<[u32; 2]>,
}

const NEXT: usize = 0;
const PREVIOUS: usize = 1;

impl HashIndex {
    /// The first number of a hash and how many there are; `NONE` and 0 if there is none.
    #[inline]
    pub fn find(&self, hash: u64) -> (u32, u32) {
        self.chains.find(hash, |c| c.hash == hash).map_or((NONE, 0), |c| (c.head, c.len))
    }

    /// The first number of each hash, `NONE` if there is none. Lookups of one call overlap in the memory system.
    pub fn find_all(&self, hashes: &[u64], heads: &mut Vec<u32>) {
        heads.clear();
        heads.extend(hashes.iter().map(|h| self.find(*h).0));
    }

    /// The number after `id` in its chain, or `NONE`.
    #[inline]
    pub fn next(&self, id: u32) -> u32 {
        self.links[id as usize][NEXT]
    }

    /// The numbers of a hash.
    pub fn chain(&self, hash: u64) -> impl Iterator<Item = u32> {
        let step = |id: u32| (id != NONE).then_some(id);
        std::iter::successors(step(self.find(hash).0), move |id| step(self.next(*id)))
    }

    /// Makes room.
    pub fn reserve(&mut self, numbers: usize) {
        self.links.reserve(numbers);
    }

    /// Adds a number that is not in it.
    pub fn insert(&mut self, hash: u64, id: u32) {
        if self.links.len() <= id as usize {
            self.links.resize(id as usize + 1, [NONE; 2]);
        }
        let mut next = NONE;
        self.chains
            .entry(hash, |c| c.hash == hash, |c| c.hash)
            .and_modify(|c| {
                next = c.head;
                (c.head, c.len) = (id, c.len + 1);
            })
            .or_insert_with(|| Chain { hash, head: id, len: 1 });
        self.links[id as usize] = [next, NONE];
        if next != NONE {
            self.links[next as usize][PREVIOUS] = id;
        }
    }

    /// Takes out a number that is in it under this hash.
    pub fn remove(&mut self, hash: u64, id: u32) {
        let [next, previous] = self.links[id as usize];
        let Ok(mut entry) = self.chains.find_entry(hash, |c| c.hash == hash) else {
            debug_assert!(false, "the number is in the index");
            return;
        };
        let chain = entry.get_mut();
        chain.len -= 1;
        if previous != NONE {
            self.links[previous as usize][NEXT] = next;
        } else {
            debug_assert_eq!(chain.head, id, "the first of a chain has none before it");
            chain.head = next;
        }
        if chain.len == 0 {
            entry.remove();
        }
        if next != NONE {
            self.links[next as usize][PREVIOUS] = previous;
        }
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.chains.allocation_size() + self.links.capacity() * size_of::<[u32; 2]>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_lose_their_first_middle_and_last() {
        let mut index = HashIndex::default();
        for id in 0..6 {
            index.insert(u64::from(id % 2), id);
        }
        assert_eq!(index.chain(0).collect::<Vec<_>>(), vec![4, 2, 0]);
        assert_eq!(index.find(1), (5, 3));
        index.remove(0, 2);
        assert_eq!(index.chain(0).collect::<Vec<_>>(), vec![4, 0]);
        index.remove(0, 4);
        index.insert(0, 2);
        assert_eq!(index.chain(0).collect::<Vec<_>>(), vec![2, 0]);
        index.remove(0, 0);
        index.remove(0, 2);
        assert_eq!(index.find(0), (NONE, 0));
        assert_eq!(index.chain(7).next(), None);
    }
}
