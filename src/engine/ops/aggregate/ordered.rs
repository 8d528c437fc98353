//! Values as things that compare as the values do, and back.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BinaryViewArray, BooleanArray, Decimal128Array, Int64Array,
    IntervalDayTimeArray, IntervalMonthDayNanoArray, IntervalYearMonthArray, LargeBinaryArray,
    LargeStringArray, StringArray, StringViewArray, UInt64Array, make_array,
};
use arrow::datatypes::{
    DataType, Decimal128Type, Float32Type, Float64Type, IntervalDayTime, IntervalDayTimeType,
    IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit, IntervalYearMonthType, UInt64Type,
};

use crate::engine::expr::cast_to;
use crate::engine::keys::canonical;
use crate::engine::state::column::FixedWidth;
use crate::error::{Error, Result};

/// A form of values in which `Ord` is their order.
pub(super) trait Ordered: Ord + Clone {
    /// The form as it is read from an array.
    type Read<'a>: Copy;

    /// Not above any value.
    fn least() -> Self;

    /// The values of an array without NULLs.
    fn read(array: &ArrayRef) -> Result<Vec<Self::Read<'_>>>;

    /// One value to keep.
    fn own(read: Self::Read<'_>) -> Self;

    /// How a kept value compares to one just read.
    fn compare(&self, read: Self::Read<'_>) -> std::cmp::Ordering;

    /// The array of type `data_type` that has these values.
    fn array(values: Vec<Option<Self>>, data_type: &DataType) -> Result<ArrayRef>;

    /// Bytes beyond the value's own size.
    fn extra_bytes(&self) -> usize {
        0
    }
}

/// Which form the values of a type take.
pub(super) enum Form {
    /// In 64 bits.
    Small,
    /// In 128 bits.
    Wide,
    /// In any number of bytes.
    Bytes,
}

/// The form of values of type `data_type`.
pub(super) fn form(data_type: &DataType) -> Result<Form> {
    use DataType as T;
    Ok(match data_type {
        T::Boolean | T::Float32 | T::Float64 | T::UInt8 | T::UInt16 | T::UInt32 => Form::Small,
        t if t.is_signed_integer() => Form::Small,
        T::Date32 | T::Date64 | T::Time32(_) | T::Time64(_) | T::Timestamp(..) | T::Duration(_) => {
            Form::Small
        }
        T::Decimal32(..) | T::Decimal64(..) => Form::Small,
        T::UInt64 | T::Decimal128(..) | T::Interval(_) => Form::Wide,
        T::Utf8 | T::LargeUtf8 | T::Utf8View | T::Binary | T::LargeBinary | T::BinaryView => Form::Bytes,
        other => return Err(Error::unsupported(format!("min and max of values of type {other}"))),
    })
}

fn mismatch(data_type: &DataType) -> Error {
    Error::internal(format!("min or max of values of type {data_type} in the wrong form"))
}

impl Ordered for i64 {
    type Read<'a> = i64;

    fn least() -> i64 {
        i64::MIN
    }

    fn read(array: &ArrayRef) -> Result<Vec<i64>> {
        let unsigned = array.data_type().is_unsigned_integer();
        Ok(match array.data_type() {
            DataType::Boolean => array.as_boolean().values().iter().map(i64::from).collect(),
            DataType::Float64 => {
                let floats = canonical(Arc::clone(array));
                floats.as_primitive::<Float64Type>().values().iter().map(|v| float_order(*v)).collect()
            }
            DataType::Float32 => {
                let floats = canonical(Arc::clone(array));
                floats
                    .as_primitive::<Float32Type>()
                    .values()
                    .iter()
                    .map(|v| float_order((*v).into()))
                    .collect()
            }
            other => match FixedWidth::of(array) {
                Some(FixedWidth::W1(v)) if unsigned => v.iter().map(|v| i64::from(*v)).collect(),
                Some(FixedWidth::W2(v)) if unsigned => v.iter().map(|v| i64::from(*v)).collect(),
                Some(FixedWidth::W4(v)) if unsigned => v.iter().map(|v| i64::from(*v)).collect(),
                Some(FixedWidth::W1(v)) => v.iter().map(|v| i64::from(*v as i8)).collect(),
                Some(FixedWidth::W2(v)) => v.iter().map(|v| i64::from(*v as i16)).collect(),
                Some(FixedWidth::W4(v)) => v.iter().map(|v| i64::from(*v as i32)).collect(),
                Some(FixedWidth::W8(v)) => v.iter().map(|v| *v as i64).collect(),
                _ => return Err(mismatch(other)),
            },
        })
    }

    fn own(read: i64) -> i64 {
        read
    }

    fn compare(&self, read: i64) -> std::cmp::Ordering {
        self.cmp(&read)
    }

    fn array(values: Vec<Option<i64>>, data_type: &DataType) -> Result<ArrayRef> {
        let floats = || arrow::array::Float64Array::from_iter(values.iter().map(|v| v.map(order_float)));
        let integers = || Arc::new(Int64Array::from(values.clone())) as ArrayRef;
        let same_bits = |integers: ArrayRef| -> Result<ArrayRef> {
            let data = integers.to_data().into_builder().data_type(data_type.clone()).build()?;
            Ok(make_array(data))
        };
        match data_type {
            DataType::Boolean => {
                Ok(Arc::new(BooleanArray::from_iter(values.iter().map(|v| v.map(|v| v != 0)))))
            }
            DataType::Float32 | DataType::Float64 => cast_to(Arc::new(floats()), data_type),
            t if t.is_integer() => cast_to(integers(), t),
            t if t.primitive_width() == Some(4) => same_bits(cast_to(integers(), &DataType::Int32)?),
            _ => same_bits(integers()),
        }
    }
}

/// The integer that compares as the float does, with NaN above all; a float of 32 bits goes there and back unharmed.
fn float_order(value: f64) -> i64 {
    let bits = value.to_bits() as i64;
    bits ^ (((bits >> 63) as u64) >> 1) as i64
}

fn order_float(order: i64) -> f64 {
    f64::from_bits((order ^ (((order >> 63) as u64) >> 1) as i64) as u64)
}

impl Ordered for i128 {
    type Read<'a> = i128;

    fn least() -> i128 {
        i128::MIN
    }

    fn read(array: &ArrayRef) -> Result<Vec<i128>> {
        Ok(match array.data_type() {
            DataType::Decimal128(..) => array.as_primitive::<Decimal128Type>().values().to_vec(),
            DataType::UInt64 => {
                array.as_primitive::<UInt64Type>().values().iter().map(|v| i128::from(*v)).collect()
            }
            DataType::Interval(IntervalUnit::YearMonth) => {
                let months = array.as_primitive::<IntervalYearMonthType>();
                months.values().iter().map(|v| i128::from(*v)).collect()
            }
            DataType::Interval(IntervalUnit::DayTime) => {
                let pack = |v: &IntervalDayTime| i128::from(v.days) << 32 | low_32(v.milliseconds);
                array.as_primitive::<IntervalDayTimeType>().values().iter().map(pack).collect()
            }
            DataType::Interval(IntervalUnit::MonthDayNano) => {
                let pack = |v: &IntervalMonthDayNano| {
                    i128::from(v.months) << 96
                        | low_32(v.days) << 64
                        | i128::from(v.nanoseconds as u64 ^ 1 << 63)
                };
                array.as_primitive::<IntervalMonthDayNanoType>().values().iter().map(pack).collect()
            }
            other => return Err(mismatch(other)),
        })
    }

    fn own(read: i128) -> i128 {
        read
    }

    fn compare(&self, read: i128) -> std::cmp::Ordering {
        self.cmp(&read)
    }

    fn array(values: Vec<Option<i128>>, data_type: &DataType) -> Result<ArrayRef> {
        let values = values.into_iter();
        Ok(match data_type {
            DataType::Decimal128(p, s) => {
                Arc::new(Decimal128Array::from_iter(values).with_precision_and_scale(*p, *s)?)
            }
            DataType::UInt64 => Arc::new(UInt64Array::from_iter(values.map(|v| v.map(|v| v as u64)))),
            DataType::Interval(IntervalUnit::YearMonth) => {
                Arc::new(IntervalYearMonthArray::from_iter(values.map(|v| v.map(|v| v as i32))))
            }
            DataType::Interval(IntervalUnit::DayTime) => {
                let unpack =
                    |v: i128| IntervalDayTime { days: (v >> 32) as i32, milliseconds: from_low_32(v) };
                Arc::new(IntervalDayTimeArray::from_iter(values.map(|v| v.map(unpack))))
            }
            DataType::Interval(IntervalUnit::MonthDayNano) => {
                let unpack = |v: i128| IntervalMonthDayNano {
                    months: (v >> 96) as i32,
                    days: from_low_32(v >> 64),
                    nanoseconds: (v as u64 ^ 1 << 63) as i64,
                };
                Arc::new(IntervalMonthDayNanoArray::from_iter(values.map(|v| v.map(unpack))))
            }
            other => return Err(mismatch(other)),
        })
    }
}

/// A signed number as 32 unsigned bits that compare as it does.
fn low_32(value: i32) -> i128 {
    i128::from(value as u32 ^ 1 << 31)
}

fn from_low_32(bits: i128) -> i32 {
    (bits as u32 ^ 1 << 31) as i32
}

impl Ordered for Box<[u8]> {
    type Read<'a> = &'a [u8];

    fn least() -> Box<[u8]> {
        Box::default()
    }

    fn read(array: &ArrayRef) -> Result<Vec<&[u8]>> {
        let rows = 0..array.len();
        Ok(match array.data_type() {
            DataType::Utf8View => rows.map(|i| array.as_string_view().value(i).as_bytes()).collect(),
            DataType::BinaryView => rows.map(|i| array.as_binary_view().value(i)).collect(),
            DataType::Utf8 => rows.map(|i| array.as_string::<i32>().value(i).as_bytes()).collect(),
            DataType::LargeUtf8 => rows.map(|i| array.as_string::<i64>().value(i).as_bytes()).collect(),
            DataType::Binary => rows.map(|i| array.as_binary::<i32>().value(i)).collect(),
            DataType::LargeBinary => rows.map(|i| array.as_binary::<i64>().value(i)).collect(),
            other => return Err(mismatch(other)),
        })
    }

    fn own(read: &[u8]) -> Box<[u8]> {
        read.into()
    }

    fn compare(&self, read: &[u8]) -> std::cmp::Ordering {
        (**self).cmp(read)
    }

    fn array(values: Vec<Option<Box<[u8]>>>, data_type: &DataType) -> Result<ArrayRef> {
        let bytes = values.iter().map(|v| v.as_deref());
        // What was read as text is text.
        let text = || values.iter().map(|v| v.as_deref().map(String::from_utf8_lossy));
        Ok(match data_type {
            DataType::Utf8View => Arc::new(StringViewArray::from_iter(text())),
            DataType::Utf8 => Arc::new(StringArray::from_iter(text())),
            DataType::LargeUtf8 => Arc::new(LargeStringArray::from_iter(text())),
            DataType::BinaryView => Arc::new(BinaryViewArray::from_iter(bytes)),
            DataType::Binary => Arc::new(BinaryArray::from_iter(bytes)),
            DataType::LargeBinary => Arc::new(LargeBinaryArray::from_iter(bytes)),
            other => return Err(mismatch(other)),
        })
    }

    fn extra_bytes(&self) -> usize {
        self.len()
    }
}
