//! What TUMBLE, HOP and SESSION compute for each row: where its windows begin and end.
//!
//! Windows are aligned to the Unix epoch, moved by an offset. They include their start and not their end, which have
//! the type of the time column. A row at `infinity` is in a window of its own kind, from `infinity` to `infinity`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, PrimitiveArray};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Field, FieldRef, IntervalMonthDayNano,
    IntervalMonthDayNanoType, IntervalUnit, TimeUnit, TimestampMicrosecondType,
};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::function::{PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion::logical_expr::{
    ColumnarValue, PartitionEvaluator, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility, WindowUDF, WindowUDFImpl,
};

use crate::error::{Error, SqlState};
use crate::types::SqlType;

const DAY_MICROS: i64 = 86_400_000_000;

/// A row of HOP stands in at most this many windows.
const WINDOWS_MAX: i64 = 10_000;

/// The functions of a row.
pub fn functions() -> Vec<Arc<ScalarUDF>> {
    [Kind::TumbleStart, Kind::HopStarts, Kind::HopEnds, Kind::End]
        .map(|kind| Arc::new(ScalarUDF::new_from_impl(Windows::new(kind))))
        .into()
}

/// The functions of a row among its neighbours.
pub fn window_functions() -> Vec<Arc<WindowUDF>> {
    [false, true].map(|end| Arc::new(WindowUDF::new_from_impl(Session::new(end)))).into()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    /// `tumble_start(at, size [, offset])`
    TumbleStart,
    /// `hop_starts(at, slide, size [, offset])`
    HopStarts,
    /// `hop_ends(at, slide, size [, offset])`
    HopEnds,
    /// `window_end(start, size)`
    End,
}

/// See [`Kind`].
#[derive(Debug, PartialEq, Eq, Hash)]
struct Windows {
    kind: Kind,
    signature: Signature,
}

impl Windows {
    fn new(kind: Kind) -> Self {
        Windows { kind, signature: Signature::user_defined(Volatility::Immutable) }
    }

    fn is_list(&self) -> bool {
        matches!(self.kind, Kind::HopStarts | Kind::HopEnds)
    }

    /// What the intervals among the arguments are, for errors.
    fn intervals(&self) -> &'static [&'static str] {
        match self.kind {
            Kind::TumbleStart => &["size", "offset"],
            Kind::HopStarts | Kind::HopEnds => &["slide", "size", "offset"],
            Kind::End => &["size"],
        }
    }

    /// The intervals in the unit of the time column; without an offset it is 0.
    fn lengths(&self, values: &[IntervalMonthDayNano], dates: bool) -> crate::Result<Lengths> {
        let mut lengths = [0; 3];
        for ((length, value), what) in lengths.iter_mut().zip(values).zip(self.intervals()) {
            *length = units(*value, what, dates)?;
        }
        Ok(match self.kind {
            Kind::TumbleStart => {
                let [size, offset, _] = lengths;
                Lengths { slide: size, size, offset }
            }
            Kind::End => Lengths { slide: lengths[0], size: lengths[0], offset: 0 },
            Kind::HopStarts | Kind::HopEnds => {
                let [slide, size, offset] = lengths;
                if slide > size {
                    return Err(Error::new(
                        SqlState::INVALID_PARAMETER_VALUE,
                        "the slide of HOP must not be longer than its size",
                    )
                    .with_detail("Rows between two windows would be in none."));
                }
                if (size - 1) / slide >= WINDOWS_MAX {
                    return Err(Error::new(
                        SqlState::INVALID_PARAMETER_VALUE,
                        format!("the size of HOP must not be more than {WINDOWS_MAX} times its slide"),
                    ));
                }
                Lengths { slide, size, offset }
            }
        })
    }
}

/// Lengths in microseconds, or in days where the time column is a date.
#[derive(Clone, Copy)]
struct Lengths {
    slide: i64,
    size: i64,
    offset: i64,
}

/// An interval of one length in the unit of the time column.
fn units(interval: IntervalMonthDayNano, what: &str, dates: bool) -> crate::Result<i64> {
    if interval.months != 0 {
        return Err(Error::unsupported(format!("a window with a {what} in months"))
            .with_detail("Months differ in length."));
    }
    let micros = i64::from(interval.days)
        .checked_mul(DAY_MICROS)
        .and_then(|days| days.checked_add(interval.nanoseconds / 1000))
        .ok_or_else(out_of_range)?;
    if what != "offset" && micros <= 0 {
        return Err(Error::new(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("the {what} of a window must be positive"),
        ));
    }
    if !dates {
        return Ok(micros);
    }
    if micros % DAY_MICROS != 0 {
        return Err(Error::new(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("the {what} of a window over dates must be in whole days"),
        ));
    }
    Ok(micros / DAY_MICROS)
}

fn out_of_range() -> Error {
    Error::new(SqlState("22008"), "timestamp out of range")
}

/// The arguments' types: a point in time, then intervals.
fn coerce(
    function: &str,
    types: &[DataType],
    intervals: std::ops::RangeInclusive<usize>,
) -> Result<Vec<DataType>> {
    let time = match types.first() {
        Some(DataType::Timestamp(_, None)) => SqlType::Timestamp.arrow(),
        Some(DataType::Timestamp(_, Some(_)) | DataType::Null) => SqlType::Timestamptz.arrow(),
        Some(DataType::Date32) => DataType::Date32,
        other => {
            let field = Field::new("", other.cloned().unwrap_or(DataType::Null), true);
            return Err(Error::new(
                SqlState::DATATYPE_MISMATCH,
                format!(
                    "the time column of a window must be a timestamp or a date, not {}",
                    SqlType::of(&field)
                ),
            )
            .into());
        }
    };
    if !intervals.contains(&(types.len() - 1)) {
        return Err(Error::new(
            SqlState::UNDEFINED_FUNCTION,
            format!("function {function} does not exist with {} arguments", types.len()),
        )
        .into());
    }
    let interval = DataType::Interval(IntervalUnit::MonthDayNano);
    Ok(std::iter::once(time).chain(std::iter::repeat_n(interval, types.len() - 1)).collect())
}

impl ScalarUDFImpl for Windows {
    fn name(&self) -> &str {
        match self.kind {
            Kind::TumbleStart => "tumble_start",
            Kind::HopStarts => "hop_starts",
            Kind::HopEnds => "hop_ends",
            Kind::End => "window_end",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let most = self.intervals().len();
        coerce(self.name(), types, if self.kind == Kind::End { 1..=1 } else { most - 1..=most })
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        let time = types.first().cloned().unwrap_or(DataType::Null);
        Ok(if self.is_list() { DataType::List(Arc::new(Field::new_list_field(time, true))) } else { time })
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let types: Vec<DataType> = args.arg_fields.iter().map(|f| f.data_type().clone()).collect();
        let constants: Option<Vec<IntervalMonthDayNano>> = args
            .scalar_arguments
            .iter()
            .skip(1)
            .map(|value| match value {
                Some(ScalarValue::IntervalMonthDayNano(Some(value))) => Some(*value),
                _ => None,
            })
            .collect();
        // Lengths that cannot be are refused before there are rows.
        if let Some(constants) = constants {
            self.lengths(&constants, types.first() == Some(&DataType::Date32))?;
        }
        Ok(Arc::new(Field::new(self.name(), self.return_type(&types)?, true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let scalar = args.args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let rows = if scalar { 1 } else { args.number_rows };
        let Some((time, intervals)) = args.args.split_first() else {
            return Err(Error::internal("a window without a time").into());
        };
        let time = time.to_array(rows)?;
        let result = match time.data_type() {
            DataType::Date32 => self.evaluate::<Date32Type>(&time, intervals)?,
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                self.evaluate::<TimestampMicrosecondType>(&time, intervals)?
            }
            other => return Err(Error::internal(format!("a window over {other}")).into()),
        };
        if scalar {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?));
        }
        Ok(ColumnarValue::Array(result))
    }
}

impl Windows {
    fn evaluate<T: Time>(&self, time: &ArrayRef, intervals: &[ColumnarValue]) -> Result<ArrayRef> {
        let values = time.as_primitive::<T>();
        let constants: Option<Vec<IntervalMonthDayNano>> = intervals
            .iter()
            .map(|i| match i {
                ColumnarValue::Scalar(ScalarValue::IntervalMonthDayNano(Some(value))) => Some(*value),
                _ => None,
            })
            .collect();
        if let Some(constants) = constants {
            let lengths = self.lengths(&constants, T::DATES)?;
            return self.rows(values, |_| Ok(Some(lengths)));
        }
        let intervals: Vec<ArrayRef> =
            intervals.iter().map(|i| i.to_array(values.len())).collect::<Result<_>>()?;
        self.rows(values, |row| {
            if intervals.iter().any(|i| i.is_null(row)) {
                return Ok(None);
            }
            let at = |i: &ArrayRef| i.as_primitive::<IntervalMonthDayNanoType>().value(row);
            let row: Vec<IntervalMonthDayNano> = intervals.iter().map(at).collect();
            self.lengths(&row, T::DATES).map(Some)
        })
    }

    fn rows<T: Time>(
        &self,
        values: &PrimitiveArray<T>,
        lengths: impl Fn(usize) -> crate::Result<Option<Lengths>>,
    ) -> Result<ArrayRef> {
        if !self.is_list() {
            let mut results: Vec<Option<T::Native>> = Vec::with_capacity(values.len());
            for (row, at) in values.iter().enumerate() {
                results.push(match (at, lengths(row)?) {
                    (Some(at), Some(lengths)) => Some(self.one::<T>(at, lengths)?),
                    _ => None,
                });
            }
            let results: PrimitiveArray<T> = results.into_iter().collect();
            return Ok(Arc::new(results.with_data_type(values.data_type().clone())));
        }
        let mut elements: Vec<T::Native> = Vec::with_capacity(values.len());
        let mut ends = Vec::with_capacity(values.len());
        let mut valid = Vec::with_capacity(values.len());
        for (row, at) in values.iter().enumerate() {
            let lengths = lengths(row)?;
            valid.push(at.is_some() && lengths.is_some());
            if let (Some(at), Some(lengths)) = (at, lengths) {
                self.hops::<T>(at, lengths, &mut elements)?;
            }
            ends.push(elements.len());
        }
        let offsets = OffsetBuffer::from_lengths(
            ends.iter().scan(0, |before, end| Some(end - std::mem::replace(before, *end))),
        );
        let elements: PrimitiveArray<T> = PrimitiveArray::new(elements.into(), None);
        let elements = elements.with_data_type(values.data_type().clone());
        let field = Arc::new(Field::new_list_field(values.data_type().clone(), true));
        let nulls = Some(NullBuffer::from(valid));
        Ok(Arc::new(ListArray::try_new(field, offsets, Arc::new(elements), nulls)?))
    }

    fn one<T: Time>(&self, at: T::Native, lengths: Lengths) -> crate::Result<T::Native> {
        let Some(value) = T::finite(at) else { return Ok(at) };
        match self.kind {
            Kind::End => T::native(i128::from(value) + i128::from(lengths.size)),
            _ => T::native(start(value, lengths)),
        }
    }

    /// Every window of HOP that a row is in, the earliest first.
    fn hops<T: Time>(&self, at: T::Native, lengths: Lengths, out: &mut Vec<T::Native>) -> crate::Result<()> {
        let Some(value) = T::finite(at) else {
            out.push(at);
            return Ok(());
        };
        let (slide, size) = (i128::from(lengths.slide), i128::from(lengths.size));
        let last = start(value, lengths);
        // The earliest window still ends after the row.
        let earlier = (size - (i128::from(value) - last) - 1) / slide;
        let moved = if self.kind == Kind::HopEnds { size } else { 0 };
        for n in (0..=earlier).rev() {
            out.push(T::native(last - n * slide + moved)?);
        }
        Ok(())
    }
}

/// The start of the last window that begins at or before `value`.
fn start(value: i64, lengths: Lengths) -> i128 {
    let (value, offset) = (i128::from(value), i128::from(lengths.offset));
    (value - offset).div_euclid(lengths.slide.into()) * i128::from(lengths.slide) + offset
}

/// Points in time as numbers.
trait Time: ArrowPrimitiveType {
    /// Whether they count days and not microseconds.
    const DATES: bool;
    /// The number, unless it stands for an infinity.
    fn finite(value: Self::Native) -> Option<i64>;
    /// The value of a number.
    fn native(value: i128) -> crate::Result<Self::Native>;
}

impl Time for Date32Type {
    const DATES: bool = true;

    fn finite(value: i32) -> Option<i64> {
        (value != i32::MAX && value != i32::MIN).then_some(value.into())
    }

    fn native(value: i128) -> crate::Result<i32> {
        i32::try_from(value).map_err(|_| Error::new(SqlState("22008"), "date out of range"))
    }
}

impl Time for TimestampMicrosecondType {
    const DATES: bool = false;

    fn finite(value: i64) -> Option<i64> {
        (value != i64::MAX && value != i64::MIN).then_some(value)
    }

    fn native(value: i128) -> crate::Result<i64> {
        i64::try_from(value).map_err(|_| out_of_range())
    }
}

/// `session_start(at, gap)` and `session_end(at, gap)` over rows in the order of `at`: rows no further apart than the
/// gap are in one session, which ends one gap after its last row.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Session {
    end: bool,
    signature: Signature,
}

impl Session {
    fn new(end: bool) -> Self {
        Session { end, signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl WindowUDFImpl for Session {
    fn name(&self) -> &str {
        if self.end { "session_end" } else { "session_start" }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        coerce(self.name(), types, 1..=1)
    }

    fn partition_evaluator(&self, _: PartitionEvaluatorArgs) -> Result<Box<dyn PartitionEvaluator>> {
        Ok(Box::new(Sessions { end: self.end }))
    }

    fn field(&self, args: WindowUDFFieldArgs) -> Result<FieldRef> {
        let Some(time) = args.get_input_field(0) else {
            return Err(Error::internal("a session without a time").into());
        };
        Ok(Arc::new(Field::new(args.name(), time.data_type().clone(), true)))
    }
}

#[derive(Debug)]
struct Sessions {
    end: bool,
}

impl PartitionEvaluator for Sessions {
    fn evaluate_all(&mut self, values: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
        let [time, gap] = values else {
            return Err(Error::internal("a session needs a time and a gap").into());
        };
        let gap = gap.as_primitive::<IntervalMonthDayNanoType>();
        match time.data_type() {
            DataType::Date32 => self.sessions::<Date32Type>(time.as_primitive(), gap, rows),
            _ => self.sessions::<TimestampMicrosecondType>(time.as_primitive(), gap, rows),
        }
    }
}

/// The last row's time, and until when its session can be joined; an infinite time is joined by its like only.
type Reach<T> = Option<(<T as ArrowPrimitiveType>::Native, Option<i128>)>;

impl Sessions {
    fn sessions<T: Time>(
        &self,
        time: &PrimitiveArray<T>,
        gap: &PrimitiveArray<IntervalMonthDayNanoType>,
        rows: usize,
    ) -> Result<ArrayRef> {
        let mut results: Vec<Option<T::Native>> = Vec::with_capacity(rows);
        let mut from = 0;
        let mut reach: Reach<T> = None;
        for row in 0..rows {
            if time.is_null(row) || gap.is_null(row) {
                self.close::<T>(&mut results[from..], reach)?;
                (from, reach) = (row + 1, None);
                results.push(None);
                continue;
            }
            let at = time.value(row);
            let gap = i128::from(units(gap.value(row), "gap", T::DATES)?);
            let value = T::finite(at).map(i128::from);
            let joins = match (reach, value) {
                (Some((_, Some(until))), Some(value)) => value <= until,
                (Some((last, None)), None) => last == at,
                _ => false,
            };
            if !joins {
                self.close::<T>(&mut results[from..], reach)?;
                from = row;
            }
            reach = Some((at, value.map(|value| value + gap)));
            let start = results.get(from).copied().flatten().unwrap_or(at);
            results.push(Some(start));
        }
        self.close::<T>(&mut results[from..], reach)?;
        let results: PrimitiveArray<T> = results.into_iter().collect();
        Ok(Arc::new(results.with_data_type(time.data_type().clone())))
    }

    /// Writes a session's end to its rows, where ends are asked for.
    fn close<T: Time>(&self, session: &mut [Option<T::Native>], reach: Reach<T>) -> crate::Result<()> {
        if let (true, Some((last, until))) = (self.end, reach) {
            session.fill(Some(until.map_or(Ok(last), T::native)?));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::TimestampMicrosecondArray;

    use super::*;

    const MINUTE: i64 = 60_000_000;

    fn interval(micros: i64) -> IntervalMonthDayNano {
        IntervalMonthDayNano::new(0, 0, micros * 1000)
    }

    #[test]
    fn windows_are_aligned_to_the_epoch_and_hold_their_start() {
        let tumble = Windows::new(Kind::TumbleStart);
        let lengths = tumble.lengths(&[interval(MINUTE)], false).unwrap();
        for (at, start) in [
            (0, 0),
            (MINUTE - 1, 0),
            (MINUTE, MINUTE),
            (-1, -MINUTE),
            (i64::MAX, i64::MAX),
            (i64::MIN, i64::MIN),
        ] {
            assert_eq!(tumble.one::<TimestampMicrosecondType>(at, lengths).unwrap(), start, "{at}");
        }
        let moved = tumble.lengths(&[interval(MINUTE), interval(10)], false).unwrap();
        assert_eq!(tumble.one::<TimestampMicrosecondType>(9, moved).unwrap(), 10 - MINUTE);
        assert_eq!(tumble.one::<TimestampMicrosecondType>(10, moved).unwrap(), 10);
        assert!(tumble.one::<TimestampMicrosecondType>(i64::MIN + 1, lengths).is_err());
    }

    /// Against the definition: every multiple of the slide is a window's start.
    #[test]
    fn a_hop_is_in_every_window_that_spans_it() {
        let hop = Windows::new(Kind::HopStarts);
        for (slide, size, offset) in [(2, 6, 0), (3, 7, 1), (5, 5, -2), (1, 4, 9)] {
            let lengths = Lengths { slide, size, offset };
            for at in -20..20 {
                let expected: Vec<i64> = (-40..40)
                    .filter(|start| (start - offset) % slide == 0 && *start <= at && at < start + size)
                    .collect();
                let mut starts = Vec::new();
                hop.hops::<TimestampMicrosecondType>(at, lengths, &mut starts).unwrap();
                assert_eq!(starts, expected, "{at} in {slide} {size} {offset}");
            }
        }
    }

    #[test]
    fn lengths_that_cannot_be_are_refused() {
        let hop = Windows::new(Kind::HopStarts);
        let states = |lengths: [IntervalMonthDayNano; 2], dates| {
            hop.lengths(&lengths, dates).err().map(|e| e.sqlstate)
        };
        let (second, minute) = (interval(1_000_000), interval(MINUTE));
        assert_eq!(states([second, minute], false), None);
        assert_eq!(states([minute, second], false), Some(SqlState::INVALID_PARAMETER_VALUE));
        assert_eq!(states([interval(1), minute], false), Some(SqlState::INVALID_PARAMETER_VALUE));
        assert_eq!(states([interval(0), minute], false), Some(SqlState::INVALID_PARAMETER_VALUE));
        assert_eq!(states([second, minute], true), Some(SqlState::INVALID_PARAMETER_VALUE));
        let month = IntervalMonthDayNano::new(1, 0, 0);
        assert_eq!(states([minute, month], false), Some(SqlState::FEATURE_NOT_SUPPORTED));
    }

    #[test]
    fn sessions_end_a_gap_after_their_last_row() {
        let times = TimestampMicrosecondArray::from(vec![i64::MIN, 0, 5, 10, 16, 30, i64::MAX, i64::MAX]);
        let gaps = PrimitiveArray::<IntervalMonthDayNanoType>::from_value(interval(5), times.len());
        let run = |end| {
            let result = Sessions { end }.sessions(&times, &gaps, times.len()).unwrap();
            result.as_primitive::<TimestampMicrosecondType>().values().to_vec()
        };
        assert_eq!(run(false), [i64::MIN, 0, 0, 0, 16, 30, i64::MAX, i64::MAX]);
        assert_eq!(run(true), [i64::MIN, 15, 15, 15, 21, 35, i64::MAX, i64::MAX]);
    }
}
