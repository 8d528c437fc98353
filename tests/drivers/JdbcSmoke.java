// The PostgreSQL JDBC driver against the server at PGHOST, PGPORT; run as a single source file with the jar on the class path.

import java.io.StringReader;
import java.io.StringWriter;
import java.math.BigDecimal;
import java.sql.*;
import java.time.*;
import java.util.*;
import org.postgresql.PGConnection;
import org.postgresql.copy.CopyManager;

public class JdbcSmoke {
    public static void main(String[] args) throws Exception {
        String url = "jdbc:postgresql://" + System.getenv("PGHOST") + ":" + System.getenv("PGPORT") + "/tidemill";
        try (Connection conn = DriverManager.getConnection(url, "tidemill", "")) {
            types(conn);
            transactions(conn);
            fetchSize(conn);
            errors(conn);
            copies(conn);
            metadata(conn);
            try (Statement s = conn.createStatement()) {
                s.execute("DROP TABLE jdbc_types");
                s.execute("DROP TABLE jdbc_tx");
            }
        }
        System.out.println("jdbc: ok");
    }

    static void check(Object got, Object expected, String what) {
        if (!Objects.deepEquals(got, expected)) {
            throw new AssertionError(what + ": got " + show(got) + ", expected " + show(expected));
        }
    }

    static String show(Object o) {
        return o instanceof Object[] a ? Arrays.deepToString(a) : o instanceof byte[] b ? Arrays.toString(b) : "" + o;
    }

    static void types(Connection conn) throws SQLException {
        try (Statement s = conn.createStatement()) {
            s.execute("DROP TABLE IF EXISTS jdbc_types");
            s.execute("CREATE TABLE jdbc_types (id bigint PRIMARY KEY, b boolean, i2 smallint, i4 integer, f4 real, "
                + "f8 double precision, n numeric(12,2), t text, by bytea, d date, ts timestamp, tz timestamptz, "
                + "u uuid, ai integer[])");
        }
        UUID uuid = UUID.fromString("123e4567-e89b-12d3-a456-426614174000");
        OffsetDateTime tz = OffsetDateTime.of(2024, 7, 1, 12, 0, 0, 123_456_000, ZoneOffset.UTC);
        LocalDateTime ts = LocalDateTime.of(1999, 12, 31, 23, 59, 59, 1000);
        String insert = "INSERT INTO jdbc_types VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
        try (PreparedStatement p = conn.prepareStatement(insert)) {
            // More often than the driver's threshold of five, after which it prepares on the server and goes binary.
            for (long id = 1; id <= 8; id++) {
                p.setLong(1, id);
                p.setBoolean(2, true);
                p.setShort(3, (short) -7);
                p.setInt(4, 123456);
                p.setFloat(5, 1.5f);
                p.setDouble(6, Math.PI);
                p.setBigDecimal(7, new BigDecimal("1234567.89"));
                p.setString(8, "tëxt '\\\n");
                p.setBytes(9, new byte[] {0, -1, 16});
                p.setObject(10, LocalDate.of(2024, 2, 29));
                p.setObject(11, ts);
                p.setObject(12, tz);
                p.setObject(13, uuid);
                p.setArray(14, conn.createArrayOf("int4", new Object[] {1, 2, 3}));
                check(p.executeUpdate(), 1, "rows inserted");
            }
        }
        try (PreparedStatement p = conn.prepareStatement("SELECT * FROM jdbc_types WHERE id = ?")) {
            for (long id = 1; id <= 8; id++) {
                p.setLong(1, id);
                try (ResultSet r = p.executeQuery()) {
                    check(r.next(), true, "a row");
                    check(r.getLong(1), id, "bigint");
                    check(r.getBoolean(2), true, "boolean");
                    check(r.getShort(3), (short) -7, "smallint");
                    check(r.getInt(4), 123456, "integer");
                    check(r.getFloat(5), 1.5f, "real");
                    check(r.getDouble(6), Math.PI, "double precision");
                    check(r.getBigDecimal(7), new BigDecimal("1234567.89"), "numeric");
                    check(r.getString(8), "tëxt '\\\n", "text");
                    check(r.getBytes(9), new byte[] {0, -1, 16}, "bytea");
                    check(r.getObject(10, LocalDate.class), LocalDate.of(2024, 2, 29), "date");
                    check(r.getObject(11, LocalDateTime.class), ts, "timestamp");
                    check(r.getObject(12, OffsetDateTime.class).toInstant(), tz.toInstant(), "timestamptz");
                    check(r.getObject(13), uuid, "uuid");
                    check(r.getArray(14).getArray(), new Integer[] {1, 2, 3}, "integer[]");
                    check(r.next(), false, "one row");
                }
            }
        }
    }

    static void transactions(Connection conn) throws SQLException {
        try (Statement s = conn.createStatement()) {
            s.execute("DROP TABLE IF EXISTS jdbc_tx");
            s.execute("CREATE TABLE jdbc_tx (k integer PRIMARY KEY, v text)");
            conn.setAutoCommit(false);
            s.executeUpdate("INSERT INTO jdbc_tx VALUES (1, 'kept')");
            conn.commit();
            s.executeUpdate("INSERT INTO jdbc_tx VALUES (2, 'lost')");
            conn.rollback();
            conn.setAutoCommit(true);
            check(count(s, "SELECT count(*) FROM jdbc_tx"), 1L, "after a rollback");
        }
        try (PreparedStatement p = conn.prepareStatement("INSERT INTO jdbc_tx VALUES (?, ?)")) {
            for (int k = 10; k < 260; k++) {
                p.setInt(1, k);
                p.setString(2, "batch " + k);
                p.addBatch();
            }
            check(p.executeBatch().length, 250, "a batch");
        }
    }

    static long count(Statement s, String sql) throws SQLException {
        try (ResultSet r = s.executeQuery(sql)) {
            r.next();
            return r.getLong(1);
        }
    }

    // Rows come portion by portion, from a portal that is suspended in between.
    static void fetchSize(Connection conn) throws SQLException {
        conn.setAutoCommit(false);
        try (Statement s = conn.createStatement()) {
            s.setFetchSize(40);
            try (ResultSet r = s.executeQuery("SELECT k FROM jdbc_tx WHERE k >= 10 ORDER BY k")) {
                int expected = 10;
                while (r.next()) {
                    check(r.getInt(1), expected++, "a fetched row");
                }
                check(expected, 260, "all fetched rows");
            }
        }
        conn.commit();
        conn.setAutoCommit(true);
    }

    static void errors(Connection conn) throws SQLException {
        String[][] cases = {
            {"SELECT * FROM no_such_table", "42P01"},
            {"SELEKT 1", "42601"},
            {"SELECT 1 / 0", "22012"},
            {"INSERT INTO jdbc_tx VALUES (1, 'twice')", "23505"},
        };
        for (String[] c : cases) {
            try (Statement s = conn.createStatement()) {
                s.execute(c[0]);
                throw new AssertionError(c[0] + " did not fail");
            } catch (SQLException e) {
                check(e.getSQLState(), c[1], c[0]);
            }
        }
    }

    static void copies(Connection conn) throws Exception {
        CopyManager copy = conn.unwrap(PGConnection.class).getCopyAPI();
        StringBuilder lines = new StringBuilder();
        for (int k = 1000; k < 1100; k++) {
            lines.append(k).append(",\"say \"\"").append(k).append("\"\"\"\n");
        }
        long in = copy.copyIn("COPY jdbc_tx FROM STDIN (FORMAT csv)", new StringReader(lines.toString()));
        check(in, 100L, "rows copied in");
        StringWriter out = new StringWriter();
        String query = "COPY (SELECT k, v FROM jdbc_tx WHERE k >= 1000 ORDER BY k) TO STDOUT (FORMAT csv)";
        check(copy.copyOut(query, out), 100L, "rows copied out");
        check(out.toString(), lines.toString(), "what was copied out");
    }

    static void metadata(Connection conn) throws SQLException {
        DatabaseMetaData m = conn.getMetaData();
        try (ResultSet r = m.getTables(null, "public", "jdbc_t%", new String[] {"TABLE"})) {
            List<String> names = new ArrayList<>();
            while (r.next()) {
                names.add(r.getString("TABLE_NAME"));
            }
            check(names, List.of("jdbc_tx", "jdbc_types"), "getTables");
        }
        try (ResultSet r = m.getColumns(null, "public", "jdbc_types", "n")) {
            check(r.next(), true, "getColumns");
            check(r.getString("TYPE_NAME"), "numeric", "getColumns' type");
            check(r.getInt("COLUMN_SIZE"), 12, "getColumns' precision");
            check(r.getInt("DECIMAL_DIGITS"), 2, "getColumns' scale");
        }
        try (ResultSet r = m.getPrimaryKeys(null, "public", "jdbc_tx")) {
            check(r.next(), true, "getPrimaryKeys");
            check(r.getString("COLUMN_NAME"), "k", "getPrimaryKeys' column");
        }
    }
}
