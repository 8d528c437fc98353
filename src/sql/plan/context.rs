//! What names in a query mean: relations of the catalog and the system, functions, types.

use std::cell::Cell;
use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef, SchemaRef};
use datafusion::catalog::cte_worktable::CteWorkTable;
use datafusion::catalog::default_table_source::provider_as_source;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Result, TableReference};
use datafusion::logical_expr::planner::{ExprPlanner, RelationPlanner, TypePlanner};
use datafusion::logical_expr::{
    AggregateUDF, Expr, HigherOrderUDF, LogicalPlan, LogicalPlanBuilder, ScalarUDF, TableSource, WindowUDF,
};
use datafusion::sql::planner::ContextProvider;
use datafusion::sql::sqlparser::ast::DataType as SqlDataType;

use super::asof::AsofJoins;
use super::casts;
use super::from_names::ShortAliases;
use super::joins::{MergedOperands, MergingJoins};
use super::unknown::UnknownOperands;
use super::{Mentioned, Planner, Purpose, SessionInfo, SystemCatalog, output};
use crate::engine::plan::CollectionSource;
use crate::error::{Error, SqlState};
use crate::names::{Name, SYSTEM_SCHEMAS};
use crate::sql::ast::ObjectKind;
use crate::sql::catalog::{Catalog, Entry, Object, ObjectId, PathSchema};
use crate::sql::functions::{Functions, series, session};
use crate::sql::parser;
use crate::types::sql_type_of;

/// Views may stand on views this deep.
const VIEW_DEPTH_MAX: usize = 64;

/// Resolves the names of one query.
pub(super) struct Resolver<'a> {
    catalog: &'a Catalog,
    session: &'a SessionInfo,
    system: Option<&'a dyn SystemCatalog>,
    purpose: Purpose,
    functions: &'static Functions,
    expr_planners: Vec<Arc<dyn ExprPlanner>>,
    relation_planners: [Arc<dyn RelationPlanner>; 3],
    uses: Mentioned,
}

/// What a name means.
enum Found<'a> {
    System(Arc<dyn TableSource>),
    Users(&'a Arc<Entry>),
}

thread_local! {
    /// How many views deep this thread's planning is.
    static VIEW_DEPTH: Cell<usize> = const { Cell::new(0) };
}

impl<'a> Resolver<'a> {
    pub(super) fn new(
        catalog: &'a Catalog,
        session: &'a SessionInfo,
        system: Option<&'a dyn SystemCatalog>,
        purpose: Purpose,
    ) -> Self {
        let functions = Functions::get();
        let mut expr_planners: Vec<Arc<dyn ExprPlanner>> =
            vec![Arc::new(MergedOperands), Arc::new(UnknownOperands)];
        expr_planners.extend_from_slice(functions.expr_planners());
        Resolver {
            catalog,
            session,
            system,
            purpose,
            functions,
            expr_planners,
            relation_planners: [
                Arc::new(AsofJoins),
                Arc::new(ShortAliases),
                Arc::new(MergingJoins::default()),
            ],
            uses: Mentioned::default(),
        }
    }

    /// The settings that the planner and the analyzer follow.
    pub(super) fn config(&self) -> &ConfigOptions {
        self.functions.config()
    }

    /// The catalog's relations that were named, in order of first mention.
    pub(super) fn into_uses(self) -> Vec<ObjectId> {
        self.uses.0.into_inner()
    }

    fn relation(&self, name: &Name) -> crate::Result<Arc<dyn TableSource>> {
        self.catalog.check_database(name)?;
        let entry = match self.named(name) {
            Some(Found::System(_)) if self.purpose == Purpose::MaterializedView => {
                return Err(Error::new(
                    SqlState::FEATURE_NOT_SUPPORTED,
                    format!("a materialized view cannot read the system relation \"{}\"", name.name),
                ));
            }
            Some(Found::System(source)) => return Ok(source),
            Some(Found::Users(entry)) => entry,
            // An index, or nothing.
            None => self.catalog.require_relation(name)?,
        };
        self.uses.add(entry.id);
        match &entry.object {
            Object::View(view) => self.view(entry, &view.query),
            Object::Source(source) if source.columns.is_empty() => Err(Error::new(
                SqlState::WRONG_OBJECT_TYPE,
                format!("source \"{}\" has no rows of its own", entry.name),
            )
            .with_hint("Read the tables that were created from it.")),
            _ => self.collection(entry),
        }
    }

    /// What a name means, the system's relations included. Those of `pg_catalog` are found without their schema
    /// before all others; what is in the schemas of the path follows, in their order.
    fn named(&self, name: &Name) -> Option<Found<'_>> {
        let system = |schema: &str| {
            let provider = self.system?.table(schema, &name.name)?;
            Some(Found::System(provider_as_source(provider)))
        };
        let Some(schema) = name.schema.as_deref() else {
            let first = if name.name.starts_with("pg_") { system("pg_catalog") } else { None };
            return first.or_else(|| {
                self.catalog.path().iter().find_map(|schema| match schema {
                    PathSchema::System(schema) => system(schema),
                    PathSchema::Users(id) => self.catalog.relation_in(*id, &name.name).map(Found::Users),
                })
            });
        };
        if SYSTEM_SCHEMAS.contains(&schema) {
            return system(schema);
        }
        self.catalog.find_relation(name).map(Found::Users)
    }

    fn collection(&self, entry: &Entry) -> crate::Result<Arc<dyn TableSource>> {
        let schema = entry
            .schema()
            .ok_or_else(|| Error::internal(format!("relation \"{}\" has no columns", entry.name)))?;
        let (seen, columns) = (self.catalog.columns_seen(entry), schema.fields().len());
        let source = Arc::new(CollectionSource {
            id: entry.id.collection(),
            schema,
            key: entry.key().to_vec(),
            watermark: entry.watermark().map(|w| w.column),
        });
        if seen == columns {
            return Ok(source);
        }
        // The query was made before the others came.
        let scan = LogicalPlanBuilder::scan(entry.name.as_str(), source, None)?;
        let own: Vec<Expr> = scan.schema().columns().into_iter().take(seen).map(Expr::Column).collect();
        let plan = scan.project(own)?.build()?;
        let schema = Arc::clone(plan.schema().inner());
        Ok(Arc::new(ViewSource { plan, schema }))
    }

    /// A view's plan in the place of its name.
    fn view(&self, entry: &Entry, text: &str) -> crate::Result<Arc<dyn TableSource>> {
        let depth = VIEW_DEPTH.get();
        if depth >= VIEW_DEPTH_MAX {
            return Err(Error::new(
                SqlState("54001"),
                format!("view \"{}\" stands on more than {VIEW_DEPTH_MAX} views", entry.name),
            ));
        }
        VIEW_DEPTH.set(depth + 1);
        // Its text was written for the eyes of nobody in particular.
        let catalog = self.catalog.unscoped().as_of(entry.made());
        let planner = Planner::new(&catalog, self.session, self.system);
        let planned =
            parser::parse_query(text).and_then(|query| planner.plan(&query, text, &[], self.purpose));
        VIEW_DEPTH.set(depth);
        // Places in the view's text mean nothing in the query that names it.
        let planned = planned.map_err(|e| Error { position: None, ..e })?;
        let Some(schema) = entry.schema() else {
            return Err(Error::internal(format!("view \"{}\" has no columns", entry.name)));
        };
        let plan = output::with_schema(planned.plan, &schema)?;
        let schema = Arc::clone(plan.schema().inner());
        Ok(Arc::new(ViewSource { plan, schema }))
    }
}

/// A plan that stands for a name. It is analysed already, which must not be done twice: [`inline_views`] puts it in
/// the place of its name when the query around it is, too.
struct ViewSource {
    plan: LogicalPlan,
    schema: SchemaRef,
}

impl TableSource for ViewSource {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}

/// The plan with those of the views that it names in their places.
pub(super) fn inline_views(plan: LogicalPlan) -> Result<LogicalPlan> {
    let inlined = plan.transform_up_with_subqueries(|node| {
        let LogicalPlan::TableScan(scan) = &node else { return Ok(Transformed::no(node)) };
        let Some(view) = scan.source.downcast_ref::<ViewSource>() else { return Ok(Transformed::no(node)) };
        let named = LogicalPlanBuilder::from(view.plan.clone()).alias(scan.table_name.clone())?;
        Ok(Transformed::yes(named.build()?))
    })?;
    Ok(inlined.data)
}

impl ContextProvider for Resolver<'_> {
    fn get_table_source(&self, name: TableReference) -> Result<Arc<dyn TableSource>> {
        let part = |part: Option<&str>| part.map(str::to_string);
        let name = Name {
            database: part(name.catalog()),
            schema: part(name.schema()),
            name: name.table().to_string(),
        };
        Ok(self.relation(&name)?)
    }

    fn get_table_function_source(&self, name: &str, args: Vec<Expr>) -> Result<Arc<dyn TableSource>> {
        if name == "files" {
            let error = Error::unsupported("files() in a view, or in INSERT, UPDATE or DELETE").with_hint(
                "Create a source from the files, or a table: CREATE TABLE t AS SELECT * FROM files(…).",
            );
            return Err(error.into());
        }
        let plan = series::plan(name, args, self.purpose == Purpose::MaterializedView)?;
        match plan {
            series::Series::Rows(plan) => {
                let schema = Arc::clone(plan.schema().inner());
                Ok(Arc::new(ViewSource { plan, schema }))
            }
            series::Series::Provider(provider) => Ok(provider_as_source(provider)),
        }
    }

    fn create_cte_work_table(&self, name: &str, schema: SchemaRef) -> Result<Arc<dyn TableSource>> {
        Ok(provider_as_source(Arc::new(CteWorkTable::new(name, schema))))
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        &self.expr_planners
    }

    fn get_relation_planners(&self) -> &[Arc<dyn RelationPlanner>] {
        &self.relation_planners
    }

    fn get_type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        Some(Arc::new(Types))
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        session::constant(name, self.session, self.catalog.path_names().first().copied())
            .or_else(|| casts::marker(name))
            .or_else(|| self.functions.scalar(name))
            .or_else(|| self.system?.function(name))
    }

    fn get_higher_order_meta(&self, _name: &str) -> Option<Arc<HigherOrderUDF>> {
        None
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        self.functions.aggregate(name)
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        self.functions.window(name)
    }

    fn get_variable_type(&self, _names: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        self.functions.config()
    }

    fn udf_names(&self) -> Vec<String> {
        self.functions.scalar_names()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn udaf_names(&self) -> Vec<String> {
        self.functions.aggregate_names()
    }

    fn udwf_names(&self) -> Vec<String> {
        self.functions.window_names()
    }
}

/// SQL's types as the fields that carry them.
#[derive(Debug)]
struct Types;

impl TypePlanner for Types {
    fn plan_type_field(&self, sql_type: &SqlDataType) -> Result<Option<FieldRef>> {
        Ok(Some(sql_type_of(sql_type)?.field_ref("", true)))
    }
}

/// Whether a relation of this kind can be the target of INSERT, UPDATE and DELETE.
pub(super) fn check_writable(entry: &Entry) -> crate::Result<()> {
    match &entry.object {
        Object::Table(table) if table.source.is_none() => Ok(()),
        Object::Table(_) => {
            Err(Error::new(SqlState::WRONG_OBJECT_TYPE, format!("cannot change table \"{}\"", entry.name))
                .with_detail("It is filled by a source."))
        }
        _ => {
            let error = Error::new(
                SqlState::WRONG_OBJECT_TYPE,
                format!("cannot change {} \"{}\"", entry.kind().noun(), entry.name),
            );
            Err(match entry.kind() {
                ObjectKind::View | ObjectKind::MaterializedView => {
                    error.with_detail("Views are written by their queries only.")
                }
                _ => error,
            })
        }
    }
}
