//! Real Debezium, end to end: PostgreSQL's changes, captured by Debezium's own connector in Kafka Connect, through a
//! real Kafka broker, in four of the dialects that Debezium can be set to. In the end every source has its table's
//! rows, value by value, and every view says what PostgreSQL says.

mod common;

use std::thread::sleep;
use std::time::{Duration, Instant};

use common::debezium::Debezium;
use common::kafka::Kafka;
use common::pgclient::{PgClient, Protocol};
use common::postgres::Postgres;
use common::process::Tidemill;
use common::registry::Registry;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

const PATIENCE: Duration = Duration::from_secs(60);

/// A way to set Debezium up, and what a source must then be told.
struct Dialect {
    name: &'static str,
    settings: &'static [(&'static str, &'static str)],
    format: &'static str,
    /// A column that Debezium cannot tell under these settings: it writes NULL for a large value that did not change.
    lost: Option<(&'static str, &'static str)>,
}

/// Stands for the registry's address in settings.
const REGISTRY: &str = "REGISTRY";

const DIALECTS: [Dialect; 4] = [
    // Debezium's defaults: every record brings its schema.
    Dialect {
        name: "schema",
        settings: &[
            ("skipped.operations", "none"),
            ("topic.creation.default.replication.factor", "1"),
            ("topic.creation.default.partitions", "1"),
        ],
        format: "FORMAT JSON",
        lost: None,
    },
    // Records without schemas. Keyed tables that are never truncated may have more than one partition.
    Dialect {
        name: "bare",
        settings: &[
            ("skipped.operations", "none"),
            ("key.converter", "org.apache.kafka.connect.json.JsonConverter"),
            ("key.converter.schemas.enable", "false"),
            ("value.converter", "org.apache.kafka.connect.json.JsonConverter"),
            ("value.converter.schemas.enable", "false"),
            ("time.precision.mode", "microseconds"),
            ("topic.creation.default.replication.factor", "1"),
            ("topic.creation.default.partitions", "1"),
            ("topic.creation.groups", "spread"),
            ("topic.creation.spread.include", ".*(things|large)"),
            ("topic.creation.spread.partitions", "3"),
        ],
        format: "FORMAT JSON",
        lost: None,
    },
    // Everything that can be text is.
    Dialect {
        name: "textual",
        settings: &[
            ("skipped.operations", "none"),
            ("key.converter", "org.apache.kafka.connect.json.JsonConverter"),
            ("key.converter.schemas.enable", "false"),
            ("value.converter", "org.apache.kafka.connect.json.JsonConverter"),
            ("value.converter.schemas.enable", "false"),
            ("time.precision.mode", "isostring"),
            ("decimal.handling.mode", "string"),
            ("interval.handling.mode", "string"),
            ("binary.handling.mode", "hex"),
            ("topic.creation.default.replication.factor", "1"),
            ("topic.creation.default.partitions", "1"),
        ],
        format: "FORMAT JSON (decimal.format = 'text', binary.format = 'hex')",
        lost: Some(("large", "ds")),
    },
    // Avro, with a schema registry. Names are such as Avro allows.
    Dialect {
        name: "avro",
        settings: &[
            ("skipped.operations", "none"),
            ("key.converter", "io.confluent.connect.avro.AvroConverter"),
            ("key.converter.schema.registry.url", REGISTRY),
            ("value.converter", "io.confluent.connect.avro.AvroConverter"),
            ("value.converter.schema.registry.url", REGISTRY),
            ("field.name.adjustment.mode", "avro"),
            ("schema.name.adjustment.mode", "avro"),
            ("topic.creation.default.replication.factor", "1"),
            ("topic.creation.default.partitions", "1"),
        ],
        format: "FORMAT AVRO USING SCHEMA REGISTRY CONNECTION csr",
        lost: None,
    },
];

/// A table of tests/support/debezium.sql as a source declares it.
struct Table {
    name: &'static str,
    topic: &'static str,
    columns: &'static [(&'static str, &'static str)],
    key: &'static str,
    options: &'static str,
}

const TABLES: [Table; 5] = [
    Table {
        name: "things",
        topic: "things",
        columns: &[
            ("id", "int"),
            ("i2", "smallint"),
            ("i4", "int"),
            ("i8", "bigint"),
            ("n2", "numeric(12,2)"),
            ("n0", "numeric(38,0)"),
            ("n", "numeric"),
            ("f4", "real"),
            ("f8", "double precision"),
            ("b", "boolean"),
            ("t", "text"),
            ("v", "varchar(40)"),
            ("c", "char(8)"),
            ("mood", "text"),
            ("ip", "text"),
            ("d", "date"),
            ("t6", "time"),
            ("t3", "time"),
            ("ts", "timestamp"),
            ("ts3", "timestamp"),
            ("tz", "timestamptz"),
            ("iv", "interval"),
            ("u", "uuid"),
            ("j", "json"),
            ("jb", "jsonb"),
            ("by", "bytea"),
            ("i4s", "int[]"),
            ("i8s", "bigint[]"),
            ("ns", "numeric(10,2)[]"),
            ("f8s", "double precision[]"),
            ("bs", "boolean[]"),
            ("texts", "text[]"),
            ("us", "uuid[]"),
            ("ds", "date[]"),
            ("tss", "timestamp[]"),
            ("tzs", "timestamptz[]"),
        ],
        key: ", PRIMARY KEY (id)",
        options: "",
    },
    // Without the types of array for which Debezium writes NULL where a large value did not change.
    Table {
        name: "large",
        topic: "large",
        columns: &[
            ("id", "int"),
            ("counter", "int"),
            ("t", "text"),
            ("v", "varchar"),
            ("j", "json"),
            ("jb", "jsonb"),
            ("by", "bytea"),
            ("i4s", "int[]"),
            ("i8s", "bigint[]"),
            ("texts", "text[]"),
            ("us", "uuid[]"),
            ("ds", "date[]"),
        ],
        key: ", PRIMARY KEY (id)",
        options: "",
    },
    Table {
        name: "full_large",
        topic: "full_large",
        columns: &[
            ("id", "int"),
            ("counter", "int"),
            ("t", "text"),
            ("v", "varchar"),
            ("j", "json"),
            ("jb", "jsonb"),
            ("by", "bytea"),
            ("i4s", "int[]"),
            ("i8s", "bigint[]"),
            ("texts", "text[]"),
            ("us", "uuid[]"),
            ("i2s", "smallint[]"),
            ("f8s", "double precision[]"),
            ("bs", "boolean[]"),
            ("ds", "date[]"),
            ("tss", "timestamp[]"),
            ("tzs", "timestamptz[]"),
            ("ns", "numeric(10,2)[]"),
        ],
        key: ", PRIMARY KEY (id)",
        options: "",
    },
    Table {
        name: "Order Lines",
        topic: "Order_Lines",
        columns: &[
            ("order", "uuid"),
            ("Line No", "numeric(6,0)"),
            ("due", "date"),
            ("quantity", "int NOT NULL"),
        ],
        key: ", PRIMARY KEY (\"order\", \"Line No\", due)",
        options: "",
    },
    Table {
        name: "bag",
        topic: "bag",
        columns: &[("a", "int"), ("b", "text"), ("d", "date"), ("n", "numeric")],
        key: "",
        options: ", replica.identity = 'full'",
    },
];

/// Views over sources of different dialects: name, and query with `{dialect}_` before a table's name.
const VIEWS: [(&str, &str); 3] = [
    (
        "moods",
        "SELECT mood, count(*) AS things, sum(n2) AS total, max(tz) AS latest, min(d) AS first_day, count(u) AS known
         FROM {bare}things GROUP BY mood",
    ),
    (
        "counted",
        "SELECT l.id, l.counter, t.i8, length(f.t) AS size
         FROM {avro}large l JOIN {textual}things t ON t.id = l.id JOIN {bare}full_large f ON f.id = l.id",
    ),
    ("bags", "SELECT a, b, count(*) AS rows, sum(n) AS total FROM {textual}bag GROUP BY a, b"),
];

/// Rows as text, sorted; NULL is `NULL`.
fn rows(client: &mut PgClient, sql: &str) -> Vec<Vec<String>> {
    let answer = client.run(Protocol::Simple, sql).unwrap_or_else(|e| panic!("{e}\n{sql}")).pop();
    let text = |v: Option<String>| v.unwrap_or_else(|| "NULL".into());
    let mut rows: Vec<Vec<String>> =
        answer.unwrap_or_default().rows.into_iter().map(|r| r.into_iter().map(text).collect()).collect();
    rows.sort();
    rows
}

fn eventually(what: &str, log: impl Fn() -> String, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "still not so: {what}\n{}", log());
        sleep(Duration::from_millis(200));
    }
}

fn quoted(name: &str) -> String {
    format!("\"{name}\"")
}

impl Dialect {
    fn source(&self, table: &Table) -> String {
        quoted(&format!("{}_{}", self.name, table.name))
    }

    /// A column's name, as the records have it.
    fn column(&self, name: &str) -> String {
        match self.name {
            "avro" => quoted(&name.replace(' ', "_")),
            _ => quoted(name),
        }
    }

    fn create(&self, table: &Table) -> String {
        let columns: Vec<String> =
            table.columns.iter().map(|(n, t)| format!("{} {t}", self.column(n))).collect();
        let key = table
            .columns
            .iter()
            .fold(table.key.to_string(), |key, (n, _)| key.replace(&quoted(n), &self.column(n)));
        format!(
            "CREATE SOURCE {} ({}{}) FROM KAFKA CONNECTION k (topic = '{}.public.{}'{}) {} ENVELOPE DEBEZIUM",
            self.source(table),
            columns.join(", "),
            key,
            self.name,
            table.topic,
            table.options,
            self.format
        )
    }

    /// What is read of a table's rows: in Tidemill, and in PostgreSQL, brought to what Tidemill's types can hold.
    fn selected(&self, table: &Table) -> (String, String) {
        let columns = table.columns.iter().filter(|c| self.lost != Some((table.name, c.0)));
        let theirs = |(name, kind): &(&str, &str)| match *kind {
            "numeric" => format!("trim_scale({}::numeric(38,10))", quoted(name)),
            // As a number, an interval is µs, a month being a twelfth of 365.25 days; a year is so in PostgreSQL too.
            "interval" if self.name != "textual" => {
                format!(
                    "make_interval(secs => (extract(epoch FROM {name}) + extract(month FROM {name}) * 37800)::float8)"
                )
            }
            _ => quoted(name),
        };
        (
            columns.clone().map(|(n, _)| self.column(n)).collect::<Vec<_>>().join(", "),
            columns.map(theirs).collect::<Vec<_>>().join(", "),
        )
    }
}

/// The systems of the test, and a connection to PostgreSQL.
struct Stage {
    tidemill: Tidemill,
    debezium: Debezium,
    postgres: PgClient,
}

impl Stage {
    /// Waits until the queries answer the same, and some rows; else says of the first rows that differ.
    fn agree(&mut self, what: &str, ours: &str, theirs: &str) {
        let truth = rows(&mut self.postgres, theirs);
        assert!(!truth.is_empty(), "{what} has no rows left to compare");
        let deadline = Instant::now() + PATIENCE;
        let mut have = self.tidemill.rows(ours);
        while have != truth {
            assert!(Instant::now() < deadline, "{}", self.difference(what, &have, &truth));
            sleep(Duration::from_millis(100));
            have = self.tidemill.rows(ours);
        }
        println!("{what}: {} rows agree", truth.len());
    }

    fn difference(&self, what: &str, ours: &[Vec<String>], theirs: &[Vec<String>]) -> String {
        let only = |a: &[Vec<String>], b: &[Vec<String>]| {
            let mut only: Vec<String> =
                a.iter().filter(|r| !b.contains(r)).take(3).map(|r| format!("{r:?}")).collect();
            only.iter_mut().for_each(|r| r.truncate(r.floor_char_boundary(2000)));
            only.join("\n")
        };
        format!(
            "{what}: {} rows in Tidemill, {} in PostgreSQL\nonly in Tidemill:\n{}\nonly in PostgreSQL:\n{}\n\
             errors: {:?}\n{}\n{}",
            ours.len(),
            theirs.len(),
            only(ours, theirs),
            only(theirs, ours),
            self.tidemill.rows("SELECT object, sqlstate, reason FROM tidemill.errors LIMIT 5"),
            self.tidemill.log(),
            self.debezium.log()
        )
    }

    fn agree_on_sources(&mut self, chosen: impl Fn(&Table) -> bool) {
        for table in TABLES.iter().filter(|t| chosen(t)) {
            for dialect in &DIALECTS {
                let (ours, theirs) = dialect.selected(table);
                let source = dialect.source(table);
                let ours = format!("SELECT {ours} FROM {source}");
                self.agree(&source, &ours, &format!("SELECT {theirs} FROM {}", quoted(table.name)));
            }
        }
    }

    fn agree_on_views(&mut self, chosen: impl Fn(&str) -> bool) {
        for (view, query) in VIEWS.iter().filter(|v| chosen(v.0)) {
            let query =
                with_tables(query, |_| String::new()).replace("sum(n)", "trim_scale(sum(n::numeric(38,10)))");
            self.agree(view, &format!("SELECT * FROM {view}"), &query);
            self.tidemill.sql(&format!("CHECK MATERIALIZED VIEW {view}"));
        }
    }
}

/// A view's query with what stands for a dialect's name replaced.
fn with_tables(query: &str, prefix: impl Fn(&Dialect) -> String) -> String {
    DIALECTS.iter().fold(query.to_string(), |q, d| q.replace(&format!("{{{}}}", d.name), &prefix(d)))
}

/// PostgreSQL with the tables and some rows in them.
fn start_postgres() -> (Postgres, PgClient) {
    let postgres = Postgres::start();
    for sql in ["CREATE ROLE tidemill SUPERUSER LOGIN", "CREATE DATABASE tidemill"] {
        postgres.psql("postgres", sql);
    }
    postgres.psql("tidemill", "ALTER DATABASE tidemill SET timezone = 'UTC'");
    postgres.psql("tidemill", include_str!("support/debezium.sql"));
    postgres.psql("tidemill", "CREATE PUBLICATION pub FOR ALL TABLES");
    let address = ([127, 0, 0, 1], postgres.port).into();
    let mut client = PgClient::connect(address).expect("a connection");
    rows(&mut client, "SELECT setseed(0.25)");
    rows(&mut client, "CALL work(100)");
    (postgres, client)
}

#[test]
fn sources_of_debezium_s_records_agree_with_postgresql_s_tables() {
    let (kafka, (server, mut postgres)) = std::thread::scope(|scope| {
        let kafka = scope.spawn(Kafka::start);
        let postgres = start_postgres();
        (kafka.join().expect("the broker"), postgres)
    });
    let registry = Registry::start();
    let url = registry.url();
    let settings = DIALECTS.map(|d| {
        let own = d.settings.iter().map(|(n, v)| (*n, if *v == REGISTRY { url.as_str() } else { *v }));
        (d.name, own.collect::<Vec<_>>())
    });
    let connectors: Vec<_> = settings.iter().map(|(name, settings)| (*name, &settings[..])).collect();
    let debezium = Debezium::start(&kafka, &server, "tidemill", &connectors);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let tidemill = Tidemill::start(&directory.path().join("data"));

    // Work goes on while the connectors copy the tables, and behind that.
    let streaming = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
    eventually(
        "all connectors stream",
        || debezium.log(),
        || {
            rows(&mut postgres, "CALL work(5)");
            rows(&mut postgres, streaming) == [[DIALECTS.len().to_string()]]
        },
    );
    // The topic of a table is there from its first row on.
    rows(
        &mut postgres,
        "INSERT INTO large (id, counter) VALUES (100, 0);
         INSERT INTO full_large (id, counter) VALUES (100, 0);
         TRUNCATE bag, \"Order Lines\";
         INSERT INTO bag VALUES (0, 'first');
         INSERT INTO \"Order Lines\" VALUES (gen_random_uuid(), 0, '2024-02-29')",
    );
    let broker: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", kafka.brokers()).create().expect("a client");
    eventually(
        "all topics are there",
        || debezium.log(),
        || {
            let metadata = broker.fetch_metadata(None, PATIENCE).expect("the broker's topics");
            let ours = metadata.topics().iter().filter(|t| t.name().contains(".public."));
            ours.count() == DIALECTS.len() * TABLES.len()
        },
    );
    tidemill.sql(&format!("CREATE CONNECTION k TO KAFKA (brokers = '{}')", kafka.brokers()));
    tidemill.sql(&format!("CREATE CONNECTION csr TO SCHEMA REGISTRY (url = '{url}')"));
    for dialect in &DIALECTS {
        for table in &TABLES {
            tidemill.sql(&dialect.create(table));
        }
    }
    for (view, query) in VIEWS {
        let query = with_tables(query, |d| format!("{}_", d.name));
        tidemill.sql(&format!("CREATE MATERIALIZED VIEW {view} AS {query}"));
    }
    let mut stage = Stage { tidemill, debezium, postgres };
    rows(&mut stage.postgres, "CALL work(150)");
    stage.tidemill.kill_and_restart();

    // After its worker was killed, Debezium writes some records again. Rows without a key would then count twice.
    stage.agree_on_sources(|t| t.key.is_empty());
    stage.agree_on_views(|v| v == "bags");
    for dialect in &DIALECTS {
        stage.tidemill.sql(&format!("DROP SOURCE {}_bag CASCADE", dialect.name));
    }
    rows(&mut stage.postgres, "CALL work(50)");
    stage.debezium.kill_and_restart();
    rows(&mut stage.postgres, "CALL work(150)");
    stage.agree_on_sources(|t| !t.key.is_empty());
    stage.agree_on_views(|v| v != "bags");
    let errors = stage.tidemill.rows("SELECT object, sqlstate, reason FROM tidemill.errors");
    assert_eq!(errors, Vec::<Vec<String>>::new());

    // The key changes and a large value does not: the event does not tell the value, and the row that had it is gone.
    rows(&mut stage.postgres, "INSERT INTO large (id, counter, t) VALUES (200, 0, repeat('x', 3000))");
    rows(&mut stage.postgres, "UPDATE large SET id = 201 WHERE id = 200");
    let told = "SELECT object, sqlstate, reason LIKE 'column \"t\": the event leaves the value out%'
                FROM tidemill.errors";
    let expected = ["avro_large", "bare_large", "schema_large", "textual_large"].map(|s| [s, "22000", "t"]);
    eventually(
        "what an event does not tell is said",
        || stage.tidemill.log(),
        || stage.tidemill.rows(told) == expected,
    );
}
