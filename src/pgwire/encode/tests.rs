//! Values against PostgreSQL's own bytes: what `int4send` and its like answer for them.

use bytes::Bytes;

use super::binary::BinaryColumn;
use crate::pgwire::params;
use crate::types::{SqlType, parse_text};

const SENT: &[(&str, &str, &str)] = &[
    ("bool", "true", "01"),
    ("int2", "-2", "fffe"),
    ("int4", "305419896", "12345678"),
    ("int8", "-9223372036854775808", "8000000000000000"),
    ("float4", "1.5", "3fc00000"),
    ("float8", "-0.1", "bfb999999999999a"),
    ("numeric(12,4)", "-12345.6789", "0003000140000004000109291a85"),
    ("numeric(20,0)", "10000000000", "00010002000000000064"),
    ("numeric(12,2)", "0.00", "0000000000000002"),
    ("text", "tëxt", "74c3ab7874"),
    ("varchar(5)", "ab", "6162"),
    ("bytea", "\\x00ff10", "00ff10"),
    ("date", "1999-12-31", "ffffffff"),
    ("date", "2024-02-29", "00002279"),
    ("time", "23:59:59.999999", "000000141dd75fff"),
    ("timestamp", "1969-07-20 20:17:40.123456", "fffc96188bb04340"),
    ("timestamptz", "2024-07-01 12:00:00+02", "0002bf2b6dcbe800"),
    ("interval", "1 year 2 mons -3 days 04:05:06.789", "000000036c97ca88fffffffd0000000e"),
    ("uuid", "123e4567-e89b-12d3-a456-426614174000", "123e4567e89b12d3a456426614174000"),
    ("json", "{\"a\":1}", "7b2261223a317d"),
    ("jsonb", "{\"a\": 1}", "017b2261223a20317d"),
    ("oid", "4294967295", "ffffffff"),
    ("name", "pg_class", "70675f636c617373"),
    (
        "integer[]",
        "{1,NULL,-3}",
        "00000001000000010000001700000003000000010000000400000001ffffffff00000004fffffffd",
    ),
    ("integer[]", "{}", "000000000000000000000017"),
    (
        "text[]",
        "{a,\"b,c\",\"\"}",
        "0000000100000000000000190000000300000001000000016100000003622c6300000000",
    ),
    (
        "uuid[]",
        "{123e4567-e89b-12d3-a456-426614174000}",
        "000000010000000000000b86000000010000000100000010123e4567e89b12d3a456426614174000",
    ),
    (
        "numeric(6,2)[]",
        "{1.50,NULL}",
        "0000000100000001000006a400000002000000010000000c000200000000000200011388ffffffff",
    ),
];

#[test]
fn binary_values_are_postgres_own_both_ways() {
    for (name, text, hex) in SENT {
        let sql_type: SqlType = name.parse().unwrap();
        let field = sql_type.field_ref("c", true);
        let value = parse_text(&field, text).unwrap();
        let array = value.to_array().unwrap();
        let column = BinaryColumn::new(&array, &sql_type).unwrap();
        let mut out = Vec::new();
        column.write(0, &mut out, &mut String::new()).unwrap();
        assert_eq!(hex::encode(&out), *hex, "{name} {text}");
        let bytes = Bytes::from(hex::decode(hex).unwrap());
        let read = params::decode(std::slice::from_ref(&field), &[1], &[Some(bytes)]).unwrap();
        assert_eq!(read, [value], "{name} {text}");
    }
}

/// Every value cut short or with a byte too many is refused, or is a value of its own; nothing panics.
#[test]
fn broken_binary_values_do_not_panic() {
    for (name, _, hex) in SENT {
        let field = name.parse::<SqlType>().unwrap().field_ref("c", true);
        let whole = hex::decode(hex).unwrap();
        let mut broken: Vec<Vec<u8>> = (0..whole.len()).map(|n| whole[..n].to_vec()).collect();
        broken.push([&whole[..], &[0]].concat());
        for i in 0..whole.len() {
            let mut turned = whole.clone();
            turned[i] ^= 0xff;
            broken.push(turned);
        }
        for bytes in broken {
            // Whether it is a value does not matter here.
            let _ = params::decode(std::slice::from_ref(&field), &[1], &[Some(bytes.into())]);
        }
    }
}
