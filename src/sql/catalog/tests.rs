//! Tests of the catalog.

use super::*;
use crate::declared::{Envelope, OptionValue};
use crate::sql::ast::Statement;
use crate::types::SqlType;

fn add(catalog: &mut Catalog, name: &str, object: Object, uses: &[ObjectId]) -> ObjectId {
    let id = catalog.allocate();
    let mut entry = Entry::new(id, name, "tester", object);
    entry.uses.extend(uses);
    catalog.insert(entry).unwrap();
    id
}

fn table(columns: &[(&str, SqlType)], key: &[usize]) -> Object {
    let columns = columns
        .iter()
        .enumerate()
        .map(|(i, (name, t))| Column { not_null: key.contains(&i), ..Column::new(*name, t.clone()) })
        .collect();
    Object::Table(Table { columns, key: key.to_vec(), ..Table::default() })
}

fn view(query: &str) -> Object {
    Object::View(View { query: query.into(), columns: vec![Column::new("a", SqlType::Int4)] })
}

fn shop() -> (Catalog, ObjectId, ObjectId, ObjectId) {
    let mut catalog = Catalog::default();
    let t = add(&mut catalog, "t", table(&[("a", SqlType::Int4), ("b", SqlType::Text)], &[0]), &[]);
    let v = add(&mut catalog, "v", view("select a from t"), &[t]);
    let mv = Object::MaterializedView(MaterializedView {
        query: "select a from v".into(),
        on_close: false,
        columns: vec![Column::new("a", SqlType::Int4)],
        reads: Vec::new(),
        former: Vec::new(),
    });
    let mv = add(&mut catalog, "mv", mv, &[v]);
    (catalog, t, v, mv)
}

#[test]
fn names_are_found_and_taken_per_namespace() {
    let (mut catalog, t, ..) = shop();
    let public = Name::qualified("public", "t");
    assert_eq!(catalog.require(ObjectKind::Table, &public).unwrap().id, t);
    let state = |r: Result<&Arc<Entry>>| r.unwrap_err().sqlstate.0;
    assert_eq!(state(catalog.require(ObjectKind::Table, &Name::bare("x"))), "42P01");
    assert_eq!(state(catalog.require(ObjectKind::View, &Name::bare("t"))), "42809");
    assert_eq!(state(catalog.require(ObjectKind::Sink, &Name::bare("t"))), "42704");
    let taken = catalog.check_free(ObjectKind::View, &Name::bare("t")).unwrap_err();
    assert_eq!((taken.sqlstate.0, taken.message.as_str()), ("42P07", "relation \"t\" already exists"));
    assert!(catalog.check_free(ObjectKind::Secret, &Name::bare("t")).is_ok());
    add(&mut catalog, "t", Object::Secret(Secret { value: "x".into() }), &[]);
    assert_eq!(catalog.check_free(ObjectKind::Secret, &Name::bare("t")).unwrap_err().sqlstate.0, "42710");
    let other = Name::qualified("nope", "n");
    assert_eq!(catalog.check_free(ObjectKind::Table, &other).unwrap_err().sqlstate.0, "3F000");
    let system = Name::qualified("pg_catalog", "n");
    assert_eq!(catalog.check_free(ObjectKind::Table, &system).unwrap_err().sqlstate.0, "42501");
}

#[test]
fn a_snapshot_does_not_change() {
    let (mut catalog, t, ..) = shop();
    let before = catalog.clone();
    let mut renamed = catalog.get(t).unwrap().as_ref().clone();
    renamed.name = "u".into();
    catalog.replace(renamed).unwrap();
    assert!(
        before.find_relation(&Name::bare("t")).is_some() && before.find_relation(&Name::bare("u")).is_none()
    );
    assert!(
        catalog.find_relation(&Name::bare("t")).is_none()
            && catalog.find_relation(&Name::bare("u")).is_some()
    );
    let mut clash = catalog.get(t).unwrap().as_ref().clone();
    clash.name = "v".into();
    assert_eq!(catalog.replace(clash).unwrap_err().sqlstate.0, "42P07");
}

#[test]
fn drops_go_from_the_last_dependant_on() {
    let (catalog, t, v, mv) = shop();
    let error = catalog.drop_order(&[t], false).unwrap_err();
    assert_eq!(error.sqlstate.0, "2BP01");
    assert_eq!(error.message, "cannot drop table t because other objects depend on it");
    assert_eq!(
        error.detail.as_deref(),
        Some("view v depends on table t\nmaterialized view mv depends on view v")
    );
    let order = catalog.drop_order(&[t], true).unwrap();
    assert_eq!(order.all.iter().map(|e| e.id).collect::<Vec<_>>(), [mv, v, t]);
    assert_eq!(order.cascaded.len(), 2);
    assert!(catalog.drop_order(&[mv], false).is_ok());
    assert!(catalog.drop_order(&[t, v, mv], false).is_ok());
    assert_eq!(catalog.check_rename(catalog.get(t).unwrap()).unwrap_err().sqlstate.0, "2BP01");
    assert!(catalog.check_rename(catalog.get(mv).unwrap()).is_ok());
}

#[test]
fn a_secret_is_needed_by_what_names_it() {
    let mut catalog = Catalog::default();
    let secret = add(&mut catalog, "pw", Object::Secret(Secret { value: "hunter2".into() }), &[]);
    let connection = Connection {
        kind: "kafka".into(),
        options: vec![
            ("brokers".into(), OptionValue::Literal("b".into())),
            ("sasl.password".into(), OptionValue::Secret("pw".into())),
        ],
    };
    let id = add(&mut catalog, "k", Object::Connection(connection), &[]);
    assert!(catalog.drop_order(&[secret], false).is_err());
    let sql = catalog.create_statement(catalog.get(id).unwrap());
    assert_eq!(sql, "CREATE CONNECTION k TO KAFKA (brokers = 'b', sasl.password = SECRET pw)");
    let shown = catalog.create_statement(catalog.get(secret).unwrap());
    assert!(!shown.contains("hunter2") && !format!("{catalog:?}").contains("hunter2"));
}

#[test]
fn entries_are_stored_and_read_back() {
    let (mut catalog, ..) = shop();
    let next = catalog.next_id();
    let stored: Vec<String> = catalog.entries().map(|e| serde_json::to_string(e.as_ref()).unwrap()).collect();
    let entries = stored.iter().map(|s| serde_json::from_str::<Entry>(s).unwrap());
    let read = Catalog::from_entries(entries, next + 5).unwrap();
    // With schema `public`, which is always there.
    assert_eq!(read.entries().count(), 4);
    assert!(
        !stored[1].contains("\"schema\""),
        "what is in public is stored as it was before there were schemas"
    );
    assert_eq!(read.next_id(), next + 5);
    assert_eq!(catalog.allocate().0, next);
    let twice = catalog.entries().chain(catalog.entries()).map(|e| e.as_ref().clone()).collect::<Vec<_>>();
    assert_eq!(Catalog::from_entries(twice, 0).unwrap_err().sqlstate.0, "XX001");
}

#[test]
fn create_statements_are_parsed_again() {
    let (mut catalog, t, _, mv) = shop();
    let source = Source {
        kind: "kafka".into(),
        connection: None,
        options: vec![("topic".into(), OptionValue::Literal("o'x".into()))],
        registry: None,
        format: Some(crate::declared::FormatSpec { name: "json".into(), options: vec![] }),
        envelope: Envelope::Upsert,
        includes: vec![crate::declared::Include { what: "offset".into(), column: "Off".into() }],
        columns: vec![Column::new("id", SqlType::Int8), Column::new("Off", SqlType::Int8)],
        key: vec![0],
        key_declared: true,
        all_tables: false,
        retain: true,
        paused: false,
        check: None,
        watermark: None,
        on_schema_change: Default::default(),
        on_error: crate::declared::OnError::Skip,
    };
    let source = add(&mut catalog, "s", Object::Source(source), &[]);
    let sink = Sink {
        uuid: UuidText(uuid::Uuid::nil()),
        from: mv,
        kind: "files".into(),
        connection: None,
        options: vec![("url".into(), OptionValue::Literal("file:///x".into()))],
        key: vec!["a".into()],
        registry: None,
        format: Some(crate::declared::FormatSpec { name: "parquet".into(), options: vec![] }),
        envelope: Envelope::None,
        paused: false,
    };
    let sink = add(&mut catalog, "Out", Object::Sink(sink), &[]);
    let index = add(&mut catalog, "i", Object::Index(Index { on: t, columns: vec!["b".into()] }), &[]);
    for (id, sql) in [
        (t, "CREATE TABLE t (a integer NOT NULL, b text, PRIMARY KEY (a))"),
        (mv, "CREATE MATERIALIZED VIEW mv (a) AS select a from v"),
        (
            source,
            "CREATE SOURCE s (id bigint, PRIMARY KEY (id)) FROM KAFKA (topic = 'o''x') FORMAT JSON \
             INCLUDE offset AS \"Off\" ENVELOPE UPSERT WITH (on_error = 'skip')",
        ),
        (sink, "CREATE SINK \"Out\" FROM mv INTO FILES (url = 'file:///x') KEY (a) FORMAT PARQUET"),
        (index, "CREATE INDEX i ON t (b)"),
    ] {
        let shown = catalog.create_statement(catalog.get(id).unwrap());
        assert_eq!(shown, sql);
        let parsed = crate::sql::parse(&shown).unwrap();
        assert!(!matches!(parsed[0].statement, Statement::Unsupported(_)), "{shown}");
    }
}
