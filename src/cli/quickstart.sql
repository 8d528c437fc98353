-- A shop's orders, payments and customers, kept together and sent to a warehouse.
-- `tidemill quickstart` runs this file through an ordinary session; everything here works in psql too.

-- Where the rows come from: three topics of a Kafka broker (here one inside this process).
CREATE CONNECTION shop TO KAFKA (brokers = '$BROKERS');

CREATE SOURCE orders (
    id bigint, customer_id bigint, product text, quantity int, amount numeric(12,2), placed_at timestamptz
) FROM KAFKA CONNECTION shop (topic = 'orders', start = 'earliest') FORMAT JSON;

CREATE SOURCE payments (
    id bigint, order_id bigint, method text, amount numeric(12,2), paid_at timestamptz
) FROM KAFKA CONNECTION shop (topic = 'payments', start = 'earliest') FORMAT JSON;

-- A table's change events as Debezium writes them: rows come, change and go.
CREATE SOURCE customers (
    id int PRIMARY KEY, name text, email text, country text, tier text
) FROM KAFKA CONNECTION shop (topic = 'customers', start = 'earliest') FORMAT JSON ENVELOPE DEBEZIUM;

-- What we want to know, always up to date.
CREATE MATERIALIZED VIEW revenue_by_country AS
SELECT coalesce(c.country, '??') AS country, count(*) AS orders, sum(o.amount) AS revenue
FROM orders o LEFT JOIN customers c ON c.id = o.customer_id
GROUP BY coalesce(c.country, '??');

CREATE MATERIALIZED VIEW underpaid_orders AS
SELECT o.id, o.customer_id, o.amount, p.amount AS paid
FROM orders o JOIN payments p ON p.order_id = o.id
WHERE p.amount < o.amount;

CREATE MATERIALIZED VIEW best_sellers AS
SELECT product, sum(quantity) AS pieces, sum(amount) AS revenue
FROM orders GROUP BY product ORDER BY revenue DESC, product LIMIT 3;

-- A view on views: the customers who owe most.
CREATE MATERIALIZED VIEW debtors AS
SELECT c.id, c.name, c.tier, count(*) AS orders, sum(u.amount - u.paid) AS owed
FROM underpaid_orders u JOIN customers c ON c.id = u.customer_id
GROUP BY c.id, c.name, c.tier;

-- The warehouse: a directory of Parquet tables, kept in step by the same staged, fenced commits as Snowflake.
CREATE CONNECTION warehouse TO OBJECT STORE (url = '$WAREHOUSE');

CREATE SINK revenue_to_warehouse FROM revenue_by_country
    INTO FILES CONNECTION warehouse (table = 'revenue_by_country') KEY (country) FORMAT PARQUET
    WITH (commit_interval = '1 s');

CREATE SINK debtors_to_warehouse FROM debtors
    INTO FILES CONNECTION warehouse (table = 'debtors') KEY (id) FORMAT PARQUET
    WITH (commit_interval = '1 s');
