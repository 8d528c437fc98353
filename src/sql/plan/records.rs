//! `json_to_recordset(j) AS r(a int, b text)` and its kin: rows with the columns that the query lists, each a member
//! of a document cast to its type.

use datafusion::sql::sqlparser::ast::helpers::attached_token::AttachedToken;
use datafusion::sql::sqlparser::ast::{
    ArrayElemTypeDef, BinaryOperator, CaseWhen, DataType, Expr, Ident, Query, SelectItem, SetExpr,
    TableAlias, TableAliasColumnDef, TableFactor, TableWithJoins, Value,
};

use super::naming;
use super::rewrite::{binary, call, cast};
use super::set_returning::{arguments, names_columns};
use crate::error::{Error, Result, SqlState};
use crate::names::fold;
use crate::sql::parser;

/// The query that such a FROM item stands for; `None` for any other.
///
/// # Errors
/// 42601 when its columns have no types, 0A000 for columns that are arrays.
pub(super) fn derived(factor: &TableFactor) -> Result<Option<TableFactor>> {
    let (name, args, alias) = match factor {
        TableFactor::Table { name, args: Some(args), alias, with_ordinality: false, .. } => {
            (name, arguments(&args.args), alias)
        }
        TableFactor::Function { name, args, alias, with_ordinality: false, .. } => {
            (name, arguments(args), alias)
        }
        _ => return Ok(None),
    };
    let [name] = name.0.as_slice() else { return Ok(None) };
    let name = name.as_ident().map(fold).unwrap_or_default();
    let several = match name.as_str() {
        "json_to_record" | "jsonb_to_record" => false,
        "json_to_recordset" | "jsonb_to_recordset" => true,
        _ => return Ok(None),
    };
    let [document] = args.as_slice() else { return Ok(None) };
    let columns = alias.as_ref().map(|a| a.columns.as_slice()).unwrap_or_default();
    let Some(alias) = alias.as_ref().filter(|_| !columns.is_empty()) else {
        let message = "a column definition list is required for functions returning \"record\"";
        return Err(Error::new(SqlState::SYNTAX_ERROR, message));
    };
    let jsonb = name.starts_with("jsonb");
    let to = if jsonb { DataType::JSONB } else { DataType::JSON };
    let document = cast(document.clone(), to);
    let (row, item) = (quoted("record", 0), quoted("record", 1));
    let projection = columns.iter().map(|column| member(column, &row, &item)).collect::<Result<Vec<_>>>()?;
    let records = if several {
        call("unnest", vec![call("jsonb_elements", vec![document.clone()])])
    } else {
        document.clone()
    };
    let mut inner = parser::parse_query("SELECT a")?;
    replace(&mut inner, vec![SelectItem::ExprWithAlias { expr: records, alias: item }], vec![]);
    let mut outer: Box<Query> = parser::parse_query("SELECT a")?;
    let from = TableFactor::Derived {
        lateral: false,
        subquery: inner,
        alias: Some(TableAlias { explicit: true, name: row, columns: vec![], at: None }),
        sample: None,
    };
    replace(&mut outer, projection, vec![TableWithJoins { relation: from, joins: vec![] }]);
    Ok(Some(TableFactor::Derived {
        lateral: names_columns(&document),
        subquery: outer,
        alias: Some(TableAlias { columns: vec![], ..alias.clone() }),
        sample: None,
    }))
}

/// A name that no query can write.
fn quoted(name: &str, n: usize) -> Ident {
    Ident::with_quote('"', naming::marked(name, n))
}

/// A column of the list, taken out of a record.
fn member(column: &TableAliasColumnDef, row: &Ident, item: &Ident) -> Result<SelectItem> {
    let Some(data_type) = &column.data_type else {
        let message = "a column definition list is required for functions returning \"record\"";
        return Err(Error::new(SqlState::SYNTAX_ERROR, message));
    };
    let record = Expr::CompoundIdentifier(vec![row.clone(), item.clone()]);
    let key = Expr::Value(Value::SingleQuotedString(fold(&column.name)).into());
    let taken = |op| Expr::Nested(Box::new(binary(record.clone(), op, key.clone())));
    let text = taken(BinaryOperator::LongArrow);
    let value = match data_type {
        DataType::Array(ArrayElemTypeDef::None | ArrayElemTypeDef::SquareBracket(..)) => {
            let name = fold(&column.name);
            return Err(Error::unsupported(format!("column \"{name}\" of a record being an array")));
        }
        // A null in the document is none in the column.
        DataType::JSON | DataType::JSONB => Expr::Case {
            case_token: AttachedToken::empty(),
            end_token: AttachedToken::empty(),
            operand: None,
            conditions: vec![CaseWhen {
                condition: Expr::IsNotNull(Box::new(text)),
                result: taken(BinaryOperator::Arrow),
            }],
            else_result: None,
        },
        _ => text,
    };
    Ok(SelectItem::ExprWithAlias { expr: cast(value, data_type.clone()), alias: column.name.clone() })
}

/// Gives a query that selects something its select list and its relations.
fn replace(query: &mut Query, projection: Vec<SelectItem>, from: Vec<TableWithJoins>) {
    if let SetExpr::Select(select) = query.body.as_mut() {
        select.projection = projection;
        select.from = from;
    }
}
