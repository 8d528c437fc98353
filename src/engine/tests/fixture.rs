//! Small inputs, plans over them by SQL, and answers as sorted rows of text.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::TableType;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, TableSource};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionContext;

use crate::engine::plan::CollectionSource;
use crate::engine::{
    CollectionId, Delta, Engine, EngineConfig, InputChange, InputSpec, Receipt, Tick, Transaction, ViewSpec,
};
use crate::error::Result;

/// `t (k bigint, g text, v bigint)`: the columns of every input here.
pub(super) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("k", DataType::Int64, true),
        Field::new("g", DataType::Utf8View, true),
        Field::new("v", DataType::Int64, true),
    ]))
}

pub(super) fn rows(values: &[(i64, &str, i64)]) -> RecordBatch {
    let k: ArrayRef = Arc::new(Int64Array::from_iter_values(values.iter().map(|r| r.0)));
    let g: ArrayRef = Arc::new(StringViewArray::from_iter_values(values.iter().map(|r| r.1)));
    let v: ArrayRef = Arc::new(Int64Array::from_iter_values(values.iter().map(|r| r.2)));
    RecordBatch::try_new(schema(), vec![k, g, v]).unwrap()
}

/// An engine and what its collections are called.
pub(super) struct Db {
    pub(super) engine: Engine,
    names: Vec<(CollectionId, String, SchemaRef)>,
}

impl Db {
    pub(super) fn volatile() -> Db {
        Db::open(EngineConfig::default())
    }

    pub(super) fn open(config: EngineConfig) -> Db {
        Db { engine: Engine::open(config).unwrap(), names: Vec::new() }
    }

    pub(super) fn id(&self, name: &str) -> CollectionId {
        self.names.iter().find(|n| n.1 == name).map(|n| n.0).unwrap()
    }

    pub(super) fn input(&mut self, name: &str, key: &[usize]) -> CollectionId {
        self.input_with(name, key, true)
    }

    pub(super) fn input_with(&mut self, name: &str, key: &[usize], retain: bool) -> CollectionId {
        let id = CollectionId(self.names.len() as u64 + 1);
        let spec =
            InputSpec { id, name: name.into(), schema: schema(), key: key.to_vec(), retain, watermark: None };
        self.engine.create_input(spec).unwrap();
        self.names.push((id, name.into(), schema()));
        id
    }

    /// An input with a column `w bigint` behind the others; queries see it from now on.
    pub(super) fn wider(&mut self, name: &str, key: &[usize]) -> InputSpec {
        let id = self.id(name);
        let mut fields = schema().fields().to_vec();
        fields.push(Arc::new(Field::new("w", DataType::Int64, true)));
        let schema: SchemaRef = Arc::new(Schema::new(fields));
        self.names.iter_mut().filter(|n| n.0 == id).for_each(|n| n.2 = Arc::clone(&schema));
        InputSpec { id, name: name.into(), schema, key: key.to_vec(), retain: true, watermark: None }
    }

    /// The plan of a query over the collections.
    pub(super) fn plan(&self, sql: &str) -> LogicalPlan {
        let context = SessionContext::new();
        for (id, name, schema) in &self.names {
            let table = Arc::new(Named { schema: Arc::clone(schema) });
            let _ = id;
            context.register_table(name.as_str(), table).unwrap();
        }
        let plan = futures::executor::block_on(context.state().create_logical_plan(sql)).unwrap();
        // The context's tables become the engine's collections.
        use datafusion::common::tree_node::Transformed;
        plan.transform_up_with_subqueries(|node| {
            let LogicalPlan::TableScan(scan) = &node else { return Ok(Transformed::no(node)) };
            let (id, _, schema) = self.names.iter().find(|n| n.1 == scan.table_name.table()).unwrap();
            let source: Arc<dyn TableSource> = Arc::new(CollectionSource {
                id: *id,
                schema: Arc::clone(schema),
                key: Vec::new(),
                watermark: None,
            });
            let scan = LogicalPlanBuilder::scan(scan.table_name.clone(), source, None)?.build()?;
            Ok(Transformed::yes(scan))
        })
        .unwrap()
        .data
    }

    pub(super) fn view_spec(&self, name: &str, sql: &str) -> ViewSpec {
        let plan = self.plan(sql);
        let schema = Arc::new(Schema::new(plan.schema().fields().iter().cloned().collect::<Vec<_>>()));
        ViewSpec { id: CollectionId(self.names.len() as u64 + 1), name: name.into(), schema, plan }
    }

    pub(super) fn view(&mut self, name: &str, sql: &str) -> CollectionId {
        self.try_view(name, sql).unwrap()
    }

    pub(super) fn try_view(&mut self, name: &str, sql: &str) -> Result<CollectionId> {
        let spec = self.view_spec(name, sql);
        let (id, schema) = (spec.id, Arc::clone(&spec.schema));
        self.engine.create_view(spec)?;
        self.names.push((id, name.into(), schema));
        Ok(id)
    }

    /// A view that was made by other means.
    pub(super) fn known(&mut self, name: &str, sql: &str) {
        let spec = self.view_spec(name, sql);
        self.names.push((spec.id, name.into(), spec.schema));
    }

    pub(super) fn submit(&self, changes: Vec<(CollectionId, InputChange)>) -> Receipt {
        self.engine.submit(Transaction { changes, progress: Vec::new() })
    }

    pub(super) fn insert(&self, name: &str, values: &[(i64, &str, i64)]) -> Tick {
        self.submit(vec![insert(self.id(name), values)]).wait().unwrap()
    }

    pub(super) fn delete(&self, name: &str, values: &[(i64, &str, i64)]) -> Tick {
        self.submit(vec![delete(self.id(name), values)]).wait().unwrap()
    }

    pub(super) fn upsert(&self, name: &str, values: &[(i64, &str, i64)]) -> Tick {
        let change = InputChange::Upsert { rows: rows(values), deletes: None };
        self.submit(vec![(self.id(name), change)]).wait().unwrap()
    }

    /// The rows of a collection as of now, as text, sorted.
    pub(super) fn rows(&self, name: &str) -> Vec<String> {
        self.try_rows(name).unwrap()
    }

    pub(super) fn try_rows(&self, name: &str) -> Result<Vec<String>> {
        Ok(text(&self.engine.snapshot().collection(self.id(name)).unwrap().batches()?))
    }
}

pub(super) fn insert(id: CollectionId, values: &[(i64, &str, i64)]) -> (CollectionId, InputChange) {
    (id, InputChange::Delta(Delta::insert(rows(values))))
}

pub(super) fn delete(id: CollectionId, values: &[(i64, &str, i64)]) -> (CollectionId, InputChange) {
    (id, InputChange::Delta(Delta::delete(rows(values))))
}

/// Rows as text, sorted.
pub(super) fn text(batches: &[RecordBatch]) -> Vec<String> {
    let mut lines = Vec::new();
    for batch in batches {
        let options = FormatOptions::default().with_null("null");
        let columns: Vec<_> =
            batch.columns().iter().map(|c| ArrayFormatter::try_new(c, &options).unwrap()).collect();
        for row in 0..batch.num_rows() {
            let cells: Vec<String> = columns.iter().map(|c| c.value(row).to_string()).collect();
            lines.push(cells.join("|"));
        }
    }
    lines.sort();
    lines
}

/// A delta as text: weight and row, sorted.
pub(super) fn delta_text(delta: &Delta) -> Vec<String> {
    let mut lines: Vec<String> = (0..delta.num_rows())
        .map(|i| format!("{:+} {}", delta.weight(i), text(&[delta.rows.slice(i, 1)])[0]))
        .collect();
    lines.sort();
    lines
}

/// A table that only names itself.
#[derive(Debug)]
struct Named {
    schema: SchemaRef,
}

#[async_trait::async_trait]
impl TableProvider for Named {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        _projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> datafusion::error::Result<Arc<dyn ExecutionPlan>> {
        datafusion::common::internal_err!("a name is not read")
    }
}
