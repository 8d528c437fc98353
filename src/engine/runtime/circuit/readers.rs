//! Those who read a node, and which of them a change concerns: of many views that each take the rows of one tenant,
//! a row of one tenant reaches that tenant's, not all of them.

use arrow::array::ArrayRef;
use arrow::row::{RowConverter, SortField};
use datafusion::common::ScalarValue;
use hashbrown::HashMap;

use super::Slot;
use crate::engine::Delta;
use crate::engine::runtime::operator::Wanted;
use crate::error::Result;

/// Readers from which on it pays to look who is concerned: to look a row up costs as much as some ten conditions. Tests
/// are built with debug assertions, and are to come here.
const MANY: usize = if cfg!(debug_assertions) { 4 } else { 32 };

/// A node, and the port on which it reads.
pub(super) type Reader = (Slot, usize);

/// See the module.
#[derive(Default)]
pub(super) struct Readers {
    all: Vec<Reader>,
    /// Made when a change comes; `None` when the readers have changed since.
    routes: Option<Routes>,
}

impl Readers {
    pub(super) fn all(&self) -> &[Reader] {
        &self.all
    }

    /// To change who reads.
    pub(super) fn all_mut(&mut self) -> &mut Vec<Reader> {
        self.routes = None;
        &mut self.all
    }

    /// Whether [`route`](Self::route) is to be called before a change is handed on.
    pub(super) fn want_routes(&self) -> bool {
        self.routes.is_none() && self.all.len() >= MANY
    }

    /// Sorts the readers by what each of them wants.
    pub(super) fn route(&mut self, wanted: impl Fn(Reader) -> Option<Wanted>) {
        self.routes = Some(Routes::new(&self.all, wanted));
    }

    /// Gives each reader those rows of a change that may concern it.
    pub(super) fn hand_on(&self, delta: Delta, to: &mut Vec<(Slot, usize, Delta)>) {
        let before = to.len();
        if let Some(routes) = &self.routes {
            if routes.hand_on(&delta, to).is_ok() {
                return;
            }
            // It spares work and decides nothing: what cannot be told apart goes to everybody, who decide themselves.
            to.truncate(before);
        }
        if let Some((last, others)) = self.all.split_last() {
            to.extend(others.iter().map(|(slot, port)| (*slot, *port, delta.clone())));
            to.push((last.0, last.1, delta));
        }
    }
}

struct Routes {
    columns: Vec<Column>,
    /// Those who take every row.
    rest: Vec<Reader>,
}

/// Readers that each take the rows with one value of a column.
struct Column {
    at: usize,
    converter: RowConverter,
    data_type: arrow::datatypes::DataType,
    /// A value's place in `readers`, by its bytes.
    values: HashMap<Box<[u8]>, u32, ahash::RandomState>,
    readers: Vec<Vec<Reader>>,
}

impl Routes {
    fn new(all: &[Reader], wanted: impl Fn(Reader) -> Option<Wanted>) -> Routes {
        let mut routes = Routes { columns: Vec::new(), rest: Vec::new() };
        for reader in all {
            if wanted(*reader).is_none_or(|wanted| routes.add(*reader, wanted).is_err()) {
                routes.rest.push(*reader);
            }
        }
        routes
    }

    fn add(&mut self, reader: Reader, Wanted { column: at, value }: Wanted) -> Result<()> {
        let data_type = value.data_type();
        let column = match self.columns.iter().position(|c| c.at == at && c.data_type == data_type) {
            Some(i) => &mut self.columns[i],
            None => {
                let converter = RowConverter::new(vec![SortField::new(data_type.clone())])?;
                let (values, readers) = (HashMap::default(), Vec::new());
                self.columns.push(Column { at, converter, data_type, values, readers });
                let last = self.columns.len() - 1;
                &mut self.columns[last]
            }
        };
        column.add(reader, &value)
    }

    fn hand_on(&self, delta: &Delta, to: &mut Vec<(Slot, usize, Delta)>) -> Result<()> {
        for column in &self.columns {
            let values = delta.rows.column(column.at);
            if values.data_type() == &column.data_type {
                column.hand_on(values, delta, to)?;
            } else {
                to.extend(column.readers.iter().flatten().map(|(slot, port)| (*slot, *port, delta.clone())));
            }
        }
        to.extend(self.rest.iter().map(|(slot, port)| (*slot, *port, delta.clone())));
        Ok(())
    }
}

impl Column {
    fn add(&mut self, reader: Reader, value: &ScalarValue) -> Result<()> {
        let rows = self.converter.convert_columns(&[value.to_array()?])?;
        let next = self.readers.len() as u32;
        let place = *self.values.entry(rows.row(0).as_ref().into()).or_insert(next);
        if place == next {
            self.readers.push(Vec::new());
        }
        self.readers[place as usize].push(reader);
        Ok(())
    }

    fn hand_on(&self, values: &ArrayRef, delta: &Delta, to: &mut Vec<(Slot, usize, Delta)>) -> Result<()> {
        let rows = self.converter.convert_columns(std::slice::from_ref(values))?;
        let found = rows.iter().enumerate().filter_map(|(at, row)| {
            let place = self.values.get(row.as_ref())?;
            Some((*place, at as u32))
        });
        let mut found: Vec<(u32, u32)> = found.collect();
        found.sort_unstable();
        for group in found.chunk_by(|a, b| a.0 == b.0) {
            let concerns = if group.len() == delta.num_rows() {
                delta.clone()
            } else {
                delta.take(&group.iter().map(|(_, at)| *at).collect::<Vec<u32>>())?
            };
            let readers = &self.readers[group[0].0 as usize];
            to.extend(readers.iter().map(|(slot, port)| (*slot, *port, concerns.clone())));
        }
        Ok(())
    }
}
