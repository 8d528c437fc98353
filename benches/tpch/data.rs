//! TPC-H for its test and its benchmark: the tables, the queries by number, and rows by the generator of the benchmark.

use tpchgen::generators::{
    CustomerGenerator, LineItemGenerator, NationGenerator, OrderGenerator, PartGenerator, PartSuppGenerator,
    RegionGenerator, SupplierGenerator,
};

/// Statements that create the tables, one a line.
pub const TABLES: &str = include_str!("tables.sql");

macro_rules! queries {
    ($($name:literal),*) => {
        [$(($name, include_str!(concat!($name, ".sql")))),*]
    };
}

/// The queries by name, with the parameters by which the benchmark validates answers.
pub const QUERIES: [(&str, &str); 22] = queries![
    "q1", "q2", "q3", "q4", "q5", "q6", "q7", "q8", "q9", "q10", "q11", "q12", "q13", "q14", "q15", "q16",
    "q17", "q18", "q19", "q20", "q21", "q22"
];

/// A table's rows at a scale factor (1: six million lineitems), each with its values between `|`.
pub fn rows(table: &str, scale: f64) -> Vec<String> {
    macro_rules! all {
        ($generator:ident) => {
            $generator::new(scale, 1, 1)
                .iter()
                .map(|row| row.to_string().trim_end_matches('|').to_string())
                .collect()
        };
    }
    match table {
        "region" => all!(RegionGenerator),
        "nation" => all!(NationGenerator),
        "supplier" => all!(SupplierGenerator),
        "part" => all!(PartGenerator),
        "partsupp" => all!(PartSuppGenerator),
        "customer" => all!(CustomerGenerator),
        "orders" => all!(OrderGenerator),
        "lineitem" => all!(LineItemGenerator),
        other => panic!("TPC-H has no table {other}"),
    }
}

/// The order that a row of `orders` or `lineitem` is of, or is.
pub fn order_of(row: &str) -> i64 {
    let key = row.split('|').next().and_then(|key| key.parse().ok());
    key.expect("these tables' rows begin with the order's number")
}
