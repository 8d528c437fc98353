//! The dialect of everything that is read: sqlparser's PostgreSQL, with PostgreSQL's precedence where that errs.
//!
//! sqlparser reads the right side of `IS DISTINCT FROM` as far as it goes, lets a sign take `a ^ b`, and gives the
//! operators of patterns the rank of `=`. In PostgreSQL, signs bind closest of these, and the rest is read by rank.

use std::any::TypeId;

use datafusion::sql::sqlparser::ast::{Expr, UnaryOperator};
use datafusion::sql::sqlparser::dialect::{Dialect, PostgreSqlDialect, Precedence};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::Token;

use super::operands;
use super::windowed::{self, is_word};

/// What is asked when nothing differs.
const POSTGRESQL: PostgreSqlDialect = PostgreSqlDialect {};

/// The rank of signs: below `::` and subscripts, above all that is written between two operands.
const SIGN: u8 = 125;

/// PostgreSQL as it is.
#[derive(Debug)]
pub(crate) struct TidemillDialect;

/// Methods without arguments that say what sqlparser's dialect says.
macro_rules! as_postgresql {
    ($($method:ident),* $(,)?) => {
        $(fn $method(&self) -> bool {
            POSTGRESQL.$method()
        })*
    };
}

impl Dialect for TidemillDialect {
    /// The parser asks by type for what only PostgreSQL has.
    fn dialect(&self) -> TypeId {
        POSTGRESQL.dialect()
    }

    fn parse_prefix(&self, parser: &mut Parser<'_>) -> Option<Result<Expr, ParserError>> {
        if is_word(&parser.peek_token_ref().token, "table") && windowed::is_argument(parser) {
            parser.advance_token();
            return Some(parser.parse_subexpr(SIGN));
        }
        let op = match parser.peek_token_ref().token {
            Token::Minus => UnaryOperator::Minus,
            Token::Plus => UnaryOperator::Plus,
            _ => return None,
        };
        parser.advance_token();
        Some(parser.parse_subexpr(SIGN).map(|expr| Expr::UnaryOp { op, expr: Box::new(expr) }))
    }

    fn parse_infix(
        &self,
        parser: &mut Parser<'_>,
        expr: &Expr,
        precedence: u8,
    ) -> Option<Result<Expr, ParserError>> {
        use Keyword::{DISTINCT, FROM, IS, NOT};
        if windowed::is_partitioned(parser) {
            return Some(windowed::parse_partition(parser, expr));
        }
        if let Some(compared) =
            operands::quantified(parser, expr).or_else(|| operands::like(parser, expr, precedence))
        {
            return Some(compared);
        }
        let negated = if parser.parse_keywords(&[IS, DISTINCT, FROM]) {
            false
        } else if parser.parse_keywords(&[IS, NOT, DISTINCT, FROM]) {
            true
        } else {
            return None;
        };
        let left = Box::new(expr.clone());
        Some(parser.parse_subexpr(precedence).map(|right| match negated {
            false => Expr::IsDistinctFrom(left, Box::new(right)),
            true => Expr::IsNotDistinctFrom(left, Box::new(right)),
        }))
    }

    fn get_next_precedence(&self, parser: &Parser<'_>) -> Option<Result<u8, ParserError>> {
        if windowed::is_partitioned(parser) {
            return Some(Ok(windowed::PARTITION));
        }
        match parser.peek_token_ref().token {
            Token::Tilde
            | Token::TildeAsterisk
            | Token::ExclamationMarkTilde
            | Token::ExclamationMarkTildeAsterisk
            | Token::DoubleTilde
            | Token::DoubleTildeAsterisk
            | Token::ExclamationMarkDoubleTilde
            | Token::ExclamationMarkDoubleTildeAsterisk => Some(Ok(self.prec_value(Precedence::PgOther))),
            _ => POSTGRESQL.get_next_precedence(parser),
        }
    }

    fn prec_value(&self, precedence: Precedence) -> u8 {
        POSTGRESQL.prec_value(precedence)
    }

    fn identifier_quote_style(&self, identifier: &str) -> Option<char> {
        POSTGRESQL.identifier_quote_style(identifier)
    }

    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        POSTGRESQL.is_delimited_identifier_start(ch)
    }

    fn is_identifier_start(&self, ch: char) -> bool {
        POSTGRESQL.is_identifier_start(ch)
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        POSTGRESQL.is_identifier_part(ch)
    }

    fn is_custom_operator_part(&self, ch: char) -> bool {
        POSTGRESQL.is_custom_operator_part(ch)
    }

    fn is_reserved_for_identifier(&self, keyword: Keyword) -> bool {
        POSTGRESQL.is_reserved_for_identifier(keyword)
    }

    /// `SELECT * EXCLUDE (a, b)`, which other databases have.
    fn supports_select_wildcard_exclude(&self) -> bool {
        true
    }

    /// `first_value(a IGNORE NULLS)`.
    fn supports_window_function_null_treatment_arg(&self) -> bool {
        true
    }

    as_postgresql!(
        supports_unicode_string_literal,
        supports_filter_during_aggregation,
        supports_group_by_expr,
        allow_extract_custom,
        allow_extract_single_quotes,
        supports_create_index_with_clause,
        supports_explain_with_utility_options,
        supports_listen_notify,
        supports_factorial_operator,
        supports_bitwise_shift_operators,
        supports_comment_on,
        supports_load_extension,
        supports_named_fn_args_with_colon_operator,
        supports_named_fn_args_with_expr_name,
        supports_empty_projections,
        supports_nested_comments,
        supports_string_escape_constant,
        supports_numeric_literal_underscores,
        supports_array_typedef_with_brackets,
        supports_geometric_types,
        supports_set_names,
        supports_alter_column_type_using,
        supports_notnull_operator,
        supports_interval_options,
        supports_insert_table_alias,
        supports_create_table_like_parenthesized,
        supports_select_wildcard_with_alias,
        supports_comma_separated_trim,
        supports_xml_expressions,
        supports_comment_optimizer_hint,
    );
}

#[cfg(test)]
mod tests {
    use crate::sql::walk::walk_mut;
    use datafusion::sql::sqlparser::ast::VisitorMut;
    use std::ops::ControlFlow;

    use crate::sql::parser::parse_expression;

    /// Puts parentheses around every operation, to see the tree.
    struct Parentheses;

    impl VisitorMut for Parentheses {
        type Break = ();

        fn post_visit_expr(&mut self, expr: &mut super::Expr) -> ControlFlow<()> {
            use super::Expr;
            if matches!(
                expr,
                Expr::BinaryOp { .. }
                    | Expr::UnaryOp { .. }
                    | Expr::IsDistinctFrom(..)
                    | Expr::IsNotDistinctFrom(..)
                    | Expr::AtTimeZone { .. }
            ) {
                *expr = Expr::Nested(Box::new(expr.clone()));
            }
            ControlFlow::Continue(())
        }
    }

    #[test]
    fn operators_bind_as_in_postgresql() {
        for (text, tree) in [
            ("a is distinct from b and c", "((a IS DISTINCT FROM b) AND c)"),
            ("a is not distinct from b + 1 or c", "((a IS NOT DISTINCT FROM (b + 1)) OR c)"),
            ("not a is distinct from b = c", "(NOT (a IS DISTINCT FROM (b = c)))"),
            ("-a ^ b", "((-a) ^ b)"),
            ("- a * b", "((-a) * b)"),
            ("-a::int", "(-a::INT)"),
            ("-a[1] + b", "((-a[1]) + b)"),
            ("a - -b ^ -c", "(a - ((-b) ^ (-c)))"),
            ("-a at time zone b", "((-a) AT TIME ZONE b)"),
            ("a = b ~ c", "(a = (b ~ c))"),
            ("a + b ~ c || d", "(((a + b) ~ c) || d)"),
        ] {
            let mut expr = parse_expression(text).unwrap();
            assert!(walk_mut(&mut expr, &mut Parentheses).is_continue());
            assert_eq!(expr.to_string(), tree, "{text}");
        }
    }
}
