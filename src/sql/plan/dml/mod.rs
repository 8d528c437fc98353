//! INSERT, UPDATE and DELETE: queries for the rows they write, and expressions over those rows.
//!
//! The database layer runs the query, checks keys and NOT NULL, and writes; what PostgreSQL computes a row at a
//! time beside it (ON CONFLICT DO UPDATE, RETURNING) comes as [`RowExpressions`].

mod rows;
mod tree;

use std::sync::Arc;

use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Expr as PlanExpr, LogicalPlan, LogicalPlanBuilder};
use datafusion::sql::sqlparser::ast::{
    ConflictTarget, Delete, Expr, FromTable, Ident, Insert, ObjectName, OnConflict, OnConflictAction,
    OnInsert, SelectItem, TableAlias, TableFactor, TableObject, TableWithJoins, Update, UpdateTableFromKind,
    Value,
};

pub use rows::RowExpressions;

use super::context::check_writable;
use super::joins::plain_table;
use super::{Planner, Purpose, bind, naming, parameters};
use crate::error::{Error, Result, SqlState};
use crate::names::{Name, fold};
use crate::sql::catalog::{Column, Entry, Object, ObjectId, Table};
use crate::sql::functions::cast;
use crate::sql::parser::parse_expression;
use crate::types::SqlType;
use tree::{Target, aliased, as_column, assignments, insert_query, select};

/// A planned INSERT.
#[derive(Clone, Debug)]
pub struct InsertPlan {
    /// The table.
    pub table: ObjectId,
    /// Gives the proposed rows: all of the table's columns, in its types, defaults filled in.
    pub plan: LogicalPlan,
    /// The table's columns; NOT NULL is the caller's to check.
    pub schema: SchemaRef,
    /// What happens to a row whose key is taken.
    pub conflict: ConflictAction,
    /// RETURNING, over the rows written.
    pub returning: Option<RowExpressions>,
    /// Parameters of all of it.
    pub params: Vec<FieldRef>,
}

/// What INSERT does with a row whose key is taken.
#[derive(Clone, Debug)]
pub enum ConflictAction {
    /// 23505.
    Fail,
    /// The row is left out.
    Nothing,
    /// The existing row is updated.
    Update {
        /// The new row, over the existing row's columns followed by the proposed row's.
        row: RowExpressions,
        /// One boolean column over the same: where it is not true the existing row stays as it is.
        condition: Option<RowExpressions>,
    },
}

/// A planned UPDATE or DELETE.
#[derive(Clone, Debug)]
pub struct ChangePlan {
    /// The table.
    pub table: ObjectId,
    /// Gives the rows concerned: DELETE all columns as they are; UPDATE all columns as they are, then as they will be.
    pub plan: LogicalPlan,
    /// The table's columns; NOT NULL is the caller's to check.
    pub schema: SchemaRef,
    /// Whether a row may come more than once (UPDATE … FROM): then any one of its new versions counts.
    pub may_repeat: bool,
    /// RETURNING, over the rows written (UPDATE) or removed (DELETE).
    pub returning: Option<RowExpressions>,
    /// Parameters of all of it.
    pub params: Vec<FieldRef>,
}

impl InsertPlan {
    /// The plan of the proposed rows with values in the place of its parameters.
    ///
    /// # Errors
    /// 08P01 when their number is wrong.
    pub fn bind(&self, values: Vec<ScalarValue>) -> Result<LogicalPlan> {
        bind(&self.plan, &self.params, values)
    }
}

impl ChangePlan {
    /// The plan of the rows with values in the place of its parameters.
    ///
    /// # Errors
    /// 08P01 when their number is wrong.
    pub fn bind(&self, values: Vec<ScalarValue>) -> Result<LogicalPlan> {
        bind(&self.plan, &self.params, values)
    }
}

/// The columns that an INSERT or COPY into `table` fills: those that were named, or all.
///
/// # Errors
/// 42703 for a column that is none, 42701 for one that repeats.
pub fn insert_columns(table: &Entry, named: &[String]) -> Result<Vec<usize>> {
    let columns = table.columns().unwrap_or_default();
    if named.is_empty() {
        return Ok((0..columns.len()).collect());
    }
    let mut found = Vec::with_capacity(named.len());
    for name in named {
        let Some(i) = columns.iter().position(|c| c.name == *name) else {
            return Err(Error::new(
                SqlState::UNDEFINED_COLUMN,
                format!("column \"{name}\" of relation \"{}\" does not exist", table.name),
            ));
        };
        if found.contains(&i) {
            return Err(Error::new(
                SqlState::DUPLICATE_COLUMN,
                format!("column \"{name}\" specified more than once"),
            ));
        }
        found.push(i);
    }
    Ok(found)
}

impl Planner<'_> {
    /// Plans an INSERT that was parsed from `text`.
    ///
    /// # Errors
    /// PostgreSQL's, with the place in `text`.
    pub fn plan_insert(
        &self,
        insert: &Insert,
        text: &str,
        params: &[Option<FieldRef>],
    ) -> Result<InsertPlan> {
        let TableObject::TableName(name) = &insert.table else {
            return Err(Error::unsupported("INSERT into something else than a table"));
        };
        if insert.overwrite
            || insert.or.is_some()
            || insert.partitioned.is_some()
            || !insert.assignments.is_empty()
        {
            return Err(Error::unsupported("this form of INSERT"));
        }
        let alias = insert.table_alias.as_ref().map(|a| a.alias.clone());
        let target = self.target(name, alias)?;
        let named: Vec<String> =
            insert.columns.iter().map(|c| Ok(Name::from_object_name(c)?.name)).collect::<Result<_>>()?;
        let columns = insert_columns(target.entry, &named)?;
        let mut declared = params.to_vec();
        let query =
            insert_query(&target, insert.source.as_deref(), &columns, !named.is_empty(), &mut declared)?;
        let planned = self.plan(&query, text, &declared, Purpose::Query)?;
        let schema = target.schema();
        let plan = assign(planned.plan, &planned.schema, &schema, None)?;
        let mut params = planned.params;
        let conflict = match &insert.on {
            None => ConflictAction::Fail,
            Some(OnInsert::OnConflict(on)) => self.conflict(&target, on, text, &mut params)?,
            Some(_) => return Err(Error::unsupported("ON DUPLICATE KEY")),
        };
        let returning = self.returning(&target, insert.returning.as_deref(), text, &mut params)?;
        Ok(InsertPlan { table: target.entry.id, plan, schema, conflict, returning, params })
    }

    /// Plans an UPDATE that was parsed from `text`.
    ///
    /// # Errors
    /// PostgreSQL's, with the place in `text`.
    pub fn plan_update(
        &self,
        update: &Update,
        text: &str,
        params: &[Option<FieldRef>],
    ) -> Result<ChangePlan> {
        if update.or.is_some() || update.limit.is_some() || !update.order_by.is_empty() {
            return Err(Error::unsupported("this form of UPDATE"));
        }
        let target = self.target_of(&update.table)?;
        let mut declared = params.to_vec();
        let new = assignments(&target, &update.assignments, &mut declared)?;
        let mut from = vec![target.relation()];
        let others = match &update.from {
            None => &[][..],
            Some(UpdateTableFromKind::AfterSet(tables) | UpdateTableFromKind::BeforeSet(tables)) => tables,
        };
        from.extend(others.iter().cloned());
        let items = (0..target.columns.len())
            .map(|i| (target.column(i), format!("old{i}")))
            .chain(new.into_iter().enumerate().map(|(i, expr)| (expr, format!("new{i}"))))
            .map(|(expr, alias)| aliased(expr, alias))
            .collect();
        let query = select(items, from, update.selection.clone())?;
        let planned = self.plan(&query, text, &declared, Purpose::Query)?;
        let schema = target.schema();
        let plan = assign(planned.plan, &planned.schema, &schema, Some(&schema))?;
        let mut params = planned.params;
        let returning = self.returning(&target, update.returning.as_deref(), text, &mut params)?;
        Ok(ChangePlan {
            table: target.entry.id,
            plan,
            schema,
            may_repeat: !others.is_empty(),
            returning,
            params,
        })
    }

    /// Plans a DELETE that was parsed from `text`.
    ///
    /// # Errors
    /// PostgreSQL's, with the place in `text`.
    pub fn plan_delete(
        &self,
        delete: &Delete,
        text: &str,
        params: &[Option<FieldRef>],
    ) -> Result<ChangePlan> {
        if !delete.tables.is_empty() || delete.limit.is_some() || !delete.order_by.is_empty() {
            return Err(Error::unsupported("this form of DELETE"));
        }
        let (FromTable::WithFromKeyword(tables) | FromTable::WithoutKeyword(tables)) = &delete.from;
        let [table] = tables.as_slice() else {
            return Err(Error::unsupported("DELETE from several tables"));
        };
        let target = self.target_of(table)?;
        let items = (0..target.columns.len()).map(|i| aliased(target.column(i), format!("old{i}"))).collect();
        let condition = match (&delete.using, &delete.selection) {
            (None, selection) => selection.clone(),
            // A row goes once, however many rows of the other tables match it.
            (Some(using), selection) => {
                let one = SelectItem::UnnamedExpr(Expr::Value(Value::Number("1".into(), true).into()));
                let subquery = Box::new(select(vec![one], using.clone(), selection.clone())?);
                Some(Expr::Exists { subquery, negated: false })
            }
        };
        let query = select(items, vec![target.relation()], condition)?;
        let planned = self.plan(&query, text, params, Purpose::Query)?;
        let schema = target.schema();
        let plan = assign(planned.plan, &planned.schema, &schema, None)?;
        let mut params = planned.params;
        let returning = self.returning(&target, delete.returning.as_deref(), text, &mut params)?;
        Ok(ChangePlan { table: target.entry.id, plan, schema, may_repeat: false, returning, params })
    }

    /// Plans a table's DEFAULT or another expression that stands alone, as a column of one type; for COPY.
    ///
    /// # Errors
    /// PostgreSQL's.
    pub fn plan_default(&self, column: &Column) -> Result<LogicalPlan> {
        let expr = match &column.default {
            Some(text) => parse_expression(text)?,
            None => Expr::Value(Value::Null.into()),
        };
        let query = select(vec![aliased(as_column(expr, column), column.name.clone())], vec![], None)?;
        let planned =
            self.plan(&query, column.default.as_deref().unwrap_or_default(), &[], Purpose::Query)?;
        let schema: SchemaRef = Arc::new(Schema::new(vec![column.field()]));
        assign(planned.plan, &planned.schema, &schema, None)
    }

    /// Plans a table's CHECK constraints: a boolean column for each, over the table's rows. `None`: it has none.
    ///
    /// # Errors
    /// PostgreSQL's; 42804 for a condition that is none, 0A000 for subqueries.
    pub fn plan_checks(&self, table: &Entry) -> Result<Option<RowExpressions>> {
        let Object::Table(Table { checks, .. }) = &table.object else { return Ok(None) };
        if checks.is_empty() {
            return Ok(None);
        }
        let name = ObjectName::from(vec![Ident::with_quote('"', &table.name)]);
        let target = self.target(&name, None)?;
        let mut items = Vec::with_capacity(checks.len());
        for check in checks {
            items.push(aliased(parse_expression(&check.condition)?, check.name.clone()));
        }
        let conditions = self.rows(&target, false, items, None, "", &mut Vec::new())?;
        for field in conditions.schema.fields() {
            let sql_type = SqlType::of(field);
            if !matches!(sql_type, SqlType::Bool) {
                return Err(Error::new(
                    SqlState::DATATYPE_MISMATCH,
                    format!("argument of CHECK must be type boolean, not type {sql_type}"),
                ));
            }
        }
        Ok(Some(conditions))
    }

    fn target(&self, name: &ObjectName, alias: Option<Ident>) -> Result<Target<'_>> {
        let plain = Name::from_object_name(name)?;
        let entry = self.catalog.require_relation(&plain)?;
        check_writable(entry)?;
        Ok(Target { entry, columns: entry.columns().unwrap_or_default(), name: name.clone(), alias })
    }

    fn target_of(&self, table: &TableWithJoins) -> Result<Target<'_>> {
        match (&table.relation, table.joins.is_empty()) {
            (TableFactor::Table { name, alias, args: None, .. }, true) => {
                self.target(name, alias.as_ref().map(|a| a.name.clone()))
            }
            _ => Err(Error::unsupported("changing something else than one table")),
        }
    }

    fn conflict(
        &self,
        target: &Target<'_>,
        on: &OnConflict,
        text: &str,
        params: &mut Vec<FieldRef>,
    ) -> Result<ConflictAction> {
        let key: Vec<&str> = target.entry.key().iter().map(|i| target.columns[*i].name.as_str()).collect();
        let matches = match &on.conflict_target {
            None => !key.is_empty() || matches!(on.action, OnConflictAction::DoNothing),
            Some(ConflictTarget::Columns(columns)) => {
                let mut named: Vec<String> = columns.iter().map(fold).collect();
                let mut key: Vec<String> = key.iter().map(ToString::to_string).collect();
                named.sort_unstable();
                key.sort_unstable();
                !key.is_empty() && named == key
            }
            Some(ConflictTarget::OnConstraint(name)) => {
                let name = Name::from_object_name(name)?.name;
                !key.is_empty() && name == format!("{}_pkey", target.entry.name)
            }
        };
        if !matches {
            return Err(Error::new(
                SqlState("42P10"),
                "there is no unique or exclusion constraint matching the ON CONFLICT specification",
            ));
        }
        let update = match &on.action {
            OnConflictAction::DoNothing => return Ok(ConflictAction::Nothing),
            OnConflictAction::DoUpdate(update) => update,
        };
        if on.conflict_target.is_none() {
            return Err(Error::new(
                SqlState::SYNTAX_ERROR,
                "ON CONFLICT DO UPDATE requires inference specification or constraint name",
            )
            .with_hint("For example, ON CONFLICT (column_name)."));
        }
        let mut declared: Vec<Option<FieldRef>> = params.iter().cloned().map(Some).collect();
        let new = assignments(target, &update.assignments, &mut declared)?;
        let items: Vec<_> =
            new.into_iter().enumerate().map(|(i, expr)| aliased(expr, format!("new{i}"))).collect();
        let schema = target.schema();
        let row = self.rows(target, true, items, Some(&schema), text, &mut declared)?;
        let condition = match &update.selection {
            None => None,
            Some(condition) => {
                let items = vec![aliased(condition.clone(), "condition".to_string())];
                let field = SqlType::Bool.field_ref("condition", true);
                let schema: SchemaRef = Arc::new(Schema::new(vec![field]));
                Some(self.rows(target, true, items, Some(&schema), text, &mut declared)?)
            }
        };
        merge_params(params, &declared);
        Ok(ConflictAction::Update { row, condition })
    }

    fn returning(
        &self,
        target: &Target<'_>,
        items: Option<&[SelectItem]>,
        text: &str,
        params: &mut Vec<FieldRef>,
    ) -> Result<Option<RowExpressions>> {
        let Some(items) = items else { return Ok(None) };
        let mut declared: Vec<Option<FieldRef>> = params.iter().cloned().map(Some).collect();
        let rows = self.rows(target, false, items.to_vec(), None, text, &mut declared)?;
        merge_params(params, &declared);
        Ok(Some(rows))
    }

    /// Expressions over the target's columns, followed by those of the proposed row when `excluded`.
    fn rows(
        &self,
        target: &Target<'_>,
        excluded: bool,
        items: Vec<SelectItem>,
        to: Option<&SchemaRef>,
        text: &str,
        declared: &mut Vec<Option<FieldRef>>,
    ) -> Result<RowExpressions> {
        let mut from = vec![target.relation()];
        if excluded {
            let alias =
                TableAlias { explicit: true, name: Ident::new("excluded"), columns: vec![], at: None };
            from.push(TableWithJoins {
                relation: plain_table(target.name.clone(), Some(alias)),
                joins: vec![],
            });
        }
        let query = select(items, from, None)?;
        let planned = self.plan(&query, text, declared, Purpose::Query)?;
        for (i, field) in planned.params.iter().enumerate() {
            parameters::declare(declared, i, &SqlType::of(field));
        }
        let (plan, schema) = match to {
            Some(to) => (assign(planned.plan, &planned.schema, to, None)?, Arc::clone(to)),
            None => (planned.plan, planned.schema),
        };
        RowExpressions::new(&plan, schema)
    }
}

fn merge_params(params: &mut Vec<FieldRef>, declared: &[Option<FieldRef>]) {
    for (i, field) in declared.iter().enumerate().skip(params.len()) {
        let text = || SqlType::Text.field_ref(format!("${}", i + 1), true);
        params.push(field.clone().unwrap_or_else(text));
    }
}

/// Casts a plan's columns to a table's as an assignment does; `second`: there are two rows beside each other.
fn assign(
    plan: LogicalPlan,
    have: &Schema,
    to: &SchemaRef,
    second: Option<&SchemaRef>,
) -> Result<LogicalPlan> {
    let wanted: Vec<&FieldRef> =
        to.fields().iter().chain(second.iter().flat_map(|s| s.fields().iter())).collect();
    if wanted.len() != have.fields().len() {
        return Err(Error::new(
            SqlState::SYNTAX_ERROR,
            if have.fields().len() > wanted.len() {
                "INSERT has more expressions than target columns"
            } else {
                "INSERT has more target columns than expressions"
            },
        ));
    }
    let columns = plan
        .schema()
        .iter()
        .zip(have.fields())
        .zip(&wanted)
        .enumerate()
        .map(|(i, (((qualifier, field), have), want))| {
            let column = datafusion::common::Column::new(qualifier.cloned(), field.name());
            let column = PlanExpr::Column(column);
            let (from, into) = (SqlType::of(have), SqlType::of(want));
            if !from.assignable_to(&into) {
                return Err(Error::new(
                    SqlState::DATATYPE_MISMATCH,
                    format!("column \"{}\" is of type {into} but expression is of type {from}", want.name()),
                )
                .with_hint("You will need to rewrite or cast the expression."));
            }
            let expr = if have.data_type() == want.data_type() && from == into {
                column
            } else if cast::differs(have, want) {
                cast::assign(column, want)
            } else {
                PlanExpr::Cast(datafusion::logical_expr::expr::Cast::new_from_field(
                    Box::new(column),
                    Arc::clone(want),
                ))
            };
            // Old and new columns have the same names; positions tell them apart.
            let name =
                if i < to.fields().len() { want.name().clone() } else { naming::marked(want.name(), i) };
            Ok(expr.alias(name))
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(LogicalPlanBuilder::from(plan).project(columns)?.build()?)
}
