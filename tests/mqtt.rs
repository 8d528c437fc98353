//! MQTT sources and a real broker: topics and formats, what comes again, and kills on either side.

mod common;

use std::process::Command;
use std::time::Duration;

use common::mosquitto::Mosquitto;
use common::process::Tidemill;
use common::until;

/// Waits until every source works.
fn until_running(server: &Tidemill) {
    until(server, "SELECT DISTINCT status FROM tidemill.sources", &[&["running"]]);
    // A subscription is asked for when the connection stands.
    std::thread::sleep(Duration::from_millis(300));
}

#[test]
fn messages_of_topics_are_rows() {
    let home = tempfile::tempdir().expect("a directory");
    let server = Tidemill::start(&home.path().join("data"));
    let broker = Mosquitto::start("");
    broker.publish("sensors/kept/temp", "{\"id\": 0, \"c\": 20}\n", &["-r"]);
    let url = format!("mqtt://127.0.0.1:{}", broker.port);
    server.sql(&format!(
        "CREATE SOURCE temps (id int NOT NULL, c numeric(4,1)) FROM MQTT (url = '{url}', topic = 'sensors/+/temp') FORMAT JSON
           INCLUDE topic, timestamp AS at;
         CREATE SOURCE fresh (id int) FROM MQTT (url = '{url}', topic = 'sensors/+/temp, other', retained = false) FORMAT JSON;
         CREATE SOURCE latest (state text) FROM MQTT (url = '{url}', topic = 'state/#') FORMAT TEXT ENVELOPE UPSERT INCLUDE key AS device;
         CREATE SOURCE lines FROM MQTT (url = '{url}', topic = 'lines', qos = 0) FORMAT TEXT"
    ));
    until_running(&server);
    broker.publish("sensors/a/temp", "{\"id\": 1, \"c\": 21.5}\n{\"c\": 1}\n", &[]);
    broker.publish("sensors/b/temp", "{\"id\": 2}\n", &[]);
    broker.publish("sensors/b/humidity", "{\"id\": 3}\n", &[]);
    broker.publish("lines", "a line\n", &[]);
    let expected: [&[&str]; 3] = [
        &["0", "20.0", "sensors/kept/temp"],
        &["1", "21.5", "sensors/a/temp"],
        &["2", "NULL", "sensors/b/temp"],
    ];
    until(&server, "SELECT id, c, topic FROM temps", &expected);
    until(&server, "SELECT id FROM fresh WHERE id IS NOT NULL", &[&["1"], &["2"]]);
    until(&server, "SELECT body FROM lines", &[&["a line"]]);
    let errors = "SELECT position, sqlstate, convert_from(raw, 'UTF8') FROM tidemill.errors";
    assert_eq!(server.rows(errors), [["topic=sensors/a/temp", "23502", "{\"c\": 1}"]]);
    // By topic the newest is kept; an empty one takes it away.
    broker.publish("state/x", "on\noff\n", &[]);
    broker.publish("state/y/z", "on\n", &[]);
    until(&server, "SELECT state, device FROM latest", &[&["off", "state/x"], &["on", "state/y/z"]]);
    let port = broker.port.to_string();
    let emptied = Command::new("mosquitto_pub").args(["-p", &port, "-t", "state/x", "-n"]).status();
    assert!(emptied.expect("it runs").success());
    until(&server, "SELECT device FROM latest", &[&["state/y/z"]]);
}

#[test]
fn sessions_outlive_both_sides() {
    let home = tempfile::tempdir().expect("a directory");
    let mut server = Tidemill::start(&home.path().join("data"));
    let mut broker = Mosquitto::start("");
    broker.publish("n/kept", "0\n", &["-r"]);
    server.sql(&format!(
        "CREATE SOURCE n (id int) FROM MQTT (url = 'mqtt://127.0.0.1:{}', topic = 'n/#') FORMAT CSV;
         CREATE MATERIALIZED VIEW total AS SELECT count(*) AS n, count(DISTINCT id) AS d FROM n",
        broker.port
    ));
    until_running(&server);
    broker.publish("n/a", "1\n2\n", &[]);
    until(&server, "SELECT * FROM total", &[&["3", "3"]]);
    // The broker keeps what comes while nobody listens; what is retained is not sent again.
    server.kill();
    broker.publish("n/a", "3\n4\n", &[]);
    broker.restart();
    server.kill_and_restart();
    until(&server, "SELECT * FROM total", &[&["5", "5"]]);
    broker.stop();
    until(&server, "SELECT status FROM tidemill.sources", &[&["stalled"]]);
    broker.restart();
    until_running(&server);
    broker.publish("n/a", "5\n", &[]);
    until(&server, "SELECT * FROM total", &[&["6", "6"]]);
    // A source that is dropped leaves no session behind.
    server.sql("DROP SOURCE n CASCADE");
    broker.publish("n/a", "6\n", &[]);
    server.sql(&format!(
        "CREATE SOURCE n (id int) FROM MQTT (url = 'mqtt://127.0.0.1:{}', topic = 'n/#') FORMAT CSV",
        broker.port
    ));
    until(&server, "SELECT id FROM n", &[&["0"]]);
}

#[test]
fn nothing_is_lost_or_repeated_by_kills() {
    let home = tempfile::tempdir().expect("a directory");
    let data = home.path().join("data");
    let broker = Mosquitto::start("");
    // Dead after rows are handed over, and again between durable rows and their acknowledgement.
    let mut server = Tidemill::start_with(&data, &[("TIDEMILL_CRASH_AT", "mqtt.durable:30")]);
    server.sql(&format!(
        "CREATE SOURCE n (id int) FROM MQTT (url = 'mqtt://127.0.0.1:{}', topic = 'n') FORMAT CSV;
         CREATE MATERIALIZED VIEW total AS SELECT count(*) AS n, count(DISTINCT id) AS d, sum(id) AS s FROM n",
        broker.port
    ));
    until_running(&server);
    let numbers = |from: i64, to: i64| (from..=to).map(|id| format!("{id}\n")).collect::<String>();
    broker.publish("n", &numbers(1, 500), &[]);
    server.kill();
    server = Tidemill::start_with(&data, &[("TIDEMILL_CRASH_AT", "mqtt.handed_over:3")]);
    broker.publish("n", &numbers(501, 1000), &[]);
    server.kill();
    for round in 0..3 {
        server.kill_and_restart();
        broker.publish("n", &numbers(1001 + round * 300, 1300 + round * 300), &[]);
        std::thread::sleep(Duration::from_millis(100));
        if round < 2 {
            server.kill();
        }
    }
    until(&server, "SELECT n, d, s FROM total", &[&["1900", "1900", "1805950"]]);
}

#[test]
fn brokers_are_known_by_their_certificates() {
    let home = tempfile::tempdir().expect("a directory");
    let server = Tidemill::start(&home.path().join("data"));
    let (key, certificate) = (home.path().join("key.pem"), home.path().join("cert.pem"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"])
        .args(["-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output();
    assert!(made.expect("openssl").status.success(), "no certificate");
    let passwords = home.path().join("passwords");
    let made =
        Command::new("mosquitto_passwd").arg("-b").arg("-c").arg(&passwords).args(["ada", "secret"]).status();
    assert!(made.expect("mosquitto_passwd").success());
    let readable = Command::new("chmod").arg("644").args([&key, &passwords]).status();
    assert!(readable.expect("chmod").success());
    let broker = Mosquitto::start(&format!(
        "certfile {}\nkeyfile {}\npassword_file {}\nallow_anonymous false\n",
        certificate.display(),
        key.display(),
        passwords.display()
    ));
    let create = |name: &str, more: &str| {
        server.sql(&format!(
            "CREATE SOURCE {name} (id int) FROM MQTT (url = 'mqtts://localhost:{}', topic = 'n', user = 'ada'{more}) FORMAT CSV",
            broker.port
        ));
    };
    server.sql("CREATE SECRET p AS 'secret'");
    create("good", &format!(", password = SECRET p, certificates = '{}'", certificate.display()));
    create("unknown", ", password = SECRET p");
    create("refused", &format!(", password = 'wrong', certificates = '{}'", certificate.display()));
    until(
        &server,
        "SELECT name, status FROM tidemill.sources",
        &[&["good", "running"], &["refused", "stalled"], &["unknown", "stalled"]],
    );
    let error = |name: &str| {
        server.rows(&format!("SELECT error FROM tidemill.sources WHERE name = '{name}'")).concat().concat()
    };
    assert!(error("unknown").contains("certificate"), "{}", error("unknown"));
    assert!(error("refused").contains("refused"), "{}", error("refused"));
    std::thread::sleep(Duration::from_millis(300));
    let more = ["-u", "ada", "-P", "secret", "--cafile", certificate.to_str().expect("text")];
    let port = broker.port.to_string();
    let sent = Command::new("mosquitto_pub")
        .args(["-h", "localhost", "-p", &port, "-q", "1", "-t", "n", "-m", "7"])
        .args(more)
        .status();
    assert!(sent.expect("it runs").success());
    until(&server, "SELECT id FROM good", &[&["7"]]);
}
