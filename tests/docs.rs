//! Every SQL example in the documents runs, in order, file by file, against real systems where it names one.

mod common;

use std::path::Path;

use common::fakesnow::Fakesnow;
use common::kafka::Kafka;
use common::mariadb::MariaDb;
use common::mosquitto::Mosquitto;
use common::pgclient::{PgClient, Protocol};
use common::postgres::Postgres;
use common::receiver::Receiver;
use common::redshift::Redshift;
use common::registry::Registry;
use common::server::Server;
use tidemill::connectors::schema_registry::client::SchemaKind;

/// The `sql` blocks of a document, each with the line it starts at.
fn examples(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut open: Option<(usize, Vec<&str>)> = None;
    for (n, line) in text.lines().enumerate() {
        match &mut open {
            None if line.trim() == "```sql" => open = Some((n + 2, Vec::new())),
            Some(_) if line.trim() == "```" => {
                found.extend(open.take().map(|(start, lines)| (start, lines.join("\n"))));
            }
            Some((_, lines)) => lines.push(line),
            None => {}
        }
    }
    found
}

/// Runs a document's examples after `here` has put this machine's addresses in the place of the document's.
fn run(document: &str, here: impl Fn(&str) -> String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(document);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{document}: {e}"));
    let examples = examples(&text);
    assert!(!examples.is_empty(), "{document} has no example");
    let server = Server::start(1);
    let mut client = PgClient::connect(server.addr()).expect("a connection");
    for (line, sql) in examples {
        if let Err(e) = client.run(Protocol::Simple, &here(&sql)) {
            panic!("{document}:{line}: {e}\n{sql}");
        }
    }
}

#[test]
fn readme() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let url = format!("file://{}", directory.path().display());
    run("README.md", |sql| sql.replace("file:///tmp/tidemill-tour", &url));
}

#[test]
fn sql() {
    run("docs/sql.md", str::to_string);
}

#[test]
fn generators() {
    run("docs/connectors/generators.md", str::to_string);
}

#[test]
fn webhook() {
    let receiver = Receiver::start();
    run("docs/connectors/webhook.md", |sql| {
        sql.replace("https://receiver.example.com/changes", &receiver.url)
    });
    assert!(!receiver.posted().is_empty());
}

#[test]
fn http() {
    use axum::Router;
    use axum::http::header;
    use axum::routing::{get, post};
    let soap = "<Envelope><Body><GetOrdersResponse><orders><order id='1'/></orders></GetOrdersResponse></Body></Envelope>";
    let router = Router::new()
        .route(
            "/orders",
            get(async || r#"{"data": [{"id": 1, "city": "Oslo", "total": 9.99}], "next": null}"#),
        )
        .route("/soap", post(async move || soap))
        .route("/events", get(async || ([(header::CONTENT_TYPE, "text/event-stream")], "data: {}\n\n")));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    runtime.spawn(async move { axum::serve(listener, router).await });
    run("docs/connectors/http.md", |sql| sql.replace("https://api.example.com", &url));
}

#[test]
fn lines() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().display().to_string();
    std::fs::write(directory.path().join("a.log"), "an ERROR\n").expect("written");
    run("docs/connectors/lines.md", |sql| sql.replace("/var/log/app", &path));
}

#[test]
fn mqtt() {
    let broker = Mosquitto::start("");
    let host = format!("127.0.0.1:{}", broker.port);
    run("docs/connectors/mqtt.md", |sql| sql.replace("broker.example.com:1883", &host));
}

#[test]
fn files() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().display().to_string();
    let url = format!("file://{path}");
    std::fs::write(directory.path().join("a.csv"), "id,city,weight\n1,Oslo,2.5\n").expect("written");
    run("docs/connectors/files.md", |sql| {
        sql.replace("file:///var/lib/warehouse", &url).replace("/var/spool/deliveries", &path)
    });
}

#[test]
fn kafka() {
    let kafka = Kafka::start();
    let registry = Registry::start();
    let payment = r#"{"type": "record", "name": "Payment", "fields": [{"name": "id", "type": "long"}]}"#;
    registry.register("payments-value", SchemaKind::Avro, payment);
    run("docs/connectors/kafka.md", |sql| {
        sql.replace("localhost:9092", kafka.brokers()).replace("http://localhost:8081", &registry.url())
    });
}

#[test]
fn postgres() {
    let postgres = Postgres::start();
    postgres.psql("postgres", "CREATE DATABASE shop");
    postgres.psql(
        "shop",
        "CREATE TABLE users (id bigint PRIMARY KEY, email text); CREATE TABLE orders (id bigint PRIMARY KEY, user_id bigint, total numeric(12,2));
         INSERT INTO users VALUES (1, 'ada@example.com'); INSERT INTO orders VALUES (1, 1, 9.99);
         CREATE PUBLICATION tidemill FOR ALL TABLES; CREATE SCHEMA reports",
    );
    let port = format!("port = {}", postgres.port);
    run("docs/connectors/postgres.md", |sql| {
        sql.replace("db.example.com", "127.0.0.1")
            .replace("port = 5432", &port)
            .replace("'replicator'", "'postgres'")
    });
}

#[test]
fn mysql() {
    let server = MariaDb::start();
    server.sql(
        "CREATE DATABASE shop; CREATE TABLE shop.users (id bigint PRIMARY KEY, email text); CREATE TABLE shop.orders (id bigint PRIMARY KEY, user_id bigint, total decimal(12,2));
         INSERT INTO shop.users VALUES (1, 'ada@example.com'); INSERT INTO shop.orders VALUES (1, 1, 9.99);
         CREATE USER replicator IDENTIFIED BY 'not-printed-again'; GRANT ALL ON *.* TO replicator",
    );
    let port = format!("port = {}", server.port);
    run("docs/connectors/mysql.md", |sql| {
        sql.replace("db.example.com", "127.0.0.1").replace("port = 3306", &port)
    });
}

#[test]
fn redshift() {
    let redshift = Redshift::start();
    let port = format!("port = {}", redshift.port);
    let stage = format!("stage.endpoint = '{}', stage.region", redshift.s3.url);
    run("docs/connectors/redshift.md", |sql| {
        sql.replace("cluster.example.com", "127.0.0.1")
            .replace("port = 5439", &port)
            .replace("user = 'loader'", "user = 'postgres'")
            .replace("database = 'dev', sslmode = 'verify-full'", "database = 'postgres'")
            .replace("stage.region", &stage)
    });
}

#[test]
fn snowflake() {
    let snowflake = Fakesnow::start();
    let account = format!("account = 'myorg-myaccount', url = '{}'", snowflake.url);
    run("docs/connectors/snowflake.md", |sql| sql.replace("account = 'myorg-myaccount'", &account));
}
