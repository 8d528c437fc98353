//! Lowers conditions on the time: each becomes moments that rows tell, and a condition on which of them are reached.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema};
use datafusion::logical_expr::{Expr, utils};

use super::lower::{Lowering, nullable};
use super::spec::{NodeSpec, TemporalSpec};
use super::temporal::{Reached, is_timed};
use crate::error::Result;

impl Lowering {
    /// The rows of a node for which a condition is true, which may ask for the time.
    pub(super) fn chosen(&mut self, input: usize, condition: &Expr, schema: &DFSchema) -> Result<usize> {
        let conjuncts = utils::split_conjunction_owned(condition.clone());
        let (timed, plain): (Vec<_>, Vec<_>) = conjuncts.into_iter().partition(is_timed);
        let columns = nullable(schema.as_arrow());
        let mut node = input;
        if let Some(plain) = utils::conjunction(plain) {
            let predicate = self.bind(&plain, schema)?;
            node = self.map(node, Some(predicate), None, Arc::clone(&columns));
        }
        let Some(timed) = utils::conjunction(timed) else { return Ok(node) };
        let taken = take(timed)?;
        let moments = self.bind_all(&taken.moments, schema)?;
        let reached = DFSchema::try_from(Schema::new(taken.columns))?;
        let condition = self.bind(&taken.condition, &schema.join(&reached)?)?;
        let spec = TemporalSpec { moments, condition, schema: Arc::clone(&columns) };
        Ok(self.add(NodeSpec::Temporal(spec), vec![node], columns))
    }
}

/// A condition taken apart.
struct Taken {
    /// Columns that stand behind the input's and say which moments are reached: `now() >= …`.
    columns: Vec<Field>,
    /// The moments, in microseconds.
    moments: Vec<Expr>,
    /// The condition over both.
    condition: Expr,
}

fn take(condition: Expr) -> Result<Taken> {
    let (mut found, mut columns, mut moments): (Vec<Expr>, Vec<Field>, Vec<Expr>) = Default::default();
    let condition = condition.transform_up(|e| {
        let Some((reached, value)) = Reached::of(&e) else { return Ok(Transformed::no(e)) };
        let at = found.iter().position(|f| *f == e).unwrap_or_else(|| {
            let mut name = reached.shown(value);
            // Two that look the same are still two.
            if columns.iter().any(|c| *c.name() == name) {
                name = format!("{name} #{}", columns.len());
            }
            columns.push(Field::new(name, DataType::Boolean, true));
            moments.push(reached.moment_of(value));
            found.push(e.clone());
            found.len() - 1
        });
        Ok(Transformed::yes(Expr::Column(Column::from_name(columns[at].name()))))
    })?;
    Ok(Taken { columns, moments, condition: condition.data })
}
