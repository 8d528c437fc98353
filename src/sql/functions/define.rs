//! How PostgreSQL's functions are written down: a name, the types that it takes, the type that it gives, and what it
//! does with the columns of a batch.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, BooleanBuilder, Float64Array, Int32Array,
    Int64Array, ListArray, ListBuilder, PrimitiveArray, StringViewArray, StringViewBuilder,
};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Field, FieldRef, Float64Type, Int32Type, Int64Type, IntervalUnit,
    TimestampMicrosecondType,
};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::type_coercion::binary::comparison_coercion;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use crate::error::Error;
use crate::types::{SqlType, is_string};

/// The type of an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Arg {
    Text,
    Bytea,
    Bool,
    /// Any whole number, as an `integer` or a `bigint`.
    Int4,
    Int8,
    /// Any number, as a `double precision`.
    Float8,
    /// Any number but floats, as it is; whole numbers with their digits before the point.
    Numeric,
    Interval,
    Timestamp,
    Timestamptz,
    TextArray,
    /// Whatever it is.
    Any,
    /// A list of whatever it is.
    List,
    /// The type of the argument with this number.
    Like(usize),
    /// The type of the elements of the argument with this number.
    ElementOf(usize),
    /// A value of a type in common with the elements of the argument with this number.
    Beside(usize),
    /// A list whose elements have a type in common with the argument with this number.
    ListBeside(usize),
}

/// The type that a list's elements and a value beside them have in common; what has none yet takes the other's.
fn beside(list: &DataType, value: &DataType) -> Option<DataType> {
    let element = match list {
        DataType::List(item) => item.data_type(),
        DataType::Null => value,
        _ => return None,
    };
    match (element, value) {
        (element, value) if element == value => Some(element.clone()),
        (element, value) if value.is_null() || is_string(value) => Some(element.clone()),
        (element, value) if element.is_null() => Some(value.clone()),
        (element, value) => comparison_coercion(element, value),
    }
}

impl Arg {
    /// What a value of `given` type becomes; `None`: it is none of these. `all` are the types of all arguments.
    fn accept(self, given: &DataType, all: &[DataType]) -> Option<DataType> {
        let text = is_string(given) || given.is_null();
        let number = given.is_numeric();
        match self {
            Arg::Text => text.then_some(DataType::Utf8View),
            Arg::Bytea => (text || matches!(given, DataType::Binary)).then_some(DataType::Binary),
            Arg::Bool => (text || *given == DataType::Boolean).then_some(DataType::Boolean),
            Arg::Int4 | Arg::Int8 => {
                let to = if self == Arg::Int4 { DataType::Int32 } else { DataType::Int64 };
                let narrower = matches!(given, DataType::Int8 | DataType::Int16 | DataType::Int32);
                // Literals that must stay so are 64 bits wide.
                (text || narrower || *given == DataType::Int64).then_some(to)
            }
            Arg::Float8 => (text || number).then_some(DataType::Float64),
            Arg::Numeric => match given {
                DataType::Decimal128(..) => Some(given.clone()),
                DataType::Int16 => Some(DataType::Decimal128(5, 0)),
                DataType::Int32 => Some(DataType::Decimal128(10, 0)),
                DataType::Int64 => Some(DataType::Decimal128(19, 0)),
                _ if text => Some(SqlType::Numeric(None).arrow()),
                _ => None,
            },
            Arg::Interval => (text || matches!(given, DataType::Interval(_)))
                .then_some(DataType::Interval(IntervalUnit::MonthDayNano)),
            Arg::Timestamp => (matches!(given, DataType::Timestamp(_, None) | DataType::Date32)
                || given.is_null())
            .then(|| SqlType::Timestamp.arrow()),
            // A date alone is a moment in a zone.
            Arg::Timestamptz => (matches!(given, DataType::Timestamp(_, Some(_)) | DataType::Date32) || text)
                .then(|| SqlType::Timestamptz.arrow()),
            Arg::TextArray => {
                let list = matches!(given, DataType::List(item) if is_string(item.data_type()) || item.data_type().is_null());
                (text || list).then(|| SqlType::Array(Box::new(SqlType::Text)).arrow())
            }
            Arg::Any => Some(given.clone()),
            Arg::List => matches!(given, DataType::List(_)).then(|| given.clone()),
            Arg::Like(i) => all.get(i).cloned(),
            Arg::Beside(i) => beside(all.get(i)?, given),
            Arg::ListBeside(i) => {
                let common = beside(given, all.get(i)?)?;
                match given {
                    DataType::List(item) if *item.data_type() == common => Some(given.clone()),
                    _ => Some(DataType::List(Arc::new(Field::new_list_field(common, true)))),
                }
            }
            Arg::ElementOf(i) => match all.get(i)? {
                DataType::List(item) => Some(item.data_type().clone()),
                _ => None,
            },
        }
    }
}

/// What a function gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Gives {
    Text,
    TextArray,
    /// An array of arrays, one for each row to come.
    TextArrays,
    Bytea,
    Bool,
    Int4,
    Int8,
    Float8,
    Json,
    Jsonb,
    JsonbArray,
    Int4Array,
    Int8Array,
    Timestamp,
    Timestamptz,
    Date,
    Time,
    Interval,
    /// A numeric without decimal places.
    Whole,
    /// A numeric without a scale of its own.
    Numeric,
    /// The type of the argument with this number, without its length: text of a `varchar(3)`.
    Plain(usize),
    /// An array of the type of the argument with this number.
    ArrayOf(usize),
    /// The type of the elements of the argument with this number.
    ElementOf(usize),
}

impl Gives {
    fn field(self, name: &str, args: &[FieldRef]) -> Result<FieldRef> {
        let given = |i: usize| {
            args.get(i).ok_or_else(|| Error::internal(format!("{name} has no argument {}", i + 1)))
        };
        Ok(match self {
            Gives::Text => SqlType::Text,
            Gives::TextArray => SqlType::Array(Box::new(SqlType::Text)),
            Gives::TextArrays => SqlType::Array(Box::new(SqlType::Array(Box::new(SqlType::Text)))),
            Gives::Bytea => SqlType::Bytea,
            Gives::Bool => SqlType::Bool,
            Gives::Int4 => SqlType::Int4,
            Gives::Int8 => SqlType::Int8,
            Gives::Float8 => SqlType::Float8,
            Gives::Json => SqlType::Json,
            Gives::Jsonb => SqlType::Jsonb,
            Gives::JsonbArray => SqlType::Array(Box::new(SqlType::Jsonb)),
            Gives::Int4Array => SqlType::Array(Box::new(SqlType::Int4)),
            Gives::Int8Array => SqlType::Array(Box::new(SqlType::Int8)),
            Gives::Timestamp => SqlType::Timestamp,
            Gives::Timestamptz => SqlType::Timestamptz,
            Gives::Date => SqlType::Date,
            Gives::Time => SqlType::Time,
            Gives::Interval => SqlType::Interval,
            Gives::Numeric => SqlType::Numeric(None),
            Gives::Whole => SqlType::Numeric(Some((38, 0))),
            Gives::Plain(i) => {
                SqlType::of(&arrow::datatypes::Field::new("", given(i)?.data_type().clone(), true))
            }
            Gives::ArrayOf(i) => {
                let item = given(i)?.as_ref().clone().with_name("item").with_nullable(true);
                return Ok(Arc::new(arrow::datatypes::Field::new(
                    name,
                    DataType::List(Arc::new(item)),
                    true,
                )));
            }
            Gives::ElementOf(i) => match given(i)?.data_type() {
                DataType::List(item) => {
                    return Ok(Arc::new(item.as_ref().clone().with_name(name).with_nullable(true)));
                }
                _ => SqlType::Unknown,
            },
        }
        .field_ref(name, true))
    }
}

/// A function as PostgreSQL's catalog would list it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Definition {
    pub name: &'static str,
    /// The lists of arguments that it takes.
    pub forms: &'static [&'static [Arg]],
    /// Whether the last argument of a form may be repeated, or be left out.
    pub variadic: bool,
    pub gives: Gives,
    pub evaluate: fn(&Call<'_>) -> crate::Result<ArrayRef>,
}

impl Definition {
    /// The function, for calls by name.
    pub fn udf(self) -> Arc<ScalarUDF> {
        let function =
            Defined { definition: self, signature: Signature::user_defined(Volatility::Immutable) };
        Arc::new(ScalarUDF::new_from_impl(function))
    }
}

/// The arguments of one call: columns of equal length.
pub(super) struct Call<'a> {
    pub name: &'static str,
    pub arrays: &'a [ArrayRef],
    pub fields: &'a [FieldRef],
    pub gives: &'a FieldRef,
    pub rows: usize,
}

impl Call<'_> {
    /// An argument that the function's forms have.
    ///
    /// # Errors
    /// XX000 when they do not.
    pub fn array(&self, i: usize) -> crate::Result<&ArrayRef> {
        self.arrays.get(i).ok_or_else(|| Error::internal(format!("{} has no argument {}", self.name, i + 1)))
    }

    pub fn text(&self, i: usize) -> crate::Result<&StringViewArray> {
        self.array(i)?.as_string_view_opt().ok_or_else(|| self.other(i))
    }

    pub fn int4(&self, i: usize) -> crate::Result<&Int32Array> {
        self.array(i)?.as_primitive_opt::<Int32Type>().ok_or_else(|| self.other(i))
    }

    pub fn int8(&self, i: usize) -> crate::Result<&Int64Array> {
        self.array(i)?.as_primitive_opt::<Int64Type>().ok_or_else(|| self.other(i))
    }

    pub fn float8(&self, i: usize) -> crate::Result<&Float64Array> {
        self.array(i)?.as_primitive_opt::<Float64Type>().ok_or_else(|| self.other(i))
    }

    pub fn bool(&self, i: usize) -> crate::Result<&BooleanArray> {
        self.array(i)?.as_boolean_opt().ok_or_else(|| self.other(i))
    }

    pub fn bytea(&self, i: usize) -> crate::Result<&BinaryArray> {
        self.array(i)?.as_binary_opt::<i32>().ok_or_else(|| self.other(i))
    }

    pub fn list(&self, i: usize) -> crate::Result<&ListArray> {
        self.array(i)?.as_list_opt::<i32>().ok_or_else(|| self.other(i))
    }

    pub fn moments(&self, i: usize) -> crate::Result<&PrimitiveArray<TimestampMicrosecondType>> {
        self.array(i)?.as_primitive_opt().ok_or_else(|| self.other(i))
    }

    fn other(&self, i: usize) -> Error {
        Error::internal(format!("argument {} of {} has another type", i + 1, self.name))
    }

    /// Whether all arguments of a row are there: most functions of a NULL are NULL.
    pub fn complete(&self, row: usize) -> bool {
        self.arrays.iter().all(|a| a.is_valid(row))
    }

    /// Text of every row that has all its arguments.
    pub fn texts<T: AsRef<str>>(
        &self,
        f: impl Fn(usize) -> crate::Result<Option<T>>,
    ) -> crate::Result<ArrayRef> {
        self.texts_of(|row| if self.complete(row) { f(row) } else { Ok(None) })
    }

    /// Text of every row.
    pub fn texts_of<T: AsRef<str>>(
        &self,
        f: impl Fn(usize) -> crate::Result<Option<T>>,
    ) -> crate::Result<ArrayRef> {
        let mut out = StringViewBuilder::with_capacity(self.rows);
        for row in 0..self.rows {
            out.append_option(f(row)?);
        }
        Ok(Arc::new(out.finish()))
    }

    /// A truth of every row that has all its arguments.
    pub fn bools(&self, f: impl Fn(usize) -> crate::Result<Option<bool>>) -> crate::Result<ArrayRef> {
        let mut out = BooleanBuilder::with_capacity(self.rows);
        for row in 0..self.rows {
            out.append_option(if self.complete(row) { f(row)? } else { None });
        }
        Ok(Arc::new(out.finish()))
    }

    /// A number, or another value of fixed width, of every row that has all its arguments.
    pub fn values<T: ArrowPrimitiveType>(
        &self,
        f: impl Fn(usize) -> crate::Result<Option<T::Native>>,
    ) -> crate::Result<ArrayRef> {
        let values: PrimitiveArray<T> = (0..self.rows)
            .map(|row| if self.complete(row) { f(row) } else { Ok(None) })
            .collect::<crate::Result<_>>()?;
        Ok(Arc::new(values.with_data_type(self.gives.data_type().clone())))
    }

    /// Bytes of every row that has all its arguments.
    pub fn bytes(&self, f: impl Fn(usize) -> crate::Result<Option<Vec<u8>>>) -> crate::Result<ArrayRef> {
        let values: BinaryArray = (0..self.rows)
            .map(|row| if self.complete(row) { f(row) } else { Ok(None) })
            .collect::<crate::Result<_>>()?;
        Ok(Arc::new(values))
    }

    /// A list of texts of every row that has all its arguments.
    pub fn text_lists(
        &self,
        f: impl Fn(usize) -> crate::Result<Option<Vec<Option<String>>>>,
    ) -> crate::Result<ArrayRef> {
        let DataType::List(item) = self.gives.data_type() else { return Err(self.other(0)) };
        let mut out = ListBuilder::new(StringViewBuilder::new()).with_field(Arc::clone(item));
        for row in 0..self.rows {
            match if self.complete(row) { f(row)? } else { None } {
                Some(texts) => {
                    texts.into_iter().for_each(|t| out.values().append_option(t));
                    out.append(true);
                }
                None => out.append(false),
            }
        }
        Ok(Arc::new(out.finish()))
    }
}

/// The value of an array of one; a list keeps what its field says of its elements.
pub(super) fn only_value(array: &ArrayRef) -> Result<ScalarValue> {
    match array.as_list_opt::<i32>() {
        Some(list) => Ok(ScalarValue::List(Arc::new(list.clone()))),
        None => ScalarValue::try_from_array(array, 0),
    }
}

/// The texts of one row's list.
///
/// # Errors
/// XX000 when it is a list of something else.
pub(super) fn texts_at(lists: &ListArray, row: usize) -> crate::Result<Vec<Option<String>>> {
    let values = lists.value(row);
    let texts = values.as_string_view_opt().ok_or_else(|| Error::internal("a list of texts was wanted"))?;
    Ok(texts.iter().map(|t| t.map(str::to_string)).collect())
}

#[derive(Debug)]
struct Defined {
    definition: Definition,
    signature: Signature,
}

impl PartialEq for Defined {
    fn eq(&self, other: &Self) -> bool {
        self.definition.name == other.definition.name
    }
}

impl Eq for Defined {}

impl std::hash::Hash for Defined {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.definition.name.hash(state);
    }
}

impl Defined {
    fn accept(&self, form: &[Arg], types: &[DataType]) -> Option<Vec<DataType>> {
        let repeats = self.definition.variadic && types.len() + 1 >= form.len();
        if types.len() != form.len() && !repeats {
            return None;
        }
        let wanted = (0..types.len()).map(|i| form.get(i).or(form.last()));
        types.iter().zip(wanted).map(|(given, wanted)| wanted?.accept(given, types)).collect()
    }
}

impl ScalarUDFImpl for Defined {
    fn name(&self) -> &str {
        self.definition.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        if let Some(types) = self.definition.forms.iter().find_map(|form| self.accept(form, types)) {
            return Ok(types);
        }
        let types: Vec<String> = types.iter().map(ToString::to_string).collect();
        Err(datafusion::error::DataFusionError::Plan(format!(
            "No function matches the given name and argument types '{}({})'",
            self.name(),
            types.join(", ")
        )))
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        let fields: Vec<FieldRef> =
            types.iter().map(|t| Arc::new(arrow::datatypes::Field::new("", t.clone(), true))).collect();
        Ok(self.definition.gives.field(self.name(), &fields)?.data_type().clone())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        self.definition.gives.field(self.name(), args.arg_fields)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let scalar = args.args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let rows = if scalar { 1 } else { args.number_rows };
        let arrays = args.args.iter().map(|a| a.to_array(rows)).collect::<Result<Vec<_>>>()?;
        let result = (self.definition.evaluate)(&Call {
            name: self.definition.name,
            arrays: &arrays,
            fields: &args.arg_fields,
            gives: &args.return_field,
            rows,
        })?;
        if scalar {
            return Ok(ColumnarValue::Scalar(only_value(&result)?));
        }
        Ok(ColumnarValue::Array(result))
    }
}
