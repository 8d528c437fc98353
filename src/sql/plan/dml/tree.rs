//! The queries that INSERT, UPDATE and DELETE come down to, as trees to be planned.

use std::sync::Arc;

use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use datafusion::sql::sqlparser::ast::{
    Assignment, AssignmentTarget, DataType, Expr, Ident, ObjectName, Query, Select, SelectItem, SetExpr,
    TableAlias, TableFactor, TableWithJoins, Value,
};

use super::super::joins::plain_table;
use super::super::{parameters, rewrite};
use crate::error::{Error, Result, SqlState};
use crate::names::Name;
use crate::sql::catalog::{Column, Entry};
use crate::sql::parser::{parse_expression, parse_query};
use crate::types::SqlType;

/// A table that is written, as a statement names it.
pub(super) struct Target<'a> {
    pub(super) entry: &'a Arc<Entry>,
    pub(super) columns: &'a [Column],
    pub(super) name: ObjectName,
    pub(super) alias: Option<Ident>,
}

impl Target<'_> {
    /// What its columns are qualified with.
    fn qualifier(&self) -> Ident {
        self.alias.clone().unwrap_or_else(|| Ident::with_quote('"', &self.entry.name))
    }

    pub(super) fn column(&self, i: usize) -> Expr {
        Expr::CompoundIdentifier(vec![self.qualifier(), Ident::with_quote('"', &self.columns[i].name)])
    }

    pub(super) fn schema(&self) -> SchemaRef {
        Arc::new(Schema::new(self.columns.iter().map(Column::field).collect::<Vec<_>>()))
    }

    /// `t AS alias`, as a FROM item.
    pub(super) fn relation(&self) -> TableWithJoins {
        let alias =
            self.alias.clone().map(|name| TableAlias { explicit: true, name, columns: vec![], at: None });
        TableWithJoins { relation: plain_table(self.name.clone(), alias), joins: vec![] }
    }

    /// A column's DEFAULT, NULL without one, as the column's type.
    pub(super) fn default(&self, i: usize) -> Result<Expr> {
        let column = &self.columns[i];
        let expr = match &column.default {
            Some(text) => parse_expression(text)?,
            None => Expr::Value(Value::Null.into()),
        };
        Ok(as_column(expr, column))
    }
}

/// The query whose rows are inserted, one column for each of the table's.
pub(super) fn insert_query(
    target: &Target<'_>,
    source: Option<&Query>,
    columns: &[usize],
    named: bool,
    declared: &mut Vec<Option<FieldRef>>,
) -> Result<Query> {
    let Some(source) = source else {
        // DEFAULT VALUES
        let items = (0..target.columns.len())
            .map(|i| Ok(aliased(target.default(i)?, format!("c{i}"))))
            .collect::<Result<_>>()?;
        return select(items, vec![], None);
    };
    let mut source = source.clone();
    let given = match source.body.as_mut() {
        SetExpr::Values(values) => {
            let mut width = None;
            for row in &mut values.rows {
                if *width.get_or_insert(row.content.len()) != row.content.len() {
                    return Err(Error::new(
                        SqlState::SYNTAX_ERROR,
                        "VALUES lists must all be the same length",
                    ));
                }
                for (expr, column) in row.content.iter_mut().zip(columns) {
                    cell(expr, target, *column, declared)?;
                }
            }
            width
        }
        SetExpr::Select(select) => {
            let plain = select
                .projection
                .iter()
                .all(|item| matches!(item, SelectItem::UnnamedExpr(_) | SelectItem::ExprWithAlias { .. }));
            if plain {
                for (item, column) in select.projection.iter_mut().zip(columns) {
                    if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item {
                        cell(expr, target, *column, declared)?;
                    }
                }
            }
            plain.then_some(select.projection.len())
        }
        _ => None,
    };
    if let Some(given) = given {
        check_width(given, columns.len(), named)?;
    }
    let width = given.unwrap_or(columns.len());
    let items = (0..target.columns.len())
        .map(|i| {
            let expr = match columns.iter().position(|c| *c == i).filter(|at| *at < width) {
                Some(at) => Expr::CompoundIdentifier(vec![Ident::new("s"), Ident::new(format!("c{at}"))]),
                None => target.default(i)?,
            };
            Ok(aliased(expr, format!("c{i}")))
        })
        .collect::<Result<_>>()?;
    let names: Vec<String> = (0..width).map(|i| format!("c{i}")).collect();
    let mut outer = parse_query(&format!("SELECT * FROM (SELECT 1) AS s({})", names.join(", ")))?;
    let SetExpr::Select(outer_select) = outer.body.as_mut() else {
        return Err(Error::internal("a SELECT was parsed as something else"));
    };
    outer_select.projection = items;
    for table in &mut outer_select.from {
        if let TableFactor::Derived { subquery, .. } = &mut table.relation {
            **subquery = source.clone();
        }
    }
    Ok(*outer)
}

fn check_width(given: usize, columns: usize, named: bool) -> Result<()> {
    if given > columns {
        return Err(Error::new(SqlState::SYNTAX_ERROR, "INSERT has more expressions than target columns"));
    }
    if given < columns && named {
        return Err(Error::new(SqlState::SYNTAX_ERROR, "INSERT has more target columns than expressions"));
    }
    Ok(())
}

/// One value for a column: DEFAULT is filled in, literals and parameters get the column's type.
fn cell(
    expr: &mut Expr,
    target: &Target<'_>,
    column: usize,
    declared: &mut Vec<Option<FieldRef>>,
) -> Result<()> {
    let definition = &target.columns[column];
    if let Expr::Identifier(id) = expr
        && id.quote_style.is_none()
        && id.value.eq_ignore_ascii_case("default")
    {
        *expr = target.default(column)?;
    } else if let Some(index) = parameters::parameter_index(expr) {
        parameters::declare(declared, index, &definition.data_type);
    } else if is_literal(expr) {
        let literal = std::mem::replace(expr, Expr::Value(Value::Null.into()));
        *expr = as_column(literal, definition);
    }
    Ok(())
}

fn is_literal(expr: &Expr) -> bool {
    match expr {
        Expr::Value(v) => !matches!(v.value, Value::Placeholder(_) | Value::Boolean(_)),
        Expr::Nested(inner) => is_literal(inner),
        Expr::UnaryOp { expr, .. } => matches!(expr.as_ref(), Expr::Value(_)),
        _ => false,
    }
}

/// A literal as a value of a column. Lengths are left to the assignment, which refuses what is too long.
pub(super) fn as_column(expr: Expr, column: &Column) -> Expr {
    let plain = match &column.data_type {
        SqlType::Varchar(_) | SqlType::Char(_) | SqlType::InternalChar | SqlType::Name | SqlType::Record => {
            SqlType::Text
        }
        other => other.clone(),
    };
    match data_type_of(&plain) {
        Some(data_type) => rewrite::cast(expr, data_type),
        None => expr,
    }
}

/// A type as sqlparser's.
fn data_type_of(sql_type: &SqlType) -> Option<DataType> {
    match parse_expression(&format!("NULL::{sql_type}")).ok()? {
        Expr::Cast { data_type, .. } => Some(data_type),
        _ => None,
    }
}

/// The new value of every column: what is assigned, or the column as it is.
pub(super) fn assignments(
    target: &Target<'_>,
    given: &[Assignment],
    declared: &mut Vec<Option<FieldRef>>,
) -> Result<Vec<Expr>> {
    let mut new: Vec<Option<Expr>> = vec![None; target.columns.len()];
    let mut set = |name: &ObjectName, mut expr: Expr| -> Result<()> {
        let name = Name::from_object_name(name)?.name;
        let Some(i) = target.columns.iter().position(|c| c.name == name) else {
            return Err(Error::new(
                SqlState::UNDEFINED_COLUMN,
                format!("column \"{name}\" of relation \"{}\" does not exist", target.entry.name),
            ));
        };
        if new[i].is_some() {
            return Err(Error::new(
                SqlState::SYNTAX_ERROR,
                format!("multiple assignments to same column \"{name}\""),
            ));
        }
        cell(&mut expr, target, i, declared)?;
        new[i] = Some(expr);
        Ok(())
    };
    for assignment in given {
        match (&assignment.target, &assignment.value) {
            (AssignmentTarget::ColumnName(name), value) => set(name, value.clone())?,
            (AssignmentTarget::Tuple(names), Expr::Tuple(values)) if names.len() == values.len() => {
                names.iter().zip(values).try_for_each(|(name, value)| set(name, value.clone()))?;
            }
            (AssignmentTarget::Tuple(_), _) => {
                return Err(Error::unsupported("assigning a row that is no list of values"));
            }
        }
    }
    Ok(new.into_iter().enumerate().map(|(i, expr)| expr.unwrap_or_else(|| target.column(i))).collect())
}

/// `SELECT items FROM from WHERE condition`
pub(super) fn select(
    items: Vec<SelectItem>,
    from: Vec<TableWithJoins>,
    condition: Option<Expr>,
) -> Result<Query> {
    let mut query = parse_query("SELECT 1")?;
    let SetExpr::Select(select) = query.body.as_mut() else {
        return Err(Error::internal("a SELECT was parsed as something else"));
    };
    let select: &mut Select = select;
    select.projection = items;
    select.from = from;
    select.selection = condition;
    Ok(*query)
}

pub(super) fn aliased(expr: Expr, alias: String) -> SelectItem {
    SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', alias) }
}
