//! `x op ANY (array)` and `x op ALL (array)`, with PostgreSQL's answers where NULL is on either side.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, UInt32Array};
use arrow::compute::kernels::cmp;
use arrow::compute::take;
use arrow::datatypes::{DataType, Field};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::{Placeholder, ScalarFunction};
use datafusion::logical_expr::type_coercion::binary::comparison_coercion;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};

use super::cast;
use crate::error::{Error, SqlState};
use crate::types::{SqlType, is_string};

const OPERATORS: [(Operator, &str, &str); 6] = [
    (Operator::Eq, "= any", "= all"),
    (Operator::NotEq, "<> any", "<> all"),
    (Operator::Lt, "< any", "< all"),
    (Operator::LtEq, "<= any", "<= all"),
    (Operator::Gt, "> any", "> all"),
    (Operator::GtEq, ">= any", ">= all"),
];

/// The name of the function that `x op ANY (array)` or `x op ALL (array)` is, by the operator as written.
pub fn name(operator: &str, all: bool) -> Option<&'static str> {
    let operator = if operator == "!=" { "<>" } else { operator };
    OPERATORS
        .iter()
        .find(|(_, any, _)| any.strip_suffix(" any") == Some(operator))
        .map(|(_, any, every)| if all { *every } else { *any })
}

/// All of them.
pub fn functions() -> impl Iterator<Item = Arc<ScalarUDF>> {
    OPERATORS.iter().flat_map(|(op, _, _)| [(*op, false), (*op, true)]).map(|(op, all)| {
        let signature = Signature::user_defined(Volatility::Immutable);
        Arc::new(ScalarUDF::new_from_impl(Quantified { op, all, signature }))
    })
}

/// Whether a function is one of these.
pub fn is_quantified(function: &ScalarUDF) -> bool {
    OPERATORS.iter().any(|(_, any, all)| [*any, *all].contains(&function.name()))
}

/// The call with the literals and parameters among its operands in the type of the other one.
///
/// # Errors
/// 42809 when the right side is no array, 22P02 and its kin for literals that are no value of the type.
pub fn typed(mut call: ScalarFunction, schema: &DFSchema) -> Result<Expr> {
    let [needle, haystack] = call.args.as_mut_slice() else {
        return Err(Error::internal("ANY and ALL have two operands").into());
    };
    let unknown = |expr: &Expr| match expr {
        Expr::Literal(value, metadata) => is_string(&value.data_type()) && metadata.is_none(),
        Expr::Placeholder(p) => p.field.is_none(),
        _ => false,
    };
    let field = needle.to_field(schema)?.1;
    if unknown(haystack) {
        let element = match SqlType::of(&field) {
            SqlType::Unknown => SqlType::Text,
            known => known,
        };
        give(haystack, &SqlType::Array(Box::new(element)))?;
    }
    match SqlType::of(haystack.to_field(schema)?.1.as_ref()) {
        SqlType::Array(element) if unknown(needle) => give(needle, &element)?,
        SqlType::Array(_) | SqlType::Unknown => {}
        _ => {
            return Err(Error::new(
                SqlState::WRONG_OBJECT_TYPE,
                "op ANY/ALL (array) requires array on right side",
            )
            .into());
        }
    }
    Ok(Expr::ScalarFunction(call))
}

/// Gives a literal or a parameter a type.
fn give(expr: &mut Expr, to: &SqlType) -> Result<()> {
    let field = to.field_ref("", true);
    match expr {
        Expr::Literal(value, _) => {
            if let Some(literal) = cast::literal(value, &field)? {
                *expr = literal;
            }
        }
        Expr::Placeholder(Placeholder { field: open, .. }) => *open = Some(field),
        _ => {}
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Quantified {
    op: Operator,
    all: bool,
    signature: Signature,
}

impl ScalarUDFImpl for Quantified {
    fn name(&self) -> &str {
        let (_, any, all) = OPERATORS.iter().find(|(op, _, _)| *op == self.op).unwrap_or(&OPERATORS[0]);
        if self.all { all } else { any }
    }

    fn display_name(&self, args: &[Expr]) -> Result<String> {
        Ok(match args {
            [needle, haystack] => format!("{needle} {} ({haystack})", self.name().to_uppercase()),
            _ => self.name().to_string(),
        })
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let [needle, haystack] = types else {
            return Err(Error::internal("ANY and ALL have two operands").into());
        };
        let element = match haystack {
            DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _) => {
                field.data_type()
            }
            // What is no array is refused once its type is known.
            _ => return Ok(types.to_vec()),
        };
        let common = comparison_coercion(needle, element).ok_or_else(|| {
            let shown = |t: &DataType| SqlType::of(&Field::new("", t.clone(), true));
            Error::new(
                SqlState::UNDEFINED_FUNCTION,
                format!("operator does not exist: {} {} {}", shown(needle), self.op, shown(element)),
            )
        })?;
        Ok(vec![common.clone(), DataType::List(Arc::new(Field::new_list_field(common, true)))])
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let scalar = args.args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [needle, haystack] = arrays.as_slice() else {
            return Err(Error::internal("ANY and ALL have two operands").into());
        };
        let answers: ArrayRef = Arc::new(self.answers(needle, haystack)?);
        Ok(match scalar {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&answers, 0)?),
            false => ColumnarValue::Array(answers),
        })
    }
}

impl Quantified {
    fn answers(&self, needle: &ArrayRef, haystack: &ArrayRef) -> Result<BooleanArray> {
        let Some(lists) = haystack.as_list_opt::<i32>() else {
            return Ok(BooleanArray::new_null(needle.len()));
        };
        // The left side once for each element, so that one comparison serves all rows.
        let rows = (0u32..).zip(lists.offsets().windows(2));
        let rows = rows.flat_map(|(row, ends)| std::iter::repeat_n(row, (ends[1] - ends[0]) as usize));
        let rows: UInt32Array = rows.collect::<Vec<u32>>().into();
        let left = take(needle, &rows, None)?;
        let start = lists.offsets().first().map_or(0, |o| *o as usize);
        let right = lists.values().slice(start, left.len());
        let compare = match self.op {
            Operator::NotEq => cmp::neq,
            Operator::Lt => cmp::lt,
            Operator::LtEq => cmp::lt_eq,
            Operator::Gt => cmp::gt,
            Operator::GtEq => cmp::gt_eq,
            _ => cmp::eq,
        };
        let found = compare(&left, &right)?;
        let mut next = 0;
        let answers = (0..lists.len()).map(|row| {
            let end = next + (lists.value_length(row) as usize);
            let elements = std::mem::replace(&mut next, end)..end;
            if lists.is_null(row) {
                return None;
            }
            let decides = !self.all;
            let mut unknown = false;
            for i in elements {
                match found.is_null(i) {
                    true => unknown = true,
                    false if found.value(i) == decides => return Some(decides),
                    false => {}
                }
            }
            (!unknown).then_some(!decides)
        });
        Ok(answers.collect())
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int32Array, ListArray};
    use arrow::datatypes::Int32Type;

    use super::*;

    #[test]
    fn null_is_unknown_unless_another_element_decides() {
        let needle: ArrayRef =
            Arc::new(Int32Array::from(vec![Some(1), Some(1), None, Some(1), None, Some(1)]));
        let lists: [Option<Vec<Option<i32>>>; 6] = [
            Some(vec![Some(2), None]),
            Some(vec![None, Some(1)]),
            Some(vec![Some(1)]),
            None,
            Some(vec![]),
            Some(vec![Some(2)]),
        ];
        let lists: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(lists));
        let answers = |op, all| {
            let signature = Signature::user_defined(Volatility::Immutable);
            Quantified { op, all, signature }.answers(&needle, &lists).unwrap().iter().collect::<Vec<_>>()
        };
        assert_eq!(answers(Operator::Eq, false), [None, Some(true), None, None, Some(false), Some(false)]);
        assert_eq!(answers(Operator::NotEq, true), [None, Some(false), None, None, Some(true), Some(true)]);
        // A part of a longer array.
        let (needle, lists) = (needle.slice(4, 2), lists.slice(4, 2));
        let signature = Signature::user_defined(Volatility::Immutable);
        let less = Quantified { op: Operator::Lt, all: true, signature }.answers(&needle, &lists).unwrap();
        assert_eq!(less.iter().collect::<Vec<_>>(), [Some(true), Some(true)]);
    }

    #[test]
    fn operators_are_found_as_they_are_written() {
        assert_eq!(name("=", false), Some("= any"));
        assert_eq!(name("!=", true), Some("<> all"));
        assert_eq!(name("~", false), None);
    }
}
