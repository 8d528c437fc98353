//! Right sides of comparisons that sqlparser reads only in part: set operations behind `ANY` and `ALL`, escapes of
//! patterns that are computed.

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments,
    Ident, ObjectName,
};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::Token;

/// A call of a function in the tree.
pub(super) fn call(name: Ident, args: impl IntoIterator<Item = Expr>) -> Expr {
    Expr::Function(Function {
        name: ObjectName::from(vec![name]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args: args.into_iter().map(|arg| FunctionArg::Unnamed(FunctionArgExpr::Expr(arg))).collect(),
            clauses: vec![],
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: vec![],
    })
}

fn comparison(token: &Token) -> Option<BinaryOperator> {
    Some(match token {
        Token::Eq => BinaryOperator::Eq,
        Token::Neq => BinaryOperator::NotEq,
        Token::Lt => BinaryOperator::Lt,
        Token::LtEq => BinaryOperator::LtEq,
        Token::Gt => BinaryOperator::Gt,
        Token::GtEq => BinaryOperator::GtEq,
        _ => return None,
    })
}

/// `op ANY ((SELECT …) UNION …)` behind `left`: sqlparser would take the first parenthesis for all of the query.
/// `None` when something else comes next.
pub(super) fn quantified(parser: &mut Parser<'_>, left: &Expr) -> Option<Result<Expr, ParserError>> {
    let compare_op = comparison(&parser.peek_token_ref().token)?;
    let quantifier = keyword(parser, 1);
    if !matches!(quantifier, Keyword::ALL | Keyword::ANY | Keyword::SOME)
        || parser.peek_nth_token_ref(2).token != Token::LParen
        || parser.peek_nth_token_ref(3).token != Token::LParen
        || !is_query(parser)
    {
        return None;
    }
    // The operator, the word and the parenthesis.
    (0..3).for_each(|_| parser.advance_token());
    let query = parser.parse_query().and_then(|query| parser.expect_token(&Token::RParen).map(|_| query));
    let right = match query {
        Ok(query) => Box::new(Expr::Subquery(query)),
        Err(e) => return Some(Err(e)),
    };
    let left = Box::new(left.clone());
    Some(Ok(match quantifier {
        Keyword::ALL => Expr::AllOp { left, compare_op, right },
        _ => Expr::AnyOp { left, compare_op, right, is_some: quantifier == Keyword::SOME },
    }))
}

/// A word that comes next, if it may be a keyword.
fn keyword(parser: &Parser<'_>, n: usize) -> Keyword {
    match &parser.peek_nth_token_ref(n).token {
        Token::Word(word) if word.quote_style.is_none() => word.keyword,
        _ => Keyword::NoKeyword,
    }
}

/// Whether the second parenthesis to come holds a query, and nothing or a set operation follows it. A query in
/// parentheses of its own that something else follows is an operand of an expression.
fn is_query(parser: &Parser<'_>) -> bool {
    use Keyword::{EXCEPT, FETCH, INTERSECT, LIMIT, OFFSET, ORDER, SELECT, UNION, VALUES, WITH};
    let mut tokens = (parser.get_current_index() + 1..)
        .map(|i| &parser.token_at(i).token)
        .filter(|t| !matches!(t, Token::Whitespace(_)))
        .take_while(|t| **t != Token::EOF)
        .skip_while(|t| **t != Token::LParen)
        .skip(1)
        .peekable();
    let is_word = |token: Option<&Token>, words: &[Keyword]| matches!(token, Some(Token::Word(w)) if w.quote_style.is_none() && words.contains(&w.keyword));
    let sets = [UNION, EXCEPT, INTERSECT];
    // How deep the query stands that the tokens are of.
    let (mut depth, mut of_query) = (0, None);
    while let Some(token) = tokens.next() {
        match token {
            Token::LParen => depth += 1,
            Token::RParen => {
                depth -= 1;
                if of_query.is_none_or(|of_query| depth >= of_query) {
                    continue;
                }
                let next = tokens.peek().copied();
                let tail = depth > 0 && is_word(next, &[ORDER, LIMIT, OFFSET, FETCH]);
                let goes_on = tail || next == Some(&Token::RParen) || is_word(next, &sets);
                if depth == 0 || !goes_on {
                    return goes_on;
                }
            }
            other if of_query.is_none() => {
                if !is_word(Some(other), &[SELECT, VALUES, WITH]) {
                    return false;
                }
                of_query = Some(depth);
            }
            other if is_word(Some(other), &sets) => of_query = of_query.min(Some(depth)),
            _ => {}
        }
    }
    false
}

/// `[NOT] LIKE p [ESCAPE e]` and its kin behind `text`: sqlparser takes literals only for the escape. Of another one
/// the pattern becomes what a function makes of both. `None` when something else comes next.
pub(super) fn like(
    parser: &mut Parser<'_>,
    text: &Expr,
    precedence: u8,
) -> Option<Result<Expr, ParserError>> {
    let negated = keyword(parser, 0) == Keyword::NOT;
    let words = usize::from(negated);
    let operator = keyword(parser, words);
    let words = match operator {
        // Several patterns are sqlparser's.
        Keyword::LIKE | Keyword::ILIKE if keyword(parser, words + 1) != Keyword::ANY => words + 1,
        Keyword::SIMILAR if keyword(parser, words + 1) == Keyword::TO => words + 2,
        _ => return None,
    };
    (0..words).for_each(|_| parser.advance_token());
    let mut operands = || {
        let pattern = parser.parse_subexpr(precedence)?;
        if !parser.parse_keyword(Keyword::ESCAPE) {
            return Ok((pattern, None));
        }
        Ok(match parser.parse_subexpr(precedence)? {
            Expr::Value(literal) => (pattern, Some(literal)),
            computed => {
                let similar = operator == Keyword::SIMILAR;
                let function = if similar { "similar_to_escape" } else { "like_escape" };
                (call(Ident::new(function), [pattern, computed]), None)
            }
        })
    };
    let (pattern, escape_char) = match operands() {
        Ok((pattern, escape)) => (Box::new(pattern), escape),
        Err(e) => return Some(Err(e)),
    };
    let expr = Box::new(text.clone());
    Some(Ok(match operator {
        Keyword::LIKE => Expr::Like { negated, any: false, expr, pattern, escape_char },
        Keyword::ILIKE => Expr::ILike { negated, any: false, expr, pattern, escape_char },
        _ => Expr::SimilarTo { negated, expr, pattern, escape_char },
    }))
}
