//! `json` and `jsonb`: operators and functions, by scanning the text, so that numbers keep their digits.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanBuilder, Int32Builder, StringViewBuilder};
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr, RawFieldAccessExpr};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, GetFieldAccess, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility,
};
use datafusion::sql::sqlparser::ast::BinaryOperator;

use super::arrays;
use crate::error::Error;
use crate::types::json as scan;
use crate::types::{SqlType, is_string, parse_array_text, write_text};

/// The functions of this file, for calls by name.
pub fn functions() -> Vec<Arc<ScalarUDF>> {
    [
        ("json_typeof", Kind::TypeOf),
        ("jsonb_typeof", Kind::TypeOf),
        ("json_array_length", Kind::ArrayLength),
        ("jsonb_array_length", Kind::ArrayLength),
        ("json_extract_path", Kind::Path),
        ("jsonb_extract_path", Kind::Path),
        ("json_extract_path_text", Kind::PathText),
        ("jsonb_extract_path_text", Kind::PathText),
        ("json_build_object", Kind::BuildObject(SqlType::Json)),
        ("jsonb_build_object", Kind::BuildObject(SqlType::Jsonb)),
        ("json_build_array", Kind::BuildArray(SqlType::Json)),
        ("jsonb_build_array", Kind::BuildArray(SqlType::Jsonb)),
        ("to_json", Kind::Build(SqlType::Json)),
        ("to_jsonb", Kind::Build(SqlType::Jsonb)),
        ("array_to_json", Kind::Build(SqlType::Json)),
    ]
    .into_iter()
    .map(|(name, kind)| Arc::new(ScalarUDF::new_from_impl(JsonFunction::new(name, kind))))
    .collect()
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Kind {
    /// `->`: a member or an element.
    Get,
    /// `->>`: the same, as text.
    GetText,
    /// `#>`: by a path.
    Path,
    /// `#>>`: by a path, as text.
    PathText,
    /// `@>`: the left one contains the right one.
    Contains,
    /// `?`: has a key.
    HasKey,
    /// `?|`: has any of the keys.
    HasAny,
    /// `?&`: has all of the keys.
    HasAll,
    TypeOf,
    ArrayLength,
    BuildObject(SqlType),
    BuildArray(SqlType),
    Build(SqlType),
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct JsonFunction {
    name: &'static str,
    kind: Kind,
    signature: Signature,
}

impl JsonFunction {
    fn new(name: &'static str, kind: Kind) -> Self {
        JsonFunction { name, kind, signature: Signature::variadic_any(Volatility::Immutable) }
    }
}

/// Plans the operators of json values.
#[derive(Debug)]
pub struct Operators;

impl ExprPlanner for Operators {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        let (name, kind, swap) = match &expr.op {
            BinaryOperator::Arrow => ("->", Kind::Get, false),
            BinaryOperator::LongArrow => ("->>", Kind::GetText, false),
            BinaryOperator::HashArrow => ("#>", Kind::Path, false),
            BinaryOperator::HashLongArrow => ("#>>", Kind::PathText, false),
            BinaryOperator::AtArrow => ("@>", Kind::Contains, false),
            BinaryOperator::ArrowAt => ("@>", Kind::Contains, true),
            BinaryOperator::Question => ("?", Kind::HasKey, false),
            BinaryOperator::QuestionPipe => ("?|", Kind::HasAny, false),
            BinaryOperator::QuestionAnd => ("?&", Kind::HasAll, false),
            _ => return change(expr, schema),
        };
        // Arrays have @> and <@ of their own.
        let list = |e: &Expr| {
            Ok::<_, datafusion::error::DataFusionError>(matches!(e.get_type(schema)?, DataType::List(_)))
        };
        if list(&expr.left)? || list(&expr.right)? && matches!(kind, Kind::Contains) {
            return Ok(match kind {
                Kind::Contains if swap => PlannerResult::Planned(arrays::contains_all(expr.right, expr.left)),
                Kind::Contains => PlannerResult::Planned(arrays::contains_all(expr.left, expr.right)),
                _ => PlannerResult::Original(expr),
            });
        }
        if !is_string(&expr.left.get_type(schema)?) {
            return Ok(PlannerResult::Original(expr));
        }
        let args = if swap { vec![expr.right, expr.left] } else { vec![expr.left, expr.right] };
        Ok(PlannerResult::Planned(operator(name, kind, args)))
    }

    /// `j['a']` and `j[0]`: a path of one step. A scalar has nothing in it, which `->` sees otherwise.
    fn plan_field_access(
        &self,
        expr: RawFieldAccessExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawFieldAccessExpr>> {
        let key = match &expr.field_access {
            GetFieldAccess::NamedStructField { name } => Expr::Literal(name.clone(), None),
            GetFieldAccess::ListIndex { key } => key.as_ref().clone(),
            GetFieldAccess::ListRange { .. } => return Ok(PlannerResult::Original(expr)),
        };
        if SqlType::of(&expr.expr.to_field(schema)?.1) != SqlType::Jsonb {
            return Ok(PlannerResult::Original(expr));
        }
        let key = key.cast_to(&DataType::Utf8View, schema)?;
        Ok(PlannerResult::Planned(operator("jsonb_extract_path", Kind::Path, vec![expr.expr, key])))
    }
}

fn operator(name: &'static str, kind: Kind, args: Vec<Expr>) -> Expr {
    let function = Arc::new(ScalarUDF::new_from_impl(JsonFunction::new(name, kind)));
    Expr::ScalarFunction(ScalarFunction::new_udf(function, args))
}

/// Operators that give another document, or follow a path; and `&&` of arrays.
fn change(expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
    use BinaryOperator as B;
    if expr.op == B::PGOverlap {
        return Ok(PlannerResult::Planned(match expr.left {
            // A literal takes the type of the other side.
            left @ Expr::Literal(..) => arrays::have_common(expr.right, left),
            left => arrays::have_common(left, expr.right),
        }));
    }
    if expr.op == B::StringConcat {
        let (left, right) = (expr.left.get_type(schema)?, expr.right.get_type(schema)?);
        // Literals and NULLs are what the other side is.
        let element = |t: &DataType| !matches!(t, DataType::List(_)) && !t.is_null() && !is_string(t);
        match (&left, &right) {
            (DataType::List(item), other) if element(other) && !item.data_type().is_nested() => {
                return Ok(PlannerResult::Planned(arrays::appended(expr.left, expr.right)));
            }
            (other, DataType::List(item)) if element(other) && !item.data_type().is_nested() => {
                return Ok(PlannerResult::Planned(arrays::prepended(expr.left, expr.right)));
            }
            _ => {}
        }
    }
    let jsonb = |e: &Expr| {
        Ok::<_, datafusion::error::DataFusionError>(SqlType::of(&e.to_field(schema)?.1) == SqlType::Jsonb)
    };
    let name = match expr.op {
        B::StringConcat if jsonb(&expr.left)? || jsonb(&expr.right)? => "jsonb_concat",
        B::Minus if jsonb(&expr.left)? => match is_string(&expr.right.get_type(schema)?) {
            true => "jsonb_delete_key",
            false => "jsonb_delete",
        },
        B::HashMinus => "jsonb_delete_path",
        B::AtQuestion => "jsonb_path_exists_opr",
        B::AtAt => "jsonb_path_match_opr",
        _ => return Ok(PlannerResult::Original(expr)),
    };
    let Some(function) = super::Functions::get().scalar(name) else {
        return Err(Error::internal(format!("{name} is missing")).into());
    };
    let call = ScalarFunction::new_udf(function, vec![expr.left, expr.right]);
    Ok(PlannerResult::Planned(Expr::ScalarFunction(call)))
}

impl ScalarUDFImpl for JsonFunction {
    fn name(&self) -> &str {
        self.name
    }

    fn display_name(&self, args: &[Expr]) -> Result<String> {
        match args {
            [left, right] if self.name.starts_with(['-', '#', '@', '?']) => {
                Ok(format!("({left} {} {right})", self.name))
            }
            _ => {
                let args: Vec<_> = args.iter().map(ToString::to_string).collect();
                Ok(format!("{}({})", self.name, args.join(", ")))
            }
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(match self.kind {
            Kind::Contains | Kind::HasKey | Kind::HasAny | Kind::HasAll => DataType::Boolean,
            Kind::ArrayLength => DataType::Int32,
            _ => DataType::Utf8View,
        })
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let sql_type = match &self.kind {
            // What is taken out of a json is a json, out of a jsonb a jsonb.
            Kind::Get | Kind::Path => match args.arg_fields.first().map(|f| SqlType::of(f)) {
                Some(SqlType::Json) => SqlType::Json,
                _ => SqlType::Jsonb,
            },
            Kind::BuildObject(t) | Kind::BuildArray(t) | Kind::Build(t) => t.clone(),
            Kind::GetText | Kind::PathText | Kind::TypeOf => SqlType::Text,
            Kind::Contains | Kind::HasKey | Kind::HasAny | Kind::HasAll => SqlType::Bool,
            Kind::ArrayLength => SqlType::Int4,
        };
        Ok(sql_type.field_ref(self.name, true))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let scalar = args.args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let rows = if scalar { 1 } else { args.number_rows };
        let arrays: Vec<ArrayRef> = args.args.iter().map(|a| a.to_array(rows)).collect::<Result<_>>()?;
        let result = self.evaluate(&arrays, &args.arg_fields, rows)?;
        if scalar {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?));
        }
        Ok(ColumnarValue::Array(result))
    }
}

impl JsonFunction {
    fn evaluate(&self, arrays: &[ArrayRef], fields: &[FieldRef], rows: usize) -> crate::Result<ArrayRef> {
        if let Kind::BuildObject(_) | Kind::BuildArray(_) | Kind::Build(_) = self.kind {
            return self.build(arrays, fields, rows);
        }
        let Some(first) = arrays.first() else {
            return Err(Error::new(
                crate::SqlState::UNDEFINED_FUNCTION,
                format!("function {}() does not exist", self.name),
            ));
        };
        let documents = arrow::compute::cast(first, &DataType::Utf8View)?;
        let documents = documents.as_string_view();
        match self.kind {
            Kind::Contains | Kind::HasKey | Kind::HasAny | Kind::HasAll => {
                let mut out = BooleanBuilder::with_capacity(rows);
                for row in 0..rows {
                    let answer = match documents.is_null(row) {
                        true => None,
                        false => self.test(documents.value(row), &arrays[1..], row)?,
                    };
                    out.append_option(answer);
                }
                Ok(Arc::new(out.finish()))
            }
            Kind::ArrayLength => {
                let mut out = Int32Builder::with_capacity(rows);
                for row in 0..rows {
                    if documents.is_null(row) {
                        out.append_null();
                    } else {
                        out.append_value(array_length(documents.value(row))?);
                    }
                }
                Ok(Arc::new(out.finish()))
            }
            _ => {
                let mut out = StringViewBuilder::with_capacity(rows);
                let jsonb = fields.first().is_some_and(|f| SqlType::of(f) == SqlType::Jsonb);
                for row in 0..rows {
                    match documents.is_null(row) {
                        true => out.append_null(),
                        false => self.take(documents.value(row), &arrays[1..], row, jsonb, &mut out)?,
                    }
                }
                Ok(Arc::new(out.finish()))
            }
        }
    }

    /// A part of a document.
    fn take(
        &self,
        document: &str,
        args: &[ArrayRef],
        row: usize,
        scalar_is_array: bool,
        out: &mut StringViewBuilder,
    ) -> crate::Result<()> {
        let part = match self.kind {
            Kind::TypeOf => {
                out.append_option(scan::type_name(document));
                return Ok(());
            }
            Kind::Path | Kind::PathText => {
                let Some(path) = path_of(args, row)? else {
                    out.append_null();
                    return Ok(());
                };
                path.iter().try_fold(document, |at, step| scan::step(at, step))
            }
            _ => args.first().and_then(|key| select(document, key, row, scalar_is_array)),
        };
        let as_text = matches!(self.kind, Kind::GetText | Kind::PathText);
        match part {
            Some(part) if as_text => out.append_option(scan::as_text(part)),
            other => out.append_option(other),
        }
        Ok(())
    }

    /// A question about a document; `None`: NULL.
    fn test(&self, document: &str, args: &[ArrayRef], row: usize) -> crate::Result<Option<bool>> {
        let Some(arg) = args.first().filter(|a| !a.is_null(row)) else { return Ok(None) };
        if self.kind == Kind::Contains {
            let inner = arrow::compute::cast(arg, &DataType::Utf8View)?;
            let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text);
            let (Ok(outer), Ok(inner)) = (parse(document), parse(inner.as_string_view().value(row))) else {
                return Ok(None);
            };
            return Ok(Some(contains(&outer, &inner, true)));
        }
        let keys = match self.kind {
            Kind::HasKey => vec![text_at(arg, row)?],
            _ => path_of(args, row)?.unwrap_or_default(),
        };
        let has = |key: &String| scan::has_key(document, key);
        Ok(Some(if self.kind == Kind::HasAll { keys.iter().all(has) } else { keys.iter().any(has) }))
    }

    /// A document made of values.
    fn build(&self, arrays: &[ArrayRef], fields: &[FieldRef], rows: usize) -> crate::Result<ArrayRef> {
        let mut out = StringViewBuilder::with_capacity(rows);
        for row in 0..rows {
            let value = |i: usize| json_value(&fields[i], arrays[i].as_ref(), row);
            let document = match &self.kind {
                Kind::BuildObject(_) => {
                    if !arrays.len().is_multiple_of(2) {
                        return Err(Error::new(
                            crate::SqlState::INVALID_PARAMETER_VALUE,
                            "argument list must have even number of elements",
                        ));
                    }
                    let mut members = Vec::with_capacity(arrays.len() / 2);
                    for i in (0..arrays.len()).step_by(2) {
                        if arrays[i].is_null(row) || arrays[i].data_type().is_null() {
                            return Err(Error::new(
                                crate::SqlState::INVALID_PARAMETER_VALUE,
                                format!("argument {}: key must not be null", i + 1),
                            ));
                        }
                        let key = serde_json::Value::String(text_at(&arrays[i], row)?);
                        // json is kept as it is written, and written with these blanks.
                        members.push(format!("{key} : {}", value(i + 1)?));
                    }
                    format!("{{{}}}", members.join(", "))
                }
                Kind::BuildArray(_) => {
                    let items = (0..arrays.len()).map(value).collect::<crate::Result<Vec<_>>>()?;
                    format!("[{}]", items.join(", "))
                }
                _ => match arrays.first().filter(|a| !a.is_null(row)) {
                    Some(_) => value(0)?,
                    None => {
                        out.append_null();
                        continue;
                    }
                },
            };
            match &self.kind {
                Kind::BuildObject(SqlType::Jsonb)
                | Kind::BuildArray(SqlType::Jsonb)
                | Kind::Build(SqlType::Jsonb) => {
                    out.append_value(scan::normalize(&document)?);
                }
                _ => out.append_value(document),
            }
        }
        Ok(Arc::new(out.finish()))
    }
}

/// An argument as JSON text.
pub(super) fn value_at(call: &super::define::Call<'_>, argument: usize, row: usize) -> crate::Result<String> {
    let array = call.array(argument)?;
    match call.fields.get(argument) {
        Some(field) => json_value(field, array.as_ref(), row),
        None => Err(Error::internal(format!("{} has no argument {}", call.name, argument + 1))),
    }
}

/// A value as JSON text.
fn json_value(field: &FieldRef, array: &dyn Array, row: usize) -> crate::Result<String> {
    if array.is_null(row) || array.data_type().is_null() {
        return Ok("null".to_string());
    }
    let mut text = Vec::new();
    if let DataType::List(inner) = array.data_type() {
        let values = array.as_list::<i32>().value(row);
        let items = (0..values.len())
            .map(|i| json_value(inner, values.as_ref(), i))
            .collect::<crate::Result<Vec<_>>>()?;
        return Ok(format!("[{}]", items.join(",")));
    }
    write_text(field, array, row, &mut text)?;
    let text = String::from_utf8_lossy(&text).into_owned();
    Ok(match SqlType::of(field) {
        SqlType::Bool => if text == "t" { "true" } else { "false" }.to_string(),
        SqlType::Json | SqlType::Jsonb => text,
        SqlType::Timestamp => serde_json::Value::String(text.replacen(' ', "T", 1)).to_string(),
        // With the minutes of its offset, as ISO 8601 wants them.
        SqlType::Timestamptz if text.ends_with("+00") => {
            serde_json::Value::String(format!("{}:00", text.replacen(' ', "T", 1))).to_string()
        }
        number if number.is_numeric() && !text.contains(['N', 'I']) => text,
        _ => serde_json::Value::String(text).to_string(),
    })
}

/// The member or element that a key names. PostgreSQL stores a `jsonb` scalar as an array of one element, and its
/// `->` and `->>` show it: `scalar_is_array`.
fn select<'a>(document: &'a str, key: &ArrayRef, row: usize, scalar_is_array: bool) -> Option<&'a str> {
    if key.is_null(row) {
        return None;
    }
    if key.data_type().is_integer() {
        let index = arrow::compute::cast(&key.slice(row, 1), &DataType::Int64).ok()?;
        let index = index.as_primitive::<arrow::datatypes::Int64Type>().value(0);
        if scalar_is_array && !document.trim_start().starts_with(['{', '[']) {
            return matches!(index, 0 | -1).then_some(document);
        }
        return scan::element(document, index);
    }
    let name = text_at(key, row).ok()?;
    scan::member(document, &name)
}

fn text_at(array: &ArrayRef, row: usize) -> crate::Result<String> {
    let field = arrow::datatypes::Field::new("", array.data_type().clone(), true);
    let mut text = Vec::new();
    write_text(&field, array.as_ref(), row, &mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// The steps of a path: a text array, its text, or several arguments. `None`: NULL.
fn path_of(args: &[ArrayRef], row: usize) -> crate::Result<Option<Vec<String>>> {
    if args.iter().any(|a| a.is_null(row)) {
        return Ok(None);
    }
    match args {
        [list] if matches!(list.data_type(), DataType::List(_)) => {
            let steps = list.as_list::<i32>().value(row);
            (0..steps.len()).map(|i| text_at(&steps, i)).collect::<crate::Result<Vec<_>>>().map(Some)
        }
        [text] => {
            let text = text_at(text, row)?;
            if !text.trim_start().starts_with('{') {
                return Ok(Some(vec![text]));
            }
            let steps = parse_array_text(&SqlType::Text.field_ref("item", true), &text)?.value(0);
            (0..steps.len()).map(|i| text_at(&steps, i)).collect::<crate::Result<Vec<_>>>().map(Some)
        }
        several => several.iter().map(|a| text_at(a, row)).collect::<crate::Result<Vec<_>>>().map(Some),
    }
}

fn array_length(document: &str) -> crate::Result<i32> {
    match scan::length(document) {
        Some(n) => Ok(i32::try_from(n).unwrap_or(i32::MAX)),
        None => Err(Error::new(
            crate::SqlState::INVALID_PARAMETER_VALUE,
            "cannot get array length of a non-array",
        )),
    }
}

/// jsonb's containment: every member and element of `inner` is in `outer`; an array contains its scalars at top level.
fn contains(outer: &serde_json::Value, inner: &serde_json::Value, top: bool) -> bool {
    use serde_json::Value;
    match (outer, inner) {
        (Value::Object(a), Value::Object(b)) => {
            b.iter().all(|(k, v)| a.get(k).is_some_and(|w| contains(w, v, false)))
        }
        (Value::Array(a), Value::Array(b)) => b.iter().all(|v| a.iter().any(|w| contains(w, v, false))),
        (Value::Array(a), scalar) if top && !scalar.is_object() => a.contains(scalar),
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (a, b) => a == b,
    }
}
