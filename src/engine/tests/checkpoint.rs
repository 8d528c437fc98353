//! What a restart makes of checkpoints: those that fit, that do not fit, and that are damaged. The shapes of queries under
//! restarts are in `shapes`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::fixture::Db;
use super::journal::{config, copy};
use super::replay::{drain, sum};
use crate::engine::{EngineConfig, InputChange, ReplayReport, SubscribeFrom, Tick};

const VIEWS: [(&str, &str); 5] = [
    ("sums", "select g, sum(v) as s, count(*) as n from t group by g"),
    ("pairs", "select t.k, k.v from t left join k on t.k = k.k"),
    ("over", "select n, count(*) as c from sums group by n"),
    ("shares", "select 100 / v as q from k"),
    ("quotients", "select q, count(*) as n from (select 100 / v as q from k) x group by q"),
];

fn open(dir: &Path, views: usize) -> Db {
    let mut db = Db::open(EngineConfig { checkpoint_bytes_min: 1, ..config(dir) });
    db.input("t", &[]);
    db.input("k", &[0]);
    VIEWS[..views].iter().for_each(|(name, sql)| {
        db.view(name, sql);
    });
    db
}

fn replayed(dir: &Path, views: usize) -> (Db, ReplayReport) {
    let db = open(dir, views);
    let report = db.engine.replay(&[]).unwrap();
    (db, report)
}

fn change(db: &Db, i: i64) -> Tick {
    let row = |i: i64| (i, ["a", "b", "c"][i as usize % 3], i);
    if i % 5 == 4 {
        db.delete("t", &[row(i - 3)]);
    }
    db.insert("t", &[row(i)]);
    // Every seventh makes a row of a view fail.
    db.upsert("k", &[(i % 4, "k", i % 7)])
}

/// The views' rows and errors.
fn answers(db: &Db, views: usize) -> BTreeMap<&'static str, (Vec<String>, usize)> {
    let snapshot = db.engine.snapshot();
    let answer = |name: &str| {
        let collection = snapshot.collection(db.id(name)).unwrap();
        let errors = collection.errors().iter().map(|e| e.weight).sum::<i64>() as usize;
        (
            super::fixture::text(
                &collection.deltas().unwrap().iter().map(|d| d.expand().unwrap()).collect::<Vec<_>>(),
            ),
            errors,
        )
    };
    VIEWS[..views].iter().map(|(name, _)| (*name, answer(name))).collect()
}

fn right(db: &Db) {
    let wrong = crate::engine::check::check_all(&db.engine).unwrap();
    assert!(wrong.is_empty(), "{wrong:?}");
}

fn checkpoints(dir: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    files.filter(|p| p.file_name().unwrap().to_str().unwrap().starts_with("checkpoint-")).collect()
}

#[test]
fn rows_and_errors_come_back_and_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let (mut db, mut i) = (replayed(dir.path(), 4).0, 0);
    for round in 0..4 {
        for _ in 0..9 {
            i += 1;
            change(&db, i);
        }
        let before = answers(&db, 4);
        assert!(round == 0 || before["shares"].1 > 0 || before["shares"].0.len() == 4, "{before:?}");
        drop(db);
        let report;
        (db, report) = replayed(dir.path(), 4);
        assert_eq!((report.checkpoint_tick, report.steps), (report.tick, 0));
        assert_eq!(answers(&db, 4), before);
        assert_eq!(checkpoints(dir.path()).len(), 1, "older ones are gone");
    }
    // The row that fails goes, with its error.
    db.upsert("k", &[(0, "k", 1), (1, "k", 1), (2, "k", 1), (3, "k", 1)]);
    assert_eq!(answers(&db, 4)["shares"], (vec!["100".to_string(); 4], 0));
}

#[test]
fn what_a_checkpoint_does_not_know_is_computed() {
    let dir = tempfile::tempdir().unwrap();
    let db = replayed(dir.path(), 2).0;
    (1..30).for_each(|i| {
        change(&db, i);
    });
    let k = db.rows("k");
    drop(db);
    // Two views more: one reads a view that is known, one reads an input.
    let (db, report) = replayed(dir.path(), 4);
    assert!(report.checkpoint_tick == report.tick && report.nodes_restored > 0, "{report:?}");
    let failing = k.iter().filter(|row| row.ends_with("|0")).count();
    assert_eq!(answers(&db, 4)["shares"].0.len() + failing, 4);
    right(&db);
    change(&db, 30);
    right(&db);
}

#[test]
fn a_view_keeps_its_errors_once_when_another_shares_what_makes_them() {
    let dir = tempfile::tempdir().unwrap();
    let db = replayed(dir.path(), 4).0;
    db.upsert("k", &[(1, "k", 0), (2, "k", 0), (3, "k", 5)]);
    let before = answers(&db, 4);
    assert_eq!(before["shares"], (vec!["20".to_string()], 2));
    drop(db);
    let (db, report) = replayed(dir.path(), 5);
    assert_eq!(report.checkpoint_tick, report.tick);
    assert_eq!(answers(&db, 4), before);
    assert_eq!(answers(&db, 5)["quotients"], (vec!["20|1".to_string()], 2));
    db.upsert("k", &[(1, "k", 1), (2, "k", 1)]);
    assert_eq!(answers(&db, 5)["shares"].1 + answers(&db, 5)["quotients"].1, 0);
}

#[test]
fn a_damaged_checkpoint_costs_time_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let db = replayed(dir.path(), 4).0;
    (1..20).for_each(|i| {
        change(&db, i);
    });
    let before = answers(&db, 4);
    drop(db);
    let file = checkpoints(dir.path()).remove(0);
    let bytes = fs::read(&file).unwrap();
    for step in 0..40 {
        let at = step * bytes.len() / 40;
        let image = tempfile::tempdir().unwrap();
        copy(dir.path(), image.path());
        let file = image.path().join(file.file_name().unwrap());
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x55;
        fs::write(&file, if step % 2 == 0 { &damaged[..] } else { &bytes[..at] }).unwrap();
        let (db, report) = replayed(image.path(), 4);
        assert_eq!((report.checkpoint_tick, answers(&db, 4)), (0, before.clone()), "byte {at}");
        right(&db);
    }
}

#[test]
fn a_checkpoint_of_a_tick_that_the_journal_does_not_tell_of_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let db = replayed(dir.path(), 4).0;
    (1..20).for_each(|i| {
        change(&db, i);
    });
    let before = answers(&db, 4);
    drop(db);
    // As if the end of the journal, and the checkpoint of its time, were lost.
    let image = tempfile::tempdir().unwrap();
    copy(dir.path(), image.path());
    let db = replayed(dir.path(), 4).0;
    change(&db, 20);
    drop(db);
    let later = checkpoints(dir.path()).remove(0);
    let misplaced = image.path().join(later.file_name().unwrap());
    checkpoints(image.path()).iter().for_each(|own| fs::remove_file(own).unwrap());
    fs::copy(&later, &misplaced).unwrap();
    let (db, report) = replayed(image.path(), 4);
    assert_eq!((report.checkpoint_tick, answers(&db, 4)), (0, before));
    assert!(!misplaced.exists(), "or it would be taken for one of a later tick of that number");
}

#[test]
fn followers_get_exactly_what_comes_after_their_tick() {
    let dir = tempfile::tempdir().unwrap();
    let (lived, last, held) = {
        let db = replayed(dir.path(), 1).0;
        let followed = db.engine.subscribe(db.id("sums"), SubscribeFrom::Now).unwrap();
        (1..10).for_each(|i| {
            change(&db, i);
        });
        let held = db.engine.tick();
        db.engine.hold_journal("sink", Some(held));
        (10..25).for_each(|i| {
            change(&db, i);
        });
        (drain(&followed), db.engine.tick(), held)
    };
    let mut restored = 0;
    for stops in
        [vec![], vec![0], vec![held], vec![held, last], vec![0, last], vec![0, held], vec![last], vec![3]]
    {
        let image = tempfile::tempdir().unwrap();
        copy(dir.path(), image.path());
        let db = open(image.path(), 1);
        let sums = db.id("sums");
        let followed: Vec<_> = stops
            .iter()
            .map(|t| (*t, db.engine.subscribe_kept(sums, SubscribeFrom::After(*t)).unwrap()))
            .collect();
        let report = db.engine.replay(&stops).unwrap();
        assert_eq!(report.tick, last);
        assert!(stops.iter().all(|stop| *stop == 0 || report.checkpoint_tick <= *stop), "{stops:?}");
        restored += usize::from(report.checkpoint_tick > 0);
        for (after, subscription) in followed {
            let got = drain(&subscription);
            let mut from = after;
            for stop in stops.iter().copied().filter(|s| *s > after).chain([last]) {
                assert_eq!(sum(&got, from, stop), sum(&lived, from, stop), "({from}, {stop}] of {stops:?}");
                from = stop;
            }
        }
    }
    assert!(restored >= 4, "{restored}");
}

#[test]
fn who_holds_an_old_tick_does_not_stop_new_checkpoints() {
    let dir = tempfile::tempdir().unwrap();
    let db = replayed(dir.path(), 4).0;
    (1..6).for_each(|i| {
        change(&db, i);
    });
    let held = db.engine.tick();
    db.engine.hold_journal("sink", Some(held));
    let mut i = 6;
    let until = crate::world::instant() + std::time::Duration::from_secs(60);
    let newest = |db: &Db| db.engine.stats().checkpoints.last().map_or(0, |c| c.tick);
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 4 && crate::world::instant() < until {
        change(&db, i);
        i += 1;
        seen.extend(Some(newest(&db)).filter(|tick| *tick > held));
    }
    assert!(seen.len() >= 4, "{seen:?}");
    drop(db);
    // The newest one, and the one that the holder needs.
    let mut ticks: Vec<Tick> = checkpoints(dir.path())
        .iter()
        .map(|p| p.file_name().unwrap().to_str().unwrap()["checkpoint-".len()..].parse().unwrap())
        .collect();
    ticks.sort_unstable();
    assert!(ticks.len() == 2 && ticks[0] <= held && ticks[1] > held, "{ticks:?}, held {held}");
}

#[test]
fn a_view_of_an_input_that_keeps_no_rows_is_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let make = |views: usize| {
        let mut db = Db::open(EngineConfig { checkpoint_bytes_min: 1, ..config(dir.path()) });
        db.input_with("s", &[], false);
        for view in 0..views {
            db.view(&format!("v{view}"), "select g, sum(k) as n from s group by g");
        }
        let report = db.engine.replay(&[]).unwrap();
        (db, report)
    };
    let mut db = make(0).0;
    db.insert("s", &[(1, "a", 1)]);
    db.view("v0", "select g, sum(k) as n from s group by g");
    db.insert("s", &[(2, "b", 2)]);
    db.view("v1", "select g, sum(k) as n from s group by g");
    db.insert("s", &[(3, "b", 3)]);
    drop(db);
    for _ in 0..2 {
        let (db, report) = make(2);
        assert_eq!(report.checkpoint_tick, report.tick);
        assert_eq!((db.rows("v0"), db.rows("v1")), (vec!["b|5".to_string()], vec!["b|3".to_string()]));
    }
    let (db, _) = make(2);
    db.insert("s", &[(4, "c", 3)]);
    drop(db);
    // The third is in no checkpoint, and there are no rows to fill it from: all views are computed from their history.
    let (db, report) = make(3);
    assert_eq!(report.checkpoint_tick, 0);
    assert_eq!(db.rows("v0"), ["b|5", "c|4"]);
    assert_eq!(db.rows("v1"), ["b|3", "c|4"]);
    assert_eq!(db.rows("v2"), Vec::<String>::new());
}

/// Names of the files of tiles.
fn states(dir: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    files.filter(|p| p.file_name().unwrap().to_str().unwrap().starts_with("state-")).collect()
}

/// A checkpoint that a start leaves out keeps its rows until another one of its tick is finished.
#[test]
fn another_checkpoint_of_a_tick_has_files_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let db = replayed(dir.path(), 4).0;
    (1..20).for_each(|i| {
        change(&db, i);
    });
    drop(db);
    let before = (checkpoints(dir.path()), states(dir.path()));
    assert!(before.0.len() == 1 && !before.1.is_empty(), "{before:?}");
    // Somebody has to see an early tick by itself.
    let db = open(dir.path(), 4);
    let report = db.engine.replay(&[1]).unwrap();
    assert_eq!(report.checkpoint_tick, 0);
    drop(db);
    let after = (checkpoints(dir.path()), states(dir.path()));
    assert_eq!(after.0, before.0, "it is of the same tick");
    assert!(!after.1.is_empty() && after.1.iter().all(|file| !before.1.contains(file)), "{after:?}");
    let (db, report) = replayed(dir.path(), 4);
    assert_eq!(report.checkpoint_tick, report.tick);
    right(&db);
}

#[test]
fn rows_that_were_written_before_are_not_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let make = || {
        let mut db = Db::open(EngineConfig { checkpoint_bytes_min: 1, ..config(dir.path()) });
        db.input("t", &[]);
        db.view("all", "select k, g, v * 2 as v from t");
        db.engine.replay(&[]).unwrap();
        db
    };
    // More than a tile of rows, which no later tick changes.
    let rows: Vec<(i64, &str, i64)> = (0..140_000).map(|k| (k, "some text", k % 77)).collect();
    let mut db = make();
    db.insert("t", &rows);
    drop(db);
    let mut expected = 140_000;
    for round in 0..4i64 {
        db = make();
        let told = db.engine.stats().checkpoints;
        let restored = told.first().filter(|c| c.restored).expect("it was taken up");
        assert!(restored.bytes > 100_000, "{restored:?}");
        db.insert("t", &[(1_000_000 + round, "new", round)]);
        expected += 1;
        if round == 2 {
            // Rows that are deleted are still in their tile, with another weight.
            db.delete("t", &[rows[5]]);
            expected -= 1;
        }
        right(&db);
        let until = crate::world::instant() + std::time::Duration::from_secs(60);
        let written = |db: &Db| db.engine.stats().checkpoints.iter().rfind(|c| !c.restored).cloned();
        while written(&db).is_none() && crate::world::instant() < until {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let written = written(&db).expect("a checkpoint");
        assert!(written.error.is_none(), "{written:?}");
        assert!(written.bytes_written * 3 < written.bytes, "round {round}: {written:?}");
        assert_eq!(db.rows("all").len(), expected);
        drop(db);
        assert_eq!(checkpoints(dir.path()).len(), 1);
        assert!((1..6).contains(&states(dir.path()).len()), "{:?}", states(dir.path()));
    }
    // All rows go: what they were written in goes, too.
    db = make();
    let all = db.rows("t");
    assert_eq!(all.len(), expected);
    db.submit(vec![(db.id("t"), InputChange::Truncate)]).wait().unwrap();
    drop(db);
    assert!(states(dir.path()).iter().all(|p| fs::metadata(p).unwrap().len() < 10_000));
    // A file of tiles that is damaged or gone is as good as a checkpoint that is.
    db = make();
    assert!(db.rows("all").is_empty());
    db.insert("t", &rows[..1000]);
    drop(db);
    for damage in [true, false] {
        let file = states(dir.path()).pop().expect("rows were written");
        if damage {
            let mut bytes = fs::read(&file).unwrap();
            let at = bytes.len() / 2;
            bytes[at] ^= 1;
            fs::write(&file, bytes).unwrap();
        } else {
            fs::remove_file(&file).unwrap();
        }
        db = make();
        assert!(db.engine.stats().checkpoints.iter().all(|c| !c.restored), "{damage}");
        assert_eq!(db.rows("all").len(), 1000);
        right(&db);
        drop(db);
    }
}
