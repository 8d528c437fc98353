//! Prepared look-ups: which queries are some, and that they find what the query finds, at every tick.

use datafusion::common::ScalarValue;

use super::fixture::{Db, insert, text};
use crate::engine::InputChange;
use crate::engine::serve::point::PointRead;

#[test]
fn queries_for_values_of_columns_are_lookups() {
    let mut db = Db::volatile();
    db.input("t", &[0]);
    for sql in [
        "select * from t where k = $1",
        "select v, g from t where $1 = k and g = 'x'",
        "select x.v as other from t as x where x.k = 5",
    ] {
        assert!(PointRead::of(&db.plan(sql)).is_some(), "{sql}");
    }
    for sql in [
        "select * from t",
        "select v + 1 from t where k = $1",
        "select * from t where k = $1 or g = 'x'",
        "select * from t where k > $1",
        "select * from t where k = v",
        "select * from t where k = 1 and k = $1",
        "select * from t where k = $1 limit 1",
        "select count(*) from t where k = $1",
        "select a.v from t a join t b on a.k = b.k where a.k = $1",
    ] {
        assert!(PointRead::of(&db.plan(sql)).is_none(), "{sql}");
    }
}

#[test]
fn lookups_find_what_is_there() {
    let mut db = Db::volatile();
    let t = db.input("t", &[0]);
    let v = db.view("v", "select g, v from t");
    let by_id = PointRead::of(&db.plan("select g, k from t where k = $1")).unwrap();
    let by_group = PointRead::of(&db.plan("select v from v where g = $1")).unwrap();
    let id = |id: i64| [ScalarValue::from(id)];
    let group = |g: &str| [ScalarValue::Utf8View(Some(g.into()))];
    let run = |db: &Db, point: &PointRead, value: &[ScalarValue]| {
        let found = point.run(&db.engine.snapshot(), value).unwrap();
        found.map(|rows| text(&[rows]))
    };
    let many: Vec<(i64, &str, i64)> =
        (0..5000).map(|i| (i, ["a", "b", "c"][i as usize % 3], i % 7)).collect();
    db.submit(vec![insert(t, &many)]).wait().unwrap();
    assert_eq!(run(&db, &by_id, &id(4000)).unwrap(), ["b|4000"]);
    assert!(run(&db, &by_id, &id(5000)).unwrap().is_empty());
    assert_eq!(run(&db, &by_id, &[ScalarValue::Int64(None)]), None, "NULL is for the planner");
    assert_eq!(run(&db, &by_id, &[ScalarValue::Int32(Some(1))]), None, "and so is another type");
    assert_eq!(run(&db, &by_group, &group("a")), None, "there is no such index");
    db.engine.snapshot().collection(v).unwrap().declare_indexes(&[vec![0]]);
    assert_eq!(run(&db, &by_group, &group("a")).unwrap().len(), 1667, "a third of so few rows is few");
    db.upsert("t", &[(4000, "d", 1), (6000, "d", 2)]);
    assert_eq!(run(&db, &by_id, &id(4000)).unwrap(), ["d|4000"]);
    assert_eq!(run(&db, &by_group, &group("d")).unwrap(), ["1", "2"]);
    db.submit(vec![(t, InputChange::Truncate)]).wait().unwrap();
    assert!(run(&db, &by_id, &id(4000)).unwrap().is_empty());
    assert!(run(&db, &by_group, &group("d")).unwrap().is_empty());
}
