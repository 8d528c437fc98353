//! The 22 queries of TPC-H as materialized views: each is its query in batch after every tick, and planned as documented.

#[path = "../benches/tpch/data.rs"]
mod data;
mod database;

use std::collections::BTreeSet;

use data::{QUERIES, TABLES, order_of, rows};
use database::{Db, TestSession};

/// 15,000 orders with 60,000 lineitems.
const SCALE: f64 = 0.01;
/// Orders that come after the views.
const LATER: usize = 500;

fn copy(session: &mut TestSession, table: &str, rows: &[String]) {
    let text = rows.join("\n") + "\n";
    let copied = session.copy(&format!("COPY {table} FROM STDIN (DELIMITER '|')"), &[&text]);
    copied.unwrap_or_else(|e| panic!("{table}: {e}"));
}

/// Orders from the `from`th on, `count` of them, with their lineitems, in one tick.
fn order(session: &mut TestSession, orders: &[String], lineitems: &[String], from: usize, count: usize) {
    let orders = &orders[from..from + count];
    let (first, last) = (order_of(&orders[0]), order_of(&orders[count - 1]));
    let of_these = lineitems.iter().filter(|l| (first..=last).contains(&order_of(l)));
    let lineitems: Vec<String> = of_these.cloned().collect();
    session.run("BEGIN");
    copy(session, "orders", orders);
    copy(session, "lineitem", &lineitems);
    session.run("COMMIT");
}

/// Compares every view with its query; notes those that have rows.
fn check(session: &mut TestSession, after: &str, filled: &mut BTreeSet<&str>) {
    for (name, _) in QUERIES {
        if let Err(e) = session.try_run(&format!("CHECK MATERIALIZED VIEW {name}")) {
            panic!("{name} after {after}: {e}\n{:?}", e.detail);
        }
        let count = session.rows(&format!("SELECT count(*) FROM (SELECT * FROM {name}) AS v"));
        if count != ["0"] {
            filled.insert(name);
        }
    }
}

#[test]
fn every_query_is_kept_up_to_date() {
    let db = Db::with(|config| config.workers = 2);
    let mut s = db.session();
    s.run(TABLES);
    let (orders, lineitems) = (rows("orders", SCALE), rows("lineitem", SCALE));
    let there = orders.len() - LATER;
    // Half of the views come before the data, half after.
    let create = |s: &mut TestSession, parity: usize| {
        for (name, sql) in QUERIES.iter().skip(parity).step_by(2) {
            s.run(&format!("CREATE MATERIALIZED VIEW {name} AS {sql}"));
        }
    };
    create(&mut s, 0);
    for table in ["region", "nation", "supplier", "part", "partsupp", "customer"] {
        copy(&mut s, table, &rows(table, SCALE));
    }
    order(&mut s, &orders, &lineitems, 0, there);
    create(&mut s, 1);
    let mut filled = BTreeSet::new();
    check(&mut s, "the load", &mut filled);

    order(&mut s, &orders, &lineitems, there, LATER / 2);
    check(&mut s, "new orders", &mut filled);
    let key = |n: usize| order_of(&orders[n]);
    let ticks = [
        // Some parts get to be the ones that are asked for, so that at this scale, too, every query has an answer.
        "UPDATE part SET p_type = 'ECONOMY ANODIZED STEEL', p_brand = 'Brand#12', p_container = 'SM BOX', p_size = 3 WHERE p_partkey <= 60; \
         UPDATE part SET p_brand = 'Brand#23', p_container = 'MED BOX', p_type = 'LARGE BRASS', p_size = 15 WHERE p_partkey BETWEEN 100 AND 200; \
         UPDATE part SET p_name = 'forest green' WHERE p_partkey % 7 = 0"
            .to_string(),
        format!(
            "UPDATE lineitem SET l_quantity = 50, l_discount = 0.06, l_shipmode = 'AIR' WHERE l_orderkey BETWEEN {} AND {}",
            key(0),
            key(250)
        ),
        format!(
            "UPDATE lineitem SET l_shipdate = l_shipdate + 200, l_receiptdate = l_receiptdate + 190, l_suppkey = l_suppkey % 100 + 1 \
             WHERE l_orderkey BETWEEN {} AND {}",
            key(100),
            key(350)
        ),
        format!(
            "UPDATE orders SET o_orderdate = o_orderdate + 365, o_custkey = o_custkey % 1500 + 1, o_orderstatus = 'F' \
             WHERE o_orderkey BETWEEN {} AND {}",
            key(2_000),
            key(3_000)
        ),
        format!("DELETE FROM lineitem WHERE l_orderkey BETWEEN {} AND {}", key(50), key(300)),
        format!(
            "BEGIN; DELETE FROM orders WHERE o_orderkey BETWEEN {0} AND {1}; \
             DELETE FROM lineitem WHERE l_orderkey BETWEEN {0} AND {1}; COMMIT",
            key(5_000),
            key(5_250)
        ),
        "UPDATE supplier SET s_nationkey = (s_nationkey + 7) % 25, s_comment = 'Customer Complaints' WHERE s_suppkey % 9 = 0; \
         UPDATE customer SET c_acctbal = c_acctbal + 500, c_phone = '13' || substring(c_phone FROM 3) WHERE c_custkey % 100 = 0; \
         UPDATE nation SET n_regionkey = (n_regionkey + 1) % 5 WHERE n_nationkey % 4 = 0"
            .to_string(),
    ];
    for tick in &ticks {
        s.run(tick);
        check(&mut s, tick, &mut filled);
    }
    let all: BTreeSet<&str> = QUERIES.iter().map(|q| q.0).collect();
    assert_eq!(filled, all, "every query has an answer at some time");

    drop(s);
    let db = db.reopen(true);
    let mut s = db.session();
    order(&mut s, &orders, &lineitems, there + LATER / 2, LATER / 2);
    check(&mut s, "a restart and new orders", &mut filled);
    s.run("DELETE FROM lineitem; DELETE FROM orders");
    check(&mut s, "nothing is left", &mut filled);
}

/// What `docs/plans.md` shows, of TPC-H and of Nexmark, each with what it is there for.
const SHOWN: [(&str, &str); 7] = [
    ("TPC-H q5", "Six relations: each is kept once, and a change of one looks the others up."),
    ("TPC-H q17", "A correlated average is an aggregate by its correlation, joined."),
    ("TPC-H q21", "EXISTS and NOT EXISTS are semi and anti joins with a further condition."),
    ("Nexmark q4", "A maximum for each auction, averaged by category."),
    ("Nexmark q5", "Windows that hop: each bid stands in five."),
    ("Nexmark q9", "`row_number() = 1` keeps the first row of each auction."),
    ("Nexmark q16", "Twelve counts, six of them distinct, are one operator."),
];

const NEXMARK: &str = "
    CREATE TABLE person (id bigint, name text, email_address text, credit_card text, city text, state text, date_time timestamp, extra text);
    CREATE TABLE auction (id bigint, item_name text, description text, initial_bid bigint, reserve bigint, date_time timestamp, expires timestamp, seller bigint, category bigint, extra text);
    CREATE TABLE bid (auction bigint, bidder bigint, price bigint, channel text, url text, date_time timestamp, extra text)";

/// With `TIDEMILL_WRITE_PLANS=1` the document is written instead of compared.
#[test]
fn plans_are_as_documented() {
    let db = Db::with(|config| config.workers = 1);
    let mut s = db.session();
    s.run(TABLES);
    s.run(NEXMARK);
    let mut shown = String::new();
    for (title, what) in SHOWN {
        let (of, name) = title.split_once(' ').expect("a benchmark and a query");
        let directory = if of == "TPC-H" { "tpch" } else { "nexmark" };
        let path = format!("{}/benches/{directory}/{name}.sql", env!("CARGO_MANIFEST_DIR"));
        let sql = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
        let plan = s.rows(&format!("EXPLAIN {sql}")).join("\n");
        shown += &format!("\n## {title}\n\n{what}\n\n```\n{plan}\n```\n");
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/plans.md");
    let text = std::fs::read_to_string(path).expect("docs/plans.md is there");
    let head = text.split_inclusive('\n').take_while(|line| !line.starts_with("## ")).collect::<String>();
    let expected = format!("{}\n{shown}", head.trim_end());
    if std::env::var_os("TIDEMILL_WRITE_PLANS").is_some() {
        std::fs::write(path, expected).expect("docs/plans.md is written");
    } else {
        assert_eq!(text, expected, "with TIDEMILL_WRITE_PLANS=1 this test writes docs/plans.md anew");
    }
}
