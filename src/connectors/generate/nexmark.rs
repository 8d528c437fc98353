//! The events of the Nexmark benchmark (an online auction: persons, auctions, bids) as Arrow batches.
//!
//! Event `n` is a function of `n` and the seed alone. Seed 0 gives the standard stream, as other systems
//! generate it. Of 50 events one is a person, three are auctions and 46 are bids; event time goes on by
//! 100 µs an event from 2015-07-15, whatever the rate at which the events are handed over.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Builder, RecordBatch, StringViewBuilder, TimestampMicrosecondBuilder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use nexmark::EventGenerator;
use nexmark::config::NexmarkConfig;
use nexmark::event::{Auction, Bid, Event, Person};

use super::stream::{Events, Stream};
use crate::connectors::Discovered;
use crate::error::Result;

/// Event time of event 0: 2015-07-15T00:00:00Z, as in the original benchmark; ms since 1970.
const BASE_TIME_MILLIS: u64 = 1_436_918_400_000;

/// Events between the streams of two neighbouring seeds, in epochs of 50 events.
const EPOCHS_PER_SEED: usize = 1_000_000;

/// One of the three relations of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// Somebody who sells or bids.
    Person,
    /// An item for sale.
    Auction,
    /// A bid of a person for an auction.
    Bid,
}

impl Relation {
    /// All of them, in the order in which [`EventBatches`] holds them.
    pub const ALL: [Relation; 3] = [Relation::Person, Relation::Auction, Relation::Bid];

    /// Its SQL name.
    pub fn name(self) -> &'static str {
        match self {
            Relation::Person => "person",
            Relation::Auction => "auction",
            Relation::Bid => "bid",
        }
    }

    /// Its columns, named as in the Nexmark queries of other SQL systems; none is ever NULL.
    pub fn schema(self) -> SchemaRef {
        let columns: &[(&str, Kind)] = match self {
            Relation::Person => &[
                ("id", Kind::Int),
                ("name", Kind::Text),
                ("email_address", Kind::Text),
                ("credit_card", Kind::Text),
                ("city", Kind::Text),
                ("state", Kind::Text),
                ("date_time", Kind::Time),
                ("extra", Kind::Text),
            ],
            Relation::Auction => &[
                ("id", Kind::Int),
                ("item_name", Kind::Text),
                ("description", Kind::Text),
                ("initial_bid", Kind::Int),
                ("reserve", Kind::Int),
                ("date_time", Kind::Time),
                ("expires", Kind::Time),
                ("seller", Kind::Int),
                ("category", Kind::Int),
                ("extra", Kind::Text),
            ],
            Relation::Bid => &[
                ("auction", Kind::Int),
                ("bidder", Kind::Int),
                ("price", Kind::Int),
                ("channel", Kind::Text),
                ("url", Kind::Text),
                ("date_time", Kind::Time),
                ("extra", Kind::Text),
            ],
        };
        let fields: Vec<Field> = columns.iter().map(|(n, k)| Field::new(*n, k.data_type(), false)).collect();
        Arc::new(Schema::new(fields))
    }
}

/// The types that occur in the benchmark.
#[derive(Clone, Copy)]
enum Kind {
    Int,
    Text,
    Time,
}

impl Kind {
    fn data_type(self) -> DataType {
        match self {
            Kind::Int => DataType::Int64,
            Kind::Text => DataType::Utf8View,
            Kind::Time => DataType::Timestamp(TimeUnit::Microsecond, None),
        }
    }
}

/// Some consecutive events, by relation; within a relation in their order.
#[derive(Clone, Debug)]
pub struct EventBatches {
    /// Columns of [`Relation::Person`].
    pub person: RecordBatch,
    /// Columns of [`Relation::Auction`].
    pub auction: RecordBatch,
    /// Columns of [`Relation::Bid`].
    pub bid: RecordBatch,
}

impl EventBatches {
    /// The batch of one relation.
    pub fn get(&self, relation: Relation) -> &RecordBatch {
        match relation {
            Relation::Person => &self.person,
            Relation::Auction => &self.auction,
            Relation::Bid => &self.bid,
        }
    }
}

/// Makes events one after another, as batches.
#[derive(Debug)]
pub struct EventStream {
    events: EventGenerator,
    ids: IdShift,
    schemas: [SchemaRef; 3],
}

/// What is taken off the generator's ids so that every seed's ids start as the standard stream's do.
#[derive(Clone, Copy, Debug)]
struct IdShift {
    person: i64,
    auction: i64,
}

impl EventStream {
    /// The events from number `first_event` (0 is the first of all) on.
    ///
    /// The generator draws event `n` from the number `n` alone, so another seed is another stretch of
    /// its numbers; the first events of such a stretch may speak of persons and auctions before it.
    pub fn new(seed: u32, first_event: u64) -> Self {
        let defaults = NexmarkConfig::default();
        let epochs = seed as usize * EPOCHS_PER_SEED;
        let events_per_epoch =
            defaults.person_proportion + defaults.auction_proportion + defaults.bid_proportion;
        let ids = IdShift {
            person: (epochs * defaults.person_proportion) as i64,
            auction: (epochs * defaults.auction_proportion) as i64,
        };
        let config = NexmarkConfig {
            base_time: BASE_TIME_MILLIS,
            first_event_id: epochs * events_per_epoch,
            ..defaults
        };
        EventStream {
            events: EventGenerator::new(config).with_offset(first_event),
            ids,
            schemas: Relation::ALL.map(Relation::schema),
        }
    }

    /// The number of the next event.
    pub fn position(&self) -> u64 {
        self.events.offset()
    }

    /// The next `n` events.
    pub fn take_batches(&mut self, n: usize) -> Result<EventBatches> {
        let mut persons = PersonBuilder::default();
        let mut auctions = AuctionBuilder::default();
        let mut bids = BidBuilder::default();
        for event in self.events.by_ref().take(n) {
            match event {
                Event::Person(p) => persons.append(p, self.ids),
                Event::Auction(a) => auctions.append(a, self.ids),
                Event::Bid(b) => bids.append(b, self.ids),
            }
        }
        let [person, auction, bid] = &self.schemas;
        Ok(EventBatches {
            person: RecordBatch::try_new(Arc::clone(person), persons.finish())?,
            auction: RecordBatch::try_new(Arc::clone(auction), auctions.finish())?,
            bid: RecordBatch::try_new(Arc::clone(bid), bids.finish())?,
        })
    }
}

impl Stream for EventStream {
    const NAME: &'static str = "NEXMARK";

    fn relations() -> Vec<Discovered> {
        let relation =
            |r: Relation| Discovered { upstream: r.name().to_string(), schema: r.schema(), key: Vec::new() };
        Relation::ALL.map(relation).to_vec()
    }

    fn new(seed: u32, first: u64) -> Self {
        EventStream::new(seed, first)
    }

    fn position(&self) -> u64 {
        self.events.offset()
    }

    fn take(&mut self, n: usize) -> Result<Vec<Events>> {
        let EventBatches { person, auction, bid } = self.take_batches(n)?;
        Ok([person, auction, bid].map(|rows| Events { rows, deletes: None }).into())
    }
}

fn micros(millis: u64) -> i64 {
    millis as i64 * 1000
}

#[derive(Default)]
struct PersonBuilder {
    id: Int64Builder,
    name: StringViewBuilder,
    email_address: StringViewBuilder,
    credit_card: StringViewBuilder,
    city: StringViewBuilder,
    state: StringViewBuilder,
    date_time: TimestampMicrosecondBuilder,
    extra: StringViewBuilder,
}

impl PersonBuilder {
    fn append(&mut self, p: Person, shift: IdShift) {
        self.id.append_value(p.id as i64 - shift.person);
        self.name.append_value(p.name);
        self.email_address.append_value(p.email_address);
        self.credit_card.append_value(p.credit_card);
        self.city.append_value(p.city);
        self.state.append_value(p.state);
        self.date_time.append_value(micros(p.date_time));
        self.extra.append_value(p.extra);
    }

    fn finish(mut self) -> Vec<ArrayRef> {
        vec![
            Arc::new(self.id.finish()),
            Arc::new(self.name.finish()),
            Arc::new(self.email_address.finish()),
            Arc::new(self.credit_card.finish()),
            Arc::new(self.city.finish()),
            Arc::new(self.state.finish()),
            Arc::new(self.date_time.finish()),
            Arc::new(self.extra.finish()),
        ]
    }
}

#[derive(Default)]
struct AuctionBuilder {
    id: Int64Builder,
    item_name: StringViewBuilder,
    description: StringViewBuilder,
    initial_bid: Int64Builder,
    reserve: Int64Builder,
    date_time: TimestampMicrosecondBuilder,
    expires: TimestampMicrosecondBuilder,
    seller: Int64Builder,
    category: Int64Builder,
    extra: StringViewBuilder,
}

impl AuctionBuilder {
    fn append(&mut self, a: Auction, shift: IdShift) {
        self.id.append_value(a.id as i64 - shift.auction);
        self.item_name.append_value(a.item_name);
        self.description.append_value(a.description);
        self.initial_bid.append_value(a.initial_bid as i64);
        self.reserve.append_value(a.reserve as i64);
        self.date_time.append_value(micros(a.date_time));
        self.expires.append_value(micros(a.expires));
        self.seller.append_value(a.seller as i64 - shift.person);
        self.category.append_value(a.category as i64);
        self.extra.append_value(a.extra);
    }

    fn finish(mut self) -> Vec<ArrayRef> {
        vec![
            Arc::new(self.id.finish()),
            Arc::new(self.item_name.finish()),
            Arc::new(self.description.finish()),
            Arc::new(self.initial_bid.finish()),
            Arc::new(self.reserve.finish()),
            Arc::new(self.date_time.finish()),
            Arc::new(self.expires.finish()),
            Arc::new(self.seller.finish()),
            Arc::new(self.category.finish()),
            Arc::new(self.extra.finish()),
        ]
    }
}

#[derive(Default)]
struct BidBuilder {
    auction: Int64Builder,
    bidder: Int64Builder,
    price: Int64Builder,
    channel: StringViewBuilder,
    url: StringViewBuilder,
    date_time: TimestampMicrosecondBuilder,
    extra: StringViewBuilder,
}

impl BidBuilder {
    fn append(&mut self, b: Bid, shift: IdShift) {
        self.auction.append_value(b.auction as i64 - shift.auction);
        self.bidder.append_value(b.bidder as i64 - shift.person);
        self.price.append_value(b.price as i64);
        self.channel.append_value(b.channel);
        self.url.append_value(b.url);
        self.date_time.append_value(micros(b.date_time));
        self.extra.append_value(b.extra);
    }

    fn finish(mut self) -> Vec<ArrayRef> {
        vec![
            Arc::new(self.auction.finish()),
            Arc::new(self.bidder.finish()),
            Arc::new(self.price.finish()),
            Arc::new(self.channel.finish()),
            Arc::new(self.url.finish()),
            Arc::new(self.date_time.finish()),
            Arc::new(self.extra.finish()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::datatypes::{Int64Type, TimestampMicrosecondType};

    use super::*;

    #[test]
    fn event_zero_is_the_standard_first_person() {
        let batches = EventStream::new(0, 0).take_batches(50).unwrap();
        let counts = Relation::ALL.map(|r| batches.get(r).num_rows());
        assert_eq!(counts, [1, 3, 46]);
        let person = &batches.person;
        assert_eq!(person.column_by_name("id").unwrap().as_primitive::<Int64Type>().value(0), 1000);
        assert_eq!(person.column_by_name("name").unwrap().as_string_view().value(0), "vicky noris");
        let time = person.column_by_name("date_time").unwrap().as_primitive::<TimestampMicrosecondType>();
        assert_eq!(time.value(0), 1_436_918_400_000_000);
    }

    #[test]
    fn a_position_gives_the_same_rows_as_running_up_to_it() {
        for seed in [0, 7] {
            let mut whole = EventStream::new(seed, 0);
            whole.take_batches(777).unwrap();
            let expected = whole.take_batches(500).unwrap();
            let mut resumed = EventStream::new(seed, 777);
            let got = resumed.take_batches(500).unwrap();
            assert_eq!(resumed.position(), 1277);
            for relation in Relation::ALL {
                assert_eq!(got.get(relation), expected.get(relation));
            }
        }
    }

    #[test]
    fn another_seed_is_another_stream_with_ids_of_the_same_range() {
        let standard = EventStream::new(0, 0).take_batches(5000).unwrap();
        let other = EventStream::new(3, 0).take_batches(5000).unwrap();
        assert_eq!(standard.person.column(0), other.person.column(0));
        assert_eq!(standard.auction.column(0), other.auction.column(0));
        assert_ne!(standard.bid.column(2), other.bid.column(2));
        let bidders = other.bid.column(1).as_primitive::<Int64Type>();
        assert!(bidders.values().iter().all(|id| (0..1200).contains(id)));
    }
}
