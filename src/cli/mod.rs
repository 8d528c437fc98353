//! What the program understands on its command line.

mod check;
mod client;
mod fuzz;
mod quickstart;
mod serve;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use tidemill::{Config, Result};

const ABOUT: &str = "A SQL streaming database: sources in, views exactly up to date, the warehouse in step.";

const EXAMPLES: &str = "\
Examples:
  tidemill serve --data-dir ./data          start a server; its data is in ./data
  psql -h 127.0.0.1 -p 7432 -U tidemill     talk to it, from anywhere PostgreSQL is spoken
  tidemill sql \"SHOW SOURCES\"               or without psql
  tidemill sql -f views.sql                 run a file of statements

A first view that keeps itself up to date:
  CREATE TABLE orders (id bigint PRIMARY KEY, customer text, amount numeric(12,2));
  CREATE MATERIALIZED VIEW totals AS
    SELECT customer, count(*) AS orders, sum(amount) AS amount FROM orders GROUP BY customer;
  INSERT INTO orders VALUES (1, 'ada', 12.50), (2, 'bob', 3.00), (3, 'ada', 1.25);
  SELECT * FROM totals;";

const SERVE_EXAMPLES: &str = "\
Examples:
  tidemill serve --data-dir ./data
  tidemill serve --data-dir ./data --listen 0.0.0.0:7432 --http 127.0.0.1:7433
  tidemill serve --config tidemill.toml --set tick_rows=20000
  TIDEMILL_LOG_FORMAT=json tidemill serve --data-dir ./data

Settings come from the defaults, then the file, then the environment (TIDEMILL_NAME), then flags.
SIGTERM and SIGINT stop sources and sinks, make everything durable and exit with 0; after a kill -9
the next start goes on where the last acknowledged statement ended.";

const QUICKSTART_EXAMPLES: &str = "\
Examples:
  tidemill quickstart
  tidemill quickstart --data-dir ./shop --rate 5000

A Kafka broker and a shop that writes into it run in this process; quickstart.sql makes sources, views and sinks;
the warehouse is a directory of Parquet tables below the data directory. Ctrl-C stops; the next run goes on.";

/// The command line.
#[derive(Parser)]
#[command(name = "tidemill", version, about = ABOUT, after_help = EXAMPLES, max_term_width = 110)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start a server
    #[command(after_help = SERVE_EXAMPLES, after_long_help = long_serve_help())]
    Serve(ServeArguments),
    /// See the whole way, from a Kafka topic to a warehouse, with nothing else installed
    #[command(after_help = QUICKSTART_EXAMPLES)]
    Quickstart(QuickstartArguments),
    /// Run statements on a server and print what they answer
    #[command(
        after_help = "Examples:\n  tidemill sql \"SELECT * FROM tidemill.sources\"\n  tidemill sql -f views.sql --port 7432"
    )]
    Sql(client::SqlArguments),
    /// Open a data directory without serving it, and compare every view with its query run anew
    #[command(
        after_help = "Example:\n  tidemill check --data-dir ./data\n\nNo server may have the directory open."
    )]
    Check(ServeArguments),
    /// Look for wrong answers: random tables, queries and histories, every view compared after every tick
    #[command(
        after_help = "Examples:\n  tidemill fuzz --seconds 600\n  tidemill fuzz --databases 1 --seed 17\n  tidemill fuzz --seconds 600 --postgres postgresql://postgres@127.0.0.1/postgres"
    )]
    Fuzz(fuzz::FuzzArguments),
}

fn long_serve_help() -> String {
    format!("{SERVE_EXAMPLES}\n\nSettings:\n{}", Config::reference())
}

/// Where settings come from.
#[derive(Args)]
struct ServeArguments {
    /// The directory that holds everything; made if it is not there
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where the PostgreSQL wire protocol listens [default: 127.0.0.1:7432]
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<String>,
    /// Where HTTP listens [default: 127.0.0.1:7433]
    #[arg(long, value_name = "ADDR:PORT")]
    http: Option<String>,
    /// Memory that the process may take; state that does not fit lives on disk [default: no limit]
    #[arg(long, value_name = "SIZE")]
    memory_limit: Option<String>,
    /// A TOML file of settings
    #[arg(long, value_name = "FILE", env = "TIDEMILL_CONFIG")]
    config: Option<PathBuf>,
    /// Which log lines are written to standard error [default: info]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// text or json [default: text]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// Any setting, by name; `serve --help` lists them
    #[arg(long = "set", value_name = "NAME=VALUE")]
    set: Vec<String>,
}

impl ServeArguments {
    fn config(&self) -> Result<Config> {
        let mut flags: Vec<(String, String)> = Vec::new();
        if let Some(dir) = &self.data_dir {
            flags.push(("data_dir".into(), dir.display().to_string()));
        }
        let named = [
            ("listen", &self.listen),
            ("http", &self.http),
            ("memory_limit", &self.memory_limit),
            ("log_level", &self.log_level),
            ("log_format", &self.log_format),
        ];
        flags.extend(named.into_iter().filter_map(|(n, v)| Some((n.to_string(), v.clone()?))));
        for pair in &self.set {
            let Some((name, value)) = pair.split_once('=') else {
                return Err(tidemill::Error::new(
                    tidemill::SqlState::INVALID_PARAMETER_VALUE,
                    format!("--set takes name=value, not \"{pair}\""),
                ));
            };
            flags.push((name.trim().to_string(), value.trim().to_string()));
        }
        Config::load(self.config.as_deref(), std::env::vars(), &flags)
    }
}

/// How the quickstart is run.
#[derive(Args)]
struct QuickstartArguments {
    #[command(flatten)]
    serve: ServeArguments,
    /// Where the Kafka broker inside this process listens
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:7492")]
    kafka: std::net::SocketAddr,
    /// Orders a second that the shop writes
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rate: u32,
}

/// Runs what the command line asks for.
pub fn run() -> Result<()> {
    match Arguments::parse().command {
        Command::Serve(arguments) => serve::run(arguments.config()?),
        Command::Quickstart(arguments) => {
            quickstart::run(arguments.serve.config()?, arguments.kafka, arguments.rate)
        }
        Command::Sql(arguments) => client::run(arguments),
        Command::Check(arguments) => check::run(arguments.config()?),
        Command::Fuzz(arguments) => fuzz::run(&arguments),
    }
}
