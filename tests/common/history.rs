//! A made-up history of a relation, and the sink's world around it: what the engine would be to a sink.
//!
//! A history is known by its seed, so that a process that is killed and the one that comes after it see the same.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    ArrayRef, BooleanArray, Decimal128Array, Int64Array, RecordBatch, StringViewArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use tidemill::Result;
use tidemill::connectors::{
    Changes, MEMORY_COMMITTED, MEMORY_INTENT, Memory, Sink, SinkContext, Status, StopFlag,
};
use tidemill::engine::{Delta, Tick, TickDelta};

/// The tick at which a sink is created.
pub const SNAPSHOT: Tick = 3;

/// How the history's rows are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Keyed,
    Bag,
    Append,
}

impl Kind {
    pub fn parse(name: &str) -> Kind {
        match name {
            "keyed" => Kind::Keyed,
            "bag" => Kind::Bag,
            "append" => Kind::Append,
            _ => panic!("no kind {name}"),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Kind::Keyed => "keyed",
            Kind::Bag => "bag",
            Kind::Append => "append",
        }
    }

    pub fn key(self) -> Vec<usize> {
        if self == Kind::Keyed { vec![0] } else { Vec::new() }
    }
}

/// A row in short: its key (`None`: NULL) and a value that all other columns follow from.
type Short = (Option<i64>, i64);

#[derive(Clone, Debug)]
pub struct History {
    pub kind: Kind,
    /// The last tick.
    pub end: Tick,
    /// The changes of tick `i + 1`.
    ticks: Vec<Vec<(Short, i64)>>,
}

impl History {
    pub fn new(kind: Kind, seed: u64, end: Tick) -> Self {
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = move |n: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % n
        };
        let mut rows = BTreeMap::<Short, i64>::new();
        let mut ticks = Vec::new();
        for tick in 1..=end {
            let mut changes = Vec::new();
            for _ in 0..next(9) {
                let key = (next(12) as i64).checked_sub(1).filter(|k| *k >= 0);
                let row = (key, next(if kind == Kind::Bag { 3 } else { 1_000 }) as i64);
                match kind {
                    Kind::Append => changes.push((row, 1 + next(2) as i64)),
                    Kind::Bag => {
                        let there = rows.get(&row).copied().unwrap_or(0);
                        let weight = if there > 0 && next(2) == 0 {
                            -(1 + next(there as u64) as i64)
                        } else {
                            1 + next(3) as i64
                        };
                        changes.push((row, weight));
                    }
                    Kind::Keyed => {
                        let there = rows.iter().find(|((k, _), w)| *k == key && **w > 0).map(|(r, _)| *r);
                        if let Some(there) = there {
                            changes.push((there, -1));
                        }
                        if there.is_none() || next(3) > 0 {
                            changes.push((row, 1));
                        }
                    }
                }
                // Recomputed from scratch, so that a change is never counted twice.
                rows = BTreeMap::new();
                for (row, weight) in ticks.iter().flatten().chain(&changes) {
                    *rows.entry(*row).or_insert(0) += weight;
                }
            }
            if tick == end {
                // Without a change the last tick would need no commit.
                changes.push(((Some(1_000), 7), 1));
            }
            ticks.push(changes);
        }
        History { kind, end, ticks }
    }

    pub fn schema() -> SchemaRef {
        let json = Field::new("doc", DataType::Utf8View, true)
            .with_metadata([("tidemill.type".to_string(), "jsonb".to_string())].into());
        Arc::new(Schema::new(vec![
            Field::new("k", DataType::Int64, true),
            Field::new("v", DataType::Int64, false),
            Field::new("name", DataType::Utf8View, true),
            Field::new("amount", DataType::Decimal128(12, 2), true),
            Field::new("flag", DataType::Boolean, true),
            Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into())), true),
            json,
        ]))
    }

    /// What a target must hold at a tick: rows as [`row_text`] writes them, sorted.
    pub fn model(&self, tick: Tick) -> Vec<String> {
        let mut rows = BTreeMap::<Short, i64>::new();
        for (row, weight) in self.ticks[..tick as usize].iter().flatten() {
            *rows.entry(*row).or_insert(0) += weight;
        }
        let mut texts = Vec::new();
        for ((k, v), weight) in rows {
            assert!(weight >= 0, "the history takes away what is not there");
            texts.extend((0..weight).map(|_| row_text(k, v)));
        }
        texts.sort();
        texts
    }

    /// The net change of some ticks, as the engine would give it.
    fn delta(&self, ticks: std::ops::RangeInclusive<Tick>) -> Delta {
        let mut net = BTreeMap::<Short, i64>::new();
        for (row, weight) in ticks.flat_map(|t| &self.ticks[t as usize - 1]) {
            *net.entry(*row).or_insert(0) += weight;
        }
        net.retain(|_, weight| *weight != 0);
        let (rows, weights): (Vec<Short>, Vec<i64>) = net.into_iter().unzip();
        Delta { rows: batch(&rows), weights: Some(weights.into()) }
    }

    fn snapshot(&self, tick: Tick) -> Vec<RecordBatch> {
        let mut rows = BTreeMap::<Short, i64>::new();
        for (row, weight) in self.ticks[..tick as usize].iter().flatten() {
            *rows.entry(*row).or_insert(0) += weight;
        }
        let rows: Vec<Short> = rows.into_iter().flat_map(|(row, w)| (0..w).map(move |_| row)).collect();
        vec![batch(&rows)]
    }
}

fn name_of(v: i64) -> Option<String> {
    match v % 5 {
        0 => None,
        1 => Some(String::new()),
        _ => Some(format!("näme {v}, a longer text that is not kept inline")),
    }
}

/// A row as text, as every target's rows are written for comparison.
pub fn row_text(k: Option<i64>, v: i64) -> String {
    let k = k.map_or("NULL".to_string(), |k| k.to_string());
    let name = name_of(v).unwrap_or("NULL".to_string());
    let at = 1_700_000_000_000_000 + v;
    format!("{k}|{v}|{name}|{}.{:02}|{}|{at}|{v}", v * 7 / 100, v * 7 % 100, v % 2 == 0)
}

pub fn batch(rows: &[Short]) -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(rows.iter().map(|r| r.0).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|r| Some(r.1)).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|r| name_of(r.1)).collect::<StringViewArray>()),
        Arc::new(
            rows.iter()
                .map(|r| Some(i128::from(r.1) * 7))
                .collect::<Decimal128Array>()
                .with_precision_and_scale(12, 2)
                .expect("a decimal type"),
        ),
        Arc::new(rows.iter().map(|r| Some(r.1 % 2 == 0)).collect::<BooleanArray>()),
        Arc::new(
            rows.iter()
                .map(|r| Some(1_700_000_000_000_000 + r.1))
                .collect::<TimestampMicrosecondArray>()
                .with_timezone("+00:00"),
        ),
        Arc::new(rows.iter().map(|r| Some(format!("{{\"v\": {}}}", r.1))).collect::<StringViewArray>()),
    ];
    RecordBatch::try_new(History::schema(), columns).expect("rows of the history's schema")
}

/// The history as a sink follows it. Some ticks come together, never over the tick that was intended.
struct Following {
    history: History,
    start: Tick,
    snapshot: bool,
    at: Tick,
    intent: Tick,
}

impl Changes for Following {
    fn start_tick(&self) -> Tick {
        self.start
    }

    fn snapshot(&mut self) -> Result<Option<Vec<RecordBatch>>> {
        Ok(self.snapshot.then(|| self.history.snapshot(self.start)))
    }

    fn next(&mut self, timeout: Duration) -> Result<Option<TickDelta>> {
        if self.at == self.history.end {
            std::thread::sleep(timeout);
            return Ok(None);
        }
        let from = self.at + 1;
        let together = from.is_multiple_of(3) && from < self.history.end && from != self.intent;
        self.at = if together { from + 1 } else { from };
        Ok(Some(TickDelta { tick: self.at, delta: Some(self.history.delta(from..=self.at)) }))
    }
}

/// A sink's memory as files.
struct Files(PathBuf);

impl Memory for Files {
    fn get(&self, name: &str) -> Result<Option<Vec<u8>>> {
        Ok(std::fs::read(self.0.join(name)).ok())
    }

    fn put(&self, name: &str, value: &[u8]) -> Result<()> {
        let next = self.0.join(format!("{name}.next"));
        std::fs::write(&next, value)?;
        Ok(std::fs::rename(next, self.0.join(name))?)
    }
}

/// The file in a sink's memory that has what would be rows of `tidemill.errors`, a line each.
pub const REFUSED: &str = "refused";

/// Runs a sink over a history until it has committed the last tick, or fails. `memory`: an existing directory.
pub fn follow(
    sink: Box<dyn Sink>,
    history: History,
    uuid: uuid::Uuid,
    memory: PathBuf,
    status: Arc<Status>,
) -> Result<()> {
    let refused = memory.join(REFUSED);
    let memory = Arc::new(Files(memory));
    let tick = |name: &str| -> Option<Tick> {
        let value = memory.get(name).expect("the sink's memory")?;
        value.try_into().ok().map(Tick::from_be_bytes)
    };
    let committed = tick(MEMORY_COMMITTED);
    // As the database does: whoever was about to commit first, and may have, is given the whole history as changes.
    let intent = tick(MEMORY_INTENT);
    let snapshot = committed.is_none() && intent.is_none();
    let start = committed.unwrap_or(if snapshot { SNAPSHOT } else { 0 });
    let stop = StopFlag::default();
    let (end, at_end) = (history.end, stop.clone());
    let refused: tidemill::connectors::Refused = Arc::new(move |bad| {
        use std::io::Write as _;
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(&refused)?;
        for record in bad {
            let raw = record.raw.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
            writeln!(file, "{}|{}|{}|{raw}", record.sqlstate, record.reason, record.position)?;
        }
        Ok(file.sync_all()?)
    });
    let context = SinkContext {
        name: "s".to_string(),
        uuid,
        schema: History::schema(),
        key: history.kind.key(),
        append_only: history.kind == Kind::Append,
        changes: Box::new(Following { start, snapshot, at: start, intent: intent.unwrap_or(0), history }),
        memory,
        release: Arc::new(move |tick| {
            if tick == end {
                at_end.stop();
            }
        }),
        status,
        refused,
        checks: Arc::new(tidemill::connectors::Checks::new(|| Err(tidemill::Error::internal("nobody asks")))),
        stop,
    };
    sink.run(context)
}
