//! The SHOP source: customers, their orders and payments, as a shop's database would report them: rows come, change
//! and go.
//!
//! Event `n` is a function of the seed and `n`. Of 20 events one brings a customer, one changes one, six bring orders, four
//! pay for orders, four mark them as paid, two mark older ones as shipped, one cancels an order, and one deletes an old one.
//! What an order costs, and who placed it, are functions of its number, so that an event can tell of an order without
//! a memory of it. Event time goes on by 100 ms an event from 2024-01-01.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanBuilder, Decimal128Builder, Int64Builder, RecordBatch, StringViewBuilder,
    TimestampMicrosecondBuilder,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use super::chance::mixed;
use super::stream::{Events, Stream};
use crate::connectors::Discovered;
use crate::error::Result;

/// 2024-01-01T00:00:00Z, µs since 1970.
const FIRST_TIME_MICROS: i64 = 1_704_067_200_000_000;
const MICROS_PER_EVENT: i64 = 100_000;
/// Events after which all kinds of them have come.
const ROUND: u64 = 20;
const ORDERS_PER_ROUND: u64 = 6;
const PAID_PER_ROUND: u64 = 4;
/// Rounds after which an order is shipped.
const SHIPPED_AFTER: u64 = 2;
/// Rounds after which the order that nobody paid for is deleted.
const DELETED_AFTER: u64 = 10;

const FIRST_NAMES: [&str; 8] = ["Ada", "Ben", "Chloé", "Dai", "Eva", "Finn", "Grace", "Hiro"];
const LAST_NAMES: [&str; 7] = ["Adler", "Brown", "Costa", "Dubois", "Endo", "Fischer", "Garcia"];
const COUNTRIES: [&str; 6] = ["DE", "FR", "GB", "JP", "PT", "US"];
const TIERS: [&str; 3] = ["basic", "silver", "gold"];
const METHODS: [&str; 4] = ["card", "transfer", "paypal", "invoice"];

/// The shop's events.
#[derive(Debug)]
pub struct Shop {
    salt: u64,
    next: u64,
}

/// What an event does, with the number of the order or customer that it is about; numbers begin at 0.
#[derive(Clone, Copy)]
enum Event {
    Customer(u64),
    Order(u64, &'static str),
    DeleteOrder(u64),
    Payment { number: u64, order: u64 },
}

fn event(n: u64) -> Event {
    let (round, step) = (n / ROUND, n % ROUND);
    let order = |round: u64, i: u64| round * ORDERS_PER_ROUND + i;
    match step {
        0 => Event::Customer(round),
        // Some customer there is; the step decides about the rest of the row.
        1 => Event::Customer(mixed(n, 0) % (round + 1)),
        2..8 => Event::Order(order(round, step - 2), "placed"),
        8..12 => Event::Payment { number: round * PAID_PER_ROUND + step - 8, order: order(round, step - 8) },
        12..16 => Event::Order(order(round, step - 12), "paid"),
        16..18 => Event::Order(order(round.saturating_sub(SHIPPED_AFTER), step - 16), "shipped"),
        18 => Event::Order(order(round, 4), "cancelled"),
        _ => Event::DeleteOrder(order(round.saturating_sub(DELETED_AFTER), 5)),
    }
}

/// When event `n` happens, in microseconds since 1970.
fn time(n: u64) -> i64 {
    let since = i64::try_from(n).unwrap_or(i64::MAX).saturating_mul(MICROS_PER_EVENT);
    FIRST_TIME_MICROS.saturating_add(since)
}

fn pick<'a>(of: &[&'a str], chance: u64) -> &'a str {
    of[(chance % of.len() as u64) as usize]
}

impl Shop {
    /// Cents that an order costs.
    fn total(&self, order: u64) -> i128 {
        i128::from(mixed(order, self.salt + 1) % 50_000 + 99)
    }

    /// The event that placed an order.
    fn placed(order: u64) -> u64 {
        order / ORDERS_PER_ROUND * ROUND + 2 + order % ORDERS_PER_ROUND
    }
}

fn schema(columns: &[(&str, DataType)]) -> SchemaRef {
    let fields: Vec<Field> = columns.iter().map(|(name, of)| Field::new(*name, of.clone(), false)).collect();
    Arc::new(Schema::new(fields))
}

const MONEY: DataType = DataType::Decimal128(12, 2);

fn timestamptz() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into()))
}

fn schemas() -> [(&'static str, SchemaRef); 3] {
    use DataType::{Int64, Utf8View};
    let customers = [
        ("id", Int64),
        ("name", Utf8View),
        ("email", Utf8View),
        ("country", Utf8View),
        ("tier", Utf8View),
        ("updated_at", timestamptz()),
    ];
    let orders = [
        ("id", Int64),
        ("customer_id", Int64),
        ("status", Utf8View),
        ("total", MONEY),
        ("placed_at", timestamptz()),
        ("updated_at", timestamptz()),
    ];
    let payments = [
        ("id", Int64),
        ("order_id", Int64),
        ("amount", MONEY),
        ("method", Utf8View),
        ("paid_at", timestamptz()),
    ];
    [("customers", schema(&customers)), ("orders", schema(&orders)), ("payments", schema(&payments))]
}

impl Stream for Shop {
    const NAME: &'static str = "SHOP";

    fn relations() -> Vec<Discovered> {
        let relation = |(name, schema): (&str, SchemaRef)| Discovered {
            upstream: name.to_string(),
            schema,
            key: vec![0],
        };
        schemas().map(relation).to_vec()
    }

    fn new(seed: u32, first: u64) -> Self {
        Shop { salt: u64::from(seed) << 4, next: first }
    }

    fn position(&self) -> u64 {
        self.next
    }

    fn take(&mut self, n: usize) -> Result<Vec<Events>> {
        let (mut customers, mut orders, mut payments) =
            (Customers::default(), Orders::new(), Payments::new());
        let end = self.next.saturating_add(n as u64);
        for n in self.next..end {
            match event(n) {
                Event::Customer(number) => customers.append(self, n, number),
                Event::Order(number, status) => orders.append(self, n, number, Some(status)),
                Event::DeleteOrder(number) => orders.append(self, n, number, None),
                Event::Payment { number, order } => payments.append(self, n, number, order),
            }
        }
        self.next = end;
        let [(_, of_customers), (_, of_orders), (_, of_payments)] = schemas();
        let deletes = orders.deletes.finish();
        Ok(vec![
            Events { rows: RecordBatch::try_new(of_customers, customers.finish())?, deletes: None },
            Events { rows: RecordBatch::try_new(of_orders, orders.finish())?, deletes: Some(deletes) },
            Events { rows: RecordBatch::try_new(of_payments, payments.finish())?, deletes: None },
        ])
    }
}

#[derive(Default)]
struct Customers {
    id: Int64Builder,
    name: StringViewBuilder,
    email: StringViewBuilder,
    country: StringViewBuilder,
    tier: StringViewBuilder,
    updated_at: Times,
}

impl Customers {
    fn append(&mut self, shop: &Shop, n: u64, number: u64) {
        let chance = mixed(number, shop.salt + 2);
        let (first, last) = (pick(&FIRST_NAMES, chance), pick(&LAST_NAMES, chance >> 16));
        self.id.append_value(number as i64 + 1);
        self.name.append_value(format!("{first} {last}"));
        self.email.append_value(format!("{}.{}@example.com", last.to_ascii_lowercase(), number + 1));
        self.country.append_value(pick(&COUNTRIES, chance >> 32));
        self.tier.append_value(pick(&TIERS, mixed(n, shop.salt + 3)));
        self.updated_at.append(n);
    }

    fn finish(mut self) -> Vec<ArrayRef> {
        vec![
            Arc::new(self.id.finish()),
            Arc::new(self.name.finish()),
            Arc::new(self.email.finish()),
            Arc::new(self.country.finish()),
            Arc::new(self.tier.finish()),
            self.updated_at.finish(),
        ]
    }
}

struct Orders {
    id: Int64Builder,
    customer_id: Int64Builder,
    status: StringViewBuilder,
    total: Decimal128Builder,
    placed_at: Times,
    updated_at: Times,
    deletes: BooleanBuilder,
}

impl Orders {
    fn new() -> Orders {
        Orders {
            id: Int64Builder::new(),
            customer_id: Int64Builder::new(),
            status: StringViewBuilder::new(),
            total: Decimal128Builder::new().with_data_type(MONEY),
            placed_at: Times::default(),
            updated_at: Times::default(),
            deletes: BooleanBuilder::new(),
        }
    }

    /// Without a status the order goes.
    fn append(&mut self, shop: &Shop, n: u64, number: u64, status: Option<&str>) {
        let placed = Shop::placed(number);
        let customer = mixed(number, shop.salt + 4) % (placed / ROUND + 1);
        self.id.append_value(number as i64 + 1);
        self.customer_id.append_value(customer as i64 + 1);
        self.status.append_value(status.unwrap_or("deleted"));
        self.total.append_value(shop.total(number));
        self.placed_at.append(placed);
        self.updated_at.append(n);
        self.deletes.append_value(status.is_none());
    }

    fn finish(mut self) -> Vec<ArrayRef> {
        vec![
            Arc::new(self.id.finish()),
            Arc::new(self.customer_id.finish()),
            Arc::new(self.status.finish()),
            Arc::new(self.total.finish()),
            self.placed_at.finish(),
            self.updated_at.finish(),
        ]
    }
}

struct Payments {
    id: Int64Builder,
    order_id: Int64Builder,
    amount: Decimal128Builder,
    method: StringViewBuilder,
    paid_at: Times,
}

impl Payments {
    fn new() -> Payments {
        Payments {
            id: Int64Builder::new(),
            order_id: Int64Builder::new(),
            amount: Decimal128Builder::new().with_data_type(MONEY),
            method: StringViewBuilder::new(),
            paid_at: Times::default(),
        }
    }

    fn append(&mut self, shop: &Shop, n: u64, number: u64, order: u64) {
        self.id.append_value(number as i64 + 1);
        self.order_id.append_value(order as i64 + 1);
        self.amount.append_value(shop.total(order));
        self.method.append_value(pick(&METHODS, mixed(number, shop.salt + 5)));
        self.paid_at.append(n);
    }

    fn finish(mut self) -> Vec<ArrayRef> {
        vec![
            Arc::new(self.id.finish()),
            Arc::new(self.order_id.finish()),
            Arc::new(self.amount.finish()),
            Arc::new(self.method.finish()),
            self.paid_at.finish(),
        ]
    }
}

/// A column of times of events.
#[derive(Default)]
struct Times(TimestampMicrosecondBuilder);

impl Times {
    fn append(&mut self, event: u64) {
        self.0.append_value(time(event));
    }

    fn finish(mut self) -> ArrayRef {
        Arc::new(self.0.finish().with_timezone("+00:00"))
    }
}
