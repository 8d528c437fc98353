//! `tidemill sql`: a small client over the PostgreSQL protocol that prints tables.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use futures::{StreamExt, pin_mut};
use tokio_postgres::{NoTls, SimpleQueryMessage};

use tidemill::{Error, Result, SqlState};

/// Rows that are gathered before columns are aligned and printed; what follows keeps those widths.
const PAGE_ROWS: usize = 1000;

/// Where the server is and what it is to run.
#[derive(Args)]
pub struct SqlArguments {
    /// Statements
    #[arg(value_name = "SQL", required_unless_present = "file", conflicts_with = "file")]
    sql: Option<String>,
    /// A file of statements
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The server's host
    #[arg(long, default_value = "127.0.0.1", env = "PGHOST")]
    host: String,
    /// The server's port
    #[arg(short, long, default_value_t = 7432, env = "PGPORT")]
    port: u16,
    /// The user
    #[arg(short = 'U', long, default_value = "tidemill", env = "PGUSER")]
    user: String,
    /// The database
    #[arg(short, long, default_value = "tidemill", env = "PGDATABASE")]
    database: String,
}

fn failed(e: &tokio_postgres::Error) -> Error {
    let Some(db) = e.as_db_error() else {
        return Error::new(SqlState::CONNECTION_FAILURE, e.to_string());
    };
    let mut error = Error::new(SqlState::INTERNAL_ERROR, format!("{}: {}", db.code().code(), db.message()));
    error.detail = db.detail().map(str::to_string);
    error.hint = db.hint().map(str::to_string);
    error
}

/// Runs the statements one after the other and stops at the first error.
pub fn run(arguments: SqlArguments) -> Result<()> {
    let text = match (&arguments.sql, &arguments.file) {
        (Some(sql), _) => sql.clone(),
        (None, Some(file)) => std::fs::read_to_string(file)
            .map_err(|e| Error::new(SqlState::IO_ERROR, format!("cannot read {}: {e}", file.display())))?,
        (None, None) => String::new(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (client, mut connection) = tokio_postgres::Config::new()
            .host(&arguments.host)
            .port(arguments.port)
            .user(&arguments.user)
            .dbname(&arguments.database)
            .application_name("tidemill sql")
            .connect(NoTls)
            .await
            .map_err(|e| {
                Error::new(
                    SqlState::CONNECTION_FAILURE,
                    format!("cannot reach a server at {}:{}: {e}", arguments.host, arguments.port),
                )
                .with_hint("Start one with: tidemill serve --data-dir ./data")
            })?;
        let notices = tokio::spawn(async move {
            while let Some(message) = std::future::poll_fn(|cx| connection.poll_message(cx)).await {
                match message {
                    Ok(tokio_postgres::AsyncMessage::Notice(notice)) => {
                        eprintln!("{}:  {}", notice.severity(), notice.message());
                    }
                    Ok(_) => {}
                    Err(_) => break,
                }
            }
        });
        // One at a time, so that each is a transaction of its own; what is not understood here is the server's to refuse.
        let statements = match tidemill::sql::parse(&text) {
            Ok(parsed) => parsed.into_iter().map(|p| p.text).collect(),
            Err(_) => vec![text],
        };
        for statement in statements {
            execute(&client, &statement).await?;
        }
        drop(client);
        // The connection ends with its client; what it still had to tell has been told.
        let _ = notices.await;
        Ok(())
    })
}

async fn execute(client: &tokio_postgres::Client, statement: &str) -> Result<()> {
    let messages = client.simple_query_raw(statement).await.map_err(|e| failed(&e))?;
    pin_mut!(messages);
    let mut page: Option<Page> = None;
    while let Some(message) = messages.next().await {
        match message.map_err(|e| failed(&e))? {
            SimpleQueryMessage::RowDescription(columns) => {
                page = Some(Page::new(columns.iter().map(|c| c.name().to_string()).collect()));
            }
            SimpleQueryMessage::Row(row) => {
                if let Some(page) = &mut page {
                    page.push((0..row.len()).map(|i| row.get(i).unwrap_or("").to_string()).collect())?;
                }
            }
            SimpleQueryMessage::CommandComplete(rows) => match page.take() {
                Some(page) => page.end()?,
                None if rows > 0 => println!("OK, {rows} rows"),
                None => println!("OK"),
            },
            _ => {}
        }
    }
    Ok(())
}

/// Rows waiting to be printed under aligned columns.
struct Page {
    names: Vec<String>,
    rows: Vec<Vec<String>>,
    /// Set once the head was printed.
    widths: Option<Vec<usize>>,
    printed: usize,
}

impl Page {
    fn new(names: Vec<String>) -> Page {
        Page { names, rows: Vec::new(), widths: None, printed: 0 }
    }

    fn push(&mut self, row: Vec<String>) -> Result<()> {
        self.rows.push(row);
        if self.rows.len() >= PAGE_ROWS { self.print() } else { Ok(()) }
    }

    fn print(&mut self) -> Result<()> {
        let mut out = std::io::stdout().lock();
        let first = self.widths.is_none();
        let widths = self.widths.get_or_insert_with(|| {
            let width = |i: usize| {
                let rows = self.rows.iter().filter_map(|r| r.get(i)).map(|v| v.chars().count());
                rows.chain([self.names[i].chars().count()]).max().unwrap_or(0)
            };
            (0..self.names.len()).map(width).collect()
        });
        if first {
            let line = |cells: Vec<String>, between: &str| cells.join(between);
            let names = self.names.iter().zip(widths.iter()).map(|(n, w)| format!(" {n:^w$} ", w = *w));
            writeln!(out, "{}", line(names.collect(), "|"))?;
            let rules = widths.iter().map(|w| "-".repeat(w + 2));
            writeln!(out, "{}", line(rules.collect(), "+"))?;
        }
        for row in self.rows.drain(..) {
            let cells = row.iter().zip(widths.iter()).map(|(v, w)| match v.parse::<f64>() {
                Ok(_) => format!(" {v:>w$} ", w = *w),
                Err(_) => format!(" {v:<w$} ", w = *w),
            });
            writeln!(out, "{}", cells.collect::<Vec<_>>().join("|").trim_end())?;
            self.printed += 1;
        }
        Ok(())
    }

    fn end(mut self) -> Result<()> {
        self.print()?;
        println!("({} row{})", self.printed, if self.printed == 1 { "" } else { "s" });
        Ok(())
    }
}
