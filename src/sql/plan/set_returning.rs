//! Functions that give rows: each is `unnest` of a function that gives an array.
//!
//! In a select list `jsonb_array_elements(j)` is `unnest(jsonb_elements(j))`; in FROM it is `UNNEST(jsonb_elements(j))`,
//! with the names that its columns have in PostgreSQL.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    DataType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName, TableAlias,
    TableAliasColumnDef, TableFactor, TimezoneInfo, Value, Visit, Visitor,
};

use super::records;
use super::rewrite::{call, cast};
use crate::error::{Error, Result};
use crate::names::fold;

/// A function that gives rows: its name, its columns, and the functions that give each column's values as an array.
struct Rows {
    name: &'static str,
    /// Names of columns; an empty one is that of the function or its alias.
    columns: &'static [&'static str],
    arrays: &'static [&'static str],
}

const fn one(
    name: &'static str,
    column: &'static [&'static str; 1],
    array: &'static [&'static str; 1],
) -> Rows {
    Rows { name, columns: column, arrays: array }
}

const ROWS: [Rows; 17] = [
    one("jsonb_array_elements", &["value"], &["jsonb_elements"]),
    one("json_array_elements", &["value"], &["jsonb_elements"]),
    one("jsonb_array_elements_text", &["value"], &["jsonb_element_texts"]),
    one("json_array_elements_text", &["value"], &["jsonb_element_texts"]),
    one("jsonb_object_keys", &[""], &["jsonb_keys"]),
    one("json_object_keys", &[""], &["jsonb_keys"]),
    Rows {
        name: "jsonb_each",
        columns: &["key", "value"],
        arrays: &["jsonb_each_keys", "jsonb_each_values"],
    },
    Rows { name: "json_each", columns: &["key", "value"], arrays: &["jsonb_each_keys", "jsonb_each_values"] },
    Rows {
        name: "jsonb_each_text",
        columns: &["key", "value"],
        arrays: &["jsonb_each_keys", "jsonb_each_texts"],
    },
    Rows {
        name: "json_each_text",
        columns: &["key", "value"],
        arrays: &["jsonb_each_keys", "jsonb_each_texts"],
    },
    one("jsonb_path_query", &[""], &["jsonb_path_items"]),
    one("regexp_matches", &[""], &["regexp_all_matches"]),
    one("regexp_split_to_table", &[""], &["regexp_split_to_array"]),
    one("string_to_table", &[""], &["string_to_array"]),
    one("generate_subscripts", &[""], &["array_subscripts"]),
    one("generate_series", &[""], &["series_array"]),
    one("unnest", &[""], &[""]),
];

fn find(name: &ObjectName) -> Option<&'static Rows> {
    let [name] = name.0.as_slice() else { return None };
    let name = fold(name.as_ident()?);
    ROWS.iter().find(|rows| rows.name == name)
}

/// Whether a function gives rows.
pub(super) fn is_known(name: &str) -> bool {
    ROWS.iter().any(|rows| rows.name == name)
}

/// The call of a function of one column, inside an expression, as `unnest`; `None` for any other function.
///
/// # Errors
/// 0A000 for functions of several columns.
pub(super) fn in_expression(function: &Function) -> Result<Option<Expr>> {
    let Some(rows) = find(&function.name).filter(|r| r.name != "unnest") else { return Ok(None) };
    let [array] = rows.arrays else {
        return Err(Error::unsupported(format!("{}() outside of FROM", rows.name)));
    };
    let FunctionArguments::List(list) = &function.args else { return Ok(None) };
    Ok(Some(call("unnest", vec![call(array, arguments(&list.args))])))
}

/// Rewrites a function in FROM to UNNEST, and names its columns.
///
/// # Errors
/// 42601 for a record without a list of its columns.
pub(super) fn in_from(factor: &mut TableFactor) -> Result<()> {
    if let Some(records) = records::derived(factor)? {
        *factor = records;
        return Ok(());
    }
    unnested(factor);
    Ok(())
}

fn unnested(factor: &mut TableFactor) {
    let (name, args, with_ordinality, alias) = match factor {
        TableFactor::Table { name, args: Some(args), with_ordinality, alias, .. } => {
            (name, arguments(&args.args), *with_ordinality, alias.take())
        }
        TableFactor::Function { name, args, with_ordinality, alias, .. } => {
            (name, arguments(args), *with_ordinality, alias.take())
        }
        TableFactor::UNNEST { array_exprs, with_ordinality, alias, .. } => {
            let columns = vec![""; array_exprs.len()];
            let alias = named("unnest", &columns, *with_ordinality, alias.take());
            if std::mem::take(with_ordinality)
                && let Some(first) = array_exprs.first()
            {
                array_exprs.push(call("array_ordinals", vec![first.clone()]));
            }
            if let TableFactor::UNNEST { alias: place, .. } = factor {
                *place = Some(alias);
            }
            return;
        }
        _ => return,
    };
    let rows = find(name);
    // A series that is constant is made as it is read.
    let is_series = rows.is_some_and(|r| r.name == "generate_series");
    let restore = |factor: &mut TableFactor, alias: Option<TableAlias>| match factor {
        TableFactor::Table { alias: place, .. } | TableFactor::Function { alias: place, .. } => {
            *place = alias
        }
        _ => {}
    };
    let Some(rows) = rows else { return restore(factor, alias) };
    if is_series && !with_ordinality && !args.iter().any(names_columns) {
        let alias = named("generate_series", &[""], false, alias);
        return restore(factor, Some(alias));
    }
    let mut array_exprs: Vec<Expr> = match rows.name {
        "unnest" => args,
        _ => rows.arrays.iter().map(|array| call(array, args.clone())).collect(),
    };
    let columns = match rows.name {
        "unnest" => vec![""; array_exprs.len()],
        _ => rows.columns.to_vec(),
    };
    let alias = named(rows.name, &columns, with_ordinality, alias);
    if with_ordinality && let Some(first) = array_exprs.first() {
        array_exprs.push(call("array_ordinals", vec![first.clone()]));
    }
    *factor = TableFactor::UNNEST {
        alias: Some(alias),
        array_exprs,
        with_offset: false,
        with_offset_alias: None,
        with_ordinality: false,
    };
}

pub(super) fn arguments(args: &[FunctionArg]) -> Vec<Expr> {
    args.iter()
        .map(|arg| match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(e)) => e.clone(),
            _ => Expr::Value(Value::Null.into()),
        })
        .collect()
}

/// Texts among the arguments of a series of times: the step is an interval, a bound has the type of the other one.
pub(super) fn series_literals(mut args: Vec<&mut Expr>) {
    let is_text =
        |expr: &Expr| matches!(expr, Expr::Value(v) if matches!(v.value, Value::SingleQuotedString(_)));
    let to_type = |expr: &mut Expr, data_type| {
        let literal = std::mem::replace(expr, Expr::Value(Value::Null.into()));
        *expr = cast(literal, data_type);
    };
    let [start, stop, step] = args.as_mut_slice() else { return };
    let written = |expr: &Expr| match expr {
        Expr::Cast { data_type, .. } => Some(data_type.clone()),
        Expr::TypedString(typed) => Some(typed.data_type.clone()),
        _ => None,
    };
    match (written(start), written(stop)) {
        (Some(data_type), _) if is_text(stop) => to_type(stop, data_type),
        (_, Some(data_type)) if is_text(start) => to_type(start, data_type),
        _ => {}
    }
    // Dates go on as moments.
    for bound in [&mut **start, &mut **stop] {
        if matches!(written(bound), Some(DataType::Date)) {
            to_type(bound, DataType::Timestamp(None, TimezoneInfo::Tz));
        }
    }
    if is_text(step) {
        to_type(step, DataType::Interval { fields: None, precision: None });
    }
}

/// The alias with a name for each column: as written, the function's own, or that of the whole.
fn named(function: &str, columns: &[&str], with_ordinality: bool, alias: Option<TableAlias>) -> TableAlias {
    let aliased = alias.is_some();
    let mut alias = alias.unwrap_or_else(|| TableAlias {
        explicit: true,
        name: Ident::new(function),
        columns: vec![],
        at: None,
    });
    let single = columns.len() == 1;
    let own = columns.iter().map(|own| match *own {
        "" => alias.name.clone(),
        // The whole of one column is called as its alias.
        _ if single && aliased => alias.name.clone(),
        own => Ident::new(own),
    });
    let ordinality = with_ordinality.then(|| Ident::new("ordinality"));
    let all: Vec<Ident> = own.chain(ordinality).collect();
    let written = alias.columns.len();
    alias
        .columns
        .extend(all.into_iter().skip(written).map(|name| TableAliasColumnDef { name, data_type: None }));
    alias
}

/// Whether an argument depends on other relations.
pub(super) fn names_columns(expr: &Expr) -> bool {
    struct Names;
    impl Visitor for Names {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            match expr {
                Expr::Identifier(_) | Expr::CompoundIdentifier(_) | Expr::Subquery(_) => {
                    ControlFlow::Break(())
                }
                _ => ControlFlow::Continue(()),
            }
        }
    }
    Visit::visit(expr, &mut Names).is_break()
}
