//! Which part of a partition's list a tick's changes can be seen from.

use std::ops::Range;

use super::{List, Part, Touched, Window};
use crate::error::Result;

/// With more changes than one in so many rows, a list is sorted with what has come, instead of searched.
const ROWS_PER_CHANGE: usize = 64;
/// Rows of a list that a search compares with at a time.
const PIVOTS: usize = 15;

/// A changed row that is looked for in its partition's list.
struct Search {
    touched: usize,
    id: u32,
    /// Where it is, or would be.
    range: Range<usize>,
}

/// From the last fence that nothing of a change reaches to the first one behind it, or, where functions look around, to
/// the end.
fn fenced(list: &List, changed: &Range<usize>, reach: usize) -> Range<usize> {
    let fences = &list.fences;
    let before = changed.start.saturating_sub(reach);
    let start = fences.partition_point(|fence| fence.end < before).checked_sub(1);
    let behind = fences.partition_point(|fence| fence.end < changed.end.max(changed.start + 1));
    let end = fences.get(behind).filter(|_| reach == 0).map_or(list.ids.len(), |fence| fence.end);
    start.map_or(0, |at| fences[at].end)..end
}

impl Window {
    /// The parts of the touched partitions' lists that can see a change, with the rows that have come.
    pub(super) fn parts(&self, touched: &[Touched]) -> Result<Vec<Part>> {
        let mut searches = Vec::new();
        // Lists that are sorted with what has come.
        let (mut groups, mut ids) = (Vec::new(), Vec::new());
        // Those of them to which nothing has come.
        let mut gone = vec![false; touched.len()];
        for (at, t) in touched.iter().enumerate() {
            let list = &self.lists[t.partition as usize].ids;
            let mut there: Vec<u32> = t.changed.keys().copied().filter(|id| self.was_or_is(t, *id)).collect();
            there.sort_unstable();
            if there.len() * ROWS_PER_CHANGE < list.len() {
                searches.extend(there.into_iter().map(|id| Search { touched: at, id, range: 0..list.len() }));
                continue;
            }
            let come: Vec<u32> = there.into_iter().filter(|id| self.has_come(t, *id)).collect();
            gone[at] = come.is_empty();
            if !gone[at] {
                ids.extend(list.iter().chain(&come));
                groups.resize(ids.len(), at as u32);
            }
        }
        let sorted = self.order.sort(&self.rows, &groups, &ids)?;
        let mut whole: Vec<Option<Vec<u32>>> = vec![None; touched.len()];
        for position in sorted {
            whole[groups[position as usize] as usize].get_or_insert_default().push(ids[position as usize]);
        }
        self.search(touched, &mut searches)?;
        // Those that come to the same place, in their order.
        let come = searches.iter().filter(|s| self.has_come(&touched[s.touched], s.id));
        let mut come: Vec<(usize, usize, u32)> = come.map(|s| (s.touched, s.range.start, s.id)).collect();
        come.sort_unstable();
        let (mut groups, mut ids) = (Vec::with_capacity(come.len()), Vec::with_capacity(come.len()));
        for (group, place) in (0..).zip(come.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1))) {
            ids.extend(place.iter().map(|c| c.2));
            groups.resize(ids.len(), group);
        }
        let sorted = self.order.sort(&self.rows, &groups, &ids)?;
        let come = sorted.into_iter().map(|at| (come[at as usize].0, come[at as usize].1, ids[at as usize]));
        let mut come = come.peekable();
        let mut searches = searches.iter().peekable();
        let mut parts = Vec::with_capacity(touched.len());
        for (at, t) in touched.iter().enumerate() {
            let list = &self.lists[t.partition as usize];
            let mut changed: Option<Range<usize>> = None;
            while let Some(search) = searches.next_if(|s| s.touched == at) {
                let (start, end) = (search.range.start, search.range.end);
                let known = changed.get_or_insert(start..end);
                *known = known.start.min(start)..known.end.max(end);
            }
            let Some(changed) = changed else {
                // Everything, or, where all that came has gone again, nothing.
                let len = list.ids.len();
                let part = match whole[at].take() {
                    Some(ids) => Part { list: 0..len, ids },
                    None if gone[at] => Part { list: 0..len, ids: list.ids.clone() },
                    None => Part { list: len..len, ids: Vec::new() },
                };
                parts.push(part);
                continue;
            };
            let reach = self.before + self.after;
            let mut range = changed.start.saturating_sub(reach)..(changed.end + reach).min(list.ids.len());
            if self.runs() {
                range = fenced(list, &changed, reach);
            }
            let mut ids = Vec::with_capacity(range.len());
            let mut next = range.start;
            while let Some((_, place, id)) = come.next_if(|c| c.0 == at) {
                ids.extend(&list.ids[next..place]);
                ids.push(id);
                next = place;
            }
            ids.extend(&list.ids[next..range.end]);
            parts.push(Part { list: range, ids });
        }
        Ok(parts)
    }

    fn was_or_is(&self, touched: &Touched, id: u32) -> bool {
        touched.changed.get(&id).is_some_and(|before| *before > 0) || self.rows.weight(id) > 0
    }

    fn has_come(&self, touched: &Touched, id: u32) -> bool {
        touched.changed.get(&id).is_some_and(|before| *before <= 0) && self.rows.weight(id) > 0
    }

    /// Finds where rows are, or where they would have to be: an empty range.
    fn search(&self, touched: &[Touched], searches: &mut [Search]) -> Result<()> {
        let mut open: Vec<usize> = (0..searches.len()).collect();
        while !open.is_empty() {
            let (mut groups, mut ids) = (Vec::new(), Vec::new());
            let mut ends = Vec::with_capacity(open.len());
            open.retain(|at| {
                let Search { touched: of, id, range } = &mut searches[*at];
                let list = &self.lists[touched[*of].partition as usize].ids;
                let pivots = || range.clone().step_by(range.len().div_ceil(PIVOTS));
                if let Some(place) = pivots().find(|place| list[*place] == *id) {
                    *range = place..place + 1;
                    return false;
                }
                ids.extend(pivots().map(|place| list[place]));
                ids.push(*id);
                groups.resize(ids.len(), ends.len() as u32);
                ends.push(ids.len());
                true
            });
            let sorted = self.order.sort(&self.rows, &groups, &ids)?;
            let mut start = 0;
            let mut ends = ends.into_iter();
            open.retain(|at| {
                let end = ends.next().unwrap_or(start);
                // The one that is looked for is the last of its group.
                let below =
                    sorted[start..end].iter().take_while(|position| **position as usize != end - 1).count();
                start = end;
                let range = &mut searches[*at].range;
                let step = range.len().div_ceil(PIVOTS);
                let from = range.start;
                *range = match below {
                    0 => from..from,
                    _ => from + (below - 1) * step + 1..(from + below * step).min(range.end),
                };
                range.start < range.end
            });
        }
        Ok(())
    }
}
