//! A broker in this process, librdkafka's mock cluster, at an address that stays the same from run to run.
//!
//! It speaks the real protocol over TCP. What it does not do: keep anything after the process, or more than the last
//! 100,000 records or 5 MiB of a partition; make topics on request (they are made on first use); hide the records of
//! aborted transactions.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use super::progress;
use super::settings::reason;
use crate::connectors::StopFlag;
use crate::error::{Error, Result, SqlState};
use crate::world;

/// How often the listener looks whether it is to stop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// The broker. It ends when this is dropped.
pub struct MockBroker {
    cluster: MockCluster<'static, DefaultProducerContext>,
    address: SocketAddr,
    stop: StopFlag,
    listener: Option<JoinHandle<()>>,
}

impl MockBroker {
    /// Starts it, to be reached at `listen`; port 0 takes any that is free.
    ///
    /// The mock cluster chooses its own port. Who connects to `listen` is passed on to it, and told the real port by the protocol.
    ///
    /// # Errors
    /// 58030 when the address is taken; XX000 when the cluster does not start.
    pub fn start(listen: SocketAddr) -> Result<MockBroker> {
        let listener = TcpListener::bind(listen).map_err(|e| {
            Error::new(
                SqlState::IO_ERROR,
                format!("the in-process Kafka broker could not listen on {listen}: {e}"),
            )
        })?;
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let cluster = MockCluster::new(1).map_err(|e| {
            Error::internal(format!("the in-process Kafka broker did not start: {}", reason(&e)))
        })?;
        let upstream = cluster.bootstrap_servers();
        let stop = StopFlag::default();
        let stopped = stop.clone();
        let listener = thread::Builder::new()
            .name("kafka-mock".to_string())
            .spawn(move || accept(&listener, &upstream, &stopped))?;
        let broker = MockBroker { cluster, address, stop, listener: Some(listener) };
        // Sinks could not make it.
        broker.create_topic(progress::TOPIC, 1)?;
        Ok(broker)
    }

    /// Where clients find it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Makes a topic.
    ///
    /// # Errors
    /// XX000 when the cluster refuses.
    pub fn create_topic(&self, name: &str, partitions: i32) -> Result<()> {
        self.cluster
            .create_topic(name, partitions, 1)
            .map_err(|e| Error::internal(format!("could not create topic \"{name}\": {}", reason(&e))))
    }

    /// Cuts all connections and refuses new ones until [`MockBroker::up`].
    ///
    /// # Errors
    /// XX000 when the cluster refuses.
    pub fn down(&self) -> Result<()> {
        self.cluster.broker_down(-1).map_err(|e| Error::internal(reason(&e)))
    }

    /// Takes connections again.
    ///
    /// # Errors
    /// XX000 when the cluster refuses.
    pub fn up(&self) -> Result<()> {
        self.cluster.broker_up(-1).map_err(|e| Error::internal(reason(&e)))
    }
}

impl Drop for MockBroker {
    fn drop(&mut self) {
        self.stop.stop();
        if let Some(listener) = self.listener.take()
            && listener.join().is_err()
        {
            tracing::warn!("the in-process Kafka broker's listener had panicked");
        }
    }
}

fn accept(listener: &TcpListener, upstream: &str, stop: &StopFlag) {
    while !stop.is_set() {
        match listener.accept() {
            Ok((client, _)) => {
                if let Err(e) = pass_on(client, upstream) {
                    tracing::debug!(error = %e, "in-process Kafka broker: connection not passed on");
                }
            }
            Err(_) => world::sleep(ACCEPT_PAUSE),
        }
    }
}

/// Copies bytes both ways, on two threads that end with the connection.
fn pass_on(client: TcpStream, upstream: &str) -> io::Result<()> {
    client.set_nonblocking(false)?;
    let server = TcpStream::connect(upstream)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    for (mut from, mut to) in [(client.try_clone()?, server.try_clone()?), (server, client)] {
        thread::Builder::new().name("kafka-mock-copy".to_string()).spawn(move || {
            let copied = io::copy(&mut from, &mut to);
            tracing::trace!(?copied, "in-process Kafka broker: connection ended");
            for end in [&from, &to] {
                if let Err(e) = end.shutdown(Shutdown::Both) {
                    tracing::trace!(error = %e, "in-process Kafka broker: already closed");
                }
            }
        })?;
    }
    Ok(())
}
