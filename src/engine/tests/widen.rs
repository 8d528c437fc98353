//! Inputs that get columns while views read them.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};

use super::fixture::{Db, rows};
use super::journal::config;
use crate::engine::{InputChange, SubscribeFrom};
use crate::error::{Error, SqlState};

/// A row of the input with its fourth column.
fn wide(db: &Db, row: (i64, &str, i64), w: i64) -> InputChange {
    let narrow = rows(&[row]);
    let mut columns = narrow.columns().to_vec();
    columns.push(Arc::new(Int64Array::from(vec![w])) as ArrayRef);
    let schema = Arc::clone(db.engine.snapshot().collection(db.id("k")).unwrap().schema());
    InputChange::Upsert { rows: RecordBatch::try_new(schema, columns).unwrap(), deletes: None }
}

#[test]
fn views_go_on_with_the_columns_that_they_read() {
    let dir = tempfile::tempdir().unwrap();
    let mut db = Db::open(config(dir.path()));
    db.input("k", &[0]);
    db.view("whole", "select * from k");
    db.view("sums", "select g, sum(v) as v from k group by g");
    db.engine.replay(&[]).unwrap();
    db.upsert("k", &[(1, "a", 10), (2, "b", 20)]);
    let followed = db.engine.subscribe(db.id("k"), SubscribeFrom::Now).unwrap();
    let spec = db.wider("k", &[0]);
    let refused = db.engine.widen_input(spec.clone(), || Err(Error::internal("not now"))).unwrap_err();
    assert_eq!(refused.message, "not now");
    assert_eq!(db.rows("k"), ["1|a|10", "2|b|20"]);
    db.engine.widen_input(spec.clone(), || Ok(())).unwrap();
    assert_eq!(db.rows("k"), ["1|a|10|null", "2|b|20|null"]);
    assert_eq!(followed.try_recv().unwrap_err().sqlstate, SqlState::SERIALIZATION_FAILURE);
    db.submit(vec![(db.id("k"), wide(&db, (3, "a", 5), 7))]).wait().unwrap();
    // What was on its way has the columns of before.
    db.upsert("k", &[(1, "a", 11), (4, "c", 1)]);
    db.submit(vec![(db.id("k"), wide(&db, (2, "b", 20), 8))]).wait().unwrap();
    db.view("later", "select w, count(*) as n from k group by w");
    let answers = |db: &Db| {
        assert_eq!(db.rows("k"), ["1|a|11|null", "2|b|20|8", "3|a|5|7", "4|c|1|null"]);
        assert_eq!(db.rows("whole"), ["1|a|11", "2|b|20", "3|a|5", "4|c|1"]);
        assert_eq!(db.rows("sums"), ["a|16", "b|20", "c|1"]);
        assert_eq!(db.rows("later"), ["7|1", "8|1", "null|2"]);
    };
    answers(&db);
    drop(db);
    // The catalog knows the columns; the journal has rows of before and of after.
    for _ in 0..2 {
        let mut db = Db::open(config(dir.path()));
        db.input("k", &[0]);
        db.engine.drop_collections(&[db.id("k")]).unwrap();
        let spec = db.wider("k", &[0]);
        db.engine.create_input(spec).unwrap();
        db.view("whole", "select k, g, v from k");
        db.view("sums", "select g, sum(v) as v from k group by g");
        db.view("later", "select w, count(*) as n from k group by w");
        db.engine.replay(&[]).unwrap();
        answers(&db);
    }
}
