//! A lively shop that writes into a Kafka broker: what the quickstart shows.
//!
//! * `orders`: JSON, `{"id", "customer_id", "product", "quantity", "amount", "placed_at"}`; key: the id.
//! * `payments`: JSON, `{"id", "order_id", "method", "amount", "paid_at"}`; a few pay less than the order.
//! * `customers`: Debezium's change events of a table `(id int primary key, name text, email text, country text, tier text)`,
//!   with deletes, tombstones, and rows that come again.
//!
//! Record `i` of a topic is a function of `i`, but for its time, and each topic has one partition, so `i` is its offset.
//! A broker in this process starts empty every time, while the database goes on from the offsets that it had reached: so
//! the shop writes every topic up to where it was before it goes on. How far that is, a file says that is written
//! ahead: no record is written that the file does not allow for.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use super::client::QuietContext;
use super::settings::{ClientSettings, reason};
use crate::connectors::StopFlag;
use crate::connectors::format::datetime;
use crate::connectors::generate::chance::mixed;
use crate::error::{Error, Result, SqlState};
use crate::world;

/// The topics, in the order of [`Counts`].
pub const TOPICS: [&str; 3] = ["orders", "payments", "customers"];
/// Customers that the shop begins with.
const CUSTOMERS: u64 = 60;
/// How often the shop writes.
const PAUSE: Duration = Duration::from_millis(20);
/// The file allows for so many seconds of records ahead.
const AHEAD_SECONDS: u64 = 5;
/// The broker keeps no more records of a partition than these: of older ones only the offsets are made.
const RETAINED: u64 = 100_000;
/// How long the last records may take to reach the broker.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// Numbers of records by topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Counts {
    orders: u64,
    payments: u64,
    customers: u64,
}

impl Counts {
    fn of(self) -> [u64; 3] {
        [self.orders, self.payments, self.customers]
    }

    /// So many as there are after so many orders: payments come a little later, customers change now and then.
    fn after(orders: u64, rate: u64) -> Counts {
        Counts {
            orders,
            payments: orders.saturating_sub(rate),
            customers: if orders == 0 { 0 } else { CUSTOMERS + orders / 10 },
        }
    }
}

/// The shop. It closes when this is dropped.
pub struct Shop {
    stop: StopFlag,
    thread: Option<JoinHandle<()>>,
}

impl Shop {
    /// Opens the shop: writes what had been written before, then goes on with `rate` orders a second on a thread of its own.
    ///
    /// `state` is the file that says how far the shop had come; without it, it begins.
    ///
    /// # Errors
    /// 58030 for the file; 08006 when the broker does not take what had been written before.
    pub fn open(brokers: &str, state: &Path, rate: u32) -> Result<Shop> {
        let client = ClientSettings::of_connection(vec![("brokers".to_string(), brokers.to_string())])?;
        let producer: BaseProducer<QuietContext> = client
            .config()
            .set("linger.ms", "5")
            .create_with_context(QuietContext)
            .map_err(|e| client.error("connect to", &e))?;
        let mut seller = Seller {
            producer,
            written: [0; 3],
            state: state.to_path_buf(),
            rate: u64::from(rate.max(1)),
            stop: StopFlag::default(),
        };
        let orders = seller.orders_before()?;
        seller.allow(orders)?;
        let before = Counts::after(orders, seller.rate);
        seller.write_up_to(before, before).map_err(|e| client.error("write to", &e))?;
        seller.producer.flush(FLUSH_TIMEOUT).map_err(|e| client.error("write to", &e))?;
        let stop = seller.stop.clone();
        let thread = thread::Builder::new().name("shop".to_string()).spawn(move || seller.sell(orders))?;
        Ok(Shop { stop, thread: Some(thread) })
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        self.stop.stop();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::warn!("the shop's thread had panicked");
        }
    }
}

struct Seller {
    producer: BaseProducer<QuietContext>,
    /// Records written, by topic.
    written: [u64; 3],
    state: PathBuf,
    /// Orders a second.
    rate: u64,
    stop: StopFlag,
}

impl Seller {
    fn orders_before(&self) -> Result<u64> {
        match fs::read_to_string(&self.state) {
            Ok(text) => text.trim().parse().map_err(|_| {
                Error::new(
                    SqlState::DATA_CORRUPTED,
                    format!("{} is not a number of orders", self.state.display()),
                )
            }),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(0),
            Err(e) => Err(e.into()),
        }
    }

    /// Allows for records ahead of `orders`: after a crash the shop is refilled up to there.
    fn allow(&self, orders: u64) -> Result<u64> {
        let allowed = orders + self.rate * AHEAD_SECONDS;
        let new = self.state.with_extension("new");
        fs::write(&new, allowed.to_string())?;
        fs::File::open(&new)?.sync_all()?;
        fs::rename(&new, &self.state)?;
        Ok(allowed)
    }

    fn sell(mut self, from: u64) {
        let opened = world::instant();
        let mut allowed = from;
        while !self.stop.is_set() {
            let orders = from + opened.elapsed().as_millis() as u64 * self.rate / 1000;
            let step = (|| {
                if orders + self.rate > allowed {
                    allowed = self.allow(orders).map_err(|e| e.to_string())?;
                }
                let counts = Counts::after(orders.min(allowed), self.rate);
                self.write_up_to(counts, counts).map_err(|e| reason(&e))
            })();
            if let Err(e) = step {
                tracing::warn!(error = %e, "the shop cannot write");
                world::sleep(PAUSE * 50);
            }
            self.producer.poll(PAUSE);
        }
        if let Err(e) = self.producer.flush(FLUSH_TIMEOUT) {
            tracing::debug!(error = %reason(&e), "the shop's last records");
        }
    }

    /// Writes each topic up to these numbers of records. `now`: how far the shop is at this moment; older records get earlier times.
    fn write_up_to(&mut self, counts: Counts, now: Counts) -> std::result::Result<(), KafkaError> {
        let micros = world::now_micros();
        for (topic, (until, current)) in counts.of().into_iter().zip(now.of()).enumerate() {
            let per_second = if topic == 2 { (self.rate / 10).max(1) } else { self.rate };
            while self.written[topic] < until {
                let i = self.written[topic];
                let age_micros = (current - i) * 1_000_000 / per_second;
                let at = micros - age_micros as i64;
                let (key, value) = if current - i > RETAINED {
                    (String::new(), Some(String::new()))
                } else {
                    match topic {
                        0 => order(i, at),
                        1 => payment(i, at),
                        _ => customer_change(i, at),
                    }
                };
                self.send(TOPICS[topic], &key, value.as_deref(), at)?;
                self.written[topic] = i + 1;
            }
        }
        Ok(())
    }

    fn send(
        &self,
        topic: &str,
        key: &str,
        value: Option<&str>,
        at: i64,
    ) -> std::result::Result<(), KafkaError> {
        let mut record: BaseRecord<'_, str, str> =
            BaseRecord::to(topic).partition(0).key(key).timestamp(at / 1000);
        record.payload = value;
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), again))
                    if !self.stop.is_set() =>
                {
                    self.producer.poll(PAUSE);
                    record = again;
                }
                Err((e, _)) => return Err(e),
            }
        }
    }
}

fn pick<'a>(from: &[&'a str], n: u64) -> &'a str {
    from[(n % from.len() as u64) as usize]
}

fn iso(micros: i64) -> String {
    let mut out = String::new();
    datetime::write_timestamp(micros, 'T', &mut out);
    out.push('Z');
    out
}

/// Cents of order `i`: price times quantity, which is 1 to 4.
fn order_cents(i: u64) -> u64 {
    (199 + mixed(i, 1) % 9_800) * (1 + mixed(i, 2) % 4)
}

fn order(i: u64, at: i64) -> (String, Option<String>) {
    const PRODUCTS: [&str; 8] =
        ["kettle", "lamp", "notebook", "backpack", "headphones", "teapot", "umbrella", "bicycle bell"];
    let cents = order_cents(i);
    let value = format!(
        "{{\"id\":{i},\"customer_id\":{},\"product\":\"{}\",\"quantity\":{},\"amount\":{}.{:02},\"placed_at\":\"{}\"}}",
        1 + mixed(i, 3) % CUSTOMERS,
        pick(&PRODUCTS, mixed(i, 4)),
        1 + mixed(i, 2) % 4,
        cents / 100,
        cents % 100,
        iso(at),
    );
    (i.to_string(), Some(value))
}

fn payment(i: u64, at: i64) -> (String, Option<String>) {
    let cents = if mixed(i, 5).is_multiple_of(40) { order_cents(i) / 2 } else { order_cents(i) };
    let value = format!(
        "{{\"id\":{i},\"order_id\":{i},\"method\":\"{}\",\"amount\":{}.{:02},\"paid_at\":\"{}\"}}",
        pick(&["card", "card", "transfer", "wallet"], mixed(i, 6)),
        cents / 100,
        cents % 100,
        iso(at),
    );
    (i.to_string(), Some(value))
}

/// First every customer as a snapshot tells it; then, over and over, five updates and one who leaves and comes back.
fn customer_change(i: u64, at: i64) -> (String, Option<String>) {
    let Some(later) = i.checked_sub(CUSTOMERS) else {
        return customer_event(i + 1, 0, "r", at);
    };
    let (round, step) = (later / 8, later % 8);
    let leaver = 1 + mixed(round, 7) % CUSTOMERS;
    match step {
        0..=4 => customer_event(1 + mixed(i, 8) % CUSTOMERS, i, "u", at),
        5 => customer_event(leaver, 0, "d", at),
        6 => (format!("{{\"id\":{leaver}}}"), None),
        _ => customer_event(leaver, i, "c", at),
    }
}

fn customer_event(id: u64, version: u64, op: &str, at: i64) -> (String, Option<String>) {
    const FIRST: [&str; 10] =
        ["Ada", "Blaise", "Chiara", "Dmitri", "Emmy", "Farid", "Grace", "Hedy", "Ines", "José"];
    const LAST: [&str; 7] = ["Becker", "Costa", "Dubois", "Eriksen", "Fischer", "García", "Hansen"];
    let key = format!("{{\"id\":{id}}}");
    let source = format!(
        "\"source\":{{\"connector\":\"postgresql\",\"table\":\"customers\"}},\"ts_ms\":{}",
        at / 1000
    );
    if op == "d" {
        // As PostgreSQL tells it by default: the key, and nothing else of the row.
        let before = format!("{{\"id\":{id},\"name\":null,\"email\":null,\"country\":null,\"tier\":null}}");
        return (key, Some(format!("{{\"before\":{before},\"after\":null,{source},\"op\":\"d\"}}")));
    }
    let after = format!(
        "{{\"id\":{id},\"name\":\"{} {}\",\"email\":\"customer{id}@example.com\",\"country\":\"{}\",\"tier\":\"{}\"}}",
        pick(&FIRST, mixed(id, 9)),
        pick(&LAST, mixed(id, 10)),
        pick(&["DE", "FR", "IT", "NL", "PT", "SE"], mixed(id, 11)),
        pick(&["basic", "basic", "silver", "gold"], mixed(id + version, 12)),
    );
    (key, Some(format!("{{\"before\":null,\"after\":{after},{source},\"op\":\"{op}\"}}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_functions_of_their_number() {
        for i in [0, 59, 60, 65, 66, 67, 1000] {
            assert_eq!(order(i, 0), order(i, 0));
            assert_eq!(customer_change(i, 0), customer_change(i, 0));
            for (_, value) in [order(i, 0), payment(i, 0), customer_change(i, 0)] {
                if let Some(text) = value {
                    serde_json::from_str::<serde_json::Value>(&text).unwrap();
                }
            }
        }
        assert_eq!(customer_change(66, 0).1, None);
        assert_eq!(
            order(0, 1_000_000).1.unwrap().rsplit_once(',').unwrap().1,
            "\"placed_at\":\"1970-01-01T00:00:01Z\"}"
        );
    }

    #[test]
    fn a_payment_never_comes_before_its_order() {
        for orders in [0, 1, 199, 200, 5000] {
            let counts = Counts::after(orders, 200);
            assert!(counts.payments <= counts.orders);
        }
    }
}
