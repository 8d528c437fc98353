//! psql's backslash commands: none fails, and they show what is there.

use std::process::Command;

use super::server::Server;

/// Runs psql on one command; what it prints, and what it complains about.
fn psql(port: u16, command: &str) -> (String, String) {
    let output = Command::new("psql")
        .args(["-X", "-h", "127.0.0.1", "-p", &port.to_string(), "-U", "tidemill", "-d", "tidemill"])
        .args(["-v", "ON_ERROR_STOP=1", "-P", "pager=off", "-c", command])
        .output()
        .expect("psql is installed (scripts/test-deps packages)");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let stderr = text(&output.stderr);
    assert!(output.status.success(), "{command}: {stderr}");
    (text(&output.stdout), stderr)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn psql_finds_its_way() {
    let server = Server::start().await;
    let client = server.client().await;
    client
        .batch_execute(
            "CREATE TABLE orders (id bigint PRIMARY KEY, customer varchar(40) NOT NULL, amount numeric(12,2),
                                  note text DEFAULT 'none', tags text[], at timestamptz);
             CREATE VIEW big AS SELECT id, amount FROM orders WHERE amount > 100;
             CREATE MATERIALIZED VIEW per_customer AS SELECT customer, sum(amount) AS total FROM orders GROUP BY customer;
             CREATE INDEX by_customer ON per_customer (customer);
             COMMENT ON TABLE orders IS 'what was bought';
             COMMENT ON COLUMN orders.note IS 'for the parcel';
             CREATE SCHEMA shop; COMMENT ON SCHEMA shop IS 'what is sold';
             CREATE TABLE shop.item (id int PRIMARY KEY, name text); CREATE INDEX ON shop.item (name);
             CREATE VIEW shop.names AS SELECT name FROM shop.item",
        )
        .await
        .unwrap();
    let port = server.addr.port();
    // A command, and what its output must show.
    let commands: &[(&str, &[&str])] = &[
        (
            r"\d",
            &[
                "public | orders       | table ",
                "public | big          | view ",
                "per_customer | materialized view",
                "tidemill",
            ],
        ),
        (
            r"\d orders",
            &[
                "Table \"public.orders\"",
                "id       | bigint                   |           | not null |",
                "customer | character varying(40)    |           | not null |",
                "amount   | numeric(12,2)            |           |          |",
                "note     | text                     |           |          | 'none'",
                "tags     | text[]                   |",
                "at       | timestamp with time zone |",
                "\"orders_pkey\" PRIMARY KEY, btree (id)",
            ],
        ),
        (r"\d big", &["View \"public.big\"", "amount | numeric(12,2)"]),
        (
            r"\d per_customer",
            &["Materialized view \"public.per_customer\"", "total ", "\"by_customer\" btree (customer)"],
        ),
        (r"\d by_customer", &["Index \"public.by_customer\""]),
        (r"\d+ orders", &["for the parcel"]),
        (r"\d+ big", &["SELECT id, amount FROM orders WHERE amount > 100"]),
        (r"\d+ per_customer", &["View definition:", "sum(amount)"]),
        (r"\d+", &["what was bought"]),
        (r"\dt", &["orders | table | tidemill", "(1 row)"]),
        (r"\dt+", &["what was bought"]),
        (r"\dt public.*", &["orders"]),
        (r"\dv", &["big  | view", "(1 row)"]),
        (r"\dm", &["per_customer | materialized view", "(1 row)"]),
        (r"\di", &["by_customer", "orders_pkey"]),
        (r"\ds", &[]),
        (r"\l", &["tidemill", "UTF8"]),
        (r"\l+", &["pg_default"]),
        (r"\df", &["(0 rows)"]),
        (r"\da", &["(0 rows)"]),
        (r"\dn", &["public", "shop     | tidemill"]),
        (r"\dn+", &["public", "what is sold"]),
        (r"\dt shop.*", &["shop   | item | table | tidemill", "(1 row)"]),
        (r"\dt *.item", &["shop   | item | table"]),
        (
            r"\d shop.item",
            &["Table \"shop.item\"", "\"item_pkey\" PRIMARY KEY", "\"item_name_idx\" btree (name)"],
        ),
        (r"\d shop.names", &["View \"shop.names\""]),
        (r"\di shop.*", &["shop   | item_name_idx | index", "shop   | item_pkey"]),
        ("SELECT 'shop.item'::regclass, 'shop'::regnamespace", &["shop.item | shop"]),
        ("SELECT schema_name FROM information_schema.schemata WHERE schema_owner = 'tidemill'", &["shop"]),
        (r"\du", &["tidemill  | Superuser"]),
        (r"\dT", &["(0 rows)"]),
        (r"\dT pg_catalog.num*", &["numeric"]),
        (r"\dx", &["(0 rows)"]),
        (r"\dp", &["orders"]),
        (r"\dd", &[]),
        (r"\dC", &["(0 rows)"]),
        (r"\do", &["(0 rows)"]),
        (r"\dD", &["(0 rows)"]),
        (r"\db", &["pg_default"]),
        (r"\dO", &["(0 rows)"]),
        (r"\dy", &["(0 rows)"]),
        (r"\det", &["(0 rows)"]),
        (r"\dRp", &[]),
        (r"\dRs", &[]),
        (r"\dP", &["(0 rows)"]),
        (r"\sv big", &["SELECT id, amount FROM orders"]),
        (r"\conninfo", &["database \"tidemill\" as user \"tidemill\""]),
        ("TABLE orders", &["(0 rows)"]),
        ("SELECT 'orders'::regclass, 'int4'::regtype", &["orders   | integer"]),
        (
            "SELECT table_name, data_type FROM information_schema.columns WHERE table_name = 'orders' AND column_name = 'at'",
            &["orders     | timestamp with time zone"],
        ),
    ];
    let mut failures = Vec::new();
    for (command, expected) in commands {
        let outcome = tokio::task::spawn_blocking({
            let command = command.to_string();
            move || std::panic::catch_unwind(|| psql(port, &command))
        });
        match outcome.await.unwrap() {
            Err(panic) => failures.push(format!("{:?}", panic.downcast_ref::<String>())),
            Ok((stdout, stderr)) => {
                if stderr.contains("ERROR") {
                    failures.push(format!("{command}: {stderr}"));
                }
                for part in *expected {
                    if !stdout.contains(part) {
                        failures.push(format!("{command} does not show {part:?}:\n{stdout}"));
                    }
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
