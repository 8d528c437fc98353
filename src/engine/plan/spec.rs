//! What a node of the circuit is to do: decided once by lowering, rendered straight by the operators.
//!
//! Expressions are DataFusion's physical ones, bound to the input's columns by position.

use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::{FieldRef, SchemaRef};
use datafusion::common::DFSchemaRef;
use datafusion::logical_expr::{Expr as LogicalExpr, LogicalPlan};
use datafusion::physical_expr::PhysicalExpr;

use crate::engine::CollectionId;

/// An expression over one input row.
pub type Expr = Arc<dyn PhysicalExpr>;

/// One node; its inputs are given beside it, in port order.
#[derive(Clone, Debug, PartialEq)]
pub enum NodeSpec {
    /// The changes of an existing collection.
    Collection(CollectionId),
    /// Constant rows, present from the first tick on (VALUES, a SELECT without FROM).
    Constant(Vec<arrow::array::RecordBatch>),
    /// Filter, then project. Linear.
    Map(MapSpec),
    /// All rows of all inputs (UNION ALL). Any number of ports.
    Union,
    /// Equi-join of port 0 (left) with port 1 (right).
    Join(JoinSpec),
    /// Keeps the rows of its input, which have these columns, for the joins over it.
    Arrange(SchemaRef),
    /// Inner equi-join of arranged inputs.
    Paths(PathsSpec),
    /// Group and aggregate.
    Aggregate(AggregateSpec),
    /// Each distinct row once.
    Distinct,
    /// The first rows of each partition.
    TopK(TopKSpec),
    /// Window functions that look a bounded number of rows around.
    Window(WindowSpec),
    /// Rows while a condition on the time is true of them. Linear but for the time.
    Temporal(TemporalSpec),
    /// Rows of windows that are not closed yet. Linear but for the watermark.
    Gate(ClosingSpec),
    /// The rows of each window once, when it closes.
    Close(ClosingSpec),
    /// An operator in a copy for every few windows, which goes when these are closed.
    Expiring(ExpiringSpec),
    /// The universal operator: the plan fragment, run in batch over the touched keys' rows.
    Recompute(RecomputeSpec),
}

/// Filter, then project.
#[derive(Clone, Debug, PartialEq)]
pub struct MapSpec {
    /// Keeps rows for which it is true.
    pub predicate: Option<Expr>,
    /// Output columns; `None`: the input's own.
    pub projection: Option<Vec<Expr>>,
    /// Output columns.
    pub schema: SchemaRef,
}

/// A condition that changes at moments which each row tells.
#[derive(Clone, Debug)]
pub struct TemporalSpec {
    /// The moments, in microseconds since 1970; a NULL one never comes.
    pub moments: Vec<Expr>,
    /// The condition, over the input's columns and, behind them, whether each moment has come.
    pub condition: Expr,
    /// Columns of input and output.
    pub schema: SchemaRef,
}

impl PartialEq for TemporalSpec {
    fn eq(&self, other: &Self) -> bool {
        self.moments == other.moments
            && self.condition.as_ref() == other.condition.as_ref()
            && self.schema == other.schema
    }
}

/// Windows that close as a watermark advances.
#[derive(Clone, Debug, PartialEq)]
pub struct ClosingSpec {
    /// The view whose windows these are: another one has closed others.
    pub view: CollectionId,
    /// The inputs whose watermarks count: the least of them.
    pub watermarks: Vec<CollectionId>,
    /// The position of the column that tells when a row's window closes, in microseconds since 1970.
    pub closes: usize,
    /// Columns of input and output.
    pub schema: SchemaRef,
}

/// An operator whose answer for a window depends on that window's rows alone.
#[derive(Clone, Debug, PartialEq)]
pub struct ExpiringSpec {
    /// The operator, of one port.
    pub inner: Box<NodeSpec>,
    /// What its input tells of windows.
    pub closing: ClosingSpec,
    /// Windows that close within so many microseconds are in one copy.
    pub length: i64,
}

/// Which rows a join emits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinKind {
    /// Matching pairs.
    Inner,
    /// Pairs, and left rows without a match.
    Left,
    /// Pairs, and right rows without a match.
    Right,
    /// Pairs, and rows of both sides without a match.
    Full,
    /// Left rows with a match.
    LeftSemi,
    /// Left rows without one.
    LeftAnti,
    /// Right rows with a match.
    RightSemi,
    /// Right rows without one.
    RightAnti,
    /// Left rows and a boolean: has a match.
    LeftMark,
}

/// An equi-join with an optional further condition.
#[derive(Clone, Debug, PartialEq)]
pub struct JoinSpec {
    /// Which rows it emits.
    pub kind: JoinKind,
    /// Key of the left side; empty: every pair is a candidate (a cross or theta join).
    pub left_keys: Vec<Expr>,
    /// Key of the right side, of the same length and types.
    pub right_keys: Vec<Expr>,
    /// Whether NULL keys equal each other (set operations); otherwise a NULL key matches nothing.
    pub null_equals_null: bool,
    /// A further condition over the columns left ++ right.
    pub residual: Option<Expr>,
    /// Columns of port 0.
    pub left: SchemaRef,
    /// Columns of port 1.
    pub right: SchemaRef,
    /// Output columns.
    pub schema: SchemaRef,
}

/// An inner equi-join of any number of inputs, each of which is kept once for all joins that look rows up in it.
#[derive(Clone, Debug, PartialEq)]
pub struct PathsSpec {
    /// Columns of each port.
    pub inputs: Vec<SchemaRef>,
    /// In which input rows are looked up, by which of its columns.
    pub lookups: Vec<(usize, Vec<usize>)>,
    /// By port, how a change of it comes to rows of all.
    pub paths: Vec<Path>,
    /// The output's columns: of which input which one.
    pub output: Vec<(usize, usize)>,
    /// Output columns.
    pub schema: SchemaRef,
}

/// The look-ups by which a change of one input finds the rows of the others.
#[derive(Clone, Debug, PartialEq)]
pub struct Path {
    /// A condition on the changed rows, over the columns of all inputs one after the other.
    pub condition: Option<Expr>,
    /// The look-ups, one for each other input.
    pub steps: Vec<Step>,
}

/// One look-up.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Which one.
    pub lookup: usize,
    /// What is looked up: columns of inputs that are on the path already, of the types of the look-up's columns.
    pub from: Vec<(usize, usize)>,
    /// A further condition, over the columns of all inputs one after the other; those of inputs on the path are read.
    pub condition: Option<Expr>,
}

/// An aggregate function with a native operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AggregateKind {
    /// count(x), count(*) when there is no argument.
    Count,
    /// sum(x) for integers, decimals, floats (which never drift under retraction), intervals.
    Sum,
    /// avg(x).
    Avg,
    /// min(x).
    Min,
    /// max(x).
    Max,
    /// bool_and(x).
    BoolAnd,
    /// bool_or(x).
    BoolOr,
}

/// One call of an aggregate function.
#[derive(Clone, Debug, PartialEq)]
pub struct AggregateCall {
    /// Which function.
    pub kind: AggregateKind,
    /// Its argument.
    pub arg: Option<Expr>,
    /// Counts equal arguments once.
    pub distinct: bool,
    /// FILTER (WHERE …).
    pub filter: Option<Expr>,
    /// Type and name of the result.
    pub output: FieldRef,
}

/// GROUP BY keys, then calls. Without keys there is exactly one output row, even over no input.
#[derive(Clone, Debug, PartialEq)]
pub struct AggregateSpec {
    /// Group keys.
    pub keys: Vec<Expr>,
    /// Aggregate calls.
    pub calls: Vec<AggregateCall>,
    /// Columns of the input.
    pub input: SchemaRef,
    /// Keys, then results.
    pub schema: SchemaRef,
}

/// The first rows of each partition, in an order; ties are broken by the whole row, so the answer is one.
#[derive(Clone, Debug, PartialEq)]
pub struct TopKSpec {
    /// Partition; empty: one for all rows.
    pub partition: Vec<Expr>,
    /// Order.
    pub order: Vec<(Expr, SortOptions)>,
    /// Rows left out at the front.
    pub offset: usize,
    /// Rows kept after them; `None`: all.
    pub limit: Option<usize>,
    /// Whether rows are given with their numbers, from 1 in each partition, as a last column.
    pub numbered: bool,
    /// Columns of the input.
    pub input: SchemaRef,
    /// Columns of the output.
    pub schema: SchemaRef,
}

/// A window function over all rows up to the current one, whose result goes on from that of any row before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Running {
    /// Counts, sums, numbers of rows: what comes is added.
    Sum,
    /// The least so far.
    Min,
    /// The greatest so far.
    Max,
    /// One more than the rows before the first row that is equal in the order.
    Rank,
    /// A value of the first row.
    First,
}

/// Window functions of one partition and order, each of which looks at few rows before and after a row, or goes on from
/// a row before.
#[derive(Clone, Debug, PartialEq)]
pub struct WindowSpec {
    /// Partition; empty: one for all rows.
    pub partition: Vec<Expr>,
    /// Order; no two rows of a partition are equal in it unless they are equal in everything.
    pub order: Vec<(Expr, SortOptions)>,
    /// The functions, over columns of `plan_input`.
    pub functions: Vec<LogicalExpr>,
    /// The input's columns as the plan calls them.
    pub plan_input: DFSchemaRef,
    /// By function, whether it goes on from a row before.
    pub running: Vec<Option<Running>>,
    /// Whether rows that are equal in the order have one result of the running functions: then there are no others.
    pub peers: bool,
    /// Rows before a row that decide about the other functions' results, at most.
    pub before: usize,
    /// Rows after it that do, at most.
    pub after: usize,
    /// Columns of the input.
    pub input: SchemaRef,
    /// Columns of the input, then the functions' results.
    pub schema: SchemaRef,
}

/// How much of a recomputed fragment one change touches.
#[derive(Clone, Debug, PartialEq)]
pub enum Touch {
    /// Nothing but the changed rows: the fragment is linear and has one port. It keeps no state.
    Rows,
    /// The parts whose key changed: the fragment gives for a key's rows alone what it gives for that key among all rows.
    Keys {
        /// Per port the key of its rows.
        inputs: Vec<Vec<Expr>>,
        /// The same key over the output's columns.
        output: Vec<Expr>,
    },
    /// Everything.
    Whole,
}

/// A fragment of the plan that no native operator covers.
#[derive(Clone, Debug, PartialEq)]
pub struct RecomputeSpec {
    /// The fragment, optimised; its inputs are scans of [`super::PortSource`]s, one per port.
    pub plan: LogicalPlan,
    /// Columns of each port.
    pub inputs: Vec<SchemaRef>,
    /// How much of it is recomputed for a change.
    pub touch: Touch,
    /// Output columns.
    pub schema: SchemaRef,
    /// Why there is no native operator, for EXPLAIN.
    pub reason: String,
}
