//! Tests of the planner: plans are run over small tables, and results compared as PostgreSQL prints them.

use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::default_table_source::provider_as_source;
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::datasource::MemTable;
use datafusion::logical_expr::{LogicalPlan, TableScan};
use datafusion::prelude::{SessionConfig, SessionContext};

use super::*;
use crate::engine::plan::CollectionSource;
use crate::names::Name;
use crate::sql::ast::Statement;
use crate::sql::catalog::{Column, Entry, Object, Table, View};
use crate::sql::parse;
use crate::types::{TextBuilder, write_text};

const ROWS: &[&[Option<&str>]] = &[
    &[
        Some("1"),
        Some("one"),
        Some("1.50"),
        Some("0.5"),
        Some("2024-01-01 00:00:00+00"),
        Some(r#"{"k": [1, 2]}"#),
        Some("10"),
    ],
    &[
        Some("2"),
        Some("two"),
        Some("2.25"),
        Some("2"),
        Some("2024-01-02 12:30:00+00"),
        Some(r#"{"k": {"x": "y"}}"#),
        Some("20"),
    ],
    &[Some("3"), None, None, None, None, None, None],
];

/// Table `t` with [`ROWS`], table `u` with the first two of its columns, and views on them.
fn catalog() -> Catalog {
    let mut catalog = Catalog::default();
    let columns = [
        ("a", "integer"),
        ("b", "text"),
        ("n", "numeric(12,2)"),
        ("f", "float8"),
        ("ts", "timestamptz"),
        ("j", "jsonb"),
        ("g", "bigint"),
    ];
    let columns: Vec<Column> =
        columns.iter().map(|(name, t)| Column::new(*name, t.parse().unwrap())).collect();
    let mut t = Table { columns, key: vec![0], ..Table::default() };
    t.columns[0].not_null = true;
    let mut u = Table { columns: t.columns[..2].to_vec(), ..Table::default() };
    u.columns[1].default = Some("'none'".to_string());
    for (name, object) in [("t", Object::Table(t)), ("u", Object::Table(u))] {
        let id = catalog.allocate();
        catalog.insert(Entry::new(id, name, "tester", object)).unwrap();
    }
    for (name, text) in
        [("v", "select a, b || '!' as c, count(*) over () from t"), ("w", "select c from v where a < 3")]
    {
        let view = planner_with(&catalog, |p| {
            p.plan_view(&crate::sql::parser::parse_query(text).unwrap(), &[], text).unwrap()
        });
        let columns = view.schema.fields().iter().map(|f| Column::from_field(f)).collect();
        let id = catalog.allocate();
        let mut entry = Entry::new(id, name, "tester", Object::View(View { query: text.into(), columns }));
        entry.uses = view.uses;
        catalog.insert(entry).unwrap();
    }
    catalog
}

fn planner_with<T>(catalog: &Catalog, f: impl FnOnce(&Planner<'_>) -> T) -> T {
    let session = SessionInfo::default();
    f(&Planner::new(catalog, &session, None))
}

fn plan(sql: &str) -> Result<Planned> {
    let statement = parse(sql)?.remove(0).statement;
    let Statement::Query(query) = statement else { panic!("{sql} is no query") };
    planner_with(&catalog(), |p| p.plan_query(&query, sql, &[]))
}

fn stored(schema: &SchemaRef) -> RecordBatch {
    let columns = schema
        .fields()
        .iter()
        .enumerate()
        .map(|(i, field)| {
            let mut builder = TextBuilder::new(Arc::clone(field)).unwrap();
            for row in ROWS {
                match row[i] {
                    Some(text) => builder.push(text).unwrap(),
                    None => builder.push_null(),
                }
            }
            builder.finish().unwrap()
        })
        .collect();
    RecordBatch::try_new(Arc::clone(schema), columns).unwrap()
}

/// Runs a plan over [`ROWS`].
fn execute(plan: LogicalPlan) -> Result<Vec<RecordBatch>> {
    let mut config = SessionConfig::new().with_target_partitions(1);
    config.options_mut().optimizer.enable_physical_uncorrelated_scalar_subquery = false;
    let session = SessionContext::new_with_config(config);
    let plan = crate::engine::plan::rewrite::normalise(plan)?
        .transform_up_with_subqueries(|node| match &node {
            LogicalPlan::TableScan(scan) if scan.source.downcast_ref::<CollectionSource>().is_some() => {
                let batch = stored(&scan.source.schema());
                let table = MemTable::try_new(batch.schema(), vec![vec![batch]])?;
                let source = provider_as_source(Arc::new(table));
                Ok(Transformed::yes(LogicalPlan::TableScan(TableScan { source, ..scan.clone() })))
            }
            _ => Ok(Transformed::no(node)),
        })
        .data()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    Ok(runtime.block_on(async {
        let physical = session.state().create_physical_plan(&plan).await?;
        datafusion::physical_plan::collect(physical, session.task_ctx()).await
    })?)
}

fn printed(schema: &Schema, batches: &[RecordBatch]) -> Vec<String> {
    let mut lines = Vec::new();
    for batch in batches {
        for row in 0..batch.num_rows() {
            let cells: Vec<String> = (0..batch.num_columns())
                .map(|i| {
                    let column = batch.column(i);
                    if column.is_null(row) {
                        return "NULL".to_string();
                    }
                    let mut out = Vec::new();
                    write_text(schema.field(i), column.as_ref(), row, &mut out).unwrap();
                    String::from_utf8(out).unwrap()
                })
                .collect();
            lines.push(cells.join("|"));
        }
    }
    lines
}

fn rows(sql: &str) -> Result<Vec<String>> {
    let planned = plan(sql)?;
    let batches = execute(planned.plan)?;
    for batch in &batches {
        for (column, field) in batch.columns().iter().zip(planned.schema.fields()) {
            assert_eq!(column.data_type(), field.data_type(), "{sql}: {}", field.name());
        }
    }
    Ok(printed(&planned.schema, &batches))
}

/// One row of one query, and the types of its columns.
fn check(sql: &str, expected: &str, types: &str) {
    let got = rows(sql).unwrap_or_else(|e| panic!("{sql}: {} {e}", e.sqlstate.0));
    assert_eq!(got, [expected], "{sql}");
    let schema = plan(sql).unwrap().schema;
    let got: Vec<_> = schema.fields().iter().map(|f| SqlType::of(f).to_string()).collect();
    assert_eq!(got.join(", "), types, "{sql}");
}

#[test]
fn literals_and_arithmetic_have_postgresqls_types() {
    check(
        "select 1, 3000000000, 1.5, 'x', true",
        "1|3000000000|1.5|x|t",
        "integer, bigint, numeric(2,1), text, boolean",
    );
    check(
        "select 1 + 1, 1 + 3000000000, -7 / 2, -7 % 3, 7 / 2.0",
        "2|3000000001|-3|-1|3.5000000000000000",
        "integer, bigint, integer, integer, numeric(38,16)",
    );
    check("select 2 ^ 3, 1e3, abs(-3.5)", "8|1000|3.5", "double precision, numeric(4,0), numeric(2,1)");
    check("select 9223372036854775808, -1", "9223372036854775808|-1", "numeric(38,0), integer");
    check(
        "select count(*), sum(a), sum(g), avg(a), sum(n), max(f) from t",
        "3|6|30|2.0000000000000000|3.75|2",
        "bigint, bigint, numeric(38,0), numeric(38,16), numeric(22,2), double precision",
    );
    check("select null, coalesce(null, 2), case when true then 1 end", "NULL|2|1", "text, integer, integer");
    check("select 1/3.0, 2/3.0", "0.3333333333333333|0.6666666666666667", "numeric(38,16), numeric(38,16)");
}

#[test]
fn casts_are_postgresqls() {
    check(
        "select '12'::int, ' 7 '::bigint, 1.5::int, 2.5::int, -1.5::int",
        "12|7|2|3|-2",
        "integer, bigint, integer, integer, integer",
    );
    check("select 2.5::float8::int, 3.5::float8::int", "2|4", "integer, integer");
    check(
        "select '2024-02-30'::text, '2024-02-29'::date, date '2024-02-29' + 1",
        "2024-02-30|2024-02-29|2024-03-01",
        "text, date, date",
    );
    check(
        "select 1::text, true::text, 1.50::text, 0.1::float8::text, '1 day'::interval::text",
        "1|true|1.50|0.1|1 day",
        "text, text, text, text, text",
    );
    check(
        "select 'abcdef'::varchar(3), 'ab'::char(4), 'abc'::name",
        "abc|ab  |abc",
        "character varying(3), character(4), name",
    );
    check("select '{1,2}'::int[], array[1,2], array['a']", "{1,2}|{1,2}|{a}", "integer[], integer[], text[]");
    check(
        "select 'A0EEBC999C0B4EF8BB6D6BB9BD380A11'::uuid, '{\"b\":1,\"a\":2}'::jsonb",
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11|{\"a\": 2, \"b\": 1}",
        "uuid, jsonb",
    );
    check(
        "select interval '1' day, interval '1 year 2 months', timestamp '2024-01-01 10:00' + interval '1 hour'",
        "1 day|1 year 2 mons|2024-01-01 11:00:00",
        "interval, interval, timestamp without time zone",
    );
    check(
        "select 12.345::numeric(4,1), 1::numeric(5,2), '1.005'::numeric(5,2)",
        "12.3|1.00|1.01",
        "numeric(4,1), numeric(5,2), numeric(5,2)",
    );
    check("select '\\x01ff'::bytea, 'x'::bytea", "\\x01ff|\\x78", "bytea, bytea");
    check("select ts::date, ts::text from t where a = 1", "2024-01-01|2024-01-01 00:00:00+00", "date, text");
}

#[test]
fn runtime_errors_have_postgresqls_states() {
    for (sql, state, message) in [
        ("select 1/0", "22012", "division by zero"),
        ("select a/(a-1) from t", "22012", "division by zero"),
        ("select 1.0/0", "22012", "division by zero"),
        ("select f/0 from t", "22012", "division by zero"),
        ("select 1 % 0", "22012", "division by zero"),
        ("select 'x'::int", "22P02", "invalid input syntax for type integer: \"x\""),
        ("select b::int from t", "22P02", "invalid input syntax for type integer: \"one\""),
        ("select 99999::smallint", "22003", "smallint out of range"),
        ("select 2147483647 + a from t", "22003", "integer out of range"),
        ("select 9223372036854775807 + g from t", "22003", "bigint out of range"),
        ("select '2024-02-30'::date", "22008", "date/time field value out of range: \"2024-02-30\""),
        ("select 1000::numeric(4,2)", "22003", "numeric field overflow"),
    ] {
        let error = rows(sql).err().unwrap_or_else(|| panic!("{sql} gave no error"));
        assert_eq!((error.sqlstate.0, error.message.as_str()), (state, message), "{sql}");
    }
}

#[test]
fn columns_are_named_as_in_postgresql() {
    for (sql, names) in [
        ("select 1, a, t.b as \"B\", count(*) over (), a + 1 from t", "?column?, a, B, count, ?column?"),
        ("select a, a, a as a from t", "a, a, a"),
        ("select *, a from u", "a, b, a"),
        ("select sum(a), sum(a) from t", "sum, sum"),
        ("select max(a)::text, 1::int8, now() is null from t", "max, int8, ?column?"),
        ("select * from (select count(*), max(b) from t) x", "count, max"),
        ("select count from (select count(*) from t) x", "count"),
        ("select t.*, u.* from t join u on t.a = u.a", "a, b, n, f, ts, j, g, a, b"),
        ("values (1, 'x')", "column1, column2"),
        ("select 1 as x union select 2", "x"),
        ("table u", "a, b"),
    ] {
        let planned = plan(sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
        let got: Vec<_> = planned.schema.fields().iter().map(|f| f.name().as_str()).collect();
        assert_eq!(got.join(", "), names, "{sql}");
    }
}

#[test]
fn queries_run() {
    let mut wrong = Vec::new();
    for (sql, expected) in [
        ("select a from t order by a desc limit 1", "3"),
        ("select a from t order by 1 desc offset 1 fetch first 1 row only", "2"),
        ("select b, count(*) from t group by b order by count(*), b limit 1", "one|1"),
        ("select lower(b) from t where b ilike 'ONE' group by lower(b) order by lower(b)", "one"),
        ("select distinct upper(b) from t where b ~ '^t' order by upper(b)", "TWO"),
        ("select a from t where b = 'two' and n = '2.25' and ts > '2024-01-02'", "2"),
        ("select count(*) from t where a in (1, 2) or a between 5 and 9", "2"),
        ("select (select max(a) from u)", "3"),
        ("select a from t where exists (select 1 from u where u.a = t.a and u.b = 'one')", "1"),
        ("select c from w order by 1 limit 1", "one!"),
        ("select string_agg(b, ',' order by b) from t", "one,two"),
        ("select position('w' in b), substring(b from 2 for 1), b || a from t where a = 2", "2|w|two2"),
        ("select j->'k', j->'k'->>1, j #>> '{k,0}', j @> '{\"k\": [1]}' from t where a = 1", "[1, 2]|2|1|t"),
        ("select j->'k'->>'x', j ? 'k', jsonb_typeof(j->'k') from t where a = 2", "y|t|object"),
        (
            "select jsonb_build_object('a', a, 'n', n, 'b', array[b]) from t where a = 1",
            "{\"a\": 1, \"b\": [\"one\"], \"n\": 1.50}",
        ),
        ("select sum(generate_series) from generate_series(1, 4)", "10"),
        ("select sum(i) from generate_series(1, 10, 3) as g(i)", "22"),
        (
            "with recursive r(n) as (select 1 union all select n + 1 from r where n < 5) select sum(n) from r",
            "15",
        ),
        ("select to_char(ts, 'YYYY-MM-DD HH24:MI') from t where a = 2", "2024-01-02 12:30"),
        (
            "select ts at time zone 'UTC', ts at time zone '-02:00' from t where a = 1",
            "2024-01-01 00:00:00|2024-01-01 02:00:00",
        ),
        (
            "select pg_typeof(1), pg_typeof(n), pg_typeof(ts) from t limit 1",
            "integer|numeric|timestamp with time zone",
        ),
        ("select current_user, current_schema, current_database()", "tidemill|public|tidemill"),
        (
            "select extract(year from ts), date_trunc('day', ts) from t where a = 2",
            "2024|2024-01-02 00:00:00+00",
        ),
        ("select a from t where a = '2'", "2"),
        ("select nullif(a, 1), greatest(a, 2) from t where a = 1", "NULL|2"),
        (
            "select row_number() over (order by a desc), lag(a, 1) over (order by a) from t order by a limit 1",
            "3|NULL",
        ),
        ("select t.a from t left join u using (a) where u.b is null", "3"),
        ("select a from t except select 1 except select 2", "3"),
        ("select avg(n), count(distinct b), bool_and(a > 0) from t", "1.8750000000000000|2|t"),
        ("select array_agg(a order by a desc) from t", "{3,2,1}"),
        ("select a from t where a = any(array[2, 9])", "2"),
        ("select round(n, 1), ceil(n), trunc(n) from t where a = 2", "2.3|3|2"),
        ("select distinct on (a > 1) a from t order by a > 1, a desc limit 1", "1"),
    ] {
        match rows(sql) {
            Ok(got) if got == [expected] => {}
            Ok(got) => wrong.push(format!("{sql}: {got:?} instead of {expected:?}")),
            Err(e) => wrong.push(format!("{sql}: {} {e}", e.sqlstate.0)),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn planning_errors_are_postgresqls_with_their_place() {
    for (sql, state, message, position) in [
        ("select x from t", "42703", "column \"x\" does not exist", Some(8)),
        ("select t.x from t", "42703", "column t.x does not exist", Some(8)),
        ("select a from t where nope = 1", "42703", "column \"nope\" does not exist", Some(23)),
        ("select z.a from t", "42P01", "missing FROM-clause entry for table \"z\"", Some(8)),
        ("select * from nope", "42P01", "relation \"nope\" does not exist", Some(15)),
        ("select * from t, s.nope", "42P01", "relation \"s.nope\" does not exist", Some(18)),
        ("select foo(a) from t", "42883", "function foo() does not exist", Some(8)),
        ("select a from t, u", "42702", "column reference \"a\" is ambiguous", Some(8)),
        (
            "select a, b from t group by a",
            "42803",
            "column \"t.b\" must appear in the GROUP BY clause or be used in an aggregate function",
            Some(11),
        ),
        (
            "select a from t union select a, b from t",
            "42601",
            "each query of a set operation must have the same number of columns",
            Some(1),
        ),
        ("select * from t, t", "42712", "table name \"t\" specified more than once", None),
        ("select a from t for update", "0A000", "FOR UPDATE and FOR SHARE is not supported yet", None),
        ("select a::nope from t", "42704", "type \"nope\" does not exist", None),
    ] {
        let error = plan(sql).err().unwrap_or_else(|| panic!("{sql} was planned"));
        assert_eq!(
            (error.sqlstate.0, error.message.as_str(), error.position),
            (state, message, position),
            "{sql}"
        );
    }
}

#[test]
fn views_are_checked() {
    let materialized = |sql: &str| {
        let query = crate::sql::parser::parse_query(sql).unwrap();
        planner_with(&catalog(), |p| p.plan_materialized_view(&query, &[], sql))
    };
    for (sql, state) in [
        ("select a, a from t", "42701"),
        ("select now()", "0A000"),
        ("select a, current_timestamp from t", "0A000"),
        ("select random()", "0A000"),
        ("select current_user", "0A000"),
        ("select gen_random_uuid()", "0A000"),
        ("select a from t where a = $1", "42P02"),
    ] {
        let error = materialized(sql).err().unwrap_or_else(|| panic!("{sql} was planned"));
        assert_eq!(error.sqlstate.0, state, "{sql}: {error}");
    }
    let refused = materialized("select a, now() as n from t").unwrap_err();
    assert_eq!(refused.position, Some(11));
    assert!(materialized("select a from t where now() > ts").is_ok());
    let plan = materialized("select w.c, count(*) as n from w join t on true group by 1").unwrap();
    let catalog = catalog();
    let names: Vec<_> = plan.uses.iter().map(|id| catalog.get(*id).unwrap().name.clone()).collect();
    assert_eq!(names, ["w", "t"]);
    assert_eq!(plan.plan.schema().field(1).name(), "n");
    let scans = crate::engine::plan::collections(&plan.plan);
    assert_eq!(scans, [catalog.find_relation(&Name::bare("t")).unwrap().id.collection()]);
    assert!(materialized("select i from generate_series(1, 3) as g(i)").is_ok());
    let query = crate::sql::parser::parse_query("select a, b from t").unwrap();
    let renamed = planner_with(&catalog, |p| p.plan_view(&query, &["x".to_string()], "")).unwrap();
    assert_eq!(renamed.plan.schema().field(0).name(), "x");
    let many = ["x".to_string(), "y".to_string(), "z".to_string()];
    assert!(planner_with(&catalog, |p| p.plan_view(&query, &many, "")).is_err());
}

#[test]
fn parameters_are_inferred_and_bound() {
    let planned = plan("select b || $2 from t where a = $1 and ts > $3::timestamptz").unwrap();
    let types: Vec<_> = planned.params.iter().map(|f| SqlType::of(f).to_string()).collect();
    assert_eq!(types, ["integer", "text", "timestamp with time zone"]);
    let values = planned
        .params
        .iter()
        .zip(["2", "?", "2024-01-01"])
        .map(|(field, text)| crate::types::parse_text(field, text).unwrap())
        .collect();
    let batches = execute(planned.bind(values).unwrap()).unwrap();
    assert_eq!(printed(&planned.schema, &batches), ["two?"]);
    assert_eq!(planned.bind(vec![]).unwrap_err().sqlstate.0, "08P01");
}

fn dml<T>(sql: &str, f: impl FnOnce(&Planner<'_>, &Statement) -> Result<T>) -> Result<T> {
    let statement = parse(sql)?.remove(0).statement;
    planner_with(&catalog(), |p| f(p, &statement))
}

fn insert(sql: &str) -> Result<InsertPlan> {
    dml(sql, |p, s| match s {
        Statement::Insert(i) => p.plan_insert(i, sql, &[]),
        _ => panic!("{sql}"),
    })
}

#[test]
fn inserts_fill_in_cast_and_check() {
    for (sql, expected) in [
        ("insert into u values (1, 'x'), (2, default)", vec!["1|x", "2|none"]),
        ("insert into u (a) values (1)", vec!["1|none"]),
        ("insert into u (b, a) values ('x', '7')", vec!["7|x"]),
        ("insert into u default values", vec!["NULL|none"]),
        ("insert into u select a, upper(b) from t where a < 2", vec!["1|ONE"]),
        ("insert into u values (1.5, 2)", vec!["2|2"]),
        (
            "insert into t (a, n, ts, j) values (1, 1.005, '2024-01-01', '{\"b\":1}')",
            vec!["1|NULL|1.01|NULL|2024-01-01 00:00:00+00|{\"b\": 1}|NULL"],
        ),
    ] {
        let plan = insert(sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
        let batches = execute(plan.plan.clone()).unwrap_or_else(|e| panic!("{sql}: {e}"));
        assert_eq!(printed(&plan.schema, &batches), expected, "{sql}");
        for batch in &batches {
            for (column, field) in batch.columns().iter().zip(plan.schema.fields()) {
                assert_eq!(column.data_type(), field.data_type(), "{sql}");
            }
        }
    }
    for (sql, state) in [
        ("insert into u (a) values (1, 2)", "42601"),
        ("insert into u (a, b) values (1)", "42601"),
        ("insert into u (x) values (1)", "42703"),
        ("insert into u (a, a) values (1, 1)", "42701"),
        ("insert into u select b, b from t", "42804"),
        ("insert into u values (true, 'x')", "42804"),
        ("insert into nope values (1)", "42P01"),
        ("insert into v values (1)", "42809"),
        ("insert into u values ('x', 'y')", "22P02"),
        ("insert into u values (1, 'x') on conflict (a) do nothing", "42P10"),
        ("insert into t (a) values (1) on conflict do update set b = 'x'", "42601"),
    ] {
        let error = insert(sql).err().unwrap_or_else(|| panic!("{sql} was planned"));
        assert_eq!(error.sqlstate.0, state, "{sql}: {error}");
    }
}

#[test]
fn conflicts_and_returning_are_expressions_over_rows() {
    let sql = "insert into t (a, b) values ($1, $2) on conflict (a) do update set b = t.b || excluded.b, g = $3 \
               where t.a < 3 returning a * 10 as x, b";
    let plan = insert(sql).unwrap();
    let types: Vec<_> = plan.params.iter().map(|f| SqlType::of(f).to_string()).collect();
    assert_eq!(types, ["integer", "text", "bigint"]);
    let values = vec![
        ScalarValue::Int32(Some(1)),
        ScalarValue::Utf8View(Some("new".into())),
        ScalarValue::Int64(Some(5)),
    ];
    let ConflictAction::Update { row, condition } = &plan.conflict else { panic!() };
    let existing = stored(&plan.schema);
    let both = RecordBatch::try_new(
        Arc::new(Schema::new(
            [existing.schema().fields().to_vec(), existing.schema().fields().to_vec()].concat(),
        )),
        [existing.columns(), existing.columns()].concat(),
    )
    .unwrap();
    let new = row.evaluate(&both, &values).unwrap();
    assert_eq!(printed(&plan.schema, &[new.slice(0, 1)])[0].split('|').nth(1), Some("oneone"));
    assert_eq!(printed(&plan.schema, &[new.slice(0, 1)])[0].split('|').next_back(), Some("5"));
    let wanted = condition.as_ref().unwrap().evaluate(&both, &values).unwrap();
    assert_eq!(printed(&wanted.schema(), std::slice::from_ref(&wanted)), ["t", "t", "f"]);
    let returning = plan.returning.unwrap();
    let returned = returning.evaluate(&existing.slice(1, 1), &values).unwrap();
    assert_eq!(printed(&returning.schema, &[returned]), ["20|two"]);
    assert_eq!(returning.schema.field(0).name(), "x");
    let error = insert("insert into t (a) values (1) returning count(*)").unwrap_err();
    assert_eq!(error.sqlstate.0, "0A000");
}

#[test]
fn updates_and_deletes_give_the_rows_concerned() {
    let update = |sql: &str| {
        dml(sql, |p, s| match s {
            Statement::Update(u) => p.plan_update(u, sql, &[]),
            _ => panic!("{sql}"),
        })
    };
    let both = |plan: &ChangePlan| {
        let fields = plan.schema.fields();
        Schema::new([fields.to_vec(), fields.to_vec()].concat())
    };
    let plan = update("update u set b = b || '!', a = a + 1 where a = 1 returning a").unwrap();
    assert_eq!(printed(&both(&plan), &execute(plan.plan.clone()).unwrap()), ["1|one|2|one!"]);
    assert!(!plan.may_repeat && plan.returning.is_some());
    let plan = update("update u as x set b = default from t where t.a = x.a and t.b = 'two'").unwrap();
    assert_eq!(printed(&both(&plan), &execute(plan.plan.clone()).unwrap()), ["2|two|2|none"]);
    assert!(plan.may_repeat);
    let plan = update("update u set (a, b) = (7, 'seven') where a = $1").unwrap();
    assert_eq!(SqlType::of(&plan.params[0]), SqlType::Int4);
    for (sql, state) in [
        ("update u set x = 1", "42703"),
        ("update u set a = 1, a = 2", "42601"),
        ("update u set a = b", "42804"),
        ("update v set a = 1", "42809"),
    ] {
        assert_eq!(update(sql).unwrap_err().sqlstate.0, state, "{sql}");
    }
    let delete = |sql: &str| {
        dml(sql, |p, s| match s {
            Statement::Delete(d) => p.plan_delete(d, sql, &[]),
            _ => panic!("{sql}"),
        })
    };
    let plan = delete("delete from u where a > 2 returning *").unwrap();
    assert_eq!(printed(&plan.schema, &execute(plan.plan.clone()).unwrap()), ["3|NULL"]);
    let plan = delete("delete from u using t where t.a = u.a and t.n > 2").unwrap();
    assert_eq!(printed(&plan.schema, &execute(plan.plan.clone()).unwrap()), ["2|two"]);
    assert_eq!(delete("delete from nope").unwrap_err().sqlstate.0, "42P01");
}

#[test]
fn defaults_stand_alone() {
    let mut column = Column::new("d", "date".parse().unwrap());
    column.default = Some("'2024-01-01'".into());
    let plan = planner_with(&catalog(), |p| p.plan_default(&column)).unwrap();
    let batches = execute(plan).unwrap();
    assert_eq!(printed(&batches[0].schema(), &batches), ["2024-01-01"]);
}
