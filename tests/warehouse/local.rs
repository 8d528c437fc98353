//! The directory: the same sync loop into Parquet files under a manifest.

use std::path::{Path, PathBuf};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Decimal128Type, Int64Type, TimestampMicrosecondType};
use libtest_mimic::Failed;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tidemill::connectors::StopFlag;
use tidemill::connectors::warehouse::local::{FileFormat, LocalWarehouse, read_manifest};
use tidemill::connectors::warehouse::staging::staged_rows;
use tidemill::connectors::warehouse::{Batch, Effect, Net, Op, Progress, Remedy, Shape, Warehouse};

use super::history::{History, Kind, batch, row_text};
use super::{END, Task, crash_at, same};

fn task(root: &Path, kind: Kind, seed: u64) -> Task {
    Task {
        sink: "files",
        url: format!("file://{}", root.join("w").display()),
        table: "t".to_string(),
        memory: root.join("memory"),
        kind,
        seed,
        format: "parquet",
    }
}

fn table_of(task: &Task) -> PathBuf {
    PathBuf::from(task.url.trim_start_matches("file://")).join(&task.table)
}

/// The rows that any reader of Parquet finds, knowing nothing of manifests.
fn rows(table: &Path) -> Vec<String> {
    let mut rows = Vec::new();
    for entry in std::fs::read_dir(table).expect("the table") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|e| e != "parquet") {
            continue;
        }
        let file = std::fs::File::open(&path).expect("a file");
        let reader =
            ParquetRecordBatchReaderBuilder::try_new(file).expect("Parquet").build().expect("a reader");
        for batch in reader {
            rows.extend(row_texts(&batch.expect("rows")));
        }
    }
    rows.sort();
    rows
}

fn row_texts(rows: &RecordBatch) -> Vec<String> {
    let number = |name: &str| rows[name].as_primitive::<Int64Type>();
    let (k, v, name) = (number("k"), number("v"), rows["name"].as_string::<i32>());
    let (amount, flag) = (rows["amount"].as_primitive::<Decimal128Type>(), rows["flag"].as_boolean());
    let (at, doc) = (rows["at"].as_primitive::<TimestampMicrosecondType>(), rows["doc"].as_string::<i32>());
    let text = |i: usize| {
        let k = if k.is_null(i) { "NULL".to_string() } else { k.value(i).to_string() };
        let name = if name.is_null(i) { "NULL" } else { name.value(i) };
        let doc: serde_json::Value = serde_json::from_str(doc.value(i)).expect("JSON");
        format!(
            "{k}|{}|{name}|{}.{:02}|{}|{}|{}",
            v.value(i),
            amount.value(i) / 100,
            amount.value(i) % 100,
            flag.value(i),
            at.value(i),
            doc["v"]
        )
    };
    (0..rows.num_rows()).map(text).collect()
}

pub fn crash(kind: Kind, point: &str) -> Result<(), Failed> {
    let root = tempfile::tempdir()?;
    crash_at(
        &[1, 2, 3],
        |passing| task(&root.path().join(passing.to_string()), kind, passing),
        point,
        |task, finished| {
            let table = table_of(task);
            let Some(manifest) = read_manifest(&table)? else {
                return if finished { Err("no manifest".into()) } else { Ok(()) };
            };
            // Renames that are still to be made are made by the next to open the table.
            let settled = manifest.files.iter().all(|f| f.pending.is_none());
            if settled && manifest.generation > 0 {
                same(rows(&table), &task.history().model(manifest.epoch), "between")?;
            }
            if finished {
                if !settled || manifest.epoch != END {
                    return Err(format!("not finished: {manifest:?}").into());
                }
                let staged = std::fs::read_dir(table.join(".stage").join(task.uuid().to_string()))?.count();
                if staged > 1 {
                    return Err(format!("{staged} staged batches were left").into());
                }
            }
            Ok(())
        },
    )
}

pub fn histories(kind: Kind) -> Result<(), Failed> {
    for seed in 100..130 {
        let root = tempfile::tempdir()?;
        let task = task(root.path(), kind, seed);
        let status = task.run_here()?.get();
        same(rows(&table_of(&task)), &task.history().model(END), "at the end")?;
        if status.tick_committed != Some(END) || status.commits == 0 || status.freshness_micros.is_none() {
            return Err(format!("{status:?}").into());
        }
    }
    Ok(())
}

pub fn formats() -> Result<(), Failed> {
    let root = tempfile::tempdir()?;
    for format in ["json", "csv"] {
        let mut task = task(&root.path().join(format), Kind::Append, 5);
        task.format = format;
        task.run_here()?;
        let mut lines = 0;
        for entry in std::fs::read_dir(table_of(&task))? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == format) && !path.ends_with("manifest.json") {
                let text = std::fs::read_to_string(&path)?;
                lines += text.lines().count() - usize::from(format == "csv");
                if format == "json" {
                    let first: serde_json::Value =
                        serde_json::from_str(text.lines().next().unwrap_or_default())?;
                    if first["v"].as_i64().is_none() {
                        return Err(format!("{first}").into());
                    }
                }
            }
        }
        if lines != task.history().model(END).len() {
            return Err(format!("{lines} lines of {format}").into());
        }
    }
    // Rows that go away cannot be taken out of such files.
    let mut task = task(&root.path().join("bag"), Kind::Bag, 5);
    task.format = "json";
    match task.run_here() {
        Err(e) if e.sqlstate == tidemill::SqlState::FEATURE_NOT_SUPPORTED => Ok(()),
        other => Err(format!("{other:?}").into()),
    }
}

pub fn stale_writer() -> Result<(), Failed> {
    let root = tempfile::tempdir()?;
    let table = root.path().join("t");
    super::stale_writer(|| {
        let shape = Shape::new(History::schema(), &[0], false);
        let uuid = uuid::Uuid::from_u128(1);
        Box::new(LocalWarehouse::new(table.clone(), uuid, shape, FileFormat::Parquet).expect("a warehouse"))
    })?;
    same(rows(&table), &[row_text(Some(1), 3)], "after all")
}

/// A file that somebody changed is noticed when the sink's next change does not find its row, and healed by a snapshot.
pub fn damage() -> Result<(), Failed> {
    let root = tempfile::tempdir()?;
    let mut task = task(root.path(), Kind::Keyed, 8);
    task.run_here()?;
    let table = table_of(&task);
    let file = std::fs::read_dir(&table)?
        .filter_map(|e| Some(e.ok()?.path()))
        .find(|p| p.extension().is_some_and(|e| e == "parquet"))
        .ok_or("no file")?;
    let empty = tidemill::connectors::warehouse::staging::parquet_bytes(&{
        let reader = ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(&file)?)?;
        RecordBatch::new_empty(reader.schema().clone())
    })?;
    std::fs::write(&file, empty)?;
    // Seed 8 goes on as seed 8 with three more ticks would; the first change of a lost row tells.
    let shape = Shape::new(History::schema(), &[0], false);
    let mut warehouse = LocalWarehouse::new(table.clone(), task.uuid(), shape.clone(), FileFormat::Parquet)?;
    let from = warehouse.open(&StopFlag::default()).map_err(|f| f.error)?;
    let net = Net {
        ops: vec![Op::Delete],
        hashes: Vec::new(),
        copies: Vec::new(),
        rows: batch(&[(Some(1_000), 7)]),
    };
    let staged = staged_rows(&shape, &net, &warehouse.encode(&net.rows)?)?;
    let to = Progress { epoch: from.epoch + 1, ..from };
    let directory = format!("{}/x/", task.uuid());
    let mut batch = Batch {
        effect: Effect::Advance,
        from,
        to,
        directory,
        files: Vec::new(),
        ranges: Vec::new(),
        counts: net.counts(),
    };
    batch.files = warehouse.stage(&batch, &staged, 1 << 20).map_err(|f| f.error)?;
    match warehouse.apply(&batch) {
        Err(failure) if failure.remedy == Remedy::Snapshot => {}
        other => return Err(format!("{other:?}").into()),
    }
    // What the loop does then: the next start is given a snapshot.
    task.memory = root.path().join("memory of nothing");
    task.run_here()?;
    same(rows(&table), &task.history().model(END), "healed")
}
