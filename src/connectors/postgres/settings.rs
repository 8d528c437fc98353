//! What a Postgres CONNECTION and a source over it say, and how a session with the server is opened.

use std::time::Duration;

use pgwire_replication::{Lsn, ReplicationConfig};
use tokio_postgres::{Client, Config};

use super::tls::{Mode, Tls};

use crate::connectors::{Options, SourceDefinition};
use crate::error::{Error, Result, SqlState};

/// How long a connection attempt may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection over which nothing comes is asked for a sign of life this often; without one for a minute or so it is lost.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// Session settings under which values come as text that is read back without loss.
const SESSION_OPTIONS: &str = "-c datestyle=ISO -c intervalstyle=postgres -c extra_float_digits=3 \
    -c timezone=UTC -c bytea_output=hex -c statement_timeout=0 -c idle_in_transaction_session_timeout=0";

/// A PostgreSQL server and database.
#[derive(Clone, Debug)]
pub struct Server {
    host: String,
    port: u16,
    user: String,
    password: String,
    database: String,
    tls: Tls,
    /// What a session asks for, and what the server is called.
    session_options: &'static str,
    product: &'static str,
}

impl Server {
    /// Takes the options of a `CREATE CONNECTION … TO POSTGRES`.
    ///
    /// # Errors
    /// 22023 for an option that is missing, unknown or malformed.
    pub fn from_options(options: Vec<(String, String)>) -> Result<Self> {
        let mut options = Options::new("POSTGRES connection", options);
        let server = Server::take(&mut options, 5432, "PostgreSQL", SESSION_OPTIONS)?;
        options.finish()?;
        Ok(server)
    }

    /// Takes what says where a server is that speaks PostgreSQL's protocol, and what its sessions ask for.
    ///
    /// # Errors
    /// 22023 for an option that is missing or malformed.
    pub fn take(
        options: &mut Options,
        port: u16,
        product: &'static str,
        session_options: &'static str,
    ) -> Result<Self> {
        Ok(Server {
            host: options.require("host")?,
            port: options.parse("port", "a port number")?.unwrap_or(port),
            user: options.require("user")?,
            password: options.take("password").unwrap_or_default(),
            database: options.require("database")?,
            tls: Tls::take(options)?,
            session_options,
            product,
        })
    }

    /// Asks the server to cancel what a session runs.
    ///
    /// # Errors
    /// The server's, or the network's.
    pub async fn cancel(&self, client: &Client) -> std::result::Result<(), tokio_postgres::Error> {
        client.cancel_token().cancel_query(self.tls.clone()).await
    }

    /// Opens a session.
    ///
    /// # Errors
    /// 08006, with the server's own words.
    pub async fn connect(&self) -> Result<Client> {
        let mut config = Config::new();
        config
            .host(&self.host)
            .port(self.port)
            .user(&self.user)
            .password(&self.password)
            .dbname(&self.database)
            .application_name("tidemill")
            .ssl_mode(self.tls.ssl_mode())
            .connect_timeout(CONNECT_TIMEOUT)
            .keepalives_idle(KEEPALIVE)
            .keepalives_interval(KEEPALIVE)
            .keepalives_retries(3)
            .tcp_user_timeout(KEEPALIVE * 4);
        if !self.session_options.is_empty() {
            config.options(self.session_options);
        }
        let attempt = tokio::time::timeout(CONNECT_TIMEOUT, config.connect(self.tls.clone())).await;
        let (client, connection) = attempt
            .map_err(|_| self.unreachable("no answer in 10 s"))?
            .map_err(|e| self.unreachable(&said(&e)))?;
        tokio::spawn(async move {
            if let Err(e) = connection.await {
                tracing::debug!(error = %e, "postgres session ended");
            }
        });
        Ok(client)
    }

    /// Where it is: the same for all users of one database.
    pub fn place(&self) -> String {
        format!("{}:{}/{}", self.host.to_lowercase(), self.port, self.database)
    }

    fn unreachable(&self, why: &str) -> Error {
        Error::new(
            SqlState::CONNECTION_FAILURE,
            format!(
                "cannot connect to {} at {}:{} as \"{}\": {why}",
                self.product, self.host, self.port, self.user
            ),
        )
    }
}

/// What the server says in an error, with its SQLSTATE; otherwise the client's own words.
pub fn said(e: &tokio_postgres::Error) -> String {
    match e.as_db_error() {
        Some(db) => format!("{} (SQLSTATE {})", db.message(), db.code().code()),
        None => {
            let mut text = e.to_string();
            let mut cause = std::error::Error::source(e);
            while let Some(inner) = cause {
                text = format!("{text}: {inner}");
                cause = inner.source();
            }
            text
        }
    }
}

/// A failed statement as our error.
pub fn failed(doing: &str, e: &tokio_postgres::Error) -> Error {
    Error::new(SqlState::CONNECTION_FAILURE, format!("{doing}: {}", said(e)))
}

/// Whether the server writes what logical decoding needs.
///
/// # Errors
/// 55000 when it does not.
pub async fn check_wal_level(client: &Client) -> Result<()> {
    let row = client.query_one("SHOW wal_level", &[]).await.map_err(|e| failed("reading wal_level", &e))?;
    let level: String = row.get(0);
    if level == "logical" {
        return Ok(());
    }
    Err(Error::new(
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("the PostgreSQL server has wal_level = {level}, and change capture needs logical"),
    )
    .with_hint("Upstream: ALTER SYSTEM SET wal_level = logical; then restart the server."))
}

/// A runtime for one connector: the replication session lives on its worker thread, so that it answers the
/// server's keep-alives while the connector waits for the engine.
pub fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("postgres-cdc")
        .enable_all()
        .build()?)
}

/// A source over a publication.
#[derive(Clone, Debug)]
pub struct SourceSettings {
    /// Where it is.
    pub server: Server,
    /// The publication that says which tables.
    pub publication: String,
    /// The replication slot, ours alone.
    pub slot: String,
}

impl SourceSettings {
    /// Takes a source's definition.
    ///
    /// # Errors
    /// 22023 for options that are wrong.
    pub fn new(definition: &SourceDefinition) -> Result<Self> {
        let server = Server::from_options(definition.connection.clone())?;
        if matches!(server.tls.mode, Mode::Require | Mode::VerifyCa | Mode::VerifyFull) {
            // Its replication session goes without TLS, which must not happen where TLS is asked for.
            return Err(Error::unsupported("a POSTGRES source over a connection whose sslmode asks for TLS"));
        }
        let mut options = Options::new("POSTGRES source", definition.options.clone());
        let publication = options.require("publication")?;
        let slot = options.take("slot").unwrap_or_else(|| default_slot(&definition.name));
        options.finish()?;
        let well_formed = !slot.is_empty()
            && slot.len() <= 63
            && slot.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if !well_formed {
            return Err(Error::new(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("\"{slot}\" cannot name a replication slot"),
            )
            .with_hint("Up to 63 lower-case letters, digits and underscores."));
        }
        Ok(SourceSettings { server, publication, slot })
    }

    /// A replication session that begins after `start`, of which the server may forget what is before `durable`.
    pub fn replication(&self, start: Lsn, durable: Lsn) -> ReplicationConfig {
        let s = &self.server;
        ReplicationConfig::new(
            &s.host,
            &s.user,
            &s.password,
            &s.database,
            &self.slot,
            self.publication.as_str(),
        )
        .with_port(s.port)
        .with_start_lsn(start)
        .with_ack_lsn(durable)
        .with_status_interval(Duration::from_secs(1))
        .with_wakeup_interval(Duration::from_secs(1))
        .with_application_name("tidemill")
        .with_options(SESSION_OPTIONS)
    }
}

/// `tidemill_` and the source's name, in the letters that a slot's name may have.
fn default_slot(source: &str) -> String {
    let name: String = source
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' })
        .take(54)
        .collect();
    format!("tidemill_{name}")
}
