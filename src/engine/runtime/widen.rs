//! An input gets more columns, between two ticks: its rows have NULL there, and whoever reads it goes on as before.
//!
//! Nothing of it is in the journal. Rows that were written before have fewer columns than the input, and are read with
//! NULL in the others, so all that must survive is what columns the input has: that is the catalog's business, and it is
//! told before anybody sees a row with the new columns.
//!
//! Nodes that were made before read the columns that there were then: a node of its own leaves out the others for them.
//! Who follows the input itself cannot be served any more, nor can a view under construction: both are told to begin anew.

use std::sync::Arc;

use datafusion::physical_expr::expressions::Column;

use super::core::{Core, Kind};
use super::hydrate::gone;
use crate::engine::InputSpec;
use crate::engine::delta::nullable;
use crate::engine::ops;
use crate::engine::plan::lower::LoweredNode;
use crate::engine::plan::spec::{Expr, MapSpec, NodeSpec};
use crate::error::{Error, Result, SqlState};
use crate::world;

/// What is done when all else has succeeded, and before anybody sees the columns.
pub(crate) type Ready = Box<dyn FnOnce() -> Result<()> + Send>;

impl Core {
    /// See [`crate::engine::Engine::widen_input`].
    pub(crate) fn widen(&mut self, spec: InputSpec, ready: Ready) -> Result<()> {
        let collection = self.collections.get(&spec.id).ok_or_else(|| gone(spec.id))?;
        let Kind::Input { spec: before, input, tap } = &collection.kind else {
            return Err(Error::internal(format!("\"{}\" is a view and gets no columns", collection.name)));
        };
        let (columns, tap) = (before.schema.fields().len(), *tap);
        let own = before.schema.fields().iter().zip(spec.schema.fields());
        if spec.schema.fields().len() < columns || own.clone().any(|(a, b)| a.data_type() != b.data_type()) {
            return Err(Error::internal(format!("\"{}\" is to lose columns", collection.name)));
        }
        let wider = Box::new(input.widened(&spec)?);
        let narrow = match self.circuit.is_read(tap) {
            true => {
                let schema = nullable(&before.schema);
                let column = |(i, field): (usize, &arrow::datatypes::FieldRef)| {
                    Arc::new(Column::new(field.name(), i)) as Expr
                };
                let projection = Some(schema.fields().iter().enumerate().map(column).collect());
                let node =
                    NodeSpec::Map(MapSpec { predicate: None, projection, schema: Arc::clone(&schema) });
                let operator = ops::build(&node, &schema, &self.shared.workers)?;
                Some((operator, LoweredNode { spec: node, inputs: Vec::new(), schema }))
            }
            false => None,
        };
        ready()?;
        world::crash_point("input.widened");
        if let Some((operator, lowered)) = narrow {
            self.circuit.interpose(tap, spec.id, operator, lowered);
        }
        let id = spec.id;
        for recorder in self.recorders.iter().filter(|r| r.reads.contains(&id)) {
            recorder.end(other_columns(&spec.name));
        }
        if let Some(collection) = self.collections.get_mut(&id) {
            collection.publishers.drain(..).for_each(|p| p.end(other_columns(&spec.name)));
            collection.kind = Kind::Input { spec, input: wider, tap };
        }
        self.publish_snapshot([id])
    }
}

/// The error of what was begun with fewer columns than there are by now.
pub(crate) fn other_columns(name: &str) -> Error {
    Error::new(SqlState::SERIALIZATION_FAILURE, format!("the columns of \"{name}\" have changed meanwhile"))
        .with_hint("Try again.")
}
