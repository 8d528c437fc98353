//! What a MySQL CONNECTION and a source over it say, how a session is opened, and what the server must be set to.

use std::fmt;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Opts, OptsBuilder, SslOpts};

use crate::connectors::{Options, SourceDefinition};
use crate::error::{Error, Result, SqlState};

/// How long a connection attempt may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A MySQL or MariaDB server.
#[derive(Clone)]
pub struct Server {
    /// Hosts and ports, in the order in which they are tried.
    hosts: Vec<(String, u16)>,
    user: String,
    password: String,
    database: Option<String>,
    tls: Option<SslOpts>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.user, self.place())
    }
}

impl Server {
    /// Takes the options of a `CREATE CONNECTION … TO MYSQL`.
    ///
    /// # Errors
    /// 22023 for an option that is missing, unknown or malformed.
    pub fn from_options(options: Vec<(String, String)>) -> Result<Self> {
        let mut options = Options::new("MYSQL connection", options);
        let root = options.take("sslrootcert");
        let mode = options.take("sslmode");
        let server = Server {
            hosts: hosts(&options.require("host")?, options.take("port").as_deref())?,
            user: options.require("user")?,
            password: options.take("password").unwrap_or_default(),
            database: options.take("database"),
            tls: tls(mode.as_deref(), root)?,
        };
        options.finish()?;
        Ok(server)
    }

    /// Opens a session whose times are UTC and whose text is UTF-8, with the first host that answers.
    ///
    /// # Errors
    /// 08006, with the words of the last one.
    pub async fn connect(&self) -> Result<Conn> {
        let mut last = None;
        for (host, port) in &self.hosts {
            match self.connect_to(host, *port).await {
                Ok(session) => return Ok(session),
                Err(e) => last = Some(e),
            }
        }
        Err(last.unwrap_or_else(|| Error::internal("a MySQL connection without a host")))
    }

    async fn connect_to(&self, host: &str, port: u16) -> Result<Conn> {
        let options: Opts = OptsBuilder::default()
            .ip_or_hostname(host)
            .tcp_port(port)
            .user(Some(&self.user))
            .pass(Some(&self.password))
            .db_name(self.database.as_ref())
            .prefer_socket(false)
            .tcp_keepalive(Some(Duration::from_secs(30)))
            .ssl_opts(self.tls.clone())
            .setup(vec!["SET NAMES utf8mb4", "SET time_zone = '+00:00', sql_mode = ''"])
            .into();
        let unreachable = |why: &str| {
            let user = &self.user;
            let message = format!("cannot connect to MySQL at {host}:{port} as \"{user}\": {why}");
            Error::new(SqlState::CONNECTION_FAILURE, message)
        };
        tokio::time::timeout(CONNECT_TIMEOUT, Conn::new(options))
            .await
            .map_err(|_| unreachable("no answer in 10 s"))?
            .map_err(|e| unreachable(&said(&e)))
    }

    fn place(&self) -> String {
        self.hosts.iter().map(|(host, port)| format!("{host}:{port}")).collect::<Vec<_>>().join(",")
    }
}

/// Hosts and ports as written: a port each, or one for all.
fn hosts(hosts: &str, ports: Option<&str>) -> Result<Vec<(String, u16)>> {
    let hosts: Vec<&str> = hosts.split(',').map(str::trim).collect();
    let ports: Option<Vec<u16>> =
        ports.unwrap_or("3306").split(',').map(|port| port.trim().parse().ok()).collect();
    let wrong = |what: String| Error::new(SqlState::INVALID_PARAMETER_VALUE, what);
    let Some(ports) = ports else {
        return Err(wrong(
            "option \"port\" of MYSQL connection must be a port number, or one for each host".into(),
        ));
    };
    if hosts.iter().any(|host| host.is_empty()) {
        return Err(wrong("option \"host\" of MYSQL connection names no host".into()));
    }
    if ports.len() != 1 && ports.len() != hosts.len() {
        return Err(wrong(format!("{} ports are given for {} hosts", ports.len(), hosts.len())));
    }
    let port = |i: usize| ports.get(i).or(ports.first()).copied().unwrap_or(3306);
    Ok(hosts.into_iter().enumerate().map(|(i, host)| (host.to_string(), port(i))).collect())
}

fn tls(mode: Option<&str>, root: Option<String>) -> Result<Option<SslOpts>> {
    let roots = |options: SslOpts| match root {
        Some(path) => options
            .with_root_certs(vec![std::path::PathBuf::from(path).into()])
            .with_disable_built_in_roots(true),
        None => options,
    };
    match mode {
        None | Some("disable") => Ok(None),
        Some("require") => Ok(Some(roots(SslOpts::default()).with_danger_accept_invalid_certs(true))),
        Some("verify-ca") => Ok(Some(roots(SslOpts::default()).with_danger_skip_domain_validation(true))),
        Some("verify-full") => Ok(Some(roots(SslOpts::default()))),
        Some(other) => Err(Error::new(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("option \"sslmode\" of MYSQL connection cannot be \"{other}\""),
        )
        .with_hint("One of disable (the default), require, verify-ca, verify-full.")),
    }
}

/// What the server says in an error, with its number; otherwise the client's own words.
pub fn said(e: &mysql_async::Error) -> String {
    match e {
        mysql_async::Error::Server(s) => format!("{} (error {}, SQLSTATE {})", s.message, s.code, s.state),
        other => other.to_string(),
    }
}

/// A failed statement as our error.
pub fn failed(doing: &str, e: &mysql_async::Error) -> Error {
    Error::new(SqlState::CONNECTION_FAILURE, format!("{doing}: {}", said(e)))
}

/// Ends a session in good manners.
pub async fn end(session: Conn) {
    if let Err(e) = session.disconnect().await {
        tracing::debug!(error = %e, "ending a mysql session");
    }
}

/// Whose log it is: the two number transactions in different ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// Oracle's.
    Mysql,
    /// MariaDB's.
    Mariadb,
}

/// What tells a server from others: places in its log mean nothing in theirs.
///
/// # Errors
/// 08006 when the server fails.
pub async fn identity(session: &mut Conn, flavour: Flavour) -> Result<String> {
    let asked = match flavour {
        Flavour::Mysql => "SELECT @@GLOBAL.server_uuid",
        Flavour::Mariadb => "SELECT CAST(@@GLOBAL.server_id AS CHAR)",
    };
    let identity: Option<String> =
        session.query_first(asked).await.map_err(|e| failed("asking for the server's identity", &e))?;
    Ok(identity.unwrap_or_default())
}

/// Whether the log holds whole rows and the columns' names.
///
/// # Errors
/// 55000 when it does not, with the statement that changes it.
pub async fn check_log(session: &mut Conn) -> Result<Flavour> {
    let rows: Vec<(String, String)> = session
        .query(
            "SHOW GLOBAL VARIABLES WHERE Variable_name IN
             ('log_bin', 'version', 'binlog_format', 'binlog_row_image', 'binlog_row_metadata', 'log_bin_compress')",
        )
        .await
        .map_err(|e| failed("reading the server's settings", &e))?;
    let value = |name: &str| rows.iter().find(|(n, _)| n == name).map_or("", |(_, v)| v.as_str());
    if value("log_bin") != "ON" {
        return Err(wrong("log_bin", value("log_bin"), "ON")
            .with_hint("Upstream: log_bin in the server's configuration, and a restart."));
    }
    for (name, wanted) in
        [("binlog_format", "ROW"), ("binlog_row_image", "FULL"), ("binlog_row_metadata", "FULL")]
    {
        if value(name) != wanted {
            return Err(wrong(name, value(name), wanted).with_hint(format!(
                "Upstream: SET GLOBAL {name} = '{wanted}'; and the same in the server's configuration."
            )));
        }
    }
    if value("log_bin_compress") == "ON" {
        return Err(
            wrong("log_bin_compress", "ON", "OFF").with_hint("Upstream: SET GLOBAL log_bin_compress = OFF;")
        );
    }
    Ok(if value("version").contains("MariaDB") { Flavour::Mariadb } else { Flavour::Mysql })
}

fn wrong(name: &str, value: &str, wanted: &str) -> Error {
    let value = if value.is_empty() { "unknown to it" } else { value };
    Error::new(
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("the MySQL server's {name} is {value}, and change capture needs {wanted}"),
    )
}

/// A runtime for one connector.
pub fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("mysql-cdc")
        .enable_all()
        .build()?)
}

/// A source over a server's tables.
#[derive(Clone, Debug)]
pub struct SourceSettings {
    /// Where it is.
    pub server: Server,
    /// Which tables may be followed.
    pub tables: super::tables::Patterns,
    /// What the source is called among the server's replicas.
    pub server_id: u32,
}

impl SourceSettings {
    /// Takes a source's definition.
    ///
    /// # Errors
    /// 22023 for options that are wrong.
    pub fn new(definition: &SourceDefinition) -> Result<Self> {
        let server = Server::from_options(definition.connection.clone())?;
        let mut options = Options::new("MYSQL source", definition.options.clone());
        let tables = match (options.take("tables"), &server.database) {
            (Some(patterns), _) => patterns,
            (None, Some(database)) => format!("{database}.*"),
            (None, None) => options.require("tables")?,
        };
        let server_id: Option<u32> = options.parse("server_id", "a whole number from 1 to 4294967295")?;
        options.finish()?;
        if server_id == Some(0) {
            return Err(Error::new(
                SqlState::INVALID_PARAMETER_VALUE,
                "option \"server_id\" of MYSQL source cannot be 0",
            ));
        }
        // Two replicas of one number throw each other out: the name tells ours apart, above the numbers that people give.
        let server_id = server_id.unwrap_or_else(|| crc32fast::hash(definition.name.as_bytes()) | 1 << 31);
        Ok(SourceSettings { server, tables: tables.parse()?, server_id })
    }
}
