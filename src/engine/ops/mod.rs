//! The operators, one file each.

pub mod constant;
pub mod input;
pub mod map;
pub mod output;
pub mod recompute;
#[cfg(test)]
pub(crate) mod testing;
pub mod union;

use crate::engine::plan::spec::NodeSpec;
use crate::engine::runtime::operator::Operator;
use crate::error::{Error, Result};

/// The operator that does what `spec` says.
pub fn build(spec: &NodeSpec) -> Result<Box<dyn Operator>> {
    Ok(match spec {
        NodeSpec::Constant(rows) => Box::new(constant::Constant::new(rows.clone())),
        NodeSpec::Map(spec) => Box::new(map::Map::new(spec.clone())),
        NodeSpec::Union => Box::new(union::Union::new()),
        NodeSpec::Recompute(spec) => Box::new(recompute::Recompute::new(spec)?),
        NodeSpec::Collection(id) => {
            return Err(Error::internal(format!("collection {} is a node already", id.0)));
        }
        other => return Err(Error::internal(format!("no operator for {other:?}"))),
    })
}
