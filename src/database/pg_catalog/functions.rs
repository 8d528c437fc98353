//! The functions that come with the system relations: names of oids, definitions, comments, visibility, privileges.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, ListArray, StringViewArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Int64Type};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Result as DfResult, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, Expr, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::Context;
use super::classes::{self, schemas};
use super::settings::UTF8;
use crate::database::settings::unknown as unknown_setting;
use crate::error::{Error, SqlState};
use crate::names::quote;
use crate::types::SqlType;

/// The function of this name, bound to what the context tells.
pub fn function(cx: &Arc<Context>, name: &str) -> Option<Arc<ScalarUDF>> {
    let definition = |list: &'static [(&str, Returns, Body)]| list.iter().find(|(n, ..)| *n == name);
    let ((name, returns, body), signature) = match definition(DEFINITIONS) {
        Some(found) => (found, Signature::variadic_any(Volatility::Stable)),
        None => (definition(NO_ARGUMENTS)?, Signature::nullary(Volatility::Stable)),
    };
    let function = CatalogFunction { name, returns: *returns, body: *body, cx: Arc::clone(cx), signature };
    Some(Arc::new(ScalarUDF::new_from_impl(function)))
}

/// What plans call by name to change the session's settings.
const SET_CONFIG: &str = "set_config";

/// The context that functions of a plan are bound to; `None`: it calls none.
pub fn context_of(plan: &LogicalPlan) -> Option<Arc<Context>> {
    find(plan, &|_| true)
}

/// The same, of a plan that calls `set_config`: what it assigns is there when all its rows have been computed.
pub fn sets_settings(plan: &LogicalPlan) -> Option<Arc<Context>> {
    find(plan, &|function| function.name == SET_CONFIG)
}

fn find(plan: &LogicalPlan, wanted: &dyn Fn(&CatalogFunction) -> bool) -> Option<Arc<Context>> {
    let mut found = None;
    let visited = plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|e| {
                if let Expr::ScalarFunction(call) = e
                    && let Some(function) = call.func.inner().downcast_ref::<CatalogFunction>()
                    && wanted(function)
                {
                    found = Some(Arc::clone(&function.cx));
                    return Ok(TreeNodeRecursion::Stop);
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    visited.ok().and(found)
}

/// What a function answers.
#[derive(Clone, Copy)]
enum Returns {
    Text,
    Bool,
    Int,
    Oid,
    Names,
}

impl Returns {
    fn data_type(self) -> DataType {
        match self {
            Returns::Text => DataType::Utf8View,
            Returns::Bool => DataType::Boolean,
            Returns::Int => DataType::Int64,
            Returns::Oid => DataType::UInt32,
            Returns::Names => DataType::List(Arc::new(Field::new("item", DataType::Utf8View, true))),
        }
    }
}

/// One row's arguments.
struct Row<'a> {
    arguments: &'a [Argument],
    row: usize,
}

/// An argument, as a number and as text, whichever a function asks for.
struct Argument {
    numbers: Option<Int64Array>,
    texts: Option<StringViewArray>,
    lists: Option<ListArray>,
}

impl Argument {
    fn new(array: &ArrayRef) -> Argument {
        // What cannot be read as a number is NULL to a function that wants one.
        let lenient = CastOptions { safe: true, ..CastOptions::default() };
        let cast = |to: &DataType| cast_with_options(array, to, &lenient).ok();
        Argument {
            numbers: cast(&DataType::Int64).map(|a| a.as_primitive::<Int64Type>().clone()),
            texts: cast(&DataType::Utf8View).map(|a| a.as_string_view().clone()),
            lists: array.as_list_opt::<i32>().cloned(),
        }
    }
}

impl Row<'_> {
    fn number(&self, i: usize) -> Option<i64> {
        let numbers = self.arguments.get(i)?.numbers.as_ref()?;
        numbers.is_valid(self.row).then(|| numbers.value(self.row))
    }

    fn oid(&self, i: usize) -> Option<u32> {
        self.number(i).and_then(|n| u32::try_from(n).ok())
    }

    fn text(&self, i: usize) -> Option<&str> {
        let texts = self.arguments.get(i)?.texts.as_ref()?;
        texts.is_valid(self.row).then(|| texts.value(self.row))
    }

    fn truth(&self, i: usize) -> Option<bool> {
        self.text(i).map(|text| text == "true")
    }

    fn list_length(&self, i: usize) -> Option<i64> {
        let lists = self.arguments.get(i)?.lists.as_ref()?;
        lists.is_valid(self.row).then(|| lists.value_length(self.row).into()).filter(|n| *n > 0)
    }
}

/// A function's value for one row.
enum Answer {
    Null,
    Text(String),
    Bool(bool),
    Int(i64),
    Names(Vec<String>),
}

impl From<Option<String>> for Answer {
    fn from(v: Option<String>) -> Self {
        v.map_or(Answer::Null, Answer::Text)
    }
}

type Body = fn(&Context, &Row<'_>) -> Result<Answer, Error>;

const DEFINITIONS: &[(&str, Returns, Body)] = &[
    ("pg_get_userbyid", Returns::Text, |cx, row| Ok(row.oid(0).map(|_| cx.user.clone()).into())),
    ("pg_table_is_visible", Returns::Bool, |cx, row| {
        // Visible is what is found by its bare name.
        Ok(row.oid(0).and_then(|oid| classes::is_visible(cx, oid)).map_or(Answer::Null, Answer::Bool))
    }),
    ("pg_type_is_visible", Returns::Bool, yes),
    ("pg_function_is_visible", Returns::Bool, yes),
    ("pg_operator_is_visible", Returns::Bool, yes),
    ("pg_opclass_is_visible", Returns::Bool, yes),
    ("pg_opfamily_is_visible", Returns::Bool, yes),
    ("pg_collation_is_visible", Returns::Bool, yes),
    ("pg_conversion_is_visible", Returns::Bool, yes),
    ("pg_statistics_obj_is_visible", Returns::Bool, yes),
    ("pg_ts_config_is_visible", Returns::Bool, yes),
    ("pg_ts_dict_is_visible", Returns::Bool, yes),
    ("pg_ts_parser_is_visible", Returns::Bool, yes),
    ("pg_ts_template_is_visible", Returns::Bool, yes),
    ("has_database_privilege", Returns::Bool, yes),
    ("has_schema_privilege", Returns::Bool, yes),
    ("has_table_privilege", Returns::Bool, yes),
    ("has_column_privilege", Returns::Bool, yes),
    ("has_any_column_privilege", Returns::Bool, yes),
    ("has_function_privilege", Returns::Bool, yes),
    ("has_sequence_privilege", Returns::Bool, yes),
    ("pg_has_role", Returns::Bool, yes),
    ("pg_relation_is_publishable", Returns::Bool, no),
    ("pg_is_other_temp_schema", Returns::Bool, no),
    ("format_type", Returns::Text, |_, row| Ok(row.oid(0).map(|oid| format_type(oid, row.number(1))).into())),
    ("pg_get_expr", Returns::Text, |_, row| Ok(row.text(0).map(str::to_string).into())),
    ("pg_get_indexdef", Returns::Text, |cx, row| {
        let Some(oid) = row.oid(0) else { return Ok(Answer::Null) };
        Ok(match row.number(1).unwrap_or(0) {
            0 => classes::index_definition(cx, oid),
            column => classes::index_column(cx, oid, column),
        }
        .into())
    }),
    ("pg_get_constraintdef", Returns::Text, |cx, row| {
        Ok(row.oid(0).and_then(|oid| classes::constraint_definition(cx, oid)).into())
    }),
    ("pg_get_viewdef", Returns::Text, |cx, row| {
        let oid = match row.oid(0) {
            Some(oid) => Some(oid),
            None => row.text(0).map(|name| regclass(cx, name)).transpose()?,
        };
        Ok(oid.and_then(|oid| classes::view_definition(cx, oid)).into())
    }),
    ("obj_description", Returns::Text, |cx, row| {
        Ok(row.oid(0).and_then(|oid| classes::comment(cx, oid, 0)).into())
    }),
    ("col_description", Returns::Text, |cx, row| {
        let (Some(oid), Some(column)) = (row.oid(0), row.number(1)) else { return Ok(Answer::Null) };
        Ok(i32::try_from(column).ok().filter(|c| *c > 0).and_then(|c| classes::comment(cx, oid, c)).into())
    }),
    ("shobj_description", Returns::Text, null),
    ("pg_get_statisticsobjdef_columns", Returns::Text, null),
    ("pg_get_partkeydef", Returns::Text, null),
    ("pg_get_ruledef", Returns::Text, null),
    ("pg_get_triggerdef", Returns::Text, null),
    ("pg_get_functiondef", Returns::Text, null),
    ("pg_get_function_result", Returns::Text, null),
    ("pg_get_function_arguments", Returns::Text, null),
    ("pg_get_function_identity_arguments", Returns::Text, null),
    ("pg_get_serial_sequence", Returns::Text, null),
    ("pg_tablespace_location", Returns::Text, |_, row| Ok(row.oid(0).map(|_| String::new()).into())),
    ("pg_encoding_to_char", Returns::Text, |_, row| {
        Ok(row
            .number(0)
            .map(|n| if n == i64::from(UTF8) { "UTF8".to_string() } else { String::new() })
            .into())
    }),
    ("pg_char_to_encoding", Returns::Int, |_, row| {
        let is_utf8 = |name: &str| matches!(name.to_ascii_uppercase().as_str(), "UTF8" | "UTF-8" | "UNICODE");
        Ok(row.text(0).map_or(Answer::Null, |name| Answer::Int(if is_utf8(name) { UTF8.into() } else { -1 })))
    }),
    // How much room a relation takes is not told by object; `tidemill.operators` has what is known.
    ("pg_table_size", Returns::Int, null),
    ("pg_relation_size", Returns::Int, null),
    ("pg_total_relation_size", Returns::Int, null),
    ("pg_indexes_size", Returns::Int, null),
    ("pg_database_size", Returns::Int, null),
    ("pg_size_pretty", Returns::Text, |_, row| Ok(row.number(0).map(size_pretty).into())),
    ("quote_ident", Returns::Text, |_, row| Ok(row.text(0).map(quote).into())),
    ("array_lower", Returns::Int, |_, row| Ok(row.list_length(0).map_or(Answer::Null, |_| Answer::Int(1)))),
    ("array_upper", Returns::Int, |_, row| Ok(row.list_length(0).map_or(Answer::Null, Answer::Int))),
    ("to_regclass", Returns::Oid, |cx, row| {
        let oid = row.text(0).and_then(|name| regclass(cx, name).ok());
        Ok(oid.map_or(Answer::Null, |oid| Answer::Int(oid.into())))
    }),
    (REGCLASS_IN, Returns::Oid, |cx, row| {
        let oid = row.text(0).map(|name| regclass(cx, name)).transpose()?;
        Ok(oid.map_or(Answer::Null, |oid| Answer::Int(oid.into())))
    }),
    (REGCLASS_OUT, Returns::Text, |cx, row| {
        Ok(row.oid(0).map(|oid| classes::class_name(cx, oid).unwrap_or_else(|| oid.to_string())).into())
    }),
    (REGTYPE_IN, Returns::Oid, |_, row| {
        let oid = row.text(0).map(regtype).transpose()?;
        Ok(oid.map_or(Answer::Null, |oid| Answer::Int(oid.into())))
    }),
    (REGTYPE_OUT, Returns::Text, |_, row| {
        Ok(row.oid(0).map(|oid| if oid == 0 { "-".to_string() } else { format_type(oid, None) }).into())
    }),
    (REGNAMESPACE_IN, Returns::Oid, |cx, row| {
        let Some(name) = row.text(0) else { return Ok(Answer::Null) };
        let named = || {
            let name = identifiers(name).pop()?;
            schemas(cx).iter().find(|schema| schema.name == name).map(|schema| schema.oid)
        };
        let oid = name.parse().ok().or_else(named);
        oid.map(|oid: u32| Answer::Int(oid.into())).ok_or_else(|| {
            Error::new(SqlState::INVALID_SCHEMA_NAME, format!("schema \"{name}\" does not exist"))
        })
    }),
    (REGNAMESPACE_OUT, Returns::Text, |cx, row| {
        let name = |oid: u32| schemas(cx).iter().find(|s| s.oid == oid).map(|s| quote(s.name));
        Ok(row.oid(0).map(|oid| name(oid).unwrap_or_else(|| oid.to_string())).into())
    }),
    ("current_setting", Returns::Text, |cx, row| {
        let Some(name) = row.text(0) else { return Ok(Answer::Null) };
        match cx.settings.iter().find(|(n, ..)| n.eq_ignore_ascii_case(name)) {
            Some((_, value, _)) => Ok(Answer::Text(value.clone())),
            None if row.truth(1) == Some(true) => Ok(Answer::Null),
            None => Err(unknown_setting(name)),
        }
    }),
    (SET_CONFIG, Returns::Text, |cx, row| {
        let (Some(name), Some(value)) = (row.text(0), row.text(1)) else { return Ok(Answer::Null) };
        let local = row.truth(2) == Some(true);
        cx.assigned.lock().push((name.to_string(), value.to_string(), local));
        Ok(Answer::Text(value.to_string()))
    }),
    ("current_schemas", Returns::Names, |cx, row| {
        let Some(implicit) = row.truth(0) else { return Ok(Answer::Null) };
        let path = if implicit { classes::search_path(cx) } else { cx.catalog.path_names() };
        Ok(Answer::Names(path.into_iter().map(str::to_string).collect()))
    }),
];

const NO_ARGUMENTS: &[(&str, Returns, Body)] = &[
    ("current_schema", Returns::Text, |cx, _| {
        Ok(cx.catalog.path_names().first().map(ToString::to_string).into())
    }),
    ("current_database", Returns::Text, |cx, _| Ok(Answer::Text(cx.database.clone()))),
    ("current_catalog", Returns::Text, |cx, _| Ok(Answer::Text(cx.database.clone()))),
    ("current_user", Returns::Text, |cx, _| Ok(Answer::Text(cx.user.clone()))),
    ("current_role", Returns::Text, |cx, _| Ok(Answer::Text(cx.user.clone()))),
    ("session_user", Returns::Text, |cx, _| Ok(Answer::Text(cx.user.clone()))),
    ("user", Returns::Text, |cx, _| Ok(Answer::Text(cx.user.clone()))),
    ("getdatabaseencoding", Returns::Text, |_, _| Ok(Answer::Text("UTF8".into()))),
    ("pg_my_temp_schema", Returns::Oid, |_, _| Ok(Answer::Int(0))),
    ("pg_is_in_recovery", Returns::Bool, no),
    // What is written now is in the tick after the newest one.
    ("txid_current", Returns::Int, next_tick),
    ("pg_current_xact_id", Returns::Int, next_tick),
];

/// Casts to and from the oid aliases, which the rewrite of a query puts in the place of `::regclass` and its like.
pub const REGCLASS_IN: &str = "regclassin";
/// The name of a relation.
pub const REGCLASS_OUT: &str = "regclassout";
/// The oid of a type's name.
pub const REGTYPE_IN: &str = "regtypein";
/// The name of a type.
pub const REGTYPE_OUT: &str = "regtypeout";
/// The oid of a schema's name.
pub const REGNAMESPACE_IN: &str = "regnamespacein";
/// The name of a schema.
pub const REGNAMESPACE_OUT: &str = "regnamespaceout";

fn next_tick(cx: &Context, _: &Row<'_>) -> Result<Answer, Error> {
    Ok(Answer::Int(i64::try_from(cx.tick).unwrap_or(i64::MAX).saturating_add(1)))
}

fn yes(_: &Context, row: &Row<'_>) -> Result<Answer, Error> {
    Ok(if row.text(0).is_some() { Answer::Bool(true) } else { Answer::Null })
}

fn no(_: &Context, _: &Row<'_>) -> Result<Answer, Error> {
    Ok(Answer::Bool(false))
}

fn null(_: &Context, _: &Row<'_>) -> Result<Answer, Error> {
    Ok(Answer::Null)
}

/// `format_type(oid, typmod)`.
fn format_type(oid: u32, modifier: Option<i64>) -> String {
    let Some(sql_type) = SqlType::from_oid(oid) else { return "???".to_string() };
    fn modified(sql_type: SqlType, modifier: Option<i64>) -> SqlType {
        match (sql_type, modifier.filter(|m| *m >= 4).map(|m| m - 4)) {
            (SqlType::Array(element), m) => SqlType::Array(Box::new(modified(*element, m.map(|m| m + 4)))),
            (SqlType::Numeric(_), Some(m)) => SqlType::Numeric(Some(((m >> 16) as u8, (m & 0x7ff) as i8))),
            (SqlType::Varchar(_), Some(m)) => SqlType::Varchar(Some(m as u32)),
            (SqlType::Char(_), Some(m)) => SqlType::Char(m as u32),
            (other, _) => other,
        }
    }
    match modified(sql_type, modifier) {
        // Without its modifier PostgreSQL calls it by its internal name, or it would mean one character.
        SqlType::Char(1) if modifier.is_none() => "character".to_string(),
        SqlType::Char(1) if modifier == Some(-1) => "bpchar".to_string(),
        other => other.to_string(),
    }
}

/// The oid of the relation that a name means, as `'name'::regclass`.
fn regclass(cx: &Context, name: &str) -> Result<u32, Error> {
    if let Ok(oid) = name.parse() {
        return Ok(oid);
    }
    let mut parts = identifiers(name);
    let found = match (parts.pop(), parts.pop()) {
        (Some(name), schema) => classes::class_oid(cx, schema.as_deref(), &name),
        _ => None,
    };
    found.ok_or_else(|| Error::new(SqlState::UNDEFINED_TABLE, format!("relation \"{name}\" does not exist")))
}

/// The oid of the type that a name means, as `'name'::regtype`.
fn regtype(name: &str) -> Result<u32, Error> {
    if let Ok(oid) = name.parse() {
        return Ok(oid);
    }
    name.strip_prefix("pg_catalog.").unwrap_or(name).parse::<SqlType>().map(|t| t.oid())
}

/// Parts of a dotted name; what is not quoted is folded to lower case.
fn identifiers(name: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut quoted = false;
    let mut chars = name.chars().peekable();
    while let Some(c) = chars.next() {
        let Some(part) = parts.last_mut() else { break };
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                part.push('"');
            }
            '"' => quoted = !quoted,
            '.' if !quoted => parts.push(String::new()),
            c if quoted => part.push(c),
            c => part.extend(c.to_lowercase()),
        }
    }
    parts
}

fn size_pretty(bytes: i64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if bytes.unsigned_abs() < 10 * 1024 {
        return format!("{bytes} bytes");
    }
    let mut size = bytes as f64;
    let mut unit = "bytes";
    for next in UNITS {
        if size.abs() < 10.0 * 1024.0 {
            break;
        }
        size /= 1024.0;
        unit = next;
    }
    format!("{size:.0} {unit}")
}

struct CatalogFunction {
    name: &'static str,
    returns: Returns,
    body: Body,
    cx: Arc<Context>,
    signature: Signature,
}

impl fmt::Debug for CatalogFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CatalogFunction").field("name", &self.name).finish_non_exhaustive()
    }
}

impl PartialEq for CatalogFunction {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && Arc::ptr_eq(&self.cx, &other.cx)
    }
}

impl Eq for CatalogFunction {}

impl Hash for CatalogFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for CatalogFunction {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(self.returns.data_type())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let scalar = args.args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let n_rows = if scalar { 1 } else { args.number_rows };
        let arguments = args
            .args
            .iter()
            .map(|a| Ok(Argument::new(&a.to_array(n_rows)?)))
            .collect::<DfResult<Vec<_>>>()?;
        let values = (0..n_rows)
            .map(|row| {
                let answer = (self.body)(&self.cx, &Row { arguments: &arguments, row })?;
                self.scalar(answer)
            })
            .collect::<DfResult<Vec<_>>>()?;
        let mut values = values;
        if scalar && let Some(value) = values.pop() {
            return Ok(ColumnarValue::Scalar(value));
        }
        if values.is_empty() {
            return Ok(ColumnarValue::Array(arrow::array::new_empty_array(&self.returns.data_type())));
        }
        Ok(ColumnarValue::Array(ScalarValue::iter_to_array(values)?))
    }
}

impl CatalogFunction {
    fn scalar(&self, answer: Answer) -> DfResult<ScalarValue> {
        Ok(match (answer, self.returns) {
            (Answer::Text(v), Returns::Text) => ScalarValue::Utf8View(Some(v)),
            (Answer::Bool(v), Returns::Bool) => ScalarValue::Boolean(Some(v)),
            (Answer::Int(v), Returns::Oid) => ScalarValue::UInt32(u32::try_from(v).ok()),
            (Answer::Int(v), Returns::Int) => ScalarValue::Int64(Some(v)),
            (Answer::Names(names), Returns::Names) => {
                let names: Vec<_> =
                    names.into_iter().map(|n| ScalarValue::Utf8View(Some(n.to_string()))).collect();
                ScalarValue::List(ScalarValue::new_list_nullable(&names, &DataType::Utf8View))
            }
            (_, returns) => ScalarValue::try_from(&returns.data_type())?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_named_as_postgres_names_them() {
        for (oid, modifier, name) in [
            (23, None, "integer"),
            (1700, Some(786_438), "numeric(12,2)"),
            (1043, Some(14), "character varying(10)"),
            (1042, Some(7), "character(3)"),
            (1009, None, "text[]"),
            (1231, Some(786_438), "numeric(12,2)[]"),
            (99_999, None, "???"),
        ] {
            assert_eq!(format_type(oid, modifier), name);
        }
    }

    #[test]
    fn dotted_names_are_folded_outside_of_quotes() {
        assert_eq!(identifiers("Public.\"My \"\"T\""), ["public", "My \"T"]);
        assert_eq!(identifiers("a"), ["a"]);
    }

    #[test]
    fn sizes_are_rounded_as_postgres_does() {
        assert_eq!(size_pretty(10_239), "10239 bytes");
        assert_eq!(size_pretty(10_240), "10 kB");
        assert_eq!(size_pretty(-3 * 1024 * 1024 * 1024), "-3072 MB");
    }
}
