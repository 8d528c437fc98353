//! Sums and averages. What is accumulated is exact, so a retraction takes back exactly what its insertion gave.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, Decimal128Array, Decimal256Array, Float64Array, Int64Array, PrimitiveArray,
};
use arrow::datatypes::{
    DataType, Decimal128Type, Decimal256Type, DecimalType, Float64Type, Int64Type, UInt64Type, i256,
};

use super::floats::FloatSums;
use crate::engine::expr::cast_to;
use crate::engine::state::{Restored, Saved};
use crate::error::{Error, Result, SqlState};

/// Sums by slot, and how many values each has.
pub(super) struct Sums {
    totals: Totals,
    counts: Vec<i64>,
    mean: bool,
    // What arguments are read as.
    read_as: DataType,
    output: DataType,
}

enum Totals {
    // 64-bit values by 63-bit weights stay within 128 bits up to 2⁶⁴ rows of the greatest weight.
    Integers(Vec<i128>),
    Decimals { totals: Vec<i256>, scale: i8 },
    Floats(FloatSums),
}

impl Sums {
    /// Sums, or averages if `mean`, of arguments of type `arg` with results of type `output`.
    pub(super) fn new(arg: &DataType, output: &DataType, mean: bool) -> Result<Sums> {
        let read_as = match arg {
            t if t.is_signed_integer() => DataType::Int64,
            t if t.is_unsigned_integer() => DataType::UInt64,
            DataType::Duration(_) => DataType::Int64,
            DataType::Decimal32(p, s) | DataType::Decimal64(p, s) => DataType::Decimal128(*p, *s),
            DataType::Decimal128(..) | DataType::Decimal256(..) => arg.clone(),
            t if t.is_floating() => DataType::Float64,
            other => return Err(Error::unsupported(format!("the sum of values of type {other}"))),
        };
        let totals = match &read_as {
            DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale) => {
                Totals::Decimals { totals: Vec::new(), scale: *scale }
            }
            DataType::Float64 => Totals::Floats(FloatSums::default()),
            _ => Totals::Integers(Vec::new()),
        };
        Ok(Sums { totals, counts: Vec::new(), mean, read_as, output: output.clone() })
    }

    /// Makes room for slots below `slots`.
    pub(super) fn resize(&mut self, slots: usize) {
        self.counts.resize(slots, 0);
        match &mut self.totals {
            Totals::Integers(totals) => totals.resize(slots, 0),
            Totals::Decimals { totals, .. } => totals.resize(slots, i256::ZERO),
            Totals::Floats(sums) => sums.resize(slots),
        }
    }

    /// Adds values, none of which is NULL.
    pub(super) fn update(&mut self, slots: &[u32], values: &ArrayRef, weights: Option<&[i64]>) -> Result<()> {
        let values = cast_to(Arc::clone(values), &self.read_as)?;
        let counts = &mut self.counts;
        macro_rules! add {
            ($type:ty, |$slot:ident, $value:ident, $weight:ident| $add:expr) => {{
                let values = values.as_primitive::<$type>().values();
                match weights {
                    None => {
                        for ($slot, $value) in slots.iter().map(|s| *s as usize).zip(values.iter().copied()) {
                            counts[$slot] += 1;
                            let $weight = 1i64;
                            $add;
                        }
                    }
                    Some(weights) => {
                        let rows = slots.iter().map(|s| *s as usize).zip(values.iter().copied()).zip(weights);
                        for (($slot, $value), $weight) in rows {
                            let $weight = *$weight;
                            counts[$slot] += $weight;
                            $add;
                        }
                    }
                }
            }};
        }
        match (&mut self.totals, &self.read_as) {
            (Totals::Integers(totals), DataType::UInt64) => {
                add!(UInt64Type, |slot, value, weight| totals[slot] += i128::from(value) * i128::from(weight))
            }
            (Totals::Integers(totals), _) => {
                add!(Int64Type, |slot, value, weight| totals[slot] += i128::from(value) * i128::from(weight))
            }
            (Totals::Decimals { totals, .. }, DataType::Decimal256(..)) => {
                add!(Decimal256Type, |slot, value, weight| totals[slot] =
                    totals[slot].wrapping_add(times(value, weight)))
            }
            (Totals::Decimals { totals, .. }, _) => {
                add!(Decimal128Type, |slot, value, weight| totals[slot] =
                    totals[slot].wrapping_add(times(i256::from_i128(value), weight)))
            }
            (Totals::Floats(sums), _) => {
                add!(Float64Type, |slot, value, weight| sums.add(slot as u32, value, weight))
            }
        }
        Ok(())
    }

    /// The results; NULL without values, and where `errors` says why there is none.
    pub(super) fn evaluate(&self, slots: &[u32], errors: &mut Vec<(usize, Error)>) -> Result<ArrayRef> {
        let has_values = |slot: &u32| self.counts[*slot as usize] > 0;
        let count = |slot: &u32| self.counts[*slot as usize];
        if let Totals::Floats(sums) = &self.totals {
            let value = |slot: &u32| {
                let sum = sums.value(*slot);
                if self.mean { sum / count(slot) as f64 } else { sum }
            };
            let values = slots.iter().map(|slot| has_values(slot).then(|| value(slot)));
            return Ok(Arc::new(Float64Array::from_iter(values)));
        }
        if matches!(self.output, DataType::Float64 | DataType::Float32) {
            let value = |slot: &u32| {
                let sum = self.as_float(*slot);
                if self.mean { sum / count(slot) as f64 } else { sum }
            };
            let values = slots.iter().map(|slot| has_values(slot).then(|| value(slot)));
            return Ok(Arc::new(Float64Array::from_iter(values)));
        }
        // Everything else is exact: the total, scaled for the result, divided by the count for an average.
        let (scale_in, scale_out) = match (&self.totals, &self.output) {
            (Totals::Decimals { scale, .. }, DataType::Decimal128(_, out) | DataType::Decimal256(_, out)) => {
                (*scale, *out)
            }
            (_, DataType::Decimal128(_, out) | DataType::Decimal256(_, out)) => (0, *out),
            (Totals::Decimals { scale, .. }, _) => (*scale, 0),
            _ => (0, 0),
        };
        let power = |n: i8| i256::from_i128(10).checked_pow(u32::from(n.unsigned_abs()));
        let factor = power(scale_out.saturating_sub(scale_in));
        let exact = |slot: &u32| -> Option<i256> {
            let total = match &self.totals {
                Totals::Integers(totals) => i256::from_i128(totals[*slot as usize]),
                Totals::Decimals { totals, .. } => totals[*slot as usize],
                Totals::Floats(_) => return None,
            };
            let total = if scale_out >= scale_in {
                total.checked_mul(factor?)?
            } else {
                total.checked_div(factor?)?
            };
            if self.mean { total.checked_div(i256::from_i128(count(slot).into())) } else { Some(total) }
        };
        let values = slots.iter().map(|slot| has_values(slot).then(|| exact(slot))).collect::<Vec<_>>();
        self.narrow(values, errors)
    }

    /// Exact results in the type of the output; those that do not fit are errors.
    fn narrow(
        &self,
        values: Vec<Option<Option<i256>>>,
        errors: &mut Vec<(usize, Error)>,
    ) -> Result<ArrayRef> {
        // `None`: NULL. `Some(None)`: beyond even 256 bits.
        Ok(match &self.output {
            DataType::Decimal128(p, s) => {
                let fit = |v: i256| {
                    v.to_i128().filter(|v| Decimal128Type::validate_decimal_precision(*v, *p, *s).is_ok())
                };
                let values = fitting(values, fit, &self.output, errors);
                Arc::new(Decimal128Array::from_iter(values).with_precision_and_scale(*p, *s)?)
            }
            DataType::Decimal256(p, s) => {
                let fit =
                    |v: i256| Decimal256Type::validate_decimal_precision(v, *p, *s).is_ok().then_some(v);
                let values = fitting(values, fit, &self.output, errors);
                Arc::new(Decimal256Array::from_iter(values).with_precision_and_scale(*p, *s)?)
            }
            DataType::UInt64 => {
                let fit = |v: i256| v.to_i128().and_then(|v| u64::try_from(v).ok());
                let values = fitting(values, fit, &self.output, errors);
                Arc::new(PrimitiveArray::<UInt64Type>::from_iter(values))
            }
            other => {
                let range = integer_range(other)?;
                let fit =
                    |v: i256| v.to_i128().and_then(|v| i64::try_from(v).ok()).filter(|v| range.contains(v));
                let values = fitting(values, fit, &self.output, errors);
                Arc::new(Int64Array::from_iter(values))
            }
        })
    }

    fn as_float(&self, slot: u32) -> f64 {
        match &self.totals {
            Totals::Integers(totals) => totals[slot as usize] as f64,
            Totals::Decimals { totals, scale } => {
                let total = totals[slot as usize];
                let whole = total
                    .to_i128()
                    .map_or_else(|| total.to_string().parse().unwrap_or(f64::NAN), |v| v as f64);
                whole / 10f64.powi(i32::from(*scale))
            }
            Totals::Floats(sums) => sums.value(slot),
        }
    }

    /// Whether a group is as if it had never had a value.
    pub(super) fn is_zero(&self, slot: u32) -> bool {
        self.counts[slot as usize] == 0
            && match &self.totals {
                Totals::Integers(totals) => totals[slot as usize] == 0,
                Totals::Decimals { totals, .. } => totals[slot as usize] == i256::ZERO,
                Totals::Floats(sums) => sums.is_zero(slot),
            }
    }

    /// Gives the sums and counts.
    pub(super) fn save(&self, state: &mut Saved) {
        state.numbers(&self.counts);
        match &self.totals {
            Totals::Integers(totals) => state.numbers(totals),
            Totals::Decimals { totals, .. } => state.numbers(totals),
            Totals::Floats(sums) => sums.save(state),
        }
    }

    /// Takes up what [`Sums::save`] gave of slots below `slots`.
    pub(super) fn restore(&mut self, slots: usize, state: &mut Restored) -> Result<()> {
        self.counts = state.numbers_of(slots)?;
        match &mut self.totals {
            Totals::Integers(totals) => *totals = state.numbers_of(slots)?,
            Totals::Decimals { totals, .. } => *totals = state.numbers_of(slots)?,
            Totals::Floats(sums) => sums.restore(slots, state)?,
        }
        Ok(())
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.counts.capacity() * 8
            + match &self.totals {
                Totals::Integers(totals) => totals.capacity() * 16,
                Totals::Decimals { totals, .. } => totals.capacity() * 32,
                Totals::Floats(sums) => sums.bytes(),
            }
    }
}

#[inline]
fn times(value: i256, weight: i64) -> i256 {
    match weight {
        1 => value,
        -1 => value.wrapping_neg(),
        _ => value.wrapping_mul(i256::from_i128(weight.into())),
    }
}

/// The values that fit; the others are errors.
fn fitting<T>(
    values: Vec<Option<Option<i256>>>,
    fit: impl Fn(i256) -> Option<T>,
    output: &DataType,
    errors: &mut Vec<(usize, Error)>,
) -> Vec<Option<T>> {
    let narrow = |(at, value): (usize, Option<Option<i256>>)| {
        let fitted = value?.and_then(&fit);
        if fitted.is_none() {
            errors.push((at, out_of_range(output)));
        }
        fitted
    };
    values.into_iter().enumerate().map(narrow).collect()
}

fn integer_range(output: &DataType) -> Result<std::ops::RangeInclusive<i64>> {
    Ok(match output {
        DataType::Int64 | DataType::Duration(_) => i64::MIN..=i64::MAX,
        DataType::Int32 => i32::MIN.into()..=i32::MAX.into(),
        DataType::Int16 => i16::MIN.into()..=i16::MAX.into(),
        DataType::Int8 => i8::MIN.into()..=i8::MAX.into(),
        DataType::UInt32 => 0..=u32::MAX.into(),
        DataType::UInt16 => 0..=u16::MAX.into(),
        DataType::UInt8 => 0..=u8::MAX.into(),
        other => return Err(Error::unsupported(format!("a sum as {other}"))),
    })
}

fn out_of_range(output: &DataType) -> Error {
    let name = match output {
        DataType::Int64 => "bigint".to_string(),
        DataType::Int32 => "integer".to_string(),
        DataType::Int16 => "smallint".to_string(),
        DataType::Decimal128(p, s) | DataType::Decimal256(p, s) => format!("numeric({p},{s})"),
        other => other.to_string(),
    };
    Error::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, format!("{name} out of range"))
}
