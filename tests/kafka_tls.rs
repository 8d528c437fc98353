//! Kafka over TLS with every way to log in, against a real broker whose certificate the client is told to trust. Runs in
//! builds with the feature `kafka-tls`.
#![cfg(feature = "kafka-tls")]

mod common;

use std::time::{Duration, Instant};

use common::kafka::Kafka;
use common::pgclient::{PgClient, Protocol};
use common::server::Server;

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn every_mechanism_reads_and_writes_over_tls() {
    let (kafka, address) = Kafka::start_secured();
    let ca = kafka.directory().join("ca.pem").display().to_string();
    let server = Server::start(1);
    let mut client = PgClient::connect(server.addr()).expect("a connection");
    let mut run = |sql: &str| client.run(Protocol::Simple, sql);
    run("CREATE SECRET pw AS 'secret'").expect("a secret");
    run("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1), (2)").expect("a table");
    let user = "sasl.username = 'ada', sasl.password = SECRET pw";
    let mechanisms = [
        ("PLAIN", user),
        ("SCRAM-SHA-256", user),
        ("SCRAM-SHA-512", user),
        (
            "OAUTHBEARER",
            "properties.enable.sasl.oauthbearer.unsecure.jwt = true, sasl.oauthbearer.config = 'principal=ada'",
        ),
    ];
    for (n, (mechanism, login)) in mechanisms.into_iter().enumerate() {
        let options = |ca: &str, login: &str| {
            format!(
                "brokers = '{address}', security.protocol = 'SASL_SSL', ssl.ca.location = '{ca}',
                 sasl.mechanism = '{mechanism}', {login}"
            )
        };
        run(&format!("CREATE CONNECTION k{n} TO KAFKA ({})", options(&ca, login)))
            .unwrap_or_else(|e| panic!("{mechanism}: {e}"));
        run(&format!(
            "CREATE SINK out{n} FROM t INTO KAFKA CONNECTION k{n} (topic = 'tls{n}') KEY (id) FORMAT JSON ENVELOPE UPSERT;
             WAIT FOR SINK out{n} CURRENT TIMEOUT '60 s';
             CREATE SOURCE in{n} (id int PRIMARY KEY) FROM KAFKA CONNECTION k{n} (topic = 'tls{n}') FORMAT JSON ENVELOPE UPSERT"
        ))
        .unwrap_or_else(|e| panic!("{mechanism}: {e}"));
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answers = run(&format!("SELECT count(*) FROM in{n}")).expect("a count");
            if answers[0].rows[0][0].as_deref() == Some("2") {
                break;
            }
            assert!(Instant::now() < deadline, "{mechanism}: {answers:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
        if login == user {
            let wrong = "sasl.username = 'ada', sasl.password = 'wrong'";
            let error = run(&format!("CREATE CONNECTION w{n} TO KAFKA ({})", options(&ca, wrong)))
                .expect_err("a wrong password");
            assert_eq!(error.sqlstate, "28000", "{mechanism}: {error}");
        }
    }
    // A certificate that nobody trusts, and one that is none.
    let error = run(&format!(
        "CREATE CONNECTION u TO KAFKA (brokers = '{address}', security.protocol = 'SASL_SSL', sasl.mechanism = 'PLAIN', {user})"
    ))
    .expect_err("an unknown certificate");
    assert!(error.message.contains("certificate verify failed"), "{error}");
    let error = run(&format!(
        "CREATE CONNECTION u TO KAFKA (brokers = '{address}', security.protocol = 'SSL', ssl.ca.location = '/nowhere.pem')"
    ))
    .expect_err("no certificate");
    assert_eq!(error.sqlstate, "22023", "{error}");
}
