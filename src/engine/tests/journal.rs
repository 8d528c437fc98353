//! What is on disk after a crash, wherever it happened.

use std::fs;
use std::path::{Path, PathBuf};

use super::fixture::{Db, insert, rows};
use crate::engine::{EngineConfig, InputChange, Transaction};
use crate::error::SqlState;

pub(super) fn config(dir: &Path) -> EngineConfig {
    EngineConfig { dir: Some(dir.to_path_buf()), ..EngineConfig::default() }
}

/// The database of these tests: `t`, `k` by key, a view over both.
pub(super) fn open(dir: &Path) -> Db {
    let mut db = Db::open(config(dir));
    db.input("t", &[]);
    db.input("k", &[0]);
    db.view("v", "select k, g, v from t where v > 0 union all select k, g, v from k");
    db
}

pub(super) fn replayed(dir: &Path) -> Db {
    let db = open(dir);
    db.engine.replay(&[]).unwrap();
    db
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.file_name().unwrap().to_str().unwrap().starts_with("segment-"))
        .collect();
    found.sort();
    found
}

/// The files as a crash would leave them; begun again when one goes meanwhile, as old checkpoints do.
pub(super) fn copy(from: &Path, to: &Path) {
    let once = || -> std::io::Result<()> {
        fs::create_dir_all(to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
        Ok(())
    };
    while let Err(error) = once() {
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
        fs::remove_dir_all(to).unwrap();
    }
}

#[test]
fn what_was_written_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let last = {
        let db = replayed(dir.path());
        db.insert("t", &[(1, "a", 1), (2, "b long enough to have bytes of its own", -1)]);
        db.upsert("k", &[(1, "a", 1), (2, "b", 2)]);
        db.upsert("k", &[(1, "c", 3)]);
        let truncated =
            db.submit(vec![(db.id("t"), InputChange::Truncate), insert(db.id("t"), &[(7, "x", 7)])]);
        truncated.wait().unwrap();
        let progress = vec![("orders".to_string(), vec![1, 2, 3])];
        let tick = db.engine.submit(Transaction { changes: vec![], progress }).wait().unwrap();
        db.engine.wait_durable(tick).unwrap();
        assert_eq!(db.engine.progress("orders"), Some(vec![1, 2, 3]));
        tick
    };
    let db = replayed(dir.path());
    assert_eq!(db.engine.tick(), last);
    assert_eq!(db.rows("t"), ["7|x|7"]);
    assert_eq!(db.rows("k"), ["1|c|3", "2|b|2"]);
    assert_eq!(db.rows("v"), ["1|c|3", "2|b|2", "7|x|7"]);
    assert_eq!(db.engine.progress("orders"), Some(vec![1, 2, 3]));
    assert_eq!(db.engine.progress("payments"), None);
    assert_eq!(db.insert("t", &[(8, "y", 8)]), last + 1);
}

/// A directory in memory where there is such a place: these tests are about bytes, and open thousands of journals.
fn memory_dir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

#[test]
fn a_crash_at_every_byte_leaves_a_prefix() {
    let dir = memory_dir();
    let live = dir.path().join("live");
    let db = replayed(&live);
    let segment = segments(&live).pop().unwrap();
    // After each tick: how long the file was, and what v said.
    let mut states = vec![(fs::metadata(&segment).unwrap().len(), 0, Vec::new())];
    for i in 1..=6i64 {
        let tick = match i % 3 {
            0 => db.upsert("k", &[(i % 4, "k", i), (100, "z", i)]),
            _ => db.insert("t", &[(i, "t", i), (-i, "a string that is longer than twelve bytes", i)]),
        };
        db.engine.wait_durable(tick).unwrap();
        states.push((fs::metadata(&segment).unwrap().len(), tick, db.rows("v")));
    }
    let crashed = dir.path().join("crashed");
    copy(&live, &crashed);
    let bytes = fs::read(&segment).unwrap();
    let file = crashed.join(segment.file_name().unwrap());
    // Every byte of the last two records, and some of the others.
    let recent = states[states.len() - 3].0 as usize;
    for len in (0..recent).step_by(41).chain(recent..=bytes.len()) {
        fs::remove_dir_all(&crashed).unwrap();
        copy(&live, &crashed);
        fs::write(&file, &bytes[..len]).unwrap();
        let db = replayed(&crashed);
        let (end, tick, rows) = states.iter().rev().find(|s| s.0 <= len as u64).unwrap_or(&states[0]);
        assert_eq!(&db.rows("v"), rows, "cut at byte {len}, the records end at {end}");
        let next = db.insert("t", &[(1000, "", 1000)]);
        assert!(next > *tick);
        if len % 97 == 0 {
            drop(db);
            let db = replayed(&crashed);
            assert_eq!(db.engine.tick(), next);
            assert_eq!(db.rows("v").len(), rows.len() + 1);
        }
    }
}

#[test]
fn tick_numbers_that_may_have_been_seen_are_not_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let (live, crashed) = (dir.path().join("live"), dir.path().join("crashed"));
    let db = replayed(&live);
    let seen = db.insert("t", &[(1, "a", 1)]);
    db.engine.wait_durable(seen).unwrap();
    copy(&live, &crashed);
    let lost = (0..50).fold(0, |_, i| db.insert("t", &[(i, "b", i)]));
    for _ in 0..3 {
        let db = replayed(&crashed);
        assert_eq!(db.rows("t"), ["1|a|1"]);
        assert!(db.engine.tick() > lost);
        // Not closed in order: forgotten as a crash would.
        let again = dir.path().join("again");
        let _ = fs::remove_dir_all(&again);
        copy(&crashed, &again);
        drop(db);
        fs::remove_dir_all(&crashed).unwrap();
        copy(&again, &crashed);
    }
}

#[test]
fn damage_in_the_middle_is_not_a_torn_tail() {
    let dir = memory_dir();
    let live = dir.path().join("live");
    let db = replayed(&live);
    for i in 0..5 {
        let tick = db.insert("t", &[(i, "a", i)]);
        db.engine.wait_durable(tick).unwrap();
    }
    let segment = segments(&live).pop().unwrap();
    let bytes = fs::read(&segment).unwrap();
    let damaged = dir.path().join("damaged");
    for at in (0..bytes.len() * 3 / 4).step_by(61) {
        let _ = fs::remove_dir_all(&damaged);
        copy(&live, &damaged);
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x10;
        let file = damaged.join(segment.file_name().unwrap());
        fs::write(&file, flipped).unwrap();
        let error = match crate::engine::Engine::open(config(&damaged)) {
            Err(error) => error,
            Ok(engine) => engine.replay(&[]).unwrap_err(),
        };
        assert_eq!(error.sqlstate, SqlState::DATA_CORRUPTED, "byte {at}");
        assert!(error.message.contains(file.to_str().unwrap()), "{error}");
    }
}

#[test]
fn a_missing_segment_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    for i in 0..3 {
        let db = replayed(dir.path());
        db.insert("t", &[(i, "a", i)]);
    }
    let files = segments(dir.path());
    assert_eq!(files.len(), 3);
    fs::remove_file(&files[1]).unwrap();
    let db = open(dir.path());
    assert_eq!(db.engine.replay(&[]).unwrap_err().sqlstate, SqlState::DATA_CORRUPTED);
    fs::remove_file(&files[0]).unwrap();
    drop(db);
    let error = crate::engine::Engine::open(config(dir.path())).err().unwrap();
    assert_eq!(error.sqlstate, SqlState::DATA_CORRUPTED);
}

#[test]
fn two_servers_cannot_have_one_directory() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path());
    let second = crate::engine::Engine::open(config(dir.path())).err().unwrap();
    assert_eq!(second.sqlstate, SqlState::OBJECT_IN_USE);
    first.engine.shutdown();
    drop(first);
    assert!(crate::engine::Engine::open(config(dir.path())).is_ok());
}

#[test]
fn transactions_wait_for_the_replay() {
    let dir = tempfile::tempdir().unwrap();
    let db = open(dir.path());
    let early = db.submit(vec![insert(db.id("t"), &[(1, "a", 1)])]).wait().unwrap_err();
    assert_eq!(early.sqlstate, SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
    db.engine.replay(&[]).unwrap();
    db.insert("t", &[(1, "a", 1)]);
    let again = db.engine.replay(&[]).unwrap_err();
    assert_eq!(again.sqlstate, SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
    db.engine.shutdown();
    let late = db.submit(vec![insert(db.id("t"), &[(1, "a", 1)])]).wait().unwrap_err();
    assert_eq!(late.sqlstate, SqlState::ADMIN_SHUTDOWN);
    assert_eq!(db.rows("t"), ["1|a|1"]);
}

#[test]
fn many_writers_share_what_becomes_durable() {
    let dir = tempfile::tempdir().unwrap();
    let db = replayed(dir.path());
    let t = db.id("t");
    let writers: Vec<_> = (0..8)
        .map(|w| {
            let engine = db.engine.clone();
            std::thread::spawn(move || {
                for i in 0..25i64 {
                    let changes = vec![insert(t, &[(w * 100 + i, "w", i)])];
                    let tick = engine.submit(Transaction { changes, progress: vec![] }).wait().unwrap();
                    engine.wait_durable(tick).unwrap();
                    assert!(engine.durable_tick() >= tick);
                }
            })
        })
        .collect();
    writers.into_iter().for_each(|w| w.join().unwrap());
    drop(db);
    assert_eq!(replayed(dir.path()).rows("t").len(), 200);
}

#[test]
fn a_row_cut_out_of_a_large_batch_is_written_alone() {
    let dir = tempfile::tempdir().unwrap();
    let db = replayed(dir.path());
    let long = "x".repeat(1000);
    let large: Vec<(i64, &str, i64)> = (0..1000).map(|i| (i, long.as_str(), i)).collect();
    let one = rows(&large).slice(500, 1);
    let change = InputChange::Delta(crate::engine::Delta::insert(one));
    let tick = db.submit(vec![(db.id("t"), change)]).wait().unwrap();
    db.engine.wait_durable(tick).unwrap();
    let bytes = fs::metadata(segments(dir.path()).pop().unwrap()).unwrap().len();
    assert!(bytes < 4000, "{bytes} bytes for a row of 1016");
    drop(db);
    assert_eq!(replayed(dir.path()).rows("t"), [format!("500|{long}|500")]);
}
