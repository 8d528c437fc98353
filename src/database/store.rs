//! What lasts besides rows: catalog objects, secrets and the sinks' memories, in sled.
//!
//! Everything is written in batches that hold together, and flushed before the call returns: sled's own timer is no
//! durability. Files are readable by their owner only, for secrets stand among them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::connectors::{CommitStore, Memory, SinkCommit};
use crate::engine::Tick;
use crate::error::{Error, Result, SqlState};
use crate::world;

/// The version of the directory's layout that this program writes and reads.
const FORMAT: u64 = 1;
const KEY_FORMAT: &[u8] = b"format";
const KEY_NEXT_ID: &[u8] = b"next_id";
const KEY_RECORDED: &[u8] = b"recorded";
/// Identities below this one belong to the database itself.
pub(crate) const FIRST_ID: u64 = 1000;

/// How long a store that was closed may take to let go of its files.
const LOCK_WAIT: Duration = Duration::from_secs(10);
const LOCK_POLL: Duration = Duration::from_millis(5);

/// The metadata store of a data directory.
pub(crate) struct Store {
    db: sled::Db,
    is_new: bool,
    /// Catalog objects: identity (8 bytes, big-endian) → JSON.
    objects: sled::Tree,
    /// Memories: owner's identity (8 bytes, big-endian), name → value.
    memory: sled::Tree,
    /// Sinks' commits: owner's identity, number (8 bytes each, big-endian) → JSON.
    commits: sled::Tree,
    /// Sinks that were dropped and whose leavings at the destination are still to be removed: identity → JSON.
    leavings: sled::Tree,
}

/// Changes of the catalog that become durable together.
#[derive(Default)]
pub(crate) struct CatalogBatch {
    batch: sled::Batch,
    recorded: Option<Tick>,
    leavings: Vec<(u64, Vec<u8>)>,
    forgotten: Vec<u64>,
}

impl CatalogBatch {
    /// Stores an object's JSON.
    pub fn put(&mut self, id: u64, json: Vec<u8>) {
        self.batch.insert(&id.to_be_bytes(), json);
    }

    /// Notes, with the changes, that the journal tells of this tick.
    pub fn note_recorded(&mut self, tick: Tick) {
        self.recorded = Some(tick);
    }

    /// Removes an object, and what it remembered.
    pub fn remove(&mut self, id: u64) {
        self.batch.remove(&id.to_be_bytes());
        self.forgotten.push(id);
    }

    /// Notes what is to be removed at a dropped sink's destination.
    pub fn leave(&mut self, id: u64, json: Vec<u8>) {
        self.leavings.push((id, json));
    }
}

fn storage(e: sled::Error) -> Error {
    match e {
        sled::Error::Io(e) => e.into(),
        e @ sled::Error::Corruption { .. } => {
            Error::new(SqlState::DATA_CORRUPTED, format!("the metadata store is damaged: {e}"))
        }
        e => Error::internal(format!("metadata store: {e}")),
    }
}

/// Opens sled. The caller holds the directory's lock, so whoever holds sled's own is a store of this process that was
/// closed, and whose last thread lets go of it a moment later.
fn open_patiently(dir: &Path) -> Result<sled::Db> {
    let config = sled::Config::new().path(dir).cache_capacity(16 << 20).flush_every_ms(None);
    let until = world::instant() + LOCK_WAIT;
    loop {
        match config.open() {
            Err(sled::Error::Io(e)) if is_locked(&e) && world::instant() < until => {
                world::sleep(LOCK_POLL);
            }
            opened => return opened.map_err(storage),
        }
    }
}

/// Whether sled says that another one has its files; it has no error of its own for that.
fn is_locked(e: &std::io::Error) -> bool {
    e.kind() == std::io::ErrorKind::WouldBlock || e.to_string().contains("could not acquire lock")
}

impl Store {
    /// Opens the store in `dir`, or makes one. The caller holds the directory's lock.
    pub fn open(dir: &Path) -> Result<Store> {
        let db = open_patiently(dir)?;
        let mut store = Store {
            is_new: false,
            objects: db.open_tree("objects").map_err(storage)?,
            memory: db.open_tree("memory").map_err(storage)?,
            commits: db.open_tree("commits").map_err(storage)?,
            leavings: db.open_tree("leavings").map_err(storage)?,
            db,
        };
        match store.db.get(KEY_FORMAT).map_err(storage)? {
            None => {
                store.db.insert(KEY_FORMAT, &FORMAT.to_be_bytes()).map_err(storage)?;
                store.flush()?;
                store.is_new = true;
            }
            Some(v) if v.as_ref() == FORMAT.to_be_bytes() => {}
            Some(v) => {
                return Err(Error::new(
                    SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                    format!(
                        "the data directory has format {}, this program reads format {FORMAT}",
                        decode_u64(&v).map_or_else(|| "unknown".to_string(), |v| v.to_string())
                    ),
                )
                .with_hint("Open it with the version of Tidemill that wrote it."));
            }
        }
        Ok(store)
    }

    /// Whether there was none before it was opened.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Notes that the journal tells of this tick.
    pub fn note_recorded(&self, tick: Tick) -> Result<()> {
        self.db.insert(KEY_RECORDED, &tick.to_be_bytes()).map_err(storage)?;
        self.flush()
    }

    /// The tick that was noted last; 0: none.
    pub fn recorded(&self) -> Result<Tick> {
        Ok(self.db.get(KEY_RECORDED).map_err(storage)?.as_deref().and_then(decode_u64).unwrap_or(0))
    }

    /// Waits until everything written is on disk.
    pub fn flush(&self) -> Result<()> {
        self.db.flush().map(|_| ()).map_err(storage)
    }

    /// A new identity, never given before and never again.
    pub fn next_id(&self) -> Result<u64> {
        let mut given = FIRST_ID;
        self.db
            .update_and_fetch(KEY_NEXT_ID, |old| {
                given = old.and_then(decode_u64).unwrap_or(FIRST_ID);
                Some((given + 1).to_be_bytes().to_vec())
            })
            .map_err(storage)?;
        // Rows may be journalled under the identity before the object is stored: it must not be given again.
        self.flush()?;
        Ok(given)
    }

    /// All objects, by identity.
    pub fn objects(&self) -> Result<Vec<(u64, Vec<u8>)>> {
        all(&self.objects)
    }

    /// Dropped sinks whose leavings are still to be removed.
    pub fn leavings(&self) -> Result<Vec<(u64, Vec<u8>)>> {
        all(&self.leavings)
    }

    /// The leavings of this sink are gone.
    pub fn left_clean(&self, id: u64) -> Result<()> {
        self.leavings.remove(id.to_be_bytes()).map_err(storage)?;
        self.flush()
    }

    /// Makes the changes durable, all or none.
    pub fn commit(&self, batch: CatalogBatch) -> Result<()> {
        // Noted before the objects go, so that a crash between leaves a note of a sink that still exists: it is
        // dropped again at the next start. The other order could forget the leavings.
        if !batch.leavings.is_empty() {
            for (id, json) in batch.leavings {
                self.leavings.insert(id.to_be_bytes(), json).map_err(storage)?;
            }
            self.flush()?;
        }
        world::crash_point("catalog-before");
        self.objects.apply_batch(batch.batch).map_err(storage)?;
        if let Some(tick) = batch.recorded {
            self.db.insert(KEY_RECORDED, &tick.to_be_bytes()).map_err(storage)?;
        }
        self.flush()?;
        world::crash_point("catalog-after");
        for id in batch.forgotten {
            self.forget(id)?;
        }
        Ok(())
    }

    fn forget(&self, owner: u64) -> Result<()> {
        for tree in [&self.memory, &self.commits] {
            let mut batch = sled::Batch::default();
            for entry in tree.scan_prefix(owner.to_be_bytes()) {
                batch.remove(entry.map_err(storage)?.0);
            }
            tree.apply_batch(batch).map_err(storage)?;
        }
        Ok(())
    }

    /// Removes memories whose owner is gone: a crash may have come between the two.
    pub fn sweep(&self, exists: impl Fn(u64) -> bool) -> Result<()> {
        let mut gone = Vec::new();
        for tree in [&self.memory, &self.commits] {
            for entry in tree.iter() {
                let (key, _) = entry.map_err(storage)?;
                match key.get(..8).and_then(decode_u64) {
                    Some(owner) if exists(owner) => {}
                    Some(owner) if gone.last() == Some(&owner) => {}
                    Some(owner) => gone.push(owner),
                    None => {
                        tree.remove(&key).map_err(storage)?;
                    }
                }
            }
        }
        gone.into_iter().try_for_each(|owner| self.forget(owner))
    }

    /// Where a sink's commits are written down.
    pub fn commits(self: &Arc<Self>, owner: u64) -> Arc<dyn CommitStore> {
        Arc::new(StoreCommits { store: Arc::clone(self), owner })
    }

    /// The memory of an object.
    pub fn memory(self: &Arc<Self>, owner: u64) -> Arc<dyn Memory> {
        Arc::new(StoreMemory { store: Arc::clone(self), owner })
    }
}

fn all(tree: &sled::Tree) -> Result<Vec<(u64, Vec<u8>)>> {
    tree.iter()
        .map(|entry| {
            let (key, value) = entry.map_err(storage)?;
            let id = decode_u64(&key).ok_or_else(|| {
                Error::new(SqlState::DATA_CORRUPTED, "the catalog holds a key of wrong length")
            })?;
            Ok((id, value.to_vec()))
        })
        .collect()
}

/// Eight bytes, big-endian; `None` for any other length.
pub(crate) fn decode_u64(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

struct StoreCommits {
    store: Arc<Store>,
    owner: u64,
}

impl StoreCommits {
    fn key(&self, number: u64) -> [u8; 16] {
        (u128::from(self.owner) << 64 | u128::from(number)).to_be_bytes()
    }
}

impl CommitStore for StoreCommits {
    fn read(&self) -> Result<Vec<(u64, SinkCommit)>> {
        let mut commits = Vec::new();
        for entry in self.store.commits.scan_prefix(self.owner.to_be_bytes()) {
            let (key, json) = entry.map_err(storage)?;
            // One that another version has written is not worth a start that fails.
            match (key.get(8..).and_then(decode_u64), serde_json::from_slice(&json)) {
                (Some(number), Ok(commit)) => commits.push((number, commit)),
                _ => tracing::warn!(sink = self.owner, "a commit that was written down cannot be read"),
            }
        }
        Ok(commits)
    }

    fn write(&self, number: u64, commit: &SinkCommit, outdated: Option<u64>) -> Result<()> {
        let json = serde_json::to_vec(commit).map_err(|e| Error::internal(e.to_string()))?;
        let mut batch = sled::Batch::default();
        batch.insert(&self.key(number), json);
        if let Some(outdated) = outdated {
            batch.remove(&self.key(outdated));
        }
        self.store.commits.apply_batch(batch).map_err(storage)
    }
}

struct StoreMemory {
    store: Arc<Store>,
    owner: u64,
}

impl StoreMemory {
    fn key(&self, name: &str) -> Vec<u8> {
        let mut key = self.owner.to_be_bytes().to_vec();
        key.extend_from_slice(name.as_bytes());
        key
    }
}

impl Memory for StoreMemory {
    fn get(&self, name: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.store.memory.get(self.key(name)).map_err(storage)?.map(|v| v.to_vec()))
    }

    fn put(&self, name: &str, value: &[u8]) -> Result<()> {
        self.store.memory.insert(self.key(name), value).map_err(storage)?;
        self.store.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_and_objects_last_and_memories_go_with_their_owner() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("meta");
        let (a, b);
        {
            let store = Arc::new(Store::open(&path).unwrap());
            a = store.next_id().unwrap();
            b = store.next_id().unwrap();
            assert_ne!(a, b);
            let mut batch = CatalogBatch::default();
            batch.put(a, b"{}".to_vec());
            batch.put(b, b"[]".to_vec());
            store.commit(batch).unwrap();
            store.memory(a).put("committed", &7u64.to_be_bytes()).unwrap();
            store.memory(b).put("committed", &8u64.to_be_bytes()).unwrap();
        }
        let store = Arc::new(Store::open(&path).unwrap());
        assert!(store.next_id().unwrap() > b);
        assert_eq!(store.objects().unwrap(), vec![(a, b"{}".to_vec()), (b, b"[]".to_vec())]);
        let mut batch = CatalogBatch::default();
        batch.remove(a);
        store.commit(batch).unwrap();
        assert_eq!(store.memory(a).get("committed").unwrap(), None);
        assert_eq!(store.memory(b).get("committed").unwrap().as_deref().and_then(decode_u64), Some(8));
        store.sweep(|_| false).unwrap();
        assert_eq!(store.memory(b).get("committed").unwrap(), None);
    }

    #[test]
    fn another_format_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        {
            let db = sled::open(dir.path()).unwrap();
            db.insert(KEY_FORMAT, &99u64.to_be_bytes()).unwrap();
            db.flush().unwrap();
        }
        let e = Store::open(dir.path()).err().unwrap();
        assert!(e.message.contains("format 99"), "{e}");
    }
}
