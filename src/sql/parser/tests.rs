//! Tests of the parser: every statement of the dialect, and what is wrong with the others.

use super::parse;
use crate::declared::{Envelope, OptionValue};
use crate::names::Name;
use crate::sql::ast::*;

fn one(sql: &str) -> Statement {
    let mut all = parse(sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
    assert_eq!(all.len(), 1, "{sql}");
    all.remove(0).statement
}

fn literal(text: &str) -> OptionValue {
    OptionValue::Literal(text.to_string())
}

#[test]
fn a_string_is_cut_into_statements_with_their_own_text() {
    let all = parse(" select 1 ;; -- nothing\n select ';' as x /* ; */ ; begin").unwrap();
    let texts: Vec<_> = all.iter().map(|p| p.text.as_str()).collect();
    assert_eq!(texts, ["select 1", "select ';' as x", "begin"]);
    assert_eq!(all[0].offset, 1);
    assert_eq!(all[1].offset, 25);
    assert!(parse("").unwrap().is_empty());
    assert!(parse(" ; -- x").unwrap().is_empty());
}

#[test]
fn syntax_errors_are_postgresqls_with_their_place() {
    for (sql, message, position) in [
        ("selec 1", "syntax error at or near \"selec\"", 1),
        ("select 1; selec 1", "syntax error at or near \"selec\"", 11),
        ("select * form t", "syntax error at or near \"t\"", 15),
        ("select 1 +", "syntax error at end of input", 11),
        ("select\n  from from", "syntax error at or near \"from\"", 15),
        ("créate table", "syntax error at or near \"créate\"", 1),
        ("create table t (a int b int)", "syntax error at or near \"b\"", 23),
        ("create table t (a", "syntax error at end of input", 18),
        ("create sink s from mv", "syntax error at end of input", 22),
        ("create source s from nowhere", "syntax error at or near \"nowhere\"", 22),
        ("drop table", "syntax error at end of input", 11),
        ("drop table a b", "syntax error at or near \"b\"", 14),
        ("subscribe", "syntax error at end of input", 10),
        ("select 'abc", "unterminated quoted string at or near \"'abc\"", 8),
        ("select \"abc", "unterminated quoted identifier at or near \"\"abc\"", 8),
        ("insert into t values (1", "syntax error at end of input", 24),
        ("create connection k to kafka (brokers 'x')", "syntax error at or near \"'x'\"", 39),
        ("create table t (a foo)", "type \"foo\" does not exist", 19),
        ("(", "syntax error at end of input", 2),
        (")", "syntax error at or near \")\"", 1),
        ("é", "syntax error at or near \"é\"", 1),
    ] {
        let error = parse(sql).err().unwrap_or_else(|| panic!("{sql} was parsed"));
        assert_eq!((error.message.as_str(), error.position), (message, Some(position)), "{sql}");
        let state = if message.starts_with("type") { "42704" } else { "42601" };
        assert_eq!(error.sqlstate.0, state, "{sql}");
    }
}

#[test]
fn deep_nesting_is_an_error_not_a_crash() {
    let sql = format!("select {}1{}", "(".repeat(5000), ")".repeat(5000));
    assert_eq!(parse(&sql).unwrap_err().sqlstate.0, "54001");
}

#[test]
fn long_chains_are_an_error_not_a_crash() {
    for (head, link) in
        [("select 1", " + 1"), ("select 1 where a", " or b"), ("select 1", " union all select 1")]
    {
        let of = |n: usize| format!("{head}{}", link.repeat(n));
        let error = parse(&of(2_500)).unwrap_err();
        assert_eq!(error.sqlstate.0, "54001", "{link}");
        assert!(error.position.is_some());
    }
    // Each row of a list is a chain of its own.
    parse(&format!("insert into t values {}(1)", "(-1 + 2, 'a' || 'b'), ".repeat(2_500))).unwrap();
}

#[test]
fn what_is_not_built_is_named() {
    for (sql, name) in [
        ("create sink s from mv into iceberg connection r (table = 't')", "SINK INTO ICEBERG"),
        ("create function f() returns int as 'x'", "CREATE FUNCTION"),
        ("create schema s create table t (a int)", "CREATE SCHEMA with what it is to contain"),
        ("create sequence s", "CREATE SEQUENCE"),
        ("create table t (a int unique)", "column constraint UNIQUE"),
        ("create table t (a int references x)", "column constraint REFERENCES"),
        ("create table t (a serial)", "type serial"),
        ("create table t (a money)", "type money"),
        ("create temp table t (a int)", "CREATE TEMP"),
        ("create unique index i on t (a)", "CREATE UNIQUE INDEX"),
        ("alter table t add column a int", "ALTER TABLE … ADD"),
        ("listen a", "LISTEN"),
        ("grant select on t to u", "GRANT"),
        ("create alert a on (select 1) to webhook (url='x')", "CREATE ALERT"),
        ("with x as (select 1) insert into t select * from x", "WITH before INSERT, UPDATE or DELETE"),
        ("copy t from '/etc/passwd'", "COPY with a file or a program of the server"),
        ("merge into t using s on t.a = s.a when matched then delete", "MERGE"),
    ] {
        match one(sql) {
            Statement::Unsupported(error) => {
                assert_eq!(error.sqlstate.0, "0A000");
                assert_eq!(error.message, format!("{name} is not supported yet"), "{sql}");
            }
            other => panic!("{sql}: {other:?}"),
        }
    }
}

#[test]
fn secrets_and_connections() {
    let Statement::CreateSecret(s) = one("CREATE SECRET Kafka_PW AS 'it''s'") else { panic!() };
    assert_eq!((s.name, s.value.as_str()), (Name::bare("kafka_pw"), "it's"));
    assert!(!format!("{:?}", one("create secret s as 'hunter2'")).contains("hunter2"));
    let sql = "CREATE CONNECTION k TO KAFKA (brokers = 'b1:9092', security.protocol = 'SASL_SSL', \
               sasl.password = SECRET kafka_pw, port = 5432, x = true) WITH (validate = false)";
    let Statement::CreateConnection(c) = one(sql) else { panic!() };
    assert_eq!((c.kind.as_str(), c.validate), ("kafka", false));
    assert_eq!(c.options[1], ("security.protocol".to_string(), literal("SASL_SSL")));
    assert_eq!(c.options[2], ("sasl.password".to_string(), OptionValue::Secret("kafka_pw".to_string())));
    assert_eq!(c.options[3].1, literal("5432"));
    assert_eq!(c.options[4].1, literal("true"));
    let Statement::CreateConnection(c) = one("create connection s3 to object store (url = 's3://b')") else {
        panic!()
    };
    assert_eq!((c.kind.as_str(), c.validate), ("object store", true));
    assert!(parse("create connection k to kafka (a = 1, a = 2)").is_err());
    assert!(parse("create connection k to kafka (a = 1) with (nonsense = 1)").is_err());
}

#[test]
fn sources_in_every_spelling() {
    let sql = "CREATE SOURCE IF NOT EXISTS orders (id bigint PRIMARY KEY, amount numeric(12,2), at timestamptz) \
               FROM KAFKA CONNECTION k (topic = 'orders', start = 'earliest') FORMAT JSON (strict = true) \
               INCLUDE key AS k, partition, offset, timestamp AS kafka_ts, headers ENVELOPE UPSERT \
               WITH (retain = false)";
    let Statement::CreateSource(s) = one(sql) else { panic!() };
    assert!(s.if_not_exists && !s.retain);
    assert_eq!(s.key, ["id"]);
    assert!(s.columns[0].not_null && !s.columns[1].not_null);
    assert_eq!(s.columns[1].data_type.to_string(), "numeric(12,2)");
    assert_eq!((s.kind.as_str(), s.connection), ("kafka", Some(Name::bare("k"))));
    assert_eq!(s.envelope, Envelope::Upsert);
    let includes: Vec<_> = s.includes.iter().map(|i| (i.what.as_str(), i.column.as_str())).collect();
    assert_eq!(
        includes,
        [
            ("key", "k"),
            ("partition", "partition"),
            ("offset", "offset"),
            ("timestamp", "kafka_ts"),
            ("headers", "headers")
        ]
    );
    let format = s.format.unwrap();
    assert_eq!((format.name.as_str(), format.options.len()), ("json", 1));

    let Statement::CreateSource(s) = one("create source o (a int) with (connector = 'kafka', topic = 't', \
             properties.bootstrap.server = 'b:1', scan.startup.mode = 'earliest', properties.group.id = 'g') \
             format upsert encode csv")
    else {
        panic!()
    };
    assert_eq!((s.kind.as_str(), s.envelope), ("kafka", Envelope::Upsert));
    assert_eq!(s.format.unwrap().name, "csv");
    let names: Vec<_> = s.options.iter().map(|(n, _)| n.as_str()).collect();
    assert_eq!(names, ["topic", "brokers", "start", "group.id"]);

    let Statement::CreateSource(s) = one("create source d (a int) from kafka (topic = 'x') format debezium")
    else {
        panic!()
    };
    assert_eq!((s.envelope, s.format.unwrap().name.as_str()), (Envelope::Debezium, "json"));

    let Statement::CreateSource(s) =
        one("create source shop from postgres connection pg (publication = 'pub') for all tables")
    else {
        panic!()
    };
    assert!(s.all_tables && s.columns.is_empty() && s.format.is_none());
    assert!(matches!(
        one("create source n from nexmark (events = 1000, rate = 0)"),
        Statement::CreateSource(_)
    ));
    assert!(matches!(one("create source d from datagen (rate = 10, seed = 1)"), Statement::CreateSource(_)));
    assert!(parse("create source o (a int) from kafka connection k (topic = 't')").is_err());
}

#[test]
fn tables() {
    let sql = "CREATE TABLE public.t (id bigint, \"Name\" text NOT NULL DEFAULT 'x', ts timestamptz DEFAULT now(), \
               PRIMARY KEY (id, \"Name\"))";
    let Statement::CreateTable(t) = one(sql) else { panic!() };
    assert_eq!(t.name, Name::qualified("public", "t"));
    let TableBody::Columns { columns, key, .. } = t.body else { panic!() };
    assert_eq!(key, ["id", "Name"]);
    assert!(columns[0].not_null);
    assert_eq!(columns[2].default.as_ref().unwrap().to_string(), "now()");

    let Statement::CreateTable(t) = one("create table users from source shop (reference public.users)")
    else {
        panic!()
    };
    let TableBody::Source { source, reference } = t.body else { panic!() };
    assert_eq!((source, reference.as_str()), (Name::bare("shop"), "public.users"));

    let Statement::CreateTable(t) = one("create table if not exists t (a, b) as select 1, 2 with no data")
    else {
        panic!()
    };
    assert!(t.if_not_exists);
    let TableBody::Query { columns, with_data, .. } = t.body else { panic!() };
    assert_eq!((columns.len(), with_data), (2, false));

    for (sql, state) in [
        ("create table t (a int, a int)", "42701"),
        ("create table t (a int primary key, b int primary key)", "42P16"),
        ("create table t (a int primary key, primary key (a))", "42P16"),
        ("create table t (a int, primary key (b))", "42703"),
        ("create table t (a varchar(0))", "22023"),
    ] {
        assert_eq!(parse(sql).unwrap_err().sqlstate.0, state, "{sql}");
    }
}

#[test]
fn views_keep_the_text_of_their_query() {
    let sql = "CREATE OR REPLACE MATERIALIZED VIEW mv (a, b) AS\n  select x, 'é' from t  ";
    let Statement::CreateMaterializedView(v) = one(sql) else { panic!() };
    assert!(v.or_replace && !v.if_not_exists);
    assert_eq!(v.columns, ["a", "b"]);
    assert_eq!(v.query_text, "select x, 'é' from t");
    assert_eq!(&sql[v.query_offset as usize..][..6], "select");
    let Statement::CreateView(v) = one("create view if not exists v as values (1)") else { panic!() };
    assert!(v.if_not_exists);
    let Statement::CreateIndex(i) = one("create index on mv (k, v desc)") else { panic!() };
    assert_eq!((i.name, i.columns), (None, vec!["k".to_string(), "v".to_string()]));
}

#[test]
fn sinks() {
    let sql = "create sink s from mv into snowflake connection sf (table = 'ORDERS') key (day, \"K\") \
               with (commit_interval = '5 s')";
    let Statement::CreateSink(s) = one(sql) else { panic!() };
    assert_eq!((s.kind.as_str(), s.connection), ("snowflake", Some(Name::bare("sf"))));
    assert_eq!(s.key, ["day", "K"]);
    assert_eq!(s.options.len(), 2);
    let sql = "create sink s from mv into kafka connection k (topic = 'out') key (id) format json envelope debezium";
    let Statement::CreateSink(s) = one(sql) else { panic!() };
    assert_eq!(s.envelope, Envelope::Debezium);
    let Statement::CreateSink(s) = one("create sink s from mv into files (url = 'file:///x') format parquet")
    else {
        panic!()
    };
    assert_eq!(s.format.unwrap().name, "parquet");
    assert!(parse("create sink s from mv into files (a = 1) with (a = 2)").is_err());
}

#[test]
fn statements_about_objects() {
    let Statement::Drop(d) = one("drop materialized view if exists a, public.b cascade") else { panic!() };
    assert_eq!(
        (d.kind, d.names.len(), d.if_exists, d.cascade),
        (ObjectKind::MaterializedView, 2, true, true)
    );
    let Statement::Alter(a) = one("alter sink s pause") else { panic!() };
    assert_eq!((a.kind, a.change), (ObjectKind::Sink, AlterChange::Pause));
    let Statement::Alter(a) = one("alter table t rename to \"U\"") else { panic!() };
    assert_eq!(a.change, AlterChange::Rename("U".into()));
    assert!(parse("alter table t pause").is_err());
    let Statement::Comment(c) = one("comment on column public.t.a is 'x'") else { panic!() };
    assert_eq!((c.name.name.as_str(), c.column.as_deref(), c.text.as_deref()), ("t", Some("a"), Some("x")));
    let Statement::Comment(c) = one("comment on table t is null") else { panic!() };
    assert_eq!((c.column, c.text), (None, None));
    for (sql, show) in [
        ("show sources", Show::Objects(ObjectKind::Source)),
        ("show tables", Show::Objects(ObjectKind::Table)),
        ("show materialized views", Show::Objects(ObjectKind::MaterializedView)),
        ("show indexes", Show::Objects(ObjectKind::Index)),
        ("show columns from t", Show::Columns(Name::bare("t"))),
        ("show create view v", Show::Create(ObjectKind::View, Name::bare("v"))),
        ("show status", Show::Status),
    ] {
        let Statement::Show(parsed) = one(sql) else { panic!("{sql}") };
        assert_eq!(parsed, show, "{sql}");
    }
    assert!(matches!(one("check materialized view mv"), Statement::CheckView(_)));
    assert!(matches!(one("validate connection k"), Statement::ValidateConnection(_)));
    let Statement::VerifySink(v) = one("verify sink s repair") else { panic!() };
    assert_eq!((v.name, v.repair), (Name::bare("s"), true));
    let Statement::WaitForSink(w) = one("wait for sink s at tick 7 timeout '1.5 s'") else { panic!() };
    assert_eq!((w.tick, w.timeout_micros), (Some(7), Some(1_500_000)));
    let Statement::Truncate(t) = one("truncate table a, b") else { panic!() };
    assert_eq!(t.tables.len(), 2);
}

#[test]
fn settings_and_transactions() {
    let set = |sql: &str| match one(sql) {
        Statement::Set(set) => set,
        other => panic!("{sql}: {other:?}"),
    };
    let variable = |name: &str, value: Option<&str>, local| Set::Variable {
        name: name.into(),
        value: value.map(Into::into),
        local,
    };
    assert_eq!(set("set search_path to a, \"B\""), variable("search_path", Some("a, \"B\""), false));
    assert_eq!(set("set schema 'a, b'"), variable("search_path", Some("\"a, b\""), false));
    assert_eq!(set("SET LOCAL x.y = -5"), variable("x.y", Some("-5"), true));
    assert_eq!(set("set time zone 'UTC'"), variable("timezone", Some("UTC"), false));
    assert_eq!(set("set names 'utf8'"), variable("client_encoding", Some("utf8"), false));
    assert_eq!(set("set x to default"), variable("x", None, false));
    assert_eq!(set("set session characteristics as transaction read only"), Set::Transaction);
    assert_eq!(set("reset all"), Set::Reset(None));
    for (sql, name) in [
        ("show transaction isolation level", "transaction_isolation"),
        ("show time zone", "timezone"),
        ("show server_version", "server_version"),
        ("show all", "all"),
    ] {
        assert!(matches!(one(sql), Statement::ShowVariable(n) if n == name), "{sql}");
    }
    for sql in ["begin", "begin work isolation level serializable, read write", "start transaction"] {
        assert!(matches!(one(sql), Statement::Begin(Begin { read_only: false })), "{sql}");
    }
    assert!(matches!(one("begin read only"), Statement::Begin(Begin { read_only: true })));
    for sql in ["commit", "end transaction", "commit and no chain"] {
        assert!(matches!(one(sql), Statement::Commit), "{sql}");
    }
    for sql in ["rollback", "abort work"] {
        assert!(matches!(one(sql), Statement::Rollback), "{sql}");
    }
    assert!(matches!(one("savepoint a"), Statement::Savepoint(name) if name == "a"));
    for sql in ["release a", "release savepoint A"] {
        assert!(matches!(one(sql), Statement::Release(name) if name == "a"), "{sql}");
    }
    for sql in ["rollback to a", "rollback work to savepoint a"] {
        assert!(matches!(one(sql), Statement::RollbackTo(name) if name == "a"), "{sql}");
    }
    assert!(matches!(one("discard all"), Statement::Discard(Discard::All)));
    let Statement::Prepare(p) = one("prepare p (int, text) as select $1, $2") else { panic!() };
    assert_eq!((p.types.len(), p.text.as_str()), (2, "select $1, $2"));
    assert!(matches!(one("execute p (1, 'x')"), Statement::Execute(e) if e.args.len() == 2));
    assert!(matches!(one("deallocate prepare all"), Statement::Deallocate(None)));
}

#[test]
fn subscriptions_and_cursors() {
    let Statement::Subscribe(s) = one("subscribe mv with (snapshot = false, progress) as of 12") else {
        panic!()
    };
    assert_eq!((s.snapshot, s.progress, s.as_of), (false, true, Some(12)));
    let Statement::Subscribe(s) = one("subscribe (select a from t)") else { panic!() };
    assert!(matches!(s.what, SubscribeTo::Query { text, .. } if text == "select a from t"));
    assert!(parse("subscribe mv with (nonsense = 1)").is_err());
    let Statement::Copy(Copy::To { what: CopyWhat::Subscribe(_), .. }) = one("copy (subscribe mv) to stdout")
    else {
        panic!()
    };
    let Statement::Declare(d) = one("declare c cursor without hold for subscribe mv") else { panic!() };
    assert!(matches!(d.what, CursorOf::Subscribe(_)));
    let Statement::Declare(d) = one("declare \"C\" no scroll cursor with hold for select 1") else {
        panic!()
    };
    assert!(d.hold && d.name == "C");
    for (sql, count, timeout) in [
        ("fetch c", Some(1), None),
        ("fetch 100 from c with (timeout = '1 s')", Some(100), Some(1_000_000)),
        ("fetch forward all in c", None, None),
        ("fetch next from c", Some(1), None),
    ] {
        let Statement::Fetch(f) = one(sql) else { panic!("{sql}") };
        assert_eq!((f.count, f.timeout_micros), (count, timeout), "{sql}");
    }
    assert!(matches!(one("close all"), Statement::Close(None)));
}

#[test]
fn copy_formats() {
    let Statement::Copy(Copy::From { table, columns, format }) =
        one("copy t (a, b) from stdin with (format csv, header true, delimiter ';', null 'NULL')")
    else {
        panic!()
    };
    assert_eq!((table.name.as_str(), columns.len()), ("t", 2));
    assert_eq!((format.kind, format.header, format.delimiter), (CopyKind::Csv, true, b';'));
    assert_eq!(format.null, "NULL");
    let Statement::Copy(Copy::From { format, .. }) = one("copy t from stdin csv header delimiter as '|'")
    else {
        panic!()
    };
    assert_eq!((format.kind, format.header, format.delimiter), (CopyKind::Csv, true, b'|'));
    let Statement::Copy(Copy::From { format, .. }) = one("copy t from stdin") else { panic!() };
    assert_eq!(format, CopyFormat::new(CopyKind::Text));
    let Statement::Copy(Copy::To { what: CopyWhat::Query(q), .. }) =
        one("copy public.t (a) to stdout (format binary)")
    else {
        panic!()
    };
    assert_eq!(q.to_string(), "SELECT \"a\" FROM public.t");
    assert!(parse("copy t from stdin (format xml)").is_err());
    assert!(parse("copy t from stdin (format binary, header)").is_err());
    assert!(matches!(one("copy t from stdin (delimiter 'ab')"), Statement::Unsupported(_)));
}

#[test]
fn explain_takes_queries_and_views() {
    let Statement::Explain(e) = one("explain analyze verbose create materialized view v as select 1") else {
        panic!()
    };
    assert!(e.analyze && e.verbose && matches!(*e.statement, Statement::CreateMaterializedView(_)));
    let Statement::Explain(e) = one("explain (analyze false, verbose) select 1") else { panic!() };
    assert!(!e.analyze && e.verbose);
    assert!(matches!(one("explain (select 1)"), Statement::Explain(_)));
    assert!(matches!(
        one("explain create sink s from t into files (url = 'file:///x', table = 't')"),
        Statement::Explain(_)
    ));
    assert!(matches!(one("explain drop table t"), Statement::Unsupported(_)));
}

#[test]
fn dml_is_postgresqls() {
    for sql in [
        "insert into t (a, b) values (1, default), (2, 'x') on conflict (a) do update set b = excluded.b returning *",
        "insert into t default values",
        "insert into t select * from u on conflict do nothing",
    ] {
        assert!(matches!(one(sql), Statement::Insert(_)), "{sql}");
    }
    assert!(matches!(one("update t set a = u.a from u where t.k = u.k returning t.a"), Statement::Update(_)));
    assert!(matches!(one("delete from t using u where t.k = u.k returning *"), Statement::Delete(_)));
    for sql in
        ["table t", "values (1), (2)", "with x as (select 1) select * from x", "(select 1) union select 2"]
    {
        assert!(matches!(one(sql), Statement::Query(_)), "{sql}");
    }
}
