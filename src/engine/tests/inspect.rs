//! What is said of files that are whole, cut off, changed, missing or of somebody else.

use std::fs;
use std::path::Path;

use super::fixture::Db;
use super::journal::{config, copy};
use crate::engine::EngineConfig;
use crate::engine::inspect::{Condition, Inspected, inspect, refuse};
use crate::error::SqlState;

/// A directory with a base, segments and a checkpoint.
fn written(dir: &Path) {
    let config = || EngineConfig { checkpoint_bytes_min: 1, compact_bytes_min: 1, ..config(dir) };
    for round in 0..3 {
        let mut db = Db::open(config());
        db.input("t", &[0]);
        db.view("v", "select g, sum(v) as s from t group by g");
        db.engine.replay(&[]).unwrap();
        for i in 0..60 {
            db.upsert("t", &[(i % 7, "a", i + round)]);
        }
    }
}

fn of<'a>(files: &'a [Inspected], path: &Path) -> &'a Inspected {
    files.iter().find(|f| f.path.file_name() == path.file_name()).unwrap()
}

#[test]
fn every_file_is_told_of() {
    let dir = tempfile::tempdir().unwrap();
    written(dir.path());
    let files = inspect(dir.path(), 1).unwrap();
    assert!(files.iter().all(|f| f.condition == Condition::Sound), "{files:?}");
    refuse(&files).unwrap();
    for kind in ["CURRENT", "base-", "segment-", "checkpoint-", "state-"] {
        assert!(
            files.iter().any(|f| f.path.file_name().unwrap().to_str().unwrap().starts_with(kind)),
            "{kind}"
        );
    }
    for file in &files {
        let bytes = fs::read(&file.path).unwrap();
        for step in 0..24 {
            let at = step * bytes.len() / 24;
            let image = tempfile::tempdir().unwrap();
            copy(dir.path(), image.path());
            let path = image.path().join(file.path.file_name().unwrap());
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            fs::write(&path, if step % 2 == 0 { &damaged[..] } else { &bytes[..at] }).unwrap();
            let files = inspect(image.path(), 1).unwrap();
            let told = of(&files, &path);
            let name = path.display();
            match told.condition {
                Condition::Truncated(from) | Condition::Corrupt(from) => {
                    assert!(from <= at as u64, "{name}: damaged at {at}, told {from}");
                }
                // Where the file says what it is.
                Condition::Foreign => assert!(at < 64, "{name}: damaged at {at}"),
                // Cut off exactly between two records of a segment, which nothing but the catalog can know; or in
                // the tick of a header, which the name says as well.
                Condition::Sound => {
                    assert!(step % 2 == 1 || (8..16).contains(&at), "{name}: damaged at {at}");
                }
            }
            assert!(files.iter().filter(|f| f.path != path).all(|f| f.condition == Condition::Sound));
            if let Err(error) = refuse(&files) {
                assert_eq!(error.sqlstate, SqlState::DATA_CORRUPTED);
                assert!(error.message.contains(path.to_str().unwrap()), "{error}");
            }
        }
    }
}

#[test]
fn what_is_not_a_file_of_the_journal_is_foreign() {
    let dir = tempfile::tempdir().unwrap();
    written(dir.path());
    fs::write(dir.path().join("notes.txt"), "mine").unwrap();
    let files = inspect(dir.path(), 1).unwrap();
    assert_eq!(of(&files, Path::new("notes.txt")).condition, Condition::Foreign);
    refuse(&files).unwrap();
    // Of another number of workers it is as good as of another program.
    let other = inspect(dir.path(), 2).unwrap();
    let checkpoint = other.iter().find(|f| f.path.to_str().unwrap().contains("checkpoint-")).unwrap();
    assert_eq!((checkpoint.condition, checkpoint.harmless), (Condition::Foreign, true));
    let gone = dir.path().join("gone");
    let error = inspect(&gone, 1).unwrap_err();
    assert!(error.message.contains(gone.to_str().unwrap()), "{error}");
}
