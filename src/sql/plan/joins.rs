//! Joins with USING and NATURAL: the columns that they join by become one.
//!
//! The merged column is the left one, of a right join the right one, of a full join the first that is not NULL. It
//! comes first in `*` and is what the bare name means, while `a.k` and `b.k` stay as they are. DataFusion takes either
//! side's column for it. So whole FROM lists with such joins are planned here: the merged columns stand in front, under
//! a qualifier that no query can write, and a mark above tells DataFusion what is to be left out of `*` ([`marked`]).

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, JoinType, NullEquality, Result, TableReference};
use datafusion::functions::expr_fn::coalesce;
use datafusion::logical_expr::planner::{
    ExprPlanner, PlannedRelation, PlannerResult, RawBinaryExpr, RelationPlanner, RelationPlannerContext,
    RelationPlanning,
};
use datafusion::logical_expr::{EmptyRelation, Expr, Join, JoinConstraint, LogicalPlan, LogicalPlanBuilder};
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr as Tree, Ident, Join as JoinTree, JoinConstraint as Constraint, JoinOperator,
    ObjectName, Query, Select, TableAlias, TableFactor, TableWithJoins, Value, VisitorMut,
};

use super::table_functions::{self, Functions};
use super::{asof, naming};
use crate::error::{Error, SqlState};
use crate::names::fold;
use crate::sql::walk::walk_mut;

/// Stands for WHERE as the last "join" of a FROM list, so that its names are resolved here, too.
const WHERE: &str = "\u{1}where";

/// Makes one relation of a FROM list that merges columns, its WHERE included.
pub(super) fn gather(select: &mut Select) {
    if !select.from.iter().any(is_ours) || select.from.iter().any(is_lateral) {
        return;
    }
    let mut items = select.from.drain(..).map(nested);
    let Some(first) = items.next() else { return };
    let mut joins: Vec<JoinTree> =
        items.map(|item| join_tree(item, JoinOperator::CrossJoin(Constraint::None))).collect();
    if let Some(condition) = select.selection.take() {
        let sentinel = plain_table(ObjectName::from(vec![Ident::with_quote('"', WHERE)]), None);
        joins.push(join_tree(sentinel, JoinOperator::Inner(Constraint::On(condition))));
    }
    let all = TableWithJoins { relation: first, joins };
    select.from = vec![TableWithJoins { relation: nested(all), joins: vec![] }];
}

/// `name AS alias`, as a FROM item.
pub(super) fn plain_table(name: ObjectName, alias: Option<TableAlias>) -> TableFactor {
    TableFactor::Table {
        name,
        alias,
        args: None,
        with_hints: vec![],
        version: None,
        with_ordinality: false,
        partitions: vec![],
        json_path: None,
        sample: None,
        index_hints: vec![],
    }
}

fn nested(item: TableWithJoins) -> TableFactor {
    if item.joins.is_empty() {
        return item.relation;
    }
    TableFactor::NestedJoin { table_with_joins: Box::new(item), alias: None }
}

fn join_tree(relation: TableFactor, join_operator: JoinOperator) -> JoinTree {
    JoinTree { relation, global: false, join_operator }
}

/// The qualifier of a merged column: which merging it is of, and how many columns it hides.
fn qualifier(number: usize, hides: usize) -> String {
    naming::marked(&naming::marked("", number), hides)
}

/// The merged column that a bare name means among these columns, unless it is ambiguous.
fn merged_column(schema: &DFSchema, name: &str) -> Option<Column> {
    let columns = schema.columns_with_unqualified_name(name);
    let found = columns.iter().find_map(|column| {
        let qualifier = column.relation.as_ref()?.table();
        let mut parts = qualifier.split(naming::MARK).skip(2);
        let hides: usize = parts.next()?.parse().ok()?;
        qualifier.starts_with(naming::MARK).then_some((column, hides))
    });
    found.filter(|(_, hides)| columns.len() == hides + 1).map(|(column, _)| column.clone())
}

/// Operators over merged columns. Their types are asked before DataFusion has resolved the names.
#[derive(Debug)]
pub(super) struct MergedOperands;

impl ExprPlanner for MergedOperands {
    fn plan_binary_op(
        &self,
        mut expr: RawBinaryExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        // Nobody asks for the types of what AND and OR connect.
        if matches!(expr.op, BinaryOperator::And | BinaryOperator::Or) {
            return Ok(PlannerResult::Original(expr));
        }
        let merges = |q: Option<&TableReference>| q.is_some_and(|q| q.table().starts_with(naming::MARK));
        if schema.iter().any(|(q, _)| merges(q)) {
            for side in [&mut expr.left, &mut expr.right] {
                let resolved = std::mem::take(side).transform(|e| match &e {
                    Expr::Column(Column { relation: None, name, .. }) => {
                        Ok(match merged_column(schema, name) {
                            Some(column) => Transformed::yes(Expr::Column(column)),
                            None => Transformed::no(e),
                        })
                    }
                    _ => Ok(Transformed::no(e)),
                })?;
                *side = resolved.data;
            }
        }
        Ok(PlannerResult::Original(expr))
    }
}

/// Whether DataFusion cannot plan the item: columns are merged, or functions are called over columns.
fn is_ours(item: &TableWithJoins) -> bool {
    merges(item) || depends(item)
}

/// Whether functions are called over columns of what stands before them.
fn depends(item: &TableWithJoins) -> bool {
    let inside = |factor: &TableFactor| match factor {
        TableFactor::NestedJoin { table_with_joins, .. } => depends(table_with_joins),
        factor => table_functions::is_dependent(factor),
    };
    inside(&item.relation) || item.joins.iter().any(|join| inside(&join.relation))
}

/// Whether columns are merged, in parentheses without an alias, too.
fn merges(item: &TableWithJoins) -> bool {
    let inside = |factor: &TableFactor| matches!(factor, TableFactor::NestedJoin { table_with_joins, .. } if merges(table_with_joins));
    inside(&item.relation)
        || item.joins.iter().any(|join| {
            inside(&join.relation)
                || matches!(
                    constraint(&join.join_operator),
                    Some((_, Constraint::Using(_) | Constraint::Natural))
                )
        })
}

/// Whether a relation may refer to those before it, which only DataFusion's planner can resolve.
fn is_lateral(item: &TableWithJoins) -> bool {
    let factor = |factor: &TableFactor| match factor {
        TableFactor::Derived { lateral, .. } => *lateral,
        TableFactor::NestedJoin { table_with_joins, .. } => is_lateral(table_with_joins),
        _ => false,
    };
    factor(&item.relation) || item.joins.iter().any(|join| factor(&join.relation))
}

/// The joins that PostgreSQL has.
fn constraint(operator: &JoinOperator) -> Option<(JoinType, &Constraint)> {
    use JoinOperator as O;
    Some(match operator {
        O::Join(c) | O::Inner(c) | O::CrossJoin(c) => (JoinType::Inner, c),
        O::Left(c) | O::LeftOuter(c) => (JoinType::Left, c),
        O::Right(c) | O::RightOuter(c) => (JoinType::Right, c),
        O::FullOuter(c) => (JoinType::Full, c),
        _ => return None,
    })
}

/// Plans the relations that [`gather`] made, and joins in parentheses.
#[derive(Debug, Default)]
pub(super) struct MergingJoins {
    merged: AtomicUsize,
}

impl RelationPlanner for MergingJoins {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        match relation {
            TableFactor::NestedJoin { table_with_joins, alias }
                if is_ours(&table_with_joins) && !is_lateral(&table_with_joins) =>
            {
                let side = self.joined(*table_with_joins, context)?;
                // Behind an alias there is nothing left but the merged columns.
                let plan = if alias.is_some() { side.visible()? } else { marked(side)? };
                Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
            }
            other => match known_functions(&other, context) {
                Some(functions) => Ok(RelationPlanning::Planned(Box::new(functions.alone(context)?))),
                None => Ok(RelationPlanning::Original(Box::new(other))),
            },
        }
    }
}

/// The functions that a FROM item is made of, if they are known.
fn known_functions(factor: &TableFactor, context: &dyn RelationPlannerContext) -> Option<Functions> {
    table_functions::functions(factor, &|name| context.context_provider().get_function_meta(name).is_some())
}

/// A merged column and those that it hides.
struct Merged {
    column: Column,
    hides: Vec<Column>,
}

/// A part of a FROM list.
struct Side {
    plan: LogicalPlan,
    merged: Vec<Merged>,
}

impl Side {
    fn is_hidden(&self, column: &Column) -> bool {
        self.merged.iter().any(|m| m.hides.contains(column))
    }

    /// The columns that a bare name can mean.
    fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = Column> + 'a {
        self.plan.schema().columns().into_iter().filter(move |c| c.name == name && !self.is_hidden(c))
    }

    /// The one column to join by.
    fn key(&self, name: &str, side: &str) -> Result<Column> {
        let mut columns = self.named(name);
        match (columns.next(), columns.next()) {
            (Some(column), None) => Ok(column),
            (None, _) => Err(Error::new(
                SqlState::UNDEFINED_COLUMN,
                format!("column \"{name}\" specified in USING clause does not exist in {side} table"),
            )
            .into()),
            _ => Err(Error::new(
                SqlState::AMBIGUOUS_COLUMN,
                format!("common column name \"{name}\" appears more than once in {side} table"),
            )
            .into()),
        }
    }

    /// The columns that `*` gives.
    fn visible(self) -> Result<LogicalPlan> {
        let columns = self.plan.schema().columns().into_iter().filter(|c| !self.is_hidden(c));
        let columns: Vec<Expr> = columns.map(Expr::Column).collect();
        LogicalPlanBuilder::from(self.plan).project(columns)?.build()
    }
}

impl MergingJoins {
    fn joined(&self, item: TableWithJoins, context: &mut dyn RelationPlannerContext) -> Result<Side> {
        let mut left = self.factor(item.relation, context)?;
        for join in item.joins {
            left = self.join(left, join, context)?;
        }
        Ok(left)
    }

    fn factor(&self, factor: TableFactor, context: &mut dyn RelationPlannerContext) -> Result<Side> {
        match factor {
            TableFactor::NestedJoin { table_with_joins, alias: None }
                if !asof::is_asof(&table_with_joins) =>
            {
                self.joined(*table_with_joins, context)
            }
            other => Ok(Side { plan: context.plan(other)?, merged: Vec::new() }),
        }
    }

    fn join(&self, left: Side, join: JoinTree, context: &mut dyn RelationPlannerContext) -> Result<Side> {
        let Some((kind, constraint)) = constraint(&join.join_operator) else {
            return Err(Error::unsupported("this kind of join").into());
        };
        let constraint = constraint.clone();
        if let (TableFactor::Table { name, .. }, Constraint::On(condition)) = (&join.relation, &constraint)
            && name.0.last().and_then(|p| p.as_ident()).is_some_and(|i| i.value == WHERE)
        {
            let schema = Arc::clone(left.plan.schema());
            let condition = context.sql_to_expr(resolved(condition.clone(), &[&left]), &schema)?;
            let plan = LogicalPlanBuilder::from(left.plan).filter(condition)?.build()?;
            return Ok(Side { plan, ..left });
        }
        if table_functions::is_dependent(&join.relation)
            && let Some(functions) = known_functions(&join.relation, context)
        {
            return lateral(left, functions, kind, constraint, context);
        }
        let right = self.factor(join.relation, context)?;
        let names: Vec<String> = match constraint {
            Constraint::On(condition) => {
                let schema = left.plan.schema().join(right.plan.schema())?;
                let condition = context.sql_to_expr(resolved(condition, &[&left, &right]), &schema)?;
                return beside(left, right, kind, Some(condition));
            }
            Constraint::None => return beside(left, right, kind, None),
            Constraint::Using(names) => names
                .iter()
                .map(|name| match name.0.as_slice() {
                    [part] => part.as_ident().map(fold),
                    _ => None,
                })
                .collect::<Option<_>>()
                .ok_or_else(|| Error::new(SqlState::SYNTAX_ERROR, "USING needs names of columns"))?,
            Constraint::Natural => {
                let columns = left.plan.schema().columns();
                let mut names = Vec::new();
                for column in columns.into_iter().filter(|c| !left.is_hidden(c)) {
                    if !names.contains(&column.name) && right.named(&column.name).next().is_some() {
                        names.push(column.name);
                    }
                }
                names
            }
        };
        self.merge(left, right, kind, &names)
    }

    /// The join by columns of these names, which are merged.
    fn merge(&self, left: Side, right: Side, kind: JoinType, names: &[String]) -> Result<Side> {
        let mut on = Vec::new();
        let mut values = Vec::new();
        let mut merged = Vec::new();
        let mut gone = Vec::new();
        let number = self.merged.fetch_add(1, Ordering::Relaxed);
        for name in names {
            let (l, r) = (left.key(name, "left")?, right.key(name, "right")?);
            let (a, b) = (Expr::Column(l.clone()), Expr::Column(r.clone()));
            on.push(a.clone().eq(b.clone()));
            let value = match kind {
                JoinType::Right => b,
                JoinType::Full => coalesce(vec![a, b]),
                _ => a,
            };
            let mut hides = Vec::new();
            for (side, key) in [(&left, l), (&right, r)] {
                match side.merged.iter().find(|m| m.column == key) {
                    // What was merged before is merged again, and nothing can name it any more.
                    Some(earlier) => {
                        hides.extend(earlier.hides.iter().cloned());
                        gone.push(key);
                    }
                    None => hides.push(key),
                }
            }
            let column = Column::new(Some(qualifier(number, hides.len())), name);
            values.push(value.alias_qualified(column.relation.clone(), name));
            merged.push(Merged { column, hides });
        }
        let joined = beside(left, right, kind, on.into_iter().reduce(Expr::and))?;
        let kept = joined.plan.schema().columns().into_iter().filter(|c| !gone.contains(c));
        let columns: Vec<Expr> = values.into_iter().chain(kept.map(Expr::Column)).collect();
        let plan = LogicalPlanBuilder::from(joined.plan).project(columns)?.build()?;
        merged.extend(joined.merged.into_iter().filter(|m| !gone.contains(&m.column)));
        Ok(Side { plan, merged })
    }
}

/// Functions called for each row of the left side.
fn lateral(
    left: Side,
    mut functions: Functions,
    kind: JoinType,
    constraint: Constraint,
    context: &mut dyn RelationPlannerContext,
) -> Result<Side> {
    functions.arguments(|expr| resolved(expr, &[&left]));
    let condition = match constraint {
        Constraint::None => None,
        Constraint::On(Tree::Value(v)) if v.value == Value::Boolean(true) => None,
        Constraint::On(condition) => Some(condition),
        Constraint::Using(_) | Constraint::Natural => {
            return Err(
                Error::unsupported("USING and NATURAL with a function of the left side's columns").into()
            );
        }
    };
    match (kind, &condition) {
        (JoinType::Inner, _) | (JoinType::Left, None) => {}
        (JoinType::Left, Some(_)) => {
            return Err(Error::unsupported("LEFT JOIN LATERAL with a condition other than true").into());
        }
        _ => {
            return Err(Error::new(SqlState("42P10"), "invalid reference to FROM-clause entry")
                .with_detail("The combining JOIN type must be INNER or LEFT for a LATERAL reference.")
                .into());
        }
    }
    let plan = functions.beside(left.plan.clone(), kind == JoinType::Left, context)?;
    let side = Side { plan, ..left };
    match condition {
        None => Ok(side),
        Some(condition) => {
            let schema = Arc::clone(side.plan.schema());
            let condition = context.sql_to_expr(resolved(condition, &[&side]), &schema)?;
            let plan = LogicalPlanBuilder::from(side.plan.clone()).filter(condition)?.build()?;
            Ok(Side { plan, ..side })
        }
    }
}

/// Two parts joined, nothing merged.
fn beside(left: Side, right: Side, kind: JoinType, condition: Option<Expr>) -> Result<Side> {
    let plan = LogicalPlanBuilder::from(left.plan);
    let plan = match (kind, condition) {
        (JoinType::Inner, None) => plan.cross_join(right.plan)?,
        (kind, condition) => plan.join_on(right.plan, kind, condition)?,
    };
    let merged = left.merged.into_iter().chain(right.merged).collect();
    Ok(Side { plan: plan.build()?, merged })
}

/// The condition with the merged columns' bare names qualified. What is in subqueries may mean their own columns.
fn resolved(mut condition: Tree, sides: &[&Side]) -> Tree {
    struct Resolve<'a> {
        sides: &'a [&'a Side],
        depth: usize,
    }
    impl VisitorMut for Resolve<'_> {
        type Break = ();

        fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
            self.depth += 1;
            ControlFlow::Continue(())
        }

        fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
            self.depth -= 1;
            ControlFlow::Continue(())
        }

        fn post_visit_expr(&mut self, expr: &mut Tree) -> ControlFlow<()> {
            if let Tree::Identifier(ident) = expr
                && self.depth == 0
            {
                let name = fold(ident);
                let mut columns = self.sides.iter().flat_map(|side| side.named(&name));
                if let (Some(Column { relation: Some(relation), .. }), None) =
                    (columns.next(), columns.next())
                {
                    let qualifier = Ident::with_quote('"', relation.table());
                    let merged = self.sides.iter().any(|side| {
                        side.merged
                            .iter()
                            .any(|m| m.column.name == name && m.column.relation.as_ref() == Some(&relation))
                    });
                    if merged {
                        let column = Ident { quote_style: Some('"'), value: name.clone(), span: ident.span };
                        *expr = Tree::CompoundIdentifier(vec![qualifier, column]);
                    }
                }
            }
            ControlFlow::Continue(())
        }
    }
    // The visitor never breaks.
    let _ = walk_mut(&mut condition, &mut Resolve { sides, depth: 0 });
    condition
}

/// The plan below joins with nothing that say which columns are one: of each such set, DataFusion takes the first for
/// a bare name and for `*`. [`without_marks`] takes them off again.
fn marked(side: Side) -> Result<LogicalPlan> {
    side.merged.into_iter().try_fold(side.plan, |plan, merged| {
        let nothing = LogicalPlanBuilder::empty(true).build()?;
        let same = merged
            .hides
            .into_iter()
            .map(|hidden| (Expr::Column(merged.column.clone()), Expr::Column(hidden)));
        Ok(LogicalPlan::Join(Join::try_new(
            Arc::new(plan),
            Arc::new(nothing),
            same.collect(),
            None,
            JoinType::Inner,
            JoinConstraint::Using,
            NullEquality::NullEqualsNothing,
            false,
        )?))
    })
}

/// The plan without [`marked`]'s joins.
pub(super) fn without_marks(plan: LogicalPlan) -> Result<LogicalPlan> {
    let bare = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Join(join) if is_mark(&join) => Ok(Transformed::yes(Arc::unwrap_or_clone(join.left))),
        node => Ok(Transformed::no(node)),
    })?;
    Ok(bare.data)
}

fn is_mark(join: &Join) -> bool {
    join.join_constraint == JoinConstraint::Using
        && matches!(join.right.as_ref(), LogicalPlan::EmptyRelation(EmptyRelation { schema, .. }) if schema.fields().is_empty())
}
