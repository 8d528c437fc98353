//! Aggregates against a naive recomputation from the rows.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::logical_expr::Operator as Op;
use datafusion::physical_expr::expressions::{BinaryExpr, CastExpr, Column, lit};

use super::Aggregate;
use crate::engine::Delta;
use crate::engine::delta::batch;
use crate::engine::keys::weak;
use crate::engine::ops::testing::{Multiset, Rng, check_operator, key_text, sample_schema, tally};
use crate::engine::plan::spec::{AggregateCall, AggregateKind as Kind, AggregateSpec, Expr};
use crate::engine::runtime::operator::{Operator, Output};
use crate::error::SqlState;

fn column(c: usize) -> Expr {
    Arc::new(Column::new(["a", "f", "s"][c], c))
}

fn cast(e: Expr, to: &DataType) -> Expr {
    Arc::new(CastExpr::new(e, to.clone(), None))
}

/// An argument: the expression, its type, and its text for a row.
type Arg = (Expr, DataType, fn(&[String]) -> String);

fn args() -> Vec<Arg> {
    let decimal = DataType::Decimal128(12, 2);
    let is_odd: Expr = Arc::new(BinaryExpr::new(column(0), Op::Gt, lit(2i64)));
    vec![
        (column(0), DataType::Int64, |r| r[0].clone()),
        (column(1), DataType::Float64, |r| key_text(&r[1])),
        (column(2), DataType::Utf8View, |r| r[2].clone()),
        (cast(column(0), &decimal), decimal, |r| {
            if r[0] == "∅" { r[0].clone() } else { format!("{}.00", r[0]) }
        }),
        (cast(column(0), &DataType::Int16), DataType::Int16, |r| r[0].clone()),
        (is_odd, DataType::Boolean, |r| r[0].parse::<i64>().map_or("∅".into(), |a| (a > 2).to_string())),
    ]
}

/// Which argument, and the result's type.
fn calls() -> Vec<(Kind, Option<usize>, DataType)> {
    let mut calls = vec![
        (Kind::Count, None, DataType::Int64),
        (Kind::Sum, Some(0), DataType::Int64),
        (Kind::Sum, Some(1), DataType::Float64),
        (Kind::Sum, Some(3), DataType::Decimal128(22, 2)),
        (Kind::Sum, Some(4), DataType::Int64),
        (Kind::Avg, Some(1), DataType::Float64),
        (Kind::Avg, Some(3), DataType::Decimal128(16, 6)),
        (Kind::BoolAnd, Some(5), DataType::Boolean),
        (Kind::BoolOr, Some(5), DataType::Boolean),
    ];
    for (at, (_, data_type, _)) in args().into_iter().enumerate() {
        calls.push((Kind::Count, Some(at), DataType::Int64));
        calls.push((Kind::Min, Some(at), data_type.clone()));
        calls.push((Kind::Max, Some(at), data_type));
    }
    calls
}

/// One call's result over the texts of its arguments and their weights.
fn naive(kind: Kind, arg: Option<usize>, output: &DataType, values: &BTreeMap<String, i64>) -> String {
    let count: i64 = values.values().sum();
    let weight = |v: &str| values.get(v).copied().unwrap_or(0);
    let null = || "∅".to_string();
    match kind {
        Kind::Count => count.to_string(),
        Kind::BoolAnd | Kind::BoolOr => {
            let (falses, trues) = (weight("false"), weight("true"));
            match falses > 0 || trues > 0 {
                true => if kind == Kind::BoolAnd { falses <= 0 } else { trues > 0 }.to_string(),
                false => null(),
            }
        }
        Kind::Min | Kind::Max => {
            let mut there: Vec<&String> = values.iter().filter(|(_, w)| **w > 0).map(|(v, _)| v).collect();
            there.sort_by(|a, b| match arg {
                Some(2 | 5) => a.cmp(b),
                _ => a.parse::<f64>().unwrap().total_cmp(&b.parse().unwrap()),
            });
            let found = if kind == Kind::Min { there.first() } else { there.last() };
            found.map_or_else(null, |v| v.to_string())
        }
        Kind::Sum | Kind::Avg if count <= 0 => null(),
        Kind::Sum | Kind::Avg => match output {
            DataType::Float64 => {
                let (up, down) = (weight("inf") > 0, weight("-inf") > 0);
                let finite = values
                    .iter()
                    .filter_map(|(v, w)| Some((v.parse::<f64>().ok().filter(|v| v.is_finite())?, w)));
                let sum = match () {
                    () if weight("NaN") > 0 || (up && down) => f64::NAN,
                    () if up => f64::INFINITY,
                    () if down => f64::NEG_INFINITY,
                    () => finite.map(|(v, w)| v * *w as f64).sum::<f64>() + 0.0,
                };
                format!("{:?}", if kind == Kind::Avg { sum / count as f64 } else { sum })
            }
            _ => {
                let cents = |v: &str| v.replace('.', "").parse::<i128>().unwrap();
                let sum: i128 = values.iter().map(|(v, w)| cents(v) * i128::from(*w)).sum();
                match (kind, output) {
                    (Kind::Avg, _) => decimal(sum * 10_000 / i128::from(count), 6),
                    (_, DataType::Decimal128(..)) => decimal(sum, 2),
                    _ => sum.to_string(),
                }
            }
        },
    }
}

fn decimal(value: i128, scale: u32) -> String {
    let (sign, one) = (if value < 0 { "-" } else { "" }, 10u128.pow(scale));
    let value = value.unsigned_abs();
    format!("{sign}{}.{:0width$}", value / one, value % one, width = scale as usize)
}

fn check(seed: u64) {
    let mut rng = Rng::new(seed ^ 0xa66);
    let keys: Vec<usize> = [vec![], vec![0], vec![1], vec![2, 0]][seed as usize % 4].clone();
    let (args, all) = (args(), calls());
    let chosen: Vec<(Kind, Option<usize>, DataType, bool, bool)> = (0..5)
        .map(|_| {
            let (kind, arg, output) = all[rng.below(all.len())].clone();
            (kind, arg, output, arg.is_some() && rng.one_in(3), rng.one_in(3))
        })
        .collect();
    let filter: Expr = Arc::new(BinaryExpr::new(column(0), Op::Lt, lit(4i64)));
    let passes = |row: &[String]| row[0].parse::<i64>().is_ok_and(|a| a < 4);

    let call = |(at, (kind, arg, output, distinct, filtered)): (
        usize,
        &(Kind, Option<usize>, DataType, bool, bool),
    )| AggregateCall {
        kind: *kind,
        arg: arg.map(|a| Arc::clone(&args[a].0)),
        distinct: *distinct,
        filter: filtered.then(|| Arc::clone(&filter)),
        output: Arc::new(Field::new(format!("c{at}"), output.clone(), true)),
    };
    let calls: Vec<AggregateCall> = chosen.iter().enumerate().map(call).collect();
    let input = sample_schema();
    let key_fields = keys.iter().map(|k| Arc::clone(&input.fields()[*k]));
    let fields = key_fields.chain(calls.iter().map(|c| Arc::clone(&c.output))).collect::<Vec<_>>();
    let spec = AggregateSpec {
        keys: keys.iter().map(|k| column(*k)).collect(),
        calls,
        input: sample_schema(),
        schema: Arc::new(Schema::new(fields)),
    };

    let expected = |inputs: &[Multiset]| {
        let mut groups: BTreeMap<Vec<String>, Vec<(&Vec<String>, i64)>> = BTreeMap::new();
        if keys.is_empty() {
            groups.insert(Vec::new(), Vec::new());
        }
        for (row, weight) in &inputs[0] {
            groups.entry(keys.iter().map(|k| key_text(&row[*k])).collect()).or_default().push((row, *weight));
        }
        let mut rows = Multiset::new();
        for (key, members) in groups {
            if !keys.is_empty() && members.iter().map(|(_, w)| w).sum::<i64>() <= 0 {
                continue;
            }
            let result =
                |(kind, arg, output, distinct, filtered): &(Kind, Option<usize>, DataType, bool, bool)| {
                    let mut values: BTreeMap<String, i64> = BTreeMap::new();
                    for (row, weight) in members.iter().filter(|(row, _)| !filtered || passes(row)) {
                        *values.entry(arg.map_or("*".into(), |a| args[a].2(row))).or_default() += weight;
                    }
                    values.remove("∅");
                    if *distinct {
                        values.retain(|_, w| *w > 0);
                        values.values_mut().for_each(|w| *w = 1);
                    }
                    naive(*kind, *arg, output, &values)
                };
            let results = chosen.iter().map(result);
            rows.insert(key.iter().cloned().chain(results).collect(), 1);
        }
        (rows, 0)
    };
    check_operator(seed, 1, 30, || Box::new(Aggregate::new(&spec).unwrap()), expected);
}

#[test]
fn every_call_is_what_its_definition_says() {
    (0..60).for_each(check);
}

#[test]
fn colliding_hashes_do_no_harm() {
    weak::with(|| (200..216).for_each(check));
}

/// A tick's output and errors.
fn tick(op: &mut Aggregate, delta: Delta) -> Output {
    let mut out = Output::default();
    op.push(0, delta, &mut out).unwrap();
    op.finish(&mut out).unwrap();
    op.commit().unwrap();
    out
}

#[test]
fn a_sum_out_of_range_is_an_error_until_it_is_in_range_again() {
    let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, true)]));
    let sum = AggregateCall {
        kind: Kind::Sum,
        arg: Some(column(0)),
        distinct: false,
        filter: None,
        output: Arc::new(Field::new("sum", DataType::Int64, true)),
    };
    let spec = AggregateSpec {
        keys: vec![],
        schema: Arc::new(Schema::new(vec![Arc::clone(&sum.output)])),
        calls: vec![sum],
        input: Arc::clone(&schema),
    };
    let mut op = Aggregate::new(&spec).unwrap();
    let rows = |values: Vec<i64>| {
        let n = values.len();
        Delta::insert(batch(&schema, vec![Arc::new(Int64Array::from(values)) as ArrayRef], n).unwrap())
    };
    let out = tick(&mut op, rows(vec![i64::MAX]));
    assert_eq!(tally(&out.deltas), Multiset::from([(vec![i64::MAX.to_string()], 1)]));

    let out = tick(&mut op, rows(vec![i64::MAX, 5]));
    assert_eq!(tally(&out.deltas), Multiset::from([(vec![i64::MAX.to_string()], -1)]));
    assert_eq!(out.errors.len(), 1);
    assert_eq!(
        (out.errors[0].weight, out.errors[0].error.sqlstate),
        (1, SqlState::NUMERIC_VALUE_OUT_OF_RANGE)
    );

    let out = tick(&mut op, rows(vec![i64::MAX, i64::MAX]).negate());
    assert_eq!(tally(&out.deltas), Multiset::from([(vec!["5".to_string()], 1)]));
    assert_eq!(out.errors.len(), 1);
    assert_eq!(out.errors[0].weight, -1);
}

#[test]
fn groups_that_go_leave_nothing_behind() {
    let spec = AggregateSpec {
        keys: vec![column(0)],
        calls: calls()
            .into_iter()
            .enumerate()
            .map(|(i, (kind, arg, output))| AggregateCall {
                kind,
                arg: arg.map(|a| args().swap_remove(a).0),
                distinct: i % 2 == 0 && arg.is_some(),
                filter: None,
                output: Arc::new(Field::new(format!("c{i}"), output, true)),
            })
            .collect(),
        input: sample_schema(),
        schema: Arc::new(Schema::new(
            [Arc::new(Field::new("a", DataType::Int64, true))]
                .into_iter()
                .chain(
                    calls()
                        .into_iter()
                        .enumerate()
                        .map(|(i, c)| Arc::new(Field::new(format!("c{i}"), c.2, true))),
                )
                .collect::<Vec<_>>(),
        )),
    };
    let mut op = Aggregate::new(&spec).unwrap();
    let mut rng = Rng::new(77);
    let delta = crate::engine::ops::testing::random_delta(&mut rng, 400, true);
    tick(&mut op, delta.clone());
    assert!(op.state_rows() > 0);
    tick(&mut op, delta.negate());
    assert_eq!(op.state_rows(), 0);
}
