//! Types of columns, and values of them: few different ones, so that they meet in joins and groups.

use super::dice::Dice;

/// A column's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ty {
    Int2,
    Int4,
    Int8,
    Numeric,
    Float8,
    Text,
    Bool,
    Date,
    Timestamp,
    Timestamptz,
    Interval,
    Uuid,
    Jsonb,
    Ints,
    Texts,
}

impl Ty {
    /// Those that a table's columns have, the plain ones more often.
    pub const COLUMNS: [Ty; 20] = [
        Ty::Int4,
        Ty::Int4,
        Ty::Int4,
        Ty::Int8,
        Ty::Int8,
        Ty::Int2,
        Ty::Text,
        Ty::Text,
        Ty::Text,
        Ty::Numeric,
        Ty::Float8,
        Ty::Bool,
        Ty::Date,
        Ty::Timestamp,
        Ty::Timestamptz,
        Ty::Interval,
        Ty::Uuid,
        Ty::Jsonb,
        Ty::Ints,
        Ty::Texts,
    ];

    /// Those that keys have.
    pub const KEYS: [Ty; 6] = [Ty::Int4, Ty::Int4, Ty::Int8, Ty::Text, Ty::Uuid, Ty::Date];

    /// Its name in SQL.
    pub fn sql(self) -> &'static str {
        match self {
            Ty::Int2 => "smallint",
            Ty::Int4 => "int",
            Ty::Int8 => "bigint",
            Ty::Numeric => "numeric(12,2)",
            Ty::Float8 => "float8",
            Ty::Text => "text",
            Ty::Bool => "boolean",
            Ty::Date => "date",
            Ty::Timestamp => "timestamp",
            Ty::Timestamptz => "timestamptz",
            Ty::Interval => "interval",
            Ty::Uuid => "uuid",
            Ty::Jsonb => "jsonb",
            Ty::Ints => "int[]",
            Ty::Texts => "text[]",
        }
    }

    /// Whether `min` and `max` take it.
    pub fn has_extrema(self) -> bool {
        !matches!(self, Ty::Jsonb | Ty::Bool | Ty::Uuid | Ty::Ints | Ty::Texts)
    }

    /// Whether it is one of the whole numbers.
    pub fn is_int(self) -> bool {
        matches!(self, Ty::Int2 | Ty::Int4 | Ty::Int8)
    }

    /// A value as VALUES takes it.
    pub fn value(self, dice: &mut Dice) -> String {
        let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
        let day = |dice: &mut Dice| {
            let month = *dice.pick(&["2023-12", "2024-01", "2024-02"]);
            format!("{month}-{:02}", *dice.pick(&[1, 2, 3, 15, 28]))
        };
        let time = |dice: &mut Dice| {
            ["00:00:00", "00:00:01", "12:30:00", "23:59:59.5"][dice.weighted(&[4, 1, 3, 1])]
        };
        match self {
            Ty::Int2 | Ty::Int4 | Ty::Int8 => match dice.below(12) {
                0 => "100".to_string(),
                1 => "-7".to_string(),
                _ => dice.between(-1, 6).to_string(),
            },
            Ty::Numeric => {
                let hundredths = dice.between(-2, 12) * 25;
                let sign = if hundredths < 0 { "-" } else { "" };
                format!("{sign}{}.{:02}", hundredths.abs() / 100, hundredths.abs() % 100)
            }
            Ty::Float8 => format!("{:?}", dice.between(-4, 20) as f64 / 4.0),
            Ty::Text => {
                quoted(dice.word(&["", "a", "b", "ab", "B", "ba", "a b", "é", "10", "it's", "a,b", "%"]))
            }
            Ty::Bool => dice.pick(&["true", "false"]).to_string(),
            Ty::Date => quoted(&day(dice)),
            Ty::Timestamp => format!("'{} {}'", day(dice), time(dice)),
            Ty::Timestamptz => format!("'{} {}+00'", day(dice), time(dice)),
            Ty::Interval => {
                quoted(dice.word(&["1 day", "2 days", "01:00:00", "-1 day", "00:00:00", "3 days 02:00:00"]))
            }
            Ty::Uuid => format!("'00000000-0000-4000-8000-0000000000{:02}'", dice.below(12)),
            Ty::Jsonb => quoted(dice.word(&[
                "{}",
                r#"{"a": 1}"#,
                r#"{"a": "x", "b": [1, 2]}"#,
                r#"{"b": null}"#,
                "[1, 2, 3]",
                "5",
                r#""s""#,
                "null",
            ])),
            Ty::Ints => quoted(dice.word(&["{}", "{1}", "{1,2}", "{3,1,2}", "{NULL,1}", "{2,2}"])),
            Ty::Texts => quoted(dice.word(&["{}", "{a}", "{a,b}", "{b,NULL}", "{ab,a}"])),
        }
    }

    /// A value as any expression takes it, with its type said.
    pub fn literal(self, dice: &mut Dice) -> String {
        let value = self.value(dice);
        match self {
            Ty::Bool => value,
            Ty::Int4 if !value.starts_with('-') => value,
            Ty::Text if dice.chance(60) => value,
            _ if value.starts_with('-') => format!("({value})::{}", self.sql()),
            _ => format!("{value}::{}", self.sql()),
        }
    }
}
