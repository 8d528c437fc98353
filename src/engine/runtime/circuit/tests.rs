//! Circuits of small operators: order, sharing, failure, and who is given what.

use std::sync::Arc;

use arrow::array::{AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};

use datafusion::common::ScalarValue;

use super::*;
use crate::engine::runtime::operator::Wanted;
use crate::error::SqlState;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("x", DataType::Int64, true)]))
}

fn delta(values: &[i64]) -> Delta {
    let column = Arc::new(Int64Array::from(values.to_vec()));
    Delta::insert(RecordBatch::try_new(schema(), vec![column]).unwrap())
}

/// Hands on; does as it is told by a value.
struct Told;

impl Operator for Told {
    fn push(&mut self, _port: usize, delta: Delta, out: &mut Output) -> Result<()> {
        let values = delta.rows.column(0).as_primitive::<Int64Type>();
        for value in values.values() {
            match value {
                13 => return Err(Error::new(SqlState::OUT_OF_MEMORY, "thirteen")),
                14 => panic!("fourteen"),
                _ => {}
            }
        }
        out.deltas.push(delta);
        Ok(())
    }
}

/// Adds up all it is given and tells in `finish`, once.
#[derive(Default)]
struct Sum(i64, bool);

impl Operator for Sum {
    fn push(&mut self, _port: usize, delta: Delta, _out: &mut Output) -> Result<()> {
        assert!(!self.1, "a push after the finish of the same tick");
        self.0 += delta.rows.column(0).as_primitive::<Int64Type>().values().iter().sum::<i64>();
        Ok(())
    }

    fn finish(&mut self, out: &mut Output) -> Result<()> {
        assert!(!std::mem::replace(&mut self.1, true), "two finishes in a tick");
        out.deltas.push(delta(&[self.0]));
        Ok(())
    }

    fn commit(&mut self) -> Result<()> {
        *self = Sum::default();
        Ok(())
    }
}

const INPUT: CollectionId = CollectionId(1);

/// An input and a view over `input`, by the given operators one after the other.
fn view(circuit: &mut Circuit, id: u64, input: Slot, operators: Vec<Box<dyn Operator>>) -> Slot {
    let owner = CollectionId(id);
    let last = operators
        .into_iter()
        .fold(input, |before, operator| circuit.add(owner, Body::Operator(operator), &[before]));
    circuit.add(owner, Body::View(Box::new(View::new(&schema()))), &[last])
}

fn pass(circuit: &mut Circuit, tick: Tick, input: Slot, deltas: &[&[i64]]) -> Outcome {
    circuit.begin(tick);
    for values in deltas {
        circuit.push(input, 0, delta(values));
    }
    circuit.finish();
    circuit.commit()
}

fn values(outcome: &Outcome, id: u64) -> Vec<i64> {
    let mut values: Vec<i64> = outcome
        .changes
        .get(&CollectionId(id))
        .into_iter()
        .flatten()
        .flat_map(|d| d.rows.column(0).as_primitive::<Int64Type>().values().to_vec())
        .collect();
    values.sort_unstable();
    values
}

#[test]
fn every_input_of_a_node_is_through_before_it_finishes() {
    let mut circuit = Circuit::default();
    let input = circuit.add(INPUT, Body::Tap { after: 0 }, &[]);
    // Short way and long way meet in the last node.
    let owner = CollectionId(2);
    let long = circuit.add(owner, Body::Operator(Box::<Sum>::default()), &[input]);
    let longer = circuit.add(owner, Body::Operator(Box::<Sum>::default()), &[long]);
    let both = circuit.add(owner, Body::Operator(Box::<Sum>::default()), &[input, longer]);
    circuit.add(owner, Body::View(Box::new(View::new(&schema()))), &[both]);
    assert_eq!(values(&pass(&mut circuit, 1, input, &[&[1, 2], &[3]]), 2), [12]);
    assert_eq!(values(&pass(&mut circuit, 2, input, &[&[5]]), 2), [10]);
    assert!(pass(&mut circuit, 3, input, &[]).changes.is_empty());
}

#[test]
fn what_fails_stops_its_view_and_those_that_read_it() {
    for (poison, state) in [(13, SqlState::OUT_OF_MEMORY), (14, SqlState::INTERNAL_ERROR)] {
        let mut circuit = Circuit::default();
        let input = circuit.add(INPUT, Body::Tap { after: 0 }, &[]);
        let broken = view(&mut circuit, 2, input, vec![Box::new(Told)]);
        view(&mut circuit, 3, broken, vec![Box::<Sum>::default()]);
        view(&mut circuit, 4, input, vec![Box::<Sum>::default()]);
        assert_eq!(values(&pass(&mut circuit, 1, input, &[&[1]]), 3), [1]);
        let outcome = pass(&mut circuit, 2, input, &[&[2], &[poison]]);
        let mut failed: Vec<(u64, SqlState)> =
            outcome.failed.iter().map(|(id, e)| (id.0, e.sqlstate)).collect();
        failed.sort_unstable_by_key(|f| f.0);
        assert_eq!(failed, [(2, state), (3, state)]);
        assert_eq!(values(&outcome, 4), [2 + poison]);
        assert!(values(&outcome, 2).is_empty() && values(&outcome, 3).is_empty());
        let outcome = pass(&mut circuit, 3, input, &[&[4]]);
        assert!(outcome.failed.is_empty());
        assert_eq!(values(&outcome, 4), [4]);
        assert_eq!(outcome.changes.len(), 1);
    }
}

#[test]
fn nodes_move_and_go() {
    let mut circuit = Circuit::default();
    let input = circuit.add(INPUT, Body::Tap { after: 0 }, &[]);
    view(&mut circuit, 2, input, vec![Box::new(Told)]);
    let mut other = Circuit::default();
    let tap = other.add(CollectionId(3), Body::Tap { after: 5 }, &[]);
    view(&mut other, 3, tap, vec![Box::new(Told), Box::<Sum>::default()]);
    circuit.remove(CollectionId(2));
    let moved = circuit.absorb(other, HashMap::new());
    circuit.connect(input, moved[&tap]);
    assert!(pass(&mut circuit, 5, input, &[&[1]]).changes.is_empty());
    assert_eq!(values(&pass(&mut circuit, 6, input, &[&[1, 2]]), 3), [3]);
    circuit.remove(CollectionId(3));
    assert!(pass(&mut circuit, 7, input, &[&[1]]).changes.is_empty());
    assert_eq!(circuit.state().keys().collect::<Vec<_>>(), [&INPUT]);
}

/// Takes rows of one value, and must not be shown others once there are many who read.
struct Only(i64);

impl Operator for Only {
    fn push(&mut self, _port: usize, delta: Delta, out: &mut Output) -> Result<()> {
        let values = delta.rows.column(0).as_primitive::<Int64Type>();
        assert!(
            values.iter().all(|value| value == Some(self.0)),
            "{values:?} reached the reader of {}",
            self.0
        );
        out.deltas.push(delta);
        Ok(())
    }

    fn wanted(&self, _port: usize) -> Option<Wanted> {
        Some(Wanted { column: 0, value: ScalarValue::Int64(Some(self.0)) })
    }
}

#[test]
fn of_many_readers_only_those_concerned_are_given_a_change() {
    let mut circuit = Circuit::default();
    let input = circuit.add(INPUT, Body::Tap { after: 0 }, &[]);
    // Values 0 to 9, each read by two, and one reader of everything.
    for id in 0..20 {
        view(&mut circuit, 10 + id, input, vec![Box::new(Only(id as i64 / 2))]);
    }
    view(&mut circuit, 40, input, vec![Box::new(Told)]);
    let outcome = pass(&mut circuit, 1, input, &[&[3, 7, 3, 99], &[5], &[]]);
    assert_eq!(values(&outcome, 40), [3, 3, 5, 7, 99]);
    for (id, expected) in [(16, vec![3, 3]), (17, vec![3, 3]), (20, vec![5]), (24, vec![7]), (10, vec![])] {
        assert_eq!(values(&outcome, id), expected, "view {id}");
    }
    // Who goes and who comes is known at once.
    circuit.remove(CollectionId(16));
    view(&mut circuit, 41, input, vec![Box::new(Only(99))]);
    let outcome = pass(&mut circuit, 2, input, &[&[99, 3]]);
    assert_eq!(
        (values(&outcome, 41), values(&outcome, 17), values(&outcome, 16)),
        (vec![99], vec![3], vec![])
    );
}
