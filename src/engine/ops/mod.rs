//! The operators, one file each.

pub mod aggregate;
pub mod arrange;
pub mod close;
pub mod constant;
pub mod distinct;
pub mod expiring;
pub mod gate;
pub mod input;
pub mod join;
pub mod map;
mod order;
pub mod outer;
pub mod output;
pub mod paths;
pub mod recompute;
pub mod sharded;
mod side;
pub mod temporal;
#[cfg(test)]
pub(crate) mod testing;
pub mod topk;
pub mod union;
pub mod window;

use arrow::datatypes::SchemaRef;

use crate::engine::plan::spec::NodeSpec;
use crate::engine::runtime::operator::Operator;
use crate::engine::runtime::workers::Workers;
use crate::error::{Error, Result};

/// The operator that does what `spec` says, with output `schema`; in as many copies as there are workers where its
/// keys allow it.
pub fn build(spec: &NodeSpec, schema: &SchemaRef, workers: &Workers) -> Result<Box<dyn Operator>> {
    if workers.count() > 1
        && let Some(keys) = sharded::keys(spec, schema)?
    {
        return Ok(Box::new(sharded::Sharded::new(workers, keys, || single(spec))?));
    }
    match spec {
        NodeSpec::Paths(spec) => Ok(Box::new(paths::Paths::new(spec, workers)?)),
        spec => single(spec),
    }
}

/// The operator in one copy.
fn single(spec: &NodeSpec) -> Result<Box<dyn Operator>> {
    Ok(match spec {
        NodeSpec::Constant(rows) => Box::new(constant::Constant::new(rows.clone())),
        NodeSpec::Map(spec) => Box::new(map::Map::new(spec.clone())),
        NodeSpec::Union => Box::new(union::Union::new()),
        NodeSpec::Recompute(spec) => Box::new(recompute::Recompute::new(spec)?),
        NodeSpec::Join(spec) => join::Join::of_kind(spec)?,
        NodeSpec::Arrange(schema) => Box::new(arrange::Arrange::new(schema)),
        NodeSpec::Paths(spec) => Box::new(paths::Paths::new(spec, &Workers::one())?),
        NodeSpec::Aggregate(spec) => Box::new(aggregate::Aggregate::new(spec)?),
        NodeSpec::Distinct => Box::new(distinct::Distinct::new()),
        NodeSpec::Temporal(spec) => Box::new(temporal::Temporal::new(spec)),
        NodeSpec::TopK(spec) => Box::new(topk::TopK::new(spec)?),
        NodeSpec::Window(spec) => Box::new(window::Window::new(spec)?),
        NodeSpec::Gate(spec) => Box::new(gate::Gate::new(spec)),
        NodeSpec::Close(spec) => Box::new(close::Close::new(spec)),
        NodeSpec::Expiring(spec) => Box::new(expiring::Expiring::new(spec)),
        NodeSpec::Collection(id) => {
            return Err(Error::internal(format!("collection {} is a node already", id.0)));
        }
    })
}
