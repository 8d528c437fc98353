//! What stands before a record's bytes when a registry has its schema: a zero byte and the schema's number. And the
//! plans that are made of the schemas of these numbers.

use std::sync::Arc;

use ahash::AHashMap;

use super::client::{Registered, SchemaRegistry};
use crate::connectors::format::BadFormat;
use crate::error::{Error, SqlState};

/// The number of the schema, and what follows it; `None`: the bytes do not begin so.
pub fn unframed(bytes: &[u8]) -> Option<(i32, &[u8])> {
    let (id, rest) = bytes.strip_prefix(&[0])?.split_first_chunk::<4>()?;
    Some((i32::from_be_bytes(*id), rest))
}

/// Puts a schema's number before what will be written.
pub fn write_frame(id: i32, out: &mut Vec<u8>) {
    out.push(0);
    out.extend_from_slice(&id.to_be_bytes());
}

/// The plans of the schemas that records name, each made when it is first seen.
#[derive(Debug)]
pub struct Plans<P> {
    registry: Arc<SchemaRegistry>,
    plans: AHashMap<i32, Arc<P>>,
    last: Option<(i32, Arc<P>)>,
}

impl<P> Plans<P> {
    /// No plans yet.
    pub fn new(registry: Arc<SchemaRegistry>) -> Self {
        Plans { registry, plans: AHashMap::new(), last: None }
    }

    /// The plan for a record, and the record's bytes behind the schema's number.
    ///
    /// # Errors
    /// Why the record is bad; 08006 when the registry does not answer, see [`BadFormat::is_unavailable`].
    pub fn of<'a>(
        &mut self,
        record: &'a [u8],
        make: impl FnOnce(&SchemaRegistry, &Registered) -> crate::error::Result<P>,
    ) -> Result<(Arc<P>, &'a [u8]), BadFormat> {
        let Some((id, rest)) = unframed(record) else {
            return Err(BadFormat {
                sqlstate: SqlState::DATA_EXCEPTION,
                reason: "the record does not begin with a zero byte and the number of its schema".to_string(),
            });
        };
        if let Some((last, plan)) = &self.last
            && *last == id
        {
            return Ok((Arc::clone(plan), rest));
        }
        let plan = match self.plans.get(&id) {
            Some(plan) => Arc::clone(plan),
            None => {
                let schema = self.registry.by_id(id).map_err(bad)?;
                let plan = Arc::new(make(&self.registry, &schema).map_err(bad)?);
                self.plans.insert(id, Arc::clone(&plan));
                plan
            }
        };
        self.last = Some((id, Arc::clone(&plan)));
        Ok((plan, rest))
    }
}

fn bad(e: Error) -> BadFormat {
    BadFormat { sqlstate: e.sqlstate, reason: e.message }
}
