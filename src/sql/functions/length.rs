//! Lengths that PostgreSQL counts otherwise than DataFusion: bytes of a `bytea`, elements of an empty array.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int32Array};
use arrow::datatypes::{DataType, Field, UInt64Type};
use datafusion::common::{Result, ScalarValue};
use datafusion::functions_nested::length::array_length_udf;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use crate::error::Error;

/// `array_length`, for calls by name.
pub fn array_length() -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::new_from_impl(ArrayLength { inner: array_length_udf() }))
}

/// `length` of a `bytea`: DataFusion's would read it as text.
pub fn byte_length() -> Arc<ScalarUDF> {
    let signature = Signature::exact(vec![DataType::Binary], Volatility::Immutable);
    Arc::new(ScalarUDF::new_from_impl(ByteLength { signature }))
}

/// `array_length(array, dimension)`: an `integer`, NULL for an empty array.
#[derive(Debug, PartialEq, Eq, Hash)]
struct ArrayLength {
    inner: Arc<ScalarUDF>,
}

impl ScalarUDFImpl for ArrayLength {
    fn name(&self) -> &str {
        "array_length"
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(types)
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int32)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let return_field = Arc::new(Field::new(self.name(), DataType::UInt64, true));
        let counted = self.inner.invoke_with_args(ScalarFunctionArgs { return_field, ..args })?;
        let scalar = matches!(counted, ColumnarValue::Scalar(_));
        let counted = counted.into_array(if scalar { 1 } else { rows })?;
        let lengths = counted.as_primitive::<UInt64Type>().iter().map(|n| {
            // More elements than an integer counts do not fit into a value.
            n.filter(|n| *n > 0).map(|n| i32::try_from(n).unwrap_or(i32::MAX))
        });
        finish(Arc::new(lengths.collect::<Int32Array>()), scalar)
    }
}

/// The number of bytes.
#[derive(Debug, PartialEq, Eq, Hash)]
struct ByteLength {
    signature: Signature,
}

impl ScalarUDFImpl for ByteLength {
    fn name(&self) -> &str {
        "length"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Int32)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [bytes] = args.args.as_slice() else {
            return Err(Error::internal("length with other than one argument").into());
        };
        let scalar = matches!(bytes, ColumnarValue::Scalar(_));
        let bytes = bytes.to_array(if scalar { 1 } else { args.number_rows })?;
        // The offsets of an array's values are 32 bits wide.
        let lengths = bytes.as_binary::<i32>().iter().map(|v| v.map(|v| v.len() as i32));
        finish(Arc::new(lengths.collect::<Int32Array>()), scalar)
    }
}

fn finish(array: ArrayRef, scalar: bool) -> Result<ColumnarValue> {
    Ok(match scalar {
        true => ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?),
        false => ColumnarValue::Array(array),
    })
}
