//! Casts as PostgreSQL does them, where Arrow's differ: text in and out, rounding, ranges, lengths.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray, StringViewArray, StringViewBuilder,
    new_null_array,
};
use arrow::datatypes::{
    DataType, Decimal128Type, Field, FieldRef, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, Time64MicrosecondType, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::expr::{FieldMetadata, ScalarFunction};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::define::only_value;
use crate::error::{Error, SqlState};
use crate::types::{SqlType, TextBuilder, is_string, parse_text, write_text};

/// Whether PostgreSQL's cast gives something else than Arrow's.
pub fn differs(from: &Field, to: &Field) -> bool {
    let (a, b) = (from.data_type(), to.data_type());
    if a.is_null() || is_list(a) && is_list(b) {
        return false;
    }
    let (from_type, to_type) = (SqlType::of(from), SqlType::of(to));
    match (is_string(a), is_string(b)) {
        // Between strings only lengths and forms matter.
        (true, true) => {
            let formed = matches!(
                to_type,
                SqlType::Varchar(Some(_)) | SqlType::Char(_) | SqlType::Uuid | SqlType::Json | SqlType::Jsonb
            );
            from_type != to_type && (formed || matches!(from_type, SqlType::Char(_)))
        }
        (true, false) | (false, true) => true,
        (false, false) if matches!((a, b), (DataType::Time64(_), DataType::Interval(_))) => true,
        (false, false) if matches!((a, b), (DataType::Interval(_), DataType::Time64(_))) => true,
        (false, false) if b.is_floating() => matches!((a, b), (DataType::Float64, DataType::Float32)),
        (false, false) => is_number(a) && is_number(b) && a != b && !widens(a, b),
    }
}

/// The literal that the cast of a literal is. `None` when it is Arrow's business.
///
/// # Errors
/// As the cast.
pub fn literal(value: &ScalarValue, to: &FieldRef) -> Result<Option<Expr>> {
    let from = Field::new("", value.data_type(), true);
    if value.is_null() {
        let null = ScalarValue::try_from(to.data_type())?;
        return Ok(Some(Expr::Literal(null, FieldMetadata::new_from_field_opt(to))));
    }
    let array = if differs(&from, to) {
        convert(value.to_array()?.as_ref(), &from, to, Mode::Explicit)?
    } else if from.data_type() == to.data_type() {
        value.to_array()?
    } else if is_number(from.data_type()) || is_string(from.data_type()) {
        arrow::compute::cast_with_options(
            value.to_array()?.as_ref(),
            to.data_type(),
            &arrow::compute::CastOptions { safe: false, ..Default::default() },
        )?
    } else {
        return Ok(None);
    };
    let value = only_value(&array)?;
    Ok(Some(Expr::Literal(value, FieldMetadata::new_from_field_opt(to))))
}

/// Metadata of a literal, from the field it was cast to.
pub(crate) trait FromField {
    fn new_from_field_opt(field: &Field) -> Option<FieldMetadata>;
}

impl FromField for FieldMetadata {
    fn new_from_field_opt(field: &Field) -> Option<FieldMetadata> {
        (!field.metadata().is_empty()).then(|| FieldMetadata::new_from_field(field))
    }
}

/// A call that casts explicitly: lengths cut silently.
pub fn call(expr: Expr, to: &FieldRef) -> Expr {
    Cast::call(expr, to, Mode::Explicit)
}

/// A call that casts what is stored in a column: too long is an error.
pub fn assign(expr: Expr, to: &FieldRef) -> Expr {
    Cast::call(expr, to, Mode::Assignment)
}

/// A call that only says which type its argument's values are of already, where DataFusion has forgotten it.
pub fn known(expr: Expr, to: &FieldRef) -> Expr {
    Cast::call(expr, to, Mode::Known)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Mode {
    Explicit,
    Assignment,
    Known,
}

/// `cast` to one type.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Cast {
    to: FieldRef,
    mode: Mode,
    signature: Signature,
}

impl Cast {
    fn call(expr: Expr, to: &FieldRef, mode: Mode) -> Expr {
        let cast = Cast { to: Arc::clone(to), mode, signature: Signature::any(1, Volatility::Immutable) };
        Expr::ScalarFunction(ScalarFunction::new_udf(Arc::new(ScalarUDF::new_from_impl(cast)), vec![expr]))
    }
}

impl ScalarUDFImpl for Cast {
    fn name(&self) -> &str {
        "cast"
    }

    fn display_name(&self, args: &[Expr]) -> Result<String> {
        let arg = args.first().map(ToString::to_string).unwrap_or_default();
        Ok(format!("{arg}::{}", SqlType::of(&self.to)))
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.to.data_type().clone())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let nullable = args.arg_fields.iter().any(|f| f.is_nullable());
        Ok(Arc::new(self.to.as_ref().clone().with_name("cast").with_nullable(nullable)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let from = args.arg_fields.first().map(Arc::clone).unwrap_or_else(|| Arc::clone(&self.to));
        match args.args.first() {
            Some(value) if self.mode == Mode::Known && value.data_type() == *self.to.data_type() => {
                Ok(value.clone())
            }
            Some(ColumnarValue::Array(array)) => {
                Ok(ColumnarValue::Array(convert(array.as_ref(), &from, &self.to, self.mode)?))
            }
            Some(ColumnarValue::Scalar(value)) => {
                let array = convert(value.to_array()?.as_ref(), &from, &self.to, self.mode)?;
                Ok(ColumnarValue::Scalar(only_value(&array)?))
            }
            None => Err(Error::internal("cast without an argument").into()),
        }
    }
}

/// Casts a column.
fn convert(array: &dyn Array, from: &Field, to: &FieldRef, mode: Mode) -> crate::Result<ArrayRef> {
    if array.logical_null_count() == array.len() {
        return Ok(new_null_array(to.data_type(), array.len()));
    }
    // DataFusion's own functions also want types that no column has.
    let canonical = SqlType::of(to).field_ref(to.name(), to.is_nullable());
    if canonical.data_type() != to.data_type() && !is_number(to.data_type()) {
        let value = convert(array, from, &canonical, mode)?;
        let options = arrow::compute::CastOptions { safe: false, ..Default::default() };
        return Ok(arrow::compute::cast_with_options(&value, to.data_type(), &options)?);
    }
    let (is_text, to_text) = (is_string(array.data_type()), is_string(to.data_type()));
    if is_text {
        return from_text(array, from, to, mode);
    }
    if to_text {
        return into_text(array, from, to, mode);
    }
    if is_number(array.data_type()) && is_number(to.data_type()) {
        return number(array, to);
    }
    if let (Some(times), DataType::Interval(_)) =
        (array.as_primitive_opt::<Time64MicrosecondType>(), to.data_type())
    {
        let span = |micros: i64| IntervalMonthDayNano::new(0, 0, micros * 1000);
        return Ok(Arc::new(times.unary::<_, IntervalMonthDayNanoType>(span)));
    }
    if let (Some(spans), DataType::Time64(_)) =
        (array.as_primitive_opt::<IntervalMonthDayNanoType>(), to.data_type())
    {
        // The time of day is what is left of a whole number of days.
        let time = |span: IntervalMonthDayNano| (span.nanoseconds / 1000).rem_euclid(86_400_000_000);
        return Ok(Arc::new(spans.unary::<_, Time64MicrosecondType>(time)));
    }
    let options = arrow::compute::CastOptions { safe: false, ..Default::default() };
    Ok(arrow::compute::cast_with_options(array, to.data_type(), &options)?)
}

/// Text read as a value of a type.
fn from_text(array: &dyn Array, from: &Field, to: &FieldRef, mode: Mode) -> crate::Result<ArrayRef> {
    let strings = arrow::compute::cast(array, &DataType::Utf8View)?;
    let strings = strings.as_string_view();
    let mut builder = TextBuilder::new(Arc::clone(to))?;
    let padded = matches!(SqlType::of(from), SqlType::Char(_));
    if SqlType::of(from) == SqlType::Jsonb && !is_string(to.data_type()) {
        return from_jsonb(strings, to);
    }
    let limit = cut_length(to, mode);
    for value in strings {
        match value {
            None => builder.push_null(),
            Some(text) => {
                let text = if padded { text.trim_end_matches(' ') } else { text };
                builder.push(cut(text, limit))?;
            }
        }
    }
    builder.finish()
}

/// A jsonb that is a number or a truth as such a value.
fn from_jsonb(documents: &StringViewArray, to: &FieldRef) -> crate::Result<ArrayRef> {
    let wanted = if to.data_type() != &DataType::Boolean { "number" } else { "boolean" };
    for document in documents.iter().flatten() {
        let given = crate::types::json::type_name(document).unwrap_or("null");
        if given != wanted {
            let to = SqlType::of(to);
            let message = format!("cannot cast jsonb {given} to type {to}");
            return Err(Error::new(SqlState::INVALID_PARAMETER_VALUE, message));
        }
    }
    // Whole numbers are rounded from what may have decimal places.
    let via =
        if to.data_type().is_integer() { SqlType::Numeric(None).field_ref("", true) } else { Arc::clone(to) };
    let mut builder = TextBuilder::new(Arc::clone(&via))?;
    for document in documents {
        match document {
            Some(document) => builder.push(document)?,
            None => builder.push_null(),
        }
    }
    let values = builder.finish()?;
    if to.data_type().is_integer() { number(values.as_ref(), to) } else { Ok(values) }
}

/// A value printed as text.
fn into_text(array: &dyn Array, from: &Field, to: &FieldRef, mode: Mode) -> crate::Result<ArrayRef> {
    let limit = cut_length(to, mode);
    let mut checked = TextBuilder::new(Arc::clone(to))?;
    let plain = to.metadata().is_empty();
    let mut builder = StringViewBuilder::with_capacity(array.len());
    let mut buffer = Vec::new();
    for row in 0..array.len() {
        if array.is_null(row) {
            builder.append_null();
            checked.push_null();
            continue;
        }
        buffer.clear();
        // A cast of boolean spells the word; output has one letter.
        if let Some(booleans) = array.as_boolean_opt() {
            buffer.extend_from_slice(if booleans.value(row) { b"true" } else { b"false" });
        } else {
            write_text(from, array, row, &mut buffer)?;
        }
        let text = String::from_utf8_lossy(&buffer);
        let text = cut(&text, limit);
        if plain {
            builder.append_value(text);
        } else {
            checked.push(text)?;
        }
    }
    if plain { Ok(Arc::new(builder.finish())) } else { checked.finish() }
}

/// How many characters an explicit cast keeps.
fn cut_length(to: &Field, mode: Mode) -> Option<usize> {
    match (mode, SqlType::of(to)) {
        (Mode::Explicit, SqlType::Varchar(Some(n)) | SqlType::Char(n)) => Some(n as usize),
        _ => None,
    }
}

fn cut(text: &str, limit: Option<usize>) -> &str {
    match limit.and_then(|n| text.char_indices().nth(n)) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}

fn is_list(data_type: &DataType) -> bool {
    matches!(data_type, DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(_, _))
}

fn is_number(data_type: &DataType) -> bool {
    data_type.is_integer() || data_type.is_floating() || matches!(data_type, DataType::Decimal128(_, _))
}

/// Whether every value of `a` is a value of `b`.
fn widens(a: &DataType, b: &DataType) -> bool {
    let bits = |t: &DataType| match t {
        DataType::Int8 => Some(8),
        DataType::Int16 => Some(16),
        DataType::Int32 => Some(32),
        DataType::Int64 => Some(64),
        _ => None,
    };
    match (a, b) {
        (DataType::Decimal128(p1, s1), DataType::Decimal128(p2, s2)) => {
            s2 >= s1 && i16::from(*p2) - i16::from(*s2) >= i16::from(*p1) - i16::from(*s1)
        }
        (a, DataType::Decimal128(p, s)) => bits(a).is_some_and(|b| {
            let digits = match b {
                8 => 3,
                16 => 5,
                32 => 10,
                _ => 19,
            };
            i16::from(*p) - i16::from(*s) >= digits
        }),
        (a, b) => matches!((bits(a), bits(b)), (Some(a), Some(b)) if a <= b),
    }
}

/// Numbers to integers and numerics: rounded, and refused when they do not fit.
fn number(array: &dyn Array, to: &FieldRef) -> crate::Result<ArrayRef> {
    match to.data_type() {
        DataType::Int16 => integer::<Int16Type>(array, to),
        DataType::Int32 => integer::<Int32Type>(array, to),
        DataType::Int64 => integer::<Int64Type>(array, to),
        DataType::UInt32 => integer::<UInt32Type>(array, to),
        DataType::Decimal128(p, s) => decimal(array, *p, *s),
        DataType::Float32 if *array.data_type() == DataType::Float64 => {
            let out_of_range = |what| {
                Error::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, format!("value out of range: {what}"))
            };
            let narrow = |wide: f64| match wide as f32 {
                narrow if narrow.is_infinite() && wide.is_finite() => Err(out_of_range("overflow")),
                narrow if narrow == 0.0 && wide != 0.0 => Err(out_of_range("underflow")),
                narrow => Ok(narrow),
            };
            let result: PrimitiveArray<Float32Type> =
                array.as_primitive::<Float64Type>().try_unary(narrow)?;
            Ok(Arc::new(result))
        }
        other => {
            let options = arrow::compute::CastOptions { safe: false, ..Default::default() };
            Ok(arrow::compute::cast_with_options(array, other, &options)?)
        }
    }
}

fn integer<T: ArrowPrimitiveType>(array: &dyn Array, to: &Field) -> crate::Result<ArrayRef>
where
    T::Native: TryFrom<i128>,
{
    let overflow =
        || Error::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, format!("{} out of range", SqlType::of(to)));
    let narrow = |wide: i128| T::Native::try_from(wide).map_err(|_| overflow());
    let rounded = |value: f64| {
        let value = value.round_ties_even();
        // i128 holds every f64 of this size exactly.
        if value.is_finite() && value.abs() < 1e30 { narrow(value as i128) } else { Err(overflow()) }
    };
    macro_rules! from {
        ($t:ty, $f:expr) => {{
            let source = array.as_primitive::<$t>();
            let result: PrimitiveArray<T> = source.try_unary(|v| $f(v))?;
            Arc::new(result) as ArrayRef
        }};
    }
    Ok(match array.data_type() {
        DataType::Int8 => from!(Int8Type, |v: i8| narrow(v.into())),
        DataType::Int16 => from!(Int16Type, |v: i16| narrow(v.into())),
        DataType::Int32 => from!(Int32Type, |v: i32| narrow(v.into())),
        DataType::Int64 => from!(Int64Type, |v: i64| narrow(v.into())),
        DataType::UInt8 => from!(UInt8Type, |v: u8| narrow(v.into())),
        DataType::UInt16 => from!(UInt16Type, |v: u16| narrow(v.into())),
        DataType::UInt32 => from!(UInt32Type, |v: u32| narrow(v.into())),
        DataType::UInt64 => from!(UInt64Type, |v: u64| narrow(v.into())),
        DataType::Float32 => from!(Float32Type, |v: f32| rounded(v.into())),
        DataType::Float64 => from!(Float64Type, rounded),
        DataType::Decimal128(_, scale) => {
            let scale = *scale;
            from!(Decimal128Type, |v: i128| rescale(v, scale, 0).ok_or_else(overflow).and_then(narrow))
        }
        other => return Err(Error::unsupported(format!("cast from {other}"))),
    })
}

/// A scaled integer at another scale, rounded half away from zero.
pub(super) fn rescale(value: i128, from: i8, to: i8) -> Option<i128> {
    let shift = i32::from(to) - i32::from(from);
    let factor = 10i128.checked_pow(shift.unsigned_abs());
    if shift >= 0 {
        return if value == 0 { Some(0) } else { value.checked_mul(factor?) };
    }
    // More digits are cut off than an i128 has: nothing is left.
    let Some(factor) = factor else { return Some(0) };
    let (quotient, rest) = (value / factor, value % factor);
    Some(if rest.abs() >= factor - rest.abs() { quotient + value.signum() } else { quotient })
}

fn decimal(array: &dyn Array, precision: u8, scale: i8) -> crate::Result<ArrayRef> {
    let limit = 10i128.pow(u32::from(precision.min(38)));
    let overflow = || {
        Error::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "numeric field overflow").with_detail(format!(
            "A field with precision {precision}, scale {scale} must round to an absolute value less than 10^{}.",
            i32::from(precision) - i32::from(scale)
        ))
    };
    let checked = |v: Option<i128>| v.filter(|v| v.abs() < limit).ok_or_else(overflow);
    // A float is taken by the digits that its type is sure of.
    let parsed = |text: String| {
        let field = Field::new("", DataType::Decimal128(precision, scale), true);
        match parse_text(&field, &text)? {
            ScalarValue::Decimal128(Some(v), _, _) => Ok(v),
            _ => Err(overflow()),
        }
    };
    macro_rules! from {
        ($t:ty, $f:expr) => {{
            let source = array.as_primitive::<$t>();
            let result: PrimitiveArray<Decimal128Type> = source.try_unary(|v| $f(v))?;
            result
        }};
    }
    let result = match array.data_type() {
        DataType::Int8 => from!(Int8Type, |v: i8| checked(rescale(v.into(), 0, scale))),
        DataType::Int16 => from!(Int16Type, |v: i16| checked(rescale(v.into(), 0, scale))),
        DataType::Int32 => from!(Int32Type, |v: i32| checked(rescale(v.into(), 0, scale))),
        DataType::Int64 => from!(Int64Type, |v: i64| checked(rescale(v.into(), 0, scale))),
        DataType::UInt8 => from!(UInt8Type, |v: u8| checked(rescale(v.into(), 0, scale))),
        DataType::UInt16 => from!(UInt16Type, |v: u16| checked(rescale(v.into(), 0, scale))),
        DataType::UInt32 => from!(UInt32Type, |v: u32| checked(rescale(v.into(), 0, scale))),
        DataType::UInt64 => from!(UInt64Type, |v: u64| checked(rescale(v.into(), 0, scale))),
        DataType::Float32 => from!(Float32Type, |v: f32| parsed(format!("{v:.5e}"))),
        DataType::Float64 => from!(Float64Type, |v: f64| parsed(format!("{v:.14e}"))),
        DataType::Decimal128(_, s) => {
            let s = *s;
            from!(Decimal128Type, |v: i128| checked(rescale(v, s, scale)))
        }
        other => return Err(Error::unsupported(format!("cast from {other}"))),
    };
    Ok(Arc::new(result.with_precision_and_scale(precision, scale)?))
}
