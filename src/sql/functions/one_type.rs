//! COALESCE, GREATEST and LEAST with string literals among values of another type.
//!
//! DataFusion wants a common type as soon as it sees the call, before the literals have been given theirs (the planner
//! does that, and refuses texts that are no literals). Until then the other arguments decide.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::Result;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

use crate::types::is_string;

/// The function, patient with string literals if its arguments have one type.
pub(super) fn patient(function: Arc<ScalarUDF>) -> Arc<ScalarUDF> {
    match function.name() {
        "coalesce" | "greatest" | "least" | "make_array" => {
            Arc::new(ScalarUDF::new_from_impl(OneType { function }))
        }
        _ => function,
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct OneType {
    function: Arc<ScalarUDF>,
}

/// Whether some types are text and some are not.
fn mixed<'t>(types: impl Iterator<Item = &'t DataType> + Clone) -> bool {
    let mut known = types.filter(|t| !t.is_null());
    known.clone().any(is_string) && known.any(|t| !is_string(t))
}

impl ScalarUDFImpl for OneType {
    fn name(&self) -> &str {
        self.function.name()
    }

    fn aliases(&self) -> &[String] {
        self.function.aliases()
    }

    fn signature(&self) -> &Signature {
        self.function.signature()
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        if !mixed(types.iter()) {
            return self.function.coerce_types(types);
        }
        let others: Vec<DataType> = types.iter().filter(|t| !is_string(t)).cloned().collect();
        let mut coerced = self.function.coerce_types(&others)?.into_iter();
        // As many come out as went in.
        Ok(types
            .iter()
            .map(|t| if is_string(t) { t.clone() } else { coerced.next().unwrap_or_else(|| t.clone()) })
            .collect())
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.function.return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        if !mixed(args.arg_fields.iter().map(|f| f.data_type())) {
            return self.function.return_field_from_args(args);
        }
        let (arg_fields, scalar_arguments): (Vec<_>, Vec<_>) = args
            .arg_fields
            .iter()
            .cloned()
            .zip(args.scalar_arguments.iter().copied())
            .filter(|(field, _)| !is_string(field.data_type()))
            .unzip();
        self.function.return_field_from_args(ReturnFieldArgs {
            arg_fields: &arg_fields,
            scalar_arguments: &scalar_arguments,
        })
    }

    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        self.function.simplify(args, info)
    }

    fn conditional_arguments<'a>(&self, args: &'a [Expr]) -> Option<(Vec<&'a Expr>, Vec<&'a Expr>)> {
        self.function.conditional_arguments(args)
    }

    fn short_circuits(&self) -> bool {
        self.function.short_circuits()
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.function.invoke_with_args(args)
    }
}
