//! What the statements in the log mean to the tables that are followed. Row changes come as rows; what comes as text is
//! where transactions begin and end, and what changes tables as such.
//!
//! Where a statement may have changed rows that are not in the log (`ALTER TABLE … MODIFY`, `DROP PARTITION`), the
//! tables are copied again, so a statement that is not surely harmless counts as such a one.

/// What a statement means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// A transaction begins.
    Begin,
    /// It ends.
    Commit,
    /// It ends, or a part of it, without what it did to tables that can take it back.
    Rollback,
    /// A distributed transaction, whose rows stand elsewhere.
    Distributed,
    /// All rows of a followed table go.
    Truncate(String),
    /// A followed table has got columns or indexes, and its rows are what they were but for that.
    Extended(String),
    /// A followed table's rows may have changed otherwise.
    Redefined(String),
    /// Rows of a followed table were changed, and the log holds the statement instead of the rows.
    RowsAsStatement(String),
    /// Of no concern.
    Nothing,
}

/// What `statement`, run in `database`, means to the tables that are followed, given as `database.table`.
pub fn meaning(statement: &str, database: &str, followed: &[&str]) -> Meaning {
    let tokens = tokens(statement);
    let word = |i: usize| tokens.get(i).and_then(Token::word).unwrap_or_default();
    let named = || mentioned(&tokens, database, followed);
    let redefined = |table: Option<String>| table.map_or(Meaning::Nothing, Meaning::Redefined);
    match (word(0).as_str(), word(1).as_str()) {
        ("begin", _) | ("start", "transaction") => Meaning::Begin,
        ("commit", _) => Meaning::Commit,
        ("rollback", _) => Meaning::Rollback,
        ("xa", _) => Meaning::Distributed,
        ("truncate", _) => named().map_or(Meaning::Nothing, Meaning::Truncate),
        ("insert" | "update" | "delete" | "replace" | "load" | "with" | "call", _) => {
            named().map_or(Meaning::Nothing, Meaning::RowsAsStatement)
        }
        (
            "savepoint" | "release" | "set" | "use" | "grant" | "revoke" | "flush" | "analyze" | "optimize",
            _,
        )
        | ("create" | "drop" | "alter", "index" | "unique" | "fulltext" | "spatial" | "user" | "role")
        | (
            "create" | "drop" | "alter",
            "view" | "trigger" | "procedure" | "function" | "event" | "definer",
        )
        | ("create" | "drop", "temporary") => Meaning::Nothing,
        ("drop", "database" | "schema") => {
            let in_it = |t: &&&str| tokens.iter().any(|w| w.is(t.split('.').next().unwrap_or_default()));
            redefined(followed.iter().find(in_it).map(ToString::to_string))
        }
        ("alter", _) if only_adds(&tokens) => named().map_or(Meaning::Nothing, Meaning::Extended),
        _ => redefined(named()),
    }
}

/// `ALTER TABLE t ADD …`, and nothing that touches what is there.
fn only_adds(tokens: &[Token]) -> bool {
    const TOUCHING: [&str; 14] = [
        "modify",
        "change",
        "convert",
        "drop",
        "rename",
        "partition",
        "partitions",
        "tablespace",
        "truncate",
        "exchange",
        "alter",
        "primary",
        "system",
        "order",
    ];
    let words: Vec<String> = tokens.iter().skip(1).filter_map(Token::word).collect();
    words.iter().any(|w| w == "add") && !words.iter().any(|w| TOUCHING.contains(&w.as_str()))
}

/// The first followed table that is named anywhere in a statement.
fn mentioned(tokens: &[Token], database: &str, followed: &[&str]) -> Option<String> {
    let names = |full: &str| {
        let (of, table) = full.split_once('.').unwrap_or(("", full));
        tokens.iter().enumerate().any(|(i, token)| {
            let qualified = i >= 2 && tokens[i - 1] == Token::Other('.');
            token.is(table)
                && if qualified { tokens[i - 2].is(of) } else { of.eq_ignore_ascii_case(database) }
        })
    };
    followed.iter().find(|full| names(full)).map(ToString::to_string)
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Quoted(String),
    Other(char),
}

impl Token {
    /// A word without quotes, in small letters.
    fn word(&self) -> Option<String> {
        match self {
            Token::Word(w) => Some(w.to_ascii_lowercase()),
            _ => None,
        }
    }

    /// Whether it may name that; servers differ in whether letters' case counts, so it does not.
    fn is(&self, name: &str) -> bool {
        match self {
            Token::Word(w) | Token::Quoted(w) => w.to_lowercase() == name.to_lowercase(),
            Token::Other(_) => false,
        }
    }
}

fn tokens(statement: &str) -> Vec<Token> {
    let chars: Vec<char> = statement.chars().collect();
    let mut tokens = Vec::new();
    let mut i = 0;
    while let Some(&c) = chars.get(i) {
        let next = chars.get(i + 1).copied();
        let letter = |c: &char| c.is_alphanumeric() || matches!(c, '_' | '$' | '@');
        match c {
            // What stands in `/*! … */` is run.
            '/' if next == Some('*') && matches!(chars.get(i + 2), Some('!' | 'M')) => {
                i += 3;
                while chars.get(i).is_some_and(|c| c.is_ascii_digit() || *c == '!') {
                    i += 1;
                }
            }
            '*' if next == Some('/') => i += 2,
            '/' if next == Some('*') => {
                i += 2;
                while i < chars.len() && !(chars[i] == '*' && chars.get(i + 1) == Some(&'/')) {
                    i += 1;
                }
                i += 2;
            }
            '#' => i = line_end(&chars, i),
            '-' if next == Some('-') => i = line_end(&chars, i),
            '\'' | '"' | '`' => {
                let mut text = String::new();
                i += 1;
                while let Some(&inner) = chars.get(i) {
                    i += 1;
                    if inner == '\\' && c != '`' {
                        i += 1;
                    } else if inner != c {
                        text.push(inner);
                    } else if chars.get(i) == Some(&c) {
                        text.push(c);
                        i += 1;
                    } else {
                        break;
                    }
                }
                // With ANSI_QUOTES a name stands in double quotes.
                if c != '\'' {
                    tokens.push(Token::Quoted(text));
                }
            }
            _ if letter(&c) => {
                let end = i + chars[i..].iter().take_while(|c| letter(c)).count();
                tokens.push(Token::Word(chars[i..end].iter().collect()));
                i = end;
            }
            _ => {
                if !c.is_whitespace() {
                    tokens.push(Token::Other(c));
                }
                i += 1;
            }
        }
    }
    tokens
}

fn line_end(chars: &[char], from: usize) -> usize {
    from + chars[from..].iter().take_while(|c| **c != '\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_told_apart() {
        let redefined = || Meaning::Redefined("shop.users".into());
        for (statement, database, wanted) in [
            ("BEGIN", "", Meaning::Begin),
            ("COMMIT", "shop", Meaning::Commit),
            ("ROLLBACK TO `a`", "shop", Meaning::Rollback),
            ("XA COMMIT X'31',X'',1", "", Meaning::Distributed),
            ("truncate table users", "shop", Meaning::Truncate("shop.users".into())),
            ("TRUNCATE `shop` . `users` /* all */", "crm", Meaning::Truncate("shop.users".into())),
            ("TRUNCATE users", "crm", Meaning::Nothing),
            (
                "ALTER TABLE users ADD COLUMN age int, ADD INDEX (age)",
                "shop",
                Meaning::Extended("shop.users".into()),
            ),
            ("ALTER TABLE other ADD COLUMN age int", "shop", Meaning::Nothing),
            ("ALTER TABLE users ADD COLUMN age int, DROP COLUMN name", "shop", redefined()),
            ("ALTER TABLE Users MODIFY name varchar(3)", "shop", redefined()),
            ("ALTER TABLE other RENAME TO users", "shop", redefined()),
            ("RENAME TABLE crm.a TO shop.users", "crm", redefined()),
            ("DROP TABLE `users` /* generated by server */", "shop", redefined()),
            ("CREATE OR REPLACE TABLE users (id int)", "shop", redefined()),
            ("/*!40000 ALTER TABLE */ users DROP PARTITION p0", "shop", redefined()),
            ("DROP DATABASE shop", "", redefined()),
            ("CREATE INDEX i ON users (name)", "shop", Meaning::Nothing),
            ("CREATE TABLE other (c varchar(9) DEFAULT 'users')", "shop", Meaning::Nothing),
            ("INSERT INTO users VALUES (1)", "shop", Meaning::RowsAsStatement("shop.users".into())),
            ("INSERT INTO logs VALUES ('it''s users')", "shop", Meaning::Nothing),
        ] {
            assert_eq!(meaning(statement, database, &["shop.users", "shop.orders"]), wanted, "{statement}");
        }
    }
}
