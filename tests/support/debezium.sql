-- The tables that tests/debezium.rs lets Debezium capture, and the random work on them.

CREATE TYPE mood AS ENUM ('sad', 'ok', 'very "happy"');

-- One column of every common type.
CREATE TABLE things (
    id int PRIMARY KEY,
    i2 smallint, i4 int, i8 bigint, n2 numeric(12,2), n0 numeric(38,0), n numeric, f4 real, f8 double precision,
    b boolean, t text, v varchar(40), c char(8), mood mood, ip inet,
    d date, t6 time, t3 time(3), ts timestamp, ts3 timestamp(3), tz timestamptz, iv interval,
    u uuid, j json, jb jsonb, by bytea,
    i4s int[], i8s bigint[], ns numeric(10,2)[], f8s double precision[], bs boolean[], texts text[], us uuid[],
    ds date[], tss timestamp[], tzs timestamptz[]
);

-- Large values stand aside, uncompressed, and an update does not tell those that it leaves as they are.
CREATE TABLE large (
    id int PRIMARY KEY, counter int NOT NULL,
    t text, v varchar, j json, jb jsonb, by bytea, i4s int[], i8s bigint[], texts text[], us uuid[], i2s smallint[],
    f8s double precision[], bs boolean[], ds date[], tss timestamp[], tzs timestamptz[], ns numeric(10,2)[]
);
ALTER TABLE large ALTER t SET STORAGE EXTERNAL, ALTER v SET STORAGE EXTERNAL, ALTER j SET STORAGE EXTERNAL,
    ALTER jb SET STORAGE EXTERNAL, ALTER by SET STORAGE EXTERNAL, ALTER i4s SET STORAGE EXTERNAL,
    ALTER i8s SET STORAGE EXTERNAL, ALTER texts SET STORAGE EXTERNAL, ALTER us SET STORAGE EXTERNAL,
    ALTER i2s SET STORAGE EXTERNAL, ALTER f8s SET STORAGE EXTERNAL, ALTER bs SET STORAGE EXTERNAL,
    ALTER ds SET STORAGE EXTERNAL, ALTER tss SET STORAGE EXTERNAL, ALTER tzs SET STORAGE EXTERNAL,
    ALTER ns SET STORAGE EXTERNAL;

-- Its updates and deletes tell the whole old row, large values too.
CREATE TABLE full_large (LIKE large INCLUDING ALL);
ALTER TABLE full_large REPLICA IDENTITY FULL;

-- Two columns of the key are not integers, and names need quotes.
CREATE TABLE "Order Lines" ("order" uuid, "Line No" numeric(6,0), due date, quantity int NOT NULL DEFAULT 7,
    PRIMARY KEY ("order", "Line No", due));

-- Rows without a key, alike or not.
CREATE TABLE bag (a int, b text, d date, n numeric);
ALTER TABLE bag REPLICA IDENTITY FULL;

-- One of the values, or NULL.
CREATE FUNCTION pick(anyarray) RETURNS anyelement VOLATILE LANGUAGE sql
    AS 'SELECT $1[1 + floor(random() * (cardinality($1) + 1))::int]';

CREATE FUNCTION thing(int) RETURNS things VOLATILE LANGUAGE sql AS $$ SELECT
    $1,
    pick('{0,-32768,32767,7}'::int2[]), pick('{0,-2147483648,2147483647,7}'::int[]),
    pick('{0,-9223372036854775808,9223372036854775807,9007199254740993}'::bigint[]),
    pick('{0,-0.01,9999999999.99,-9999999999.99,12.34,128,-128,2.55}'::numeric[]),
    pick('{0,-1,99999999999999999999999999999999999999,-99999999999999999999999999999999999999}'::numeric[]),
    pick('{0,1.50,-0.0000000001,1234567890123456789012345678.0123456789,100000000000000000000}'::numeric[]),
    pick('{0,1.5,-3.4e38,1e-30,0.1,NaN,Infinity,-Infinity,16777216}'::real[]),
    pick('{0,1.5,-1.7e308,5e-324,0.1,NaN,Infinity,-Infinity,1e15,1e16,123456789012345.6}'::float8[]),
    pick('{t,f}'::bool[]),
    pick(ARRAY['', 'plain', E'tab\tnew\nline\r', E'\x01\x1f\x7f', '"quoted" \ and \u0041', 'Übergröße 東京 🦀', '{"a": 1}', 'null', '\x41']),
    pick(ARRAY['', 'x', repeat('é', 40)]::varchar[]), pick(ARRAY['', 'ab', '12345678']::char(8)[]),
    pick(enum_range(NULL::mood)), pick('{127.0.0.1,10.0.0.0/8,::1}'::inet[]),
    pick('{1970-01-01,1969-12-31,0001-01-01,9999-12-31,2024-02-29,20000-01-01}'::date[]),
    pick('{00:00,23:59:59.999999,12:34:56.7}'::time[]), pick('{00:00,23:59:59.999,12:34:56.7}'::time(3)[]),
    pick('{1970-01-01 00:00,1969-12-31 23:59:59.999999,0001-01-01 00:00:00.000001,9999-12-31 23:59:59.999999,infinity,-infinity,0044-03-15 00:00 BC,20000-01-01 00:00,2024-02-29 12:34:56.7}'::timestamp[]),
    pick('{1970-01-01 00:00,1969-12-31 23:59:59.999,infinity,-infinity,2024-02-29 12:34:56.7}'::timestamp(3)[]),
    pick('{1970-01-01 00:00+00,1969-12-31 23:59:59.999999+00,0001-01-01 00:00:00.000001+00,9999-12-31 23:59:59.999999+00,infinity,-infinity,0044-03-15 00:00+00 BC,20000-01-01 00:00+00,2024-02-29 12:34:56.7+05:30}'::timestamptz[]),
    pick('{0,1 day,-1 day 00:00:00.000001,1 year 2 months,-3 months 4 days 05:06:07.89,999999 hours}'::interval[]),
    pick(ARRAY[gen_random_uuid(), '00000000-0000-0000-0000-000000000000', 'FFFFFFFF-ffff-ffff-ffff-ffffffffffff']),
    pick(ARRAY['{ "b" : 1, "a": [1.50, 2e3], "b": 2}', '"text"', 'null', '1', '[]'])::json,
    pick(ARRAY['{ "b" : 1, "a": [1.50, 2e3], "b": 2}', '"text \u00e9 \""', 'null', '1', '[]', '{"long key": {"x": null, "y": true}}'])::jsonb,
    pick('{"\\x","\\x00","\\xdeadbeef","\\x5c7830"}'::bytea[]),
    pick(ARRAY['{}', '{1,NULL,-2}', '{2147483647}'])::int[],
    pick(ARRAY['{}', '{1,NULL,-2}', '{9223372036854775807}'])::bigint[],
    pick(ARRAY['{}', '{1.50,NULL,-0.01}', '{99999999.99}'])::numeric[],
    pick(ARRAY['{}', '{1.5,NULL,1e300}', '{NaN,-Infinity}'])::float8[],
    pick(ARRAY['{}', '{t,NULL,f}'])::bool[],
    pick(ARRAY['{}', '{"",NULL,"NULL","a,b","\"\\","{}"," "}', '{Übergröße}'])::text[],
    pick(ARRAY['{}', '{00000000-0000-0000-0000-000000000000,NULL}'])::uuid[],
    pick(ARRAY['{}', '{1970-01-01,NULL,0001-01-01,9999-12-31}'])::date[],
    pick(ARRAY['{}', '{1970-01-01 00:00,NULL,2024-02-29 12:34:56.789012}'])::timestamp[],
    pick(ARRAY['{}', '{1970-01-01 00:00+00,NULL,infinity,2024-02-29 12:34:56.789012+01}'])::timestamptz[]
$$;

-- A row whose values are too large to stand in it, or are small, or NULL.
CREATE FUNCTION large_row(int) RETURNS large VOLATILE LANGUAGE sql AS $$
    SELECT $1, 0, repeat(x, 5 * n), repeat(x, 5 * n), to_json(repeat(x, 5 * n)),
        to_jsonb(repeat(x, 5 * n)), convert_to(repeat(x, 5 * n), 'UTF8'), array_fill(7, ARRAY[n]), array_fill(7::bigint, ARRAY[n]),
        array_fill(x, ARRAY[n]), array_fill(md5(x)::uuid, ARRAY[n]), array_fill(7::int2, ARRAY[2 * n]),
        array_fill(0.5::float8, ARRAY[n]), array_fill(true, ARRAY[5 * n]), array_fill('2024-02-29'::date, ARRAY[n]),
        array_fill('2024-02-29 12:34:56'::timestamp, ARRAY[n]), array_fill('2024-02-29 12:34:56+00'::timestamptz, ARRAY[n]),
        array_fill(1.25::numeric(10,2), ARRAY[n])
    FROM (SELECT pick(ARRAY['a', 'é', '"']) AS x, (ARRAY[0, 3, 500, 550])[1 + floor(random() * 4)::int] AS n) AS size
$$;

-- So many transactions of random kinds. Ids are 1 to 60; what an insert or a new key finds taken is left alone.
CREATE PROCEDURE work(transactions int) LANGUAGE plpgsql AS $$
DECLARE
    one int;
    other int;
    o uuid;
BEGIN
    FOR i IN 1..transactions LOOP
        one := 1 + floor(random() * 60);
        other := 1 + floor(random() * 60);
        o := md5((one % 5)::text)::uuid;
        CASE floor(random() * 20)::int
        WHEN 0, 1, 2 THEN
            INSERT INTO things SELECT (thing(g)).* FROM generate_series(one, one + 3) g ON CONFLICT DO NOTHING;
        WHEN 3, 4, 5 THEN
            UPDATE things SET (i4, f8, t, tz, jb, ns) = (SELECT n.i4, n.f8, n.t, n.tz, n.jb, n.ns FROM thing(one) n)
                WHERE id BETWEEN one AND one + 4;
        WHEN 6 THEN
            UPDATE things SET id = other WHERE id = one AND NOT EXISTS (SELECT FROM things WHERE id = other);
        WHEN 7 THEN
            -- Two rows change places.
            UPDATE things SET id = -1 WHERE id = one;
            UPDATE things SET id = one WHERE id = other;
            UPDATE things SET id = other WHERE id = -1;
        WHEN 8 THEN
            DELETE FROM things WHERE id IN (one, other);
        WHEN 9 THEN
            -- There and gone, and there again, in one transaction.
            DELETE FROM things WHERE id = one;
            INSERT INTO things SELECT (thing(one)).*;
            DELETE FROM things WHERE id = one;
            INSERT INTO things SELECT (thing(one)).*;
        WHEN 10 THEN
            INSERT INTO large SELECT (large_row(one)).* ON CONFLICT DO NOTHING;
            INSERT INTO full_large SELECT (large_row(one)).* ON CONFLICT DO NOTHING;
        WHEN 11, 12 THEN
            UPDATE large SET counter = counter + 1 WHERE id BETWEEN one AND one + 5;
            UPDATE full_large SET counter = counter + 1 WHERE id BETWEEN one AND one + 5;
        WHEN 13 THEN
            UPDATE large SET t = 'small', i4s = '{}' WHERE id BETWEEN one AND one + 5;
            UPDATE full_large SET by = NULL, jb = '{}' WHERE id BETWEEN one AND one + 5;
        WHEN 14 THEN
            DELETE FROM large WHERE id = one;
            DELETE FROM full_large WHERE id = one;
            UPDATE full_large SET id = one WHERE id = other;
        WHEN 15 THEN
            INSERT INTO "Order Lines" VALUES (o, one, '2024-01-01'::date + other, 1), (o, one + 100, '0001-01-01', other)
                ON CONFLICT DO NOTHING;
            UPDATE "Order Lines" SET quantity = quantity + 1 WHERE "order" = o;
        WHEN 16 THEN
            UPDATE "Order Lines" SET due = due + 100, quantity = other WHERE "order" = o AND "Line No" = one;
            DELETE FROM "Order Lines" WHERE "Line No" = other;
        WHEN 17 THEN
            INSERT INTO bag SELECT pick('{1,2}'::int[]), pick('{x,y}'::text[]), pick('{2024-01-01}'::date[]), pick('{0,1.5}'::numeric[])
                FROM generate_series(1, 5);
        WHEN 18 THEN
            UPDATE bag SET b = b || b WHERE a = 1 AND length(b) < 8;
            DELETE FROM bag WHERE ctid = (SELECT ctid FROM bag WHERE a = 2 LIMIT 1);
        ELSE
            IF random() < 0.2 THEN
                TRUNCATE bag, "Order Lines";
            END IF;
            INSERT INTO things SELECT (thing(other)).* ON CONFLICT DO NOTHING;
        END CASE;
        IF random() < 0.1 THEN ROLLBACK; ELSE COMMIT; END IF;
    END LOOP;
END $$;
