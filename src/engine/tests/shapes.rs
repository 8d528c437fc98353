//! Query shapes under random histories: after every tick each view is what its query gives in batch, and so it is after
//! restarts, in order and not, which begin with what a checkpoint holds.

use std::sync::Arc;

use arrow::array::{ArrayRef, Decimal128Array, Float64Array, Int64Array, RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::MemTable;
use datafusion::common::tree_node::Transformed;
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder, TableSource};
use datafusion::prelude::{SessionConfig, SessionContext};

use crate::engine::check::check_all;
use crate::engine::ops::testing::Rng;
use crate::engine::plan::CollectionSource;
use crate::engine::{
    CollectionId, Delta, Engine, EngineConfig, InputChange, InputSpec, ReplayReport, Transaction, ViewSpec,
};
use crate::error::Result;

/// A table of the tests: its name, columns and key.
struct Table {
    name: &'static str,
    schema: SchemaRef,
    key: Vec<usize>,
    /// Its rows, for a history that deletes only what is there.
    rows: Vec<Row>,
}

/// A row of any table: k or a, b, text, float, decimal; a table takes as many columns as it has.
#[derive(Clone, Debug, PartialEq)]
struct Row(Option<i64>, Option<i64>, Option<&'static str>, Option<f64>, Option<i128>);

fn tables() -> Vec<Table> {
    let columns = |n: usize, first: &str| -> SchemaRef {
        let all = vec![
            Field::new(first, DataType::Int64, first != "k"),
            Field::new("b", DataType::Int64, true),
            Field::new("s", DataType::Utf8View, true),
            Field::new("f", DataType::Float64, true),
            Field::new("d", DataType::Decimal128(12, 2), true),
        ];
        Arc::new(Schema::new(all.into_iter().take(n).collect::<Vec<_>>()))
    };
    vec![
        Table { name: "t", schema: columns(5, "a"), key: vec![], rows: vec![] },
        Table { name: "u", schema: columns(3, "a"), key: vec![], rows: vec![] },
        Table { name: "w", schema: columns(5, "k"), key: vec![0], rows: vec![] },
    ]
}

fn batch(schema: &SchemaRef, rows: &[Row]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter(rows.iter().map(|r| r.0))),
        Arc::new(Int64Array::from_iter(rows.iter().map(|r| r.1))),
        Arc::new(StringViewArray::from_iter(rows.iter().map(|r| r.2))),
        Arc::new(Float64Array::from_iter(rows.iter().map(|r| r.3))),
        Arc::new(
            Decimal128Array::from_iter(rows.iter().map(|r| r.4)).with_precision_and_scale(12, 2).unwrap(),
        ),
    ];
    let columns = columns.into_iter().take(schema.fields().len()).collect();
    RecordBatch::try_new(Arc::clone(schema), columns).unwrap()
}

fn random_row(rng: &mut Rng, columns: usize) -> Row {
    let texts = ["x", "y", "zz", "", "a text that is longer than a view"];
    let null = |rng: &mut Rng| rng.one_in(6);
    let mut row = Row(
        (!null(rng)).then(|| rng.below(6) as i64),
        (!null(rng)).then(|| rng.below(9) as i64 - 2),
        (!null(rng)).then(|| texts[rng.below(texts.len())]),
        (!null(rng)).then(|| rng.below(9) as f64 / 4.0 - 1.0),
        (!null(rng)).then(|| rng.below(1000) as i128 - 300),
    );
    if columns < 4 {
        (row.3, row.4) = (None, None);
    }
    row
}

struct Shapes {
    dir: tempfile::TempDir,
    engine: Engine,
    context: SessionContext,
    tables: Vec<Table>,
    views: Vec<(CollectionId, String)>,
    next: u64,
}

impl Shapes {
    fn new() -> Shapes {
        let dir = tempfile::tempdir().unwrap();
        let engine = open(&dir);
        let mut config = SessionConfig::new();
        config.options_mut().sql_parser.dialect = datafusion::config::Dialect::PostgreSQL;
        let context = SessionContext::new_with_config(config);
        let tables = tables();
        create_inputs(&engine, &tables);
        engine.replay(&[]).unwrap();
        for table in &tables {
            let empty = MemTable::try_new(Arc::clone(&table.schema), vec![vec![]]).unwrap();
            context.register_table(table.name, Arc::new(empty)).unwrap();
        }
        Shapes { dir, engine, context, tables, views: Vec::new(), next: 100 }
    }

    /// Goes on with the same database after a restart: in order, or from what a crash would leave on disk.
    fn restart(&mut self, crash: bool) -> ReplayReport {
        if crash {
            self.engine.wait_durable(self.engine.tick()).unwrap();
            let image = tempfile::tempdir().unwrap();
            super::journal::copy(self.dir.path(), image.path());
            self.dir = image;
        }
        self.engine.shutdown();
        self.engine = open(&self.dir);
        create_inputs(&self.engine, &self.tables);
        for (id, sql) in self.views.clone() {
            self.create(id, &sql).unwrap();
        }
        self.engine.replay(&[]).unwrap()
    }

    fn plan(&self, sql: &str) -> Result<LogicalPlan> {
        let plan = futures::executor::block_on(self.context.state().create_logical_plan(sql))?;
        let plan = plan.transform_up_with_subqueries(|node| {
            let LogicalPlan::TableScan(scan) = &node else { return Ok(Transformed::no(node)) };
            let Some(i) = self.tables.iter().position(|t| t.name == scan.table_name.table()) else {
                return Ok(Transformed::no(node));
            };
            let source: Arc<dyn TableSource> = Arc::new(CollectionSource {
                id: CollectionId(i as u64 + 1),
                schema: Arc::clone(&self.tables[i].schema),
                key: self.tables[i].key.clone(),
                watermark: None,
            });
            Ok(Transformed::yes(LogicalPlanBuilder::scan(scan.table_name.clone(), source, None)?.build()?))
        })?;
        crate::engine::plan::optimize::analyse(plan.data)
    }

    fn create(&self, id: CollectionId, sql: &str) -> Result<()> {
        let plan = self.plan(sql)?;
        let schema = Arc::new(Schema::new(plan.schema().fields().iter().cloned().collect::<Vec<_>>()));
        self.engine.create_view(ViewSpec { id, name: sql.into(), schema, plan })
    }

    fn view(&mut self, sql: &str) -> Result<()> {
        self.next += 1;
        let id = CollectionId(self.next);
        self.create(id, sql)?;
        self.views.push((id, sql.into()));
        Ok(())
    }

    /// One tick of random changes to random tables.
    fn change(&mut self, rng: &mut Rng) {
        let mut changes = Vec::new();
        for (i, table) in self.tables.iter_mut().enumerate() {
            let id = CollectionId(i as u64 + 1);
            let columns = table.schema.fields().len();
            if rng.one_in(12) {
                table.rows.clear();
                changes.push((id, InputChange::Truncate));
                continue;
            }
            if table.key.is_empty() {
                let (mut rows, mut weights) = (Vec::new(), Vec::new());
                for _ in 0..rng.below(6) {
                    if !table.rows.is_empty() && rng.one_in(2) {
                        let gone = table.rows.swap_remove(rng.below(table.rows.len()));
                        rows.push(gone);
                        weights.push(-1);
                    }
                }
                for _ in 0..rng.below(9) {
                    let row = match table.rows.first() {
                        Some(row) if rng.one_in(6) => row.clone(),
                        _ => random_row(rng, columns),
                    };
                    table.rows.push(row.clone());
                    rows.push(row);
                    weights.push(1);
                }
                if !rows.is_empty() {
                    let delta = Delta::weighted(batch(&table.schema, &rows), weights).unwrap();
                    changes.push((id, InputChange::Delta(delta)));
                }
            } else {
                let rows: Vec<Row> = (0..rng.below(5))
                    .map(|_| Row { 0: Some(rng.below(12) as i64), ..random_row(rng, columns) })
                    .collect();
                let deletes: Vec<bool> = rows.iter().map(|_| rng.one_in(3)).collect();
                if !rows.is_empty() {
                    let rows = batch(&table.schema, &rows);
                    changes.push((id, InputChange::Upsert { rows, deletes: Some(deletes.into()) }));
                }
            }
        }
        self.engine.submit(Transaction { changes, progress: Vec::new() }).wait().unwrap();
    }

    /// What is wrong now, by the text of the views.
    fn wrong(&self) -> Vec<String> {
        let name = |id| self.views.iter().find(|v| v.0 == id).map_or("?", |v| v.1.as_str()).to_string();
        check_all(&self.engine).unwrap().into_iter().map(|(id, d)| format!("{}\n{d}", name(id))).collect()
    }
}

fn open(dir: &tempfile::TempDir) -> Engine {
    let dir = Some(dir.path().to_path_buf());
    Engine::open(EngineConfig { dir, checkpoint_bytes_min: 1, ..EngineConfig::default() }).unwrap()
}

fn create_inputs(engine: &Engine, tables: &[Table]) {
    for (i, table) in tables.iter().enumerate() {
        let spec = InputSpec {
            id: CollectionId(i as u64 + 1),
            name: table.name.into(),
            schema: Arc::clone(&table.schema),
            key: table.key.clone(),
            retain: true,
            watermark: None,
        };
        engine.create_input(spec).unwrap();
    }
}

/// Creates the views over nothing, lives through a history, and creates them again over what is there.
fn live(seed: u64, queries: &[&str]) {
    // TIDEMILL_SHAPES=text picks the queries that contain it, for work on one of them.
    let only = std::env::var("TIDEMILL_SHAPES").unwrap_or_default();
    let queries: Vec<&str> = queries.iter().copied().filter(|q| q.contains(&only)).collect();
    let mut shapes = Shapes::new();
    let mut rng = Rng::new(seed);
    let mut problems = Vec::new();
    for sql in &queries {
        if let Err(e) = shapes.view(sql) {
            problems.push(format!("{sql}\n  cannot be created: {e}"));
        }
    }
    problems.extend(shapes.wrong().into_iter().map(|p| format!("over nothing: {p}")));
    let mut restarted = Vec::new();
    for step in 0..12 {
        shapes.change(&mut rng);
        problems.extend(shapes.wrong());
        if step % 4 == 2 {
            restarted.push(shapes.restart(step > 4));
            problems.extend(shapes.wrong().into_iter().map(|p| format!("after a restart: {p}")));
        }
        if problems.len() > 12 {
            break;
        }
    }
    let whole = &restarted[0];
    assert_eq!(
        (whole.checkpoint_tick, whole.steps),
        (whole.tick, 0),
        "an orderly end leaves nothing to compute"
    );
    assert!(restarted.iter().all(|r| r.nodes_restored > 0), "{restarted:?}");
    for sql in &queries {
        if let Err(e) = shapes.view(sql) {
            problems.push(format!("{sql}\n  cannot be created over rows: {e}"));
        }
    }
    problems.extend(shapes.wrong().into_iter().map(|p| format!("created over rows: {p}")));
    // No checkpoint knows the last views, some of which share nodes with those that are known.
    shapes.restart(true);
    problems.extend(shapes.wrong().into_iter().map(|p| format!("filled after a restart: {p}")));
    shapes.change(&mut rng);
    problems.extend(shapes.wrong().into_iter().map(|p| format!("changed after a restart: {p}")));
    shapes.engine.shutdown();
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
}

#[test]
fn projections_filters_and_sets() {
    live(
        1,
        &[
            "SELECT * FROM t",
            "SELECT a + 1 AS a1, s || 'x' AS sx FROM t WHERE b > 2",
            "SELECT a FROM t WHERE a IS NULL OR b IN (1, 2, 3)",
            "SELECT CASE WHEN a > 2 THEN 'big' WHEN a IS NULL THEN 'none' ELSE 'small' END AS c, count(*) FROM t GROUP BY 1",
            "SELECT CAST(a AS text) || coalesce(s, '-') AS c FROM t WHERE s LIKE '%x%' OR s BETWEEN 'y' AND 'zzz'",
            "SELECT DISTINCT a FROM t",
            "SELECT DISTINCT a, s FROM t WHERE b IS NOT NULL",
            "SELECT a, b FROM t UNION ALL SELECT a, b FROM u",
            "SELECT a, b FROM t UNION SELECT a, b FROM u",
            "SELECT a FROM t UNION ALL SELECT f FROM t",
            "SELECT a FROM t INTERSECT SELECT a FROM u",
            "SELECT a FROM t INTERSECT ALL SELECT a FROM u",
            "SELECT a FROM t EXCEPT SELECT a FROM u",
            "SELECT a FROM t EXCEPT ALL SELECT a FROM u",
            "SELECT a FROM t UNION SELECT b FROM t UNION SELECT k FROM w",
            "(SELECT a FROM t EXCEPT SELECT a FROM u) UNION ALL (SELECT a FROM u EXCEPT SELECT a FROM t)",
            "SELECT 1 AS one",
            "SELECT * FROM (VALUES (1, 'a'), (2, NULL)) AS v(n, s)",
            "SELECT v.n, t.a FROM (VALUES (1), (2), (3)) AS v(n) LEFT JOIN t ON t.a = v.n",
            "SELECT a FROM t WHERE false",
            "SELECT x.a, x.a AS again, y.a AS other FROM t x JOIN t y ON x.a = y.b",
            "SELECT nullif(a, b) AS n, greatest(a, b) AS g, abs(f) AS f FROM t",
            "SELECT d * 2 AS d2, d + 1 AS d1, round(d, 1) AS r FROM t",
            "SELECT length(s) AS n, upper(s) AS u, substr(s, 2, 3) AS p FROM t",
            "WITH x AS (SELECT a, b FROM t WHERE b > 0) SELECT x.a, y.b FROM x JOIN x y ON x.a = y.a",
            "SELECT k, v.b FROM w AS v WHERE k < 6",
        ],
    );
}

#[test]
fn joins() {
    live(
        2,
        &[
            "SELECT t.a, t.b, u.s FROM t JOIN u ON t.a = u.a",
            "SELECT t.a, u.b FROM t JOIN u ON t.a = u.a AND t.s = u.s",
            "SELECT t.a, u.b FROM t LEFT JOIN u ON t.a = u.a",
            "SELECT t.a, u.b FROM t RIGHT JOIN u ON t.a = u.a",
            "SELECT t.a, u.a, u.b FROM t FULL JOIN u ON t.a = u.a",
            "SELECT t.a, u.b FROM t JOIN u ON t.a = u.a AND t.b < u.b",
            "SELECT t.a, u.b FROM t LEFT JOIN u ON t.a = u.a AND t.b < u.b",
            "SELECT t.a, u.b FROM t RIGHT JOIN u ON t.a = u.a AND t.b < u.b",
            "SELECT t.a, u.b FROM t FULL JOIN u ON t.a = u.a AND t.b < u.b",
            "SELECT t.a, u.b FROM t CROSS JOIN u WHERE t.b = 1",
            "SELECT t.a, u.b FROM t JOIN u ON t.a < u.a AND u.b = 3",
            "SELECT t.a, u.b FROM t LEFT JOIN u ON t.a < u.a AND u.b > 4",
            "SELECT t.a, u.b FROM t FULL JOIN u ON t.a > u.b + 3",
            "SELECT * FROM t JOIN u USING (a)",
            "SELECT * FROM t NATURAL JOIN u",
            "SELECT a, t.b FROM t LEFT JOIN u USING (a, s)",
            "SELECT x.a, y.a, z.k FROM t x JOIN u y ON x.a = y.a JOIN w z ON z.k = y.b",
            "SELECT x.a, y.b, z.f FROM t x LEFT JOIN u y ON x.a = y.a LEFT JOIN w z ON z.k = y.b",
            "SELECT x.a, y.b, z.f FROM t x JOIN (u y LEFT JOIN w z ON z.k = y.b) ON x.a = y.a",
            "SELECT x.a FROM t x, t y, u z WHERE x.a = y.b AND y.a = z.a",
            "SELECT t.a, w.b FROM t LEFT JOIN w ON t.a = w.k WHERE w.k IS NULL",
            "SELECT t.a FROM t LEFT JOIN u ON t.a = u.a WHERE u.b > 1",
            "SELECT t.s, u.s FROM t LEFT JOIN u ON t.s = u.s AND t.a = 1",
            "SELECT t.a, u.a FROM t FULL JOIN u ON t.a = u.a AND t.b = 1 AND u.b = 2",
            "SELECT x.k, y.k FROM w x JOIN w y ON x.b = y.b AND x.k < y.k",
            "SELECT t.a, u.a FROM t JOIN u ON t.a IS NOT DISTINCT FROM u.a",
            "SELECT t.a, u.a FROM t JOIN u ON t.a + 1 = u.a * 2",
            "SELECT t.a, u.a FROM t JOIN u ON t.f = u.b",
            "SELECT t.a, u.a FROM t LEFT JOIN u ON true WHERE t.b = 1",
            "SELECT t.a, q.n FROM t LEFT JOIN (SELECT a, count(*) AS n FROM u GROUP BY a) q ON q.a = t.a",
        ],
    );
}

#[test]
fn aggregates() {
    live(
        3,
        &[
            "SELECT count(*) FROM t",
            "SELECT count(*), count(a), sum(a), min(a), max(a), avg(b) FROM t",
            "SELECT a, count(*), sum(b), min(s), max(f), avg(f) FROM t GROUP BY a",
            "SELECT a, s, count(*) FROM t GROUP BY a, s",
            "SELECT a FROM t GROUP BY a",
            "SELECT a % 2 AS p, sum(d) FROM t GROUP BY a % 2",
            "SELECT a, avg(d), min(d), max(d) FROM t GROUP BY a",
            "SELECT a, sum(f), sum(f * 3.1) FROM t GROUP BY a",
            "SELECT a, count(*) FROM t GROUP BY a HAVING count(*) > 2",
            "SELECT a, count(*) FILTER (WHERE b > 2), sum(b) FILTER (WHERE s = 'x') FROM t GROUP BY a",
            "SELECT count(DISTINCT a), count(DISTINCT s) FROM t",
            "SELECT a, count(DISTINCT b), sum(DISTINCT b), count(*) FROM t GROUP BY a",
            "SELECT a, count(DISTINCT b) FILTER (WHERE s IS NOT NULL) FROM t GROUP BY a",
            "SELECT a, bool_and(b > 0), bool_or(s = 'x') FROM t GROUP BY a",
            "SELECT a, array_agg(b) FROM t GROUP BY a",
            "SELECT a, array_agg(b ORDER BY b DESC) FROM t GROUP BY a",
            "SELECT a, string_agg(s, ',' ORDER BY s) FROM t GROUP BY a",
            "SELECT string_agg(s, ',') FROM t",
            "SELECT a, stddev(b), var_pop(f), count(*) FROM t GROUP BY a",
            "SELECT median(b) FROM t",
            "SELECT a, approx_distinct(b) FROM t GROUP BY a",
            "SELECT a, first_value(b ORDER BY f, b), last_value(s ORDER BY f, s) FROM t GROUP BY a",
            "SELECT corr(b, f), covar_samp(b, f) FROM t",
            "SELECT a, s, sum(b) FROM t GROUP BY ROLLUP (a, s)",
            "SELECT a, s, sum(b), grouping(a), grouping(s) FROM t GROUP BY CUBE (a, s)",
            "SELECT a, s, count(*) FROM t GROUP BY GROUPING SETS ((a), (s), ())",
            "SELECT a, s, count(*) FROM t GROUP BY GROUPING SETS ((a, s), (a), (a))",
            "SELECT max(n) FROM (SELECT a, count(*) AS n FROM t GROUP BY a) q",
            "SELECT n, count(*) FROM (SELECT a, count(*) AS n FROM t GROUP BY a) q GROUP BY n",
            "SELECT t.a, sum(u.b) FROM t JOIN u ON t.a = u.a GROUP BY t.a",
            "SELECT t.a, count(u.b), max(u.s) FROM t LEFT JOIN u ON t.a = u.a GROUP BY t.a",
            "SELECT sum(a) + count(*) * 2 AS x FROM t WHERE b > 0",
            "SELECT a, sum(CASE WHEN b > 2 THEN 1 ELSE 0 END) AS big FROM t GROUP BY a",
            "SELECT a, min(s), max(s), min(f), max(d) FROM t GROUP BY a",
            "SELECT 'c' AS c, count(*) FROM t GROUP BY 1",
            "SELECT count(*) FROM (SELECT DISTINCT a, b FROM t) q",
            "SELECT date_bin(INTERVAL '2 minutes', to_timestamp(a * 60)) AS m, count(*) FROM t GROUP BY 1",
            "SELECT bit_and(a), bit_or(a), bit_xor(a) FROM t",
        ],
    );
}

#[test]
fn subqueries() {
    live(
        4,
        &[
            "SELECT a FROM t WHERE a IN (SELECT a FROM u)",
            "SELECT a FROM t WHERE a NOT IN (SELECT a FROM u)",
            "SELECT a FROM t WHERE a NOT IN (SELECT a FROM u WHERE a IS NOT NULL)",
            "SELECT a FROM t WHERE a NOT IN (SELECT k FROM w)",
            "SELECT a FROM t WHERE a NOT IN (SELECT a FROM u WHERE u.b = t.b)",
            "SELECT a FROM t WHERE a IN (SELECT a FROM u WHERE u.b = t.b)",
            "SELECT a FROM t WHERE a IN (SELECT max(a) FROM u GROUP BY b)",
            "SELECT a FROM t WHERE a IN (SELECT max(a) FROM u WHERE u.b = t.b)",
            "SELECT a FROM t WHERE EXISTS (SELECT 1 FROM u WHERE u.a = t.a)",
            "SELECT a FROM t WHERE NOT EXISTS (SELECT 1 FROM u WHERE u.a = t.a)",
            "SELECT a FROM t WHERE EXISTS (SELECT 1 FROM u WHERE u.a = t.a AND u.b < t.b)",
            "SELECT a FROM t WHERE NOT EXISTS (SELECT 1 FROM u WHERE u.a > t.a)",
            "SELECT a FROM t WHERE EXISTS (SELECT 1 FROM u)",
            "SELECT a FROM t WHERE EXISTS (SELECT count(*) FROM u WHERE u.a = t.a)",
            "SELECT a FROM t WHERE EXISTS (SELECT count(*) FROM u WHERE u.a = t.a HAVING count(*) > 1)",
            "SELECT a FROM t WHERE b = 1 OR EXISTS (SELECT 1 FROM u WHERE u.a = t.a)",
            "SELECT a FROM t WHERE b = 1 OR a IN (SELECT a FROM u)",
            "SELECT a FROM t WHERE NOT (b = 1 OR a IN (SELECT a FROM u))",
            "SELECT a FROM t WHERE (a IN (SELECT a FROM u)) IS NULL",
            "SELECT a, a IN (SELECT a FROM u) AS found FROM t",
            "SELECT a, a NOT IN (SELECT b FROM u WHERE u.a = t.a) AS missing FROM t",
            "SELECT a, EXISTS (SELECT 1 FROM u WHERE u.a = t.a) AS e FROM t",
            "SELECT a, EXISTS (SELECT 1 FROM u WHERE u.a > t.a AND u.b > 1) AS e FROM t",
            "SELECT a FROM t WHERE b > (SELECT avg(b) FROM t)",
            "SELECT a, (SELECT max(b) FROM u) AS m FROM t",
            "SELECT a, (SELECT max(b) FROM u WHERE u.a = t.a) AS m FROM t",
            "SELECT a, (SELECT count(*) FROM u WHERE u.a = t.a) AS n FROM t",
            "SELECT a, (SELECT count(*) + 1 FROM u WHERE u.a = t.a) AS n FROM t",
            "SELECT a, (SELECT count(*) FROM u WHERE u.a < t.a) AS n FROM t",
            "SELECT a, (SELECT sum(u.b) FROM u WHERE u.a = t.a OR u.b = t.b) AS n FROM t",
            "SELECT a FROM t WHERE b > (SELECT avg(b) FROM u WHERE u.a = t.a)",
            "SELECT a FROM t WHERE 0 = (SELECT count(*) FROM u WHERE u.a = t.a)",
            "SELECT a, (SELECT u.b FROM u WHERE u.a = t.a ORDER BY u.b DESC, u.s LIMIT 1) AS top FROM t",
            "SELECT a, (SELECT b FROM w WHERE w.k = t.a) AS wb FROM t",
            "SELECT a, (SELECT b FROM w WHERE w.k = 3) AS wb FROM t",
            "SELECT a FROM t WHERE b < (SELECT w.b FROM w WHERE w.k = t.a)",
            "SELECT a, (SELECT DISTINCT u.s FROM u WHERE u.a < t.a ORDER BY u.s LIMIT 1) AS s FROM t",
            "SELECT a, (SELECT min(n) FROM (SELECT count(*) AS n FROM u WHERE u.a >= t.a GROUP BY u.b) q) AS m FROM t",
            "SELECT a, (SELECT sum(x) FROM (SELECT u.b AS x FROM u WHERE u.a = t.a UNION ALL SELECT w.b FROM w WHERE w.k > t.a) q) AS m FROM t",
            "SELECT a, (SELECT max(r) FROM (SELECT row_number() OVER (ORDER BY u.b) AS r FROM u WHERE u.a = t.a) q) AS m FROM t",
            "SELECT a, (SELECT count(*) FROM u LEFT JOIN w ON w.k = u.b AND w.b > t.b WHERE u.a = t.a) AS m FROM t",
            "SELECT a FROM t WHERE a IN (SELECT u.a FROM u WHERE u.b IN (SELECT w.b FROM w WHERE w.k > t.b))",
            "SELECT b FROM t ORDER BY b - (SELECT max(u.b) FROM u), b LIMIT 3",
            "SELECT a, (SELECT max(k) FROM w WHERE w.b = (SELECT min(b) FROM u WHERE u.a = t.a)) AS m FROM t",
            "SELECT a FROM t WHERE a = ANY (SELECT a FROM u)",
            "SELECT a FROM t WHERE a > ALL (SELECT b FROM u WHERE u.a = t.a)",
            "SELECT a FROM t WHERE a <> ALL (SELECT a FROM u)",
            "SELECT a FROM t WHERE EXISTS (SELECT 1 FROM u WHERE u.a = t.a AND EXISTS (SELECT 1 FROM w WHERE w.k = u.b))",
            "SELECT a FROM t WHERE EXISTS (SELECT 1 FROM u WHERE u.a = t.a AND EXISTS (SELECT 1 FROM w WHERE w.k = t.b AND w.b = u.b))",
            "SELECT a FROM t WHERE NOT EXISTS (SELECT 1 FROM u WHERE u.a = t.a AND NOT EXISTS (SELECT 1 FROM w WHERE w.k = t.b AND w.b = u.b))",
            "SELECT a FROM t WHERE EXISTS (SELECT a FROM u WHERE u.a = t.a UNION ALL SELECT k FROM w WHERE w.k = t.b)",
            "SELECT s, sum((SELECT max(b) FROM u WHERE u.a = t.a)) AS m FROM t GROUP BY s",
            "SELECT a, count(*) FROM t GROUP BY a HAVING count(*) > (SELECT count(*) FROM u WHERE u.a = t.a)",
            "SELECT t.a, l.b FROM t, LATERAL (SELECT u.b FROM u WHERE u.a = t.a ORDER BY u.b, u.s LIMIT 2) l",
            "SELECT t.a, l.n FROM t LEFT JOIN LATERAL (SELECT count(*) AS n FROM u WHERE u.a = t.a) l ON true",
            "SELECT t.a, l.b FROM t LEFT JOIN LATERAL (SELECT u.b FROM u WHERE u.a = t.a AND u.b > t.b) l ON true",
            "SELECT t.a, l.m FROM t CROSS JOIN LATERAL (SELECT max(u.b) AS m FROM u WHERE u.b < t.b) l",
            "SELECT t.a, l.x FROM t CROSS JOIN LATERAL (SELECT t.a + t.b AS x) l",
            "SELECT a FROM t WHERE (SELECT count(DISTINCT u.b) FROM u WHERE u.s = t.s) > 1",
            "SELECT a, CASE WHEN EXISTS (SELECT 1 FROM u WHERE u.a = t.a) THEN (SELECT min(b) FROM u) ELSE -1 END AS c FROM t",
            "SELECT x.a FROM t x JOIN u y ON x.a = y.a AND EXISTS (SELECT 1 FROM w WHERE w.k = x.b)",
        ],
    );
}

#[test]
fn order_limits_and_windows() {
    live(
        5,
        &[
            "SELECT a, b FROM t ORDER BY a LIMIT 3",
            "SELECT a, b, s FROM t ORDER BY b DESC NULLS LAST, a LIMIT 4",
            "SELECT a FROM t ORDER BY b, a OFFSET 2",
            "SELECT a FROM t ORDER BY s LIMIT 3 OFFSET 1",
            "SELECT a, b FROM t LIMIT 3",
            "SELECT a FROM t ORDER BY b",
            "SELECT a, count(*) AS n FROM t GROUP BY a ORDER BY n DESC LIMIT 2",
            "SELECT * FROM (SELECT a FROM t ORDER BY b LIMIT 5) q ORDER BY a LIMIT 2",
            "SELECT sum(a) FROM (SELECT a FROM t ORDER BY b, a LIMIT 5) q",
            "SELECT DISTINCT ON (a) a, b, s FROM t ORDER BY a, b DESC, s",
            "SELECT DISTINCT ON (a) a, s FROM t",
            "SELECT a, b, row_number() OVER (PARTITION BY a ORDER BY b) AS rn FROM t",
            "SELECT * FROM (SELECT a, b, row_number() OVER (PARTITION BY a ORDER BY b DESC) AS rn FROM t) q WHERE rn <= 2",
            "SELECT a, b FROM (SELECT a, b, row_number() OVER (PARTITION BY a ORDER BY b) AS rn FROM t) q WHERE rn = 1",
            "SELECT a, b FROM (SELECT a, b, rank() OVER (PARTITION BY a ORDER BY b) AS r FROM t) q WHERE r <= 2",
            "SELECT a, rank() OVER (ORDER BY b), dense_rank() OVER (ORDER BY b) FROM t",
            "SELECT a, sum(b) OVER (PARTITION BY a) AS total FROM t",
            "SELECT a, sum(b) OVER (PARTITION BY a ORDER BY b ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING) AS w FROM t",
            "SELECT a, sum(b) OVER (PARTITION BY a ORDER BY b) AS running FROM t",
            "SELECT a, lag(b) OVER (PARTITION BY a ORDER BY b), lead(b, 2) OVER (PARTITION BY a ORDER BY b) FROM t",
            "SELECT a, count(*) OVER (), avg(f) OVER (PARTITION BY s) FROM t",
            "SELECT a, first_value(b) OVER (PARTITION BY a ORDER BY b), last_value(b) OVER (PARTITION BY a ORDER BY b ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) FROM t",
            "SELECT a, ntile(3) OVER (ORDER BY b, a) FROM t",
            "SELECT a, sum(n) OVER (ORDER BY a) FROM (SELECT a, count(*) AS n FROM t GROUP BY a) q",
            "SELECT a, b - avg(b) OVER (PARTITION BY a) AS diff FROM t WHERE s IS NOT NULL",
            "SELECT k, b, max(b) OVER (PARTITION BY s ORDER BY k) FROM w",
            "SELECT a, percent_rank() OVER (PARTITION BY s ORDER BY a), cume_dist() OVER (PARTITION BY s ORDER BY a) FROM t",
        ],
    );
}

#[test]
fn recursion_arrays_and_mixtures() {
    live(
        6,
        &[
            "WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM r WHERE n < 5) SELECT n FROM r",
            "WITH RECURSIVE r AS (SELECT k, b FROM w WHERE b = 1 UNION SELECT w.k, w.b FROM w JOIN r ON w.b = r.k) SELECT * FROM r",
            "WITH RECURSIVE r(a, b) AS (SELECT a, b FROM u WHERE a IS NOT NULL UNION SELECT r.a, u.b FROM r JOIN u ON u.a = r.b) SELECT a, b FROM r",
            "SELECT a, unnest(make_array(a, b)) AS e FROM t",
            "SELECT unnest(make_array(a, b, 7)) AS e FROM t",
            "SELECT e, count(*) FROM (SELECT unnest(make_array(a, b)) AS e FROM t) q GROUP BY e",
            "SELECT a, array_length(array_agg(b)) AS n FROM t GROUP BY a",
            "WITH best AS (SELECT a, max(b) AS m FROM t GROUP BY a) SELECT t.a, t.s FROM t JOIN best ON best.a = t.a AND best.m = t.b",
            "WITH q AS (SELECT a, sum(b) AS n FROM t GROUP BY a) SELECT a FROM q WHERE n = (SELECT max(n) FROM q)",
            "SELECT t.a, count(*), (SELECT count(*) FROM u WHERE u.a = t.a) AS n FROM t GROUP BY t.a",
            "SELECT x.a, x.n, y.n FROM (SELECT a, count(*) AS n FROM t GROUP BY a) x FULL JOIN (SELECT a, count(*) AS n FROM u GROUP BY a) y ON x.a = y.a",
            "SELECT coalesce(t.a, u.a) AS k, count(*) FROM t FULL JOIN u ON t.a = u.a GROUP BY 1",
            "SELECT a FROM (SELECT a, b FROM t WHERE a > 1 UNION ALL SELECT a, b FROM u WHERE a > 1) q WHERE b < 5 GROUP BY a HAVING sum(b) > 1",
            "SELECT a, max(c) FROM (SELECT a, s, count(*) AS c FROM t GROUP BY a, s) q GROUP BY a",
        ],
    );
}

#[test]
fn rows_that_fail_are_errors_until_they_go() {
    live(
        7,
        &[
            "SELECT a / b AS q FROM t",
            "SELECT a FROM t WHERE 10 / b > 1",
            "SELECT a, (SELECT b FROM u WHERE u.a = t.a) AS one FROM t",
            "SELECT (SELECT b FROM u) AS one FROM t",
            "SELECT CAST(s AS bigint) AS n FROM u",
            "SELECT a, array_agg(10 / b) FROM t GROUP BY a",
            "SELECT a, sum(10 / b) OVER (PARTITION BY a) FROM t",
        ],
    );
}
