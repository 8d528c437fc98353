//! Source and sink against librdkafka's mock cluster in this process.

use std::net::SocketAddr;
use std::time::Duration;

use super::mock::MockBroker;

#[test]
fn a_connection_is_checked() {
    let broker = MockBroker::start(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let options = |address: String| vec![("brokers".to_string(), address)];
    super::validate_connection(options(broker.address().to_string())).unwrap();
    drop(broker);
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let started = std::time::Instant::now();
    let error = super::validate_connection(options(unused.to_string())).unwrap_err();
    assert_eq!(error.sqlstate.0, "08006");
    assert!(started.elapsed() < Duration::from_secs(20));
}
