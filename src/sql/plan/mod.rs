//! Statements to logical plans that DataFusion executes with PostgreSQL's meaning.
//!
//! The way of a query: its tree is rewritten so that DataFusion's planner understands PostgreSQL's names and
//! literals ([`rewrite`]); names are resolved against the catalog ([`context`]), views being planned in place;
//! types are coerced and casts, division and overflow given PostgreSQL's semantics ([`semantics`]);
//! finally every output column gets the Arrow type that carries its PostgreSQL type ([`output`]).
//! Errors come back as PostgreSQL's, with their place in the text ([`error`]).

mod any_all;
mod asof;
mod casts;
mod collecting;
mod context;
mod distinct;
mod dml;
mod error;
mod expressions;
mod from_names;
mod grouping;
mod hypothetical;
mod intervals;
mod joins;
mod limits;
mod literals;
mod locate;
mod mentions;
mod named_windows;
mod naming;
mod on_close;
mod order_names;
mod output;
mod parameters;
mod patterns;
mod periods;
mod records;
mod recursion;
mod rewrite;
mod rows;
mod semantics;
mod set_operations;
mod set_returning;
mod shadowed;
mod spelled;
mod table_functions;
mod unknown;
mod values;
mod whole_rows;
mod windowed;
mod windows;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{FieldRef, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::common::{ParamValues, ScalarValue};
use datafusion::logical_expr::{LogicalPlan, ScalarUDF};
use datafusion::sql::planner::{PlannerContext, SqlToRel};
use datafusion::sql::sqlparser::ast::{self as sql, Query};

pub use dml::{ChangePlan, ConflictAction, InsertPlan, RowExpressions, insert_columns};
pub use mentions::rename_relations;

use crate::error::{Error, Result, SqlState};
use crate::names::PUBLIC;
use crate::sql::catalog::{Catalog, ObjectId};
use crate::sql::parser::SourceText;
use crate::types::SqlType;
use context::Resolver;

/// Relations and functions that the database provides: schemas `tidemill`, `pg_catalog` and `information_schema`.
pub trait SystemCatalog: Send + Sync {
    /// A system relation by its schema and name, both lower case.
    fn table(&self, schema: &str, name: &str) -> Option<Arc<dyn TableProvider>>;
    /// A function that only the database can answer, by its lower-case name.
    fn function(&self, name: &str) -> Option<Arc<ScalarUDF>>;
}

/// What a session knows that the meaning of a statement depends on.
#[derive(Clone, Debug)]
pub struct SessionInfo {
    /// `current_user`, `session_user`.
    pub user: String,
    /// `current_database()`, `current_catalog`.
    pub database: String,
    /// `search_path`: identifiers, `$user` among them.
    pub search_path: Vec<String>,
}

impl SessionInfo {
    /// The catalog as this session sees it.
    pub fn sees(&self, catalog: &Catalog) -> Catalog {
        catalog.seen_by(&self.user, &self.database, &self.search_path)
    }
}

impl Default for SessionInfo {
    fn default() -> Self {
        SessionInfo {
            user: "tidemill".to_string(),
            database: "tidemill".to_string(),
            search_path: vec!["$user".to_string(), PUBLIC.to_string()],
        }
    }
}

/// Plans statements against one catalog snapshot.
pub struct Planner<'a> {
    catalog: &'a Catalog,
    session: &'a SessionInfo,
    system: Option<&'a dyn SystemCatalog>,
}

/// A planned query.
#[derive(Clone, Debug)]
pub struct Planned {
    /// Analysed and executable; its columns match `schema` by position and type, not always by name.
    pub plan: LogicalPlan,
    /// Output columns with PostgreSQL's names (which may repeat) and types.
    pub schema: SchemaRef,
    /// The parameters `$1`, `$2`, …, with the types they were given or were inferred to have.
    pub params: Vec<FieldRef>,
}

impl Planned {
    /// The plan with values in the place of its parameters.
    ///
    /// # Errors
    /// 08P01 when their number is another than the statement's.
    pub fn bind(&self, values: Vec<ScalarValue>) -> Result<LogicalPlan> {
        bind(&self.plan, &self.params, values)
    }
}

/// A plan with values in the place of its parameters.
fn bind(plan: &LogicalPlan, params: &[FieldRef], values: Vec<ScalarValue>) -> Result<LogicalPlan> {
    if values.len() != params.len() {
        return Err(Error::new(
            SqlState::PROTOCOL_VIOLATION,
            format!("statement needs {} parameters, not {}", params.len(), values.len()),
        ));
    }
    if values.is_empty() {
        return Ok(plan.clone());
    }
    Ok(plan.clone().replace_params_with_values(&ParamValues::from(values))?)
}

/// A planned view.
#[derive(Clone, Debug)]
pub struct ViewPlan {
    /// Analysed; scans only collections; its columns match `schema` by position and type.
    pub plan: LogicalPlan,
    /// Output columns with unique names.
    pub schema: SchemaRef,
    /// The relations it names, in order of first mention.
    pub uses: Vec<ObjectId>,
}

/// What a query is planned for: what is allowed in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// To be run once.
    Query,
    /// To be stored and planned again whenever it is read.
    View,
    /// To be kept up to date.
    MaterializedView,
}

impl<'a> Planner<'a> {
    /// A planner over one catalog snapshot.
    pub fn new(
        catalog: &'a Catalog,
        session: &'a SessionInfo,
        system: Option<&'a dyn SystemCatalog>,
    ) -> Self {
        Planner { catalog, session, system }
    }

    /// Plans a query that was parsed from `text` (the statement's, or the query's own).
    /// `params` are the parameter types that the client declared.
    ///
    /// # Errors
    /// PostgreSQL's, with the place in `text`.
    pub fn plan_query(&self, query: &Query, text: &str, params: &[Option<FieldRef>]) -> Result<Planned> {
        let planned = self.plan(query, text, params, Purpose::Query)?;
        Ok(Planned { plan: planned.plan, schema: planned.schema, params: planned.params })
    }

    /// Plans the query of a view that is computed when it is read. `columns` are new names for its first columns.
    ///
    /// # Errors
    /// PostgreSQL's; also 42701 for column names that repeat, 42P02 for parameters.
    pub fn plan_view(&self, query: &Query, columns: &[String], text: &str) -> Result<ViewPlan> {
        self.view(query, columns, text, Purpose::View)
    }

    /// Plans the query of a view that is kept up to date.
    ///
    /// # Errors
    /// As [`Planner::plan_view`]; also 0A000 for what changes without its inputs changing: volatile functions,
    /// `now()` and its kin, system relations.
    pub fn plan_materialized_view(&self, query: &Query, columns: &[String], text: &str) -> Result<ViewPlan> {
        self.view(query, columns, text, Purpose::MaterializedView)
    }

    /// Plans the query of a view that gives the rows of each window once, when it is closed.
    ///
    /// # Errors
    /// As [`Planner::plan_materialized_view`]; also 55000 without a WATERMARK, and 0A000 for a query of which nothing tells
    /// when a group is final.
    pub fn plan_windows(&self, query: &Query, columns: &[String], text: &str) -> Result<ViewPlan> {
        let view = self.view(query, columns, text, Purpose::MaterializedView)?;
        Ok(ViewPlan { plan: on_close::emit_on_close(&view.plan)?, ..view })
    }

    fn view(&self, query: &Query, columns: &[String], text: &str, purpose: Purpose) -> Result<ViewPlan> {
        let planned = self.plan(query, text, &[], purpose)?;
        if !planned.params.is_empty() {
            let source = SourceText::new(text);
            let error = Error::new(SqlState::UNDEFINED_PARAMETER, "there is no parameter $1");
            return Err(locate::placeholder(query).map_or(error.clone(), |l| error.at(source.position(l))));
        }
        let schema = output::rename(&planned.schema, columns)?;
        output::check_unique(&schema)?;
        Ok(ViewPlan { plan: output::with_names(planned.plan, &schema)?, schema, uses: planned.uses })
    }

    fn plan(
        &self,
        query: &Query,
        text: &str,
        params: &[Option<FieldRef>],
        purpose: Purpose,
    ) -> Result<PlannedQuery> {
        let locate = |e: Error| locate::attach(e, query, text);
        let mut rewritten = query.clone();
        whole_rows::spell_out(&mut rewritten, self.catalog);
        from_names::unqualify(&mut rewritten, self.catalog).map_err(locate)?;
        order_names::separate(&mut rewritten);
        shadowed::rename(&mut rewritten)?;
        rewrite::query(&mut rewritten).map_err(locate)?;
        self.plan_rewritten(rewritten, params, purpose)
            .map_err(|e| error::from_datafusion(e, query, text))
            .and_then(|planned| planned.map_err(locate))
    }

    /// Plans a rewritten query; the outer error is DataFusion's.
    fn plan_rewritten(
        &self,
        query: Query,
        params: &[Option<FieldRef>],
        purpose: Purpose,
    ) -> datafusion::error::Result<Result<PlannedQuery>> {
        let resolver = Resolver::new(self.catalog, self.session, self.system, purpose);
        let mut declared: Vec<Option<FieldRef>> = params.to_vec();
        parameters::infer_cast_parameters(&query, &mut declared);
        let mut context = PlannerContext::new().with_prepare_param_data_types(declared.clone());
        let plan = SqlToRel::new(&resolver)
            .sql_statement_to_plan_with_context(sql::Statement::Query(Box::new(query)), &mut context)?;
        let plan = casts::restore(plan)?;
        let plan = joins::without_marks(plan)?;
        let plan = set_operations::keep_multiplicities(plan)?;
        let plan = grouping::name_keys(plan)?;
        let plan = context::inline_views(semantics::analyze(plan, resolver.config())?)?;
        Ok((|| {
            semantics::check_conditions(&plan)?;
            if purpose == Purpose::MaterializedView {
                semantics::check_maintainable(&plan)?;
            }
            let params = parameters(&plan, &declared)?;
            let (plan, schema) = output::canonical(plan)?;
            Ok(PlannedQuery { plan, schema, params, uses: resolver.into_uses() })
        })())
    }
}

/// Everything that planning a query tells.
struct PlannedQuery {
    plan: LogicalPlan,
    schema: SchemaRef,
    params: Vec<FieldRef>,
    uses: Vec<ObjectId>,
}

/// Objects in the order of their first mention.
#[derive(Debug, Default)]
struct Mentioned(RefCell<Vec<ObjectId>>);

impl Mentioned {
    fn add(&self, id: ObjectId) {
        let mut ids = self.0.borrow_mut();
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
}

/// The parameters of a plan by number; what nothing tells the type of is text, as in PostgreSQL.
fn parameters(plan: &LogicalPlan, declared: &[Option<FieldRef>]) -> Result<Vec<FieldRef>> {
    let mut found: BTreeMap<usize, Option<FieldRef>> = BTreeMap::new();
    for (name, field) in plan.get_parameter_fields()? {
        let number: usize = name.trim_start_matches('$').parse().map_err(|_| {
            Error::new(SqlState::UNDEFINED_PARAMETER, format!("there is no parameter {name}"))
        })?;
        found.insert(number, field);
    }
    let count = found.keys().next_back().copied().unwrap_or(0).max(declared.len());
    (1..=count)
        .map(|number| {
            let field =
                declared.get(number - 1).cloned().flatten().or_else(|| found.get(&number).cloned().flatten());
            let sql_type = match field {
                Some(field) => match SqlType::of(&field) {
                    SqlType::Unknown => SqlType::Text,
                    known => known,
                },
                None => SqlType::Text,
            };
            Ok(sql_type.field_ref(format!("${number}"), true))
        })
        .collect()
}

#[cfg(test)]
mod tests;
