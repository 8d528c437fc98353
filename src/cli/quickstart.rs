//! `tidemill quickstart`: the whole way from a Kafka topic to a warehouse, with nothing else installed.
//!
//! A broker and a lively shop run in this process; the server is the ordinary one; `quickstart.sql` goes through an
//! ordinary session. A second run finds everything there and goes on where the first one stopped.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::TryStreamExt;

use tidemill::connectors::kafka::mock::MockBroker;
use tidemill::connectors::kafka::shop::{Shop, TOPICS};
use tidemill::database::{Outcome, Session, SessionOptions};
use tidemill::{Config, Error, Result, SqlState, world};

use super::serve;

/// The statements, with `$BROKERS` and `$WAREHOUSE` to be filled in.
const STATEMENTS: &str = include_str!("quickstart.sql");
/// How often progress is told.
const REPORT: Duration = Duration::from_secs(2);
/// How often the first commit is looked for.
const LOOK: Duration = Duration::from_millis(100);

/// Runs until SIGINT or SIGTERM.
///
/// `broker`: where the Kafka broker listens; `rate`: orders a second.
pub fn run(config: Config, broker: SocketAddr, rate: u32) -> Result<()> {
    let started = world::instant();
    serve::log(&config);
    std::fs::create_dir_all(&config.data_dir)?;
    let kafka =
        MockBroker::start(broker).map_err(|e| e.with_hint("Another address can be given with --kafka."))?;
    for topic in TOPICS {
        kafka.create_topic(topic, 1)?;
    }
    let brokers = kafka.address().to_string();
    let shop = Shop::open(&brokers, &config.data_dir.join("shop"), rate)?;
    println!("A Kafka broker is at {brokers}, and a shop writes {rate} orders a second into it.");
    let warehouse = std::path::absolute(config.data_dir.join("warehouse"))?;
    let psql = config.listen;
    let served = serve::run_with(config, async |database| {
        let mut session = database.session(SessionOptions {
            user: "tidemill".into(),
            database: "tidemill".into(),
            application_name: "quickstart".into(),
            ..SessionOptions::default()
        });
        set_up(&mut session, &brokers, &warehouse).await?;
        report(&mut session, started, &warehouse, psql).await
    });
    // The database has let go of the broker; now the shop may close.
    drop(shop);
    served
}

/// Runs the statements; what is there from an earlier run stays.
async fn set_up(session: &mut Session, brokers: &str, warehouse: &Path) -> Result<()> {
    let text = STATEMENTS
        .replace("$BROKERS", brokers)
        .replace("$WAREHOUSE", &format!("file://{}", warehouse.display()));
    println!();
    for parsed in tidemill::sql::parse(&text)? {
        let title = parsed.text.lines().find(|l| !l.is_empty() && !l.starts_with("--")).unwrap_or_default();
        match rows(session, &parsed.text).await {
            Ok(_) => println!("  {title}"),
            Err(e) if [SqlState::DUPLICATE_OBJECT, SqlState::DUPLICATE_TABLE].contains(&e.sqlstate) => {
                println!("  {title}   -- is there from an earlier run");
            }
            Err(e) => return Err(e.with_detail(format!("In: {title}"))),
        }
    }
    Ok(())
}

async fn report(
    session: &mut Session,
    started: std::time::Instant,
    warehouse: &Path,
    psql: SocketAddr,
) -> Result<()> {
    let before = commits(session).await?;
    while commits(session).await? == before {
        tokio::time::sleep(LOOK).await;
    }
    println!();
    println!("The warehouse had its first commit {:.1} s after the start.", started.elapsed().as_secs_f64());
    println!("Its Parquet tables are below {}.", warehouse.display());
    println!();
    println!("Look inside:    psql -h {} -p {} -U tidemill tidemill", psql.ip(), psql.port());
    println!("  then, say:    SELECT * FROM revenue_by_country ORDER BY revenue DESC;");
    println!("                SELECT * FROM tidemill.sinks;");
    println!("Ctrl-C stops; the next `tidemill quickstart` goes on from here.");
    println!();
    let (mut rows_before, mut then) = (read_so_far(session).await?, world::instant());
    loop {
        tokio::time::sleep(REPORT).await;
        let (rows, now) = (read_so_far(session).await?, world::instant());
        let rate = (rows - rows_before) as f64 / (now - then).as_secs_f64();
        (rows_before, then) = (rows, now);
        let sinks = self::rows(
            session,
            "SELECT name, commits, rows_committed, freshness::text, coalesce(error, '') FROM tidemill.sinks ORDER BY name",
        )
        .await?;
        print!("{rows:>9} rows in, {rate:>6.0} rows/s");
        for sink in sinks {
            print!(" | {}: {} commits, {} rows, fresh to {} {}", sink[0], sink[1], sink[2], sink[3], sink[4]);
        }
        println!();
    }
}

/// Rows that the sources have handed over.
async fn read_so_far(session: &mut Session) -> Result<u64> {
    number(session, "SELECT coalesce(sum(rows), 0)::bigint FROM tidemill.sources").await
}

/// Commits of all sinks.
async fn commits(session: &mut Session) -> Result<u64> {
    number(session, "SELECT coalesce(sum(commits), 0)::bigint FROM tidemill.sinks").await
}

async fn number(session: &mut Session, sql: &str) -> Result<u64> {
    let rows = rows(session, sql).await?;
    let text = rows.first().and_then(|r| r.first());
    text.and_then(|t| t.parse().ok()).ok_or_else(|| Error::internal(format!("no number from: {sql}")))
}

/// A statement's rows as text.
async fn rows(session: &mut Session, sql: &str) -> Result<Vec<Vec<String>>> {
    let mut rows = Vec::new();
    let mut outcome = session.simple(sql).await?;
    while let Some(given) = outcome {
        if let Outcome::Rows { stream, .. } = given {
            let batches: Vec<RecordBatch> = stream.try_collect().await?;
            for batch in &batches {
                let options = FormatOptions::default();
                let columns = batch
                    .columns()
                    .iter()
                    .map(|c| ArrayFormatter::try_new(c, &options))
                    .collect::<Result<Vec<_>, _>>()?;
                rows.extend(
                    (0..batch.num_rows()).map(|i| columns.iter().map(|c| c.value(i).to_string()).collect()),
                );
            }
        }
        outcome = session.simple_next().await?;
    }
    Ok(rows)
}
