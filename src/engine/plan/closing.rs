//! Windows that close: what of a plan is final once the watermark has come so far.
//!
//! `EMIT ON WINDOW CLOSE` puts two nodes into a plan, one below the aggregate and one above it. Both look at a column
//! that tells when a row's window closes, in microseconds since 1970: [`CLOSES`]. Below, [`Part::Gate`] lets no row pass
//! whose window was closed before the tick; above, [`Part::Close`] gives the rows of a window once, when it closes. The
//! column is one of the group's keys, so that what is kept of a window can be dropped with it.
//!
//! In batch, [`windows_closed`] says what the nodes mean: the query's rows of the windows that closed between two
//! watermarks. So a view gives in each tick what its query says in this tick of the windows that the tick closes.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, AsArray, Int64Array};
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, DFSchemaRef};
use datafusion::logical_expr::{
    ColumnarValue, Expr, Extension, Filter, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, UserDefinedLogicalNodeCore, Volatility, lit,
};

use crate::engine::CollectionId;
use crate::error::{Error, Result};

type Planned<T> = datafusion::error::Result<T>;

/// The column that tells when a row's window closes.
pub const CLOSES: &str = "(closes)";

/// Which of the two nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    /// Below the aggregate.
    Gate,
    /// Above it.
    Close,
}

/// What both of them know.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Closing {
    /// The inputs whose watermarks count: the least of them.
    pub watermarks: Vec<CollectionId>,
    /// The windows' length in microseconds: what is kept is dropped in portions of that length.
    pub length: i64,
}

/// One of the nodes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd)]
pub struct ClosingNode {
    /// Which one.
    pub part: Part,
    /// What closes, and when.
    pub closing: Closing,
    input: LogicalPlan,
}

impl ClosingNode {
    /// The node over `input`, which has the column [`CLOSES`].
    pub fn over(part: Part, closing: Closing, input: LogicalPlan) -> LogicalPlan {
        LogicalPlan::Extension(Extension { node: Arc::new(ClosingNode { part, closing, input }) })
    }

    /// The node that a plan begins with, if it is one.
    pub fn of(plan: &LogicalPlan) -> Option<&ClosingNode> {
        let LogicalPlan::Extension(Extension { node }) = plan else { return None };
        node.as_any().downcast_ref::<ClosingNode>()
    }

    /// What it reads.
    pub fn input(&self) -> &LogicalPlan {
        &self.input
    }
}

impl UserDefinedLogicalNodeCore for ClosingNode {
    fn name(&self) -> &str {
        match self.part {
            Part::Gate => "Gate",
            Part::Close => "Close",
        }
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        self.input.schema()
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }

    fn with_exprs_and_inputs(&self, _exprs: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Planned<Self> {
        let input = inputs.into_iter().next().ok_or_else(|| Error::internal("a node without its input"))?;
        Ok(ClosingNode { input, ..self.clone() })
    }

    fn necessary_children_exprs(&self, output: &[usize]) -> Option<Vec<Vec<usize>>> {
        let closes = self.input.schema().index_of_column_by_name(None, CLOSES)?;
        let mut columns = output.to_vec();
        if !columns.contains(&closes) {
            columns.push(closes);
        }
        columns.sort_unstable();
        Some(vec![columns])
    }
}

/// What a plan reads and gives of windows that close, if it is `EMIT ON WINDOW CLOSE`.
pub fn closing_of(plan: &LogicalPlan) -> Option<Closing> {
    use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
    let mut found = None;
    let visited = plan.apply(|node| {
        if let Some(node) = ClosingNode::of(node) {
            found = Some(node.closing.clone());
            return Ok(TreeNodeRecursion::Stop);
        }
        Ok(TreeNodeRecursion::Continue)
    });
    debug_assert!(visited.is_ok(), "the visitor never fails");
    found
}

/// The plan of the rows of those windows that close after the watermark was at `before`, up to when it is at `after`.
pub fn windows_closed(plan: LogicalPlan, before: i64, after: i64) -> Result<LogicalPlan> {
    let closed = plan.transform_up_with_subqueries(|node| {
        let Some(closing) = ClosingNode::of(&node) else { return Ok(Transformed::no(node)) };
        let input = closing.input.clone();
        Ok(Transformed::yes(match closing.part {
            Part::Gate => input,
            Part::Close => {
                let closes = || Expr::Column(Column::new_unqualified(CLOSES));
                let predicate = closes().gt(lit(before)).and(closes().lt_eq(lit(after)));
                LogicalPlan::Filter(Filter::try_new(predicate, Arc::new(input))?)
            }
        }))
    })?;
    Ok(closed.data)
}

/// When a window closes, by a time that belongs to it: so many microseconds after that time. NULL never, and a time at
/// `infinity` never, either.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct ClosesAfter {
    micros: i64,
    signature: Signature,
}

impl ClosesAfter {
    /// The moment as an expression.
    pub fn call(time: Expr, micros: i64) -> Expr {
        let signature = Signature::any(1, Volatility::Immutable);
        ScalarUDF::new_from_impl(ClosesAfter { micros, signature }).call(vec![time])
    }
}

impl ScalarUDFImpl for ClosesAfter {
    fn name(&self) -> &str {
        "closes_after"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _args: &[DataType]) -> Planned<DataType> {
        Ok(DataType::Int64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Planned<ColumnarValue> {
        let times = args.args[0].to_array(args.number_rows)?;
        if !matches!(times.data_type(), DataType::Timestamp(TimeUnit::Microsecond, _)) {
            return Err(Error::internal("only a timestamp tells when its window closes").into());
        }
        let times = times.as_primitive::<TimestampMicrosecondType>();
        // A time so early that it overflows to the other side cannot be: what is added is positive.
        let values = times.values().iter().map(|time| time.saturating_add(self.micros)).collect();
        let closes = Int64Array::new(values, times.nulls().cloned());
        Ok(ColumnarValue::Array(Arc::new(closes)))
    }
}
