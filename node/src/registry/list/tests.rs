//! Rows in both forms, and everything that is none.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const URL: &str = "http://0.0.0.0:9997";
const JWT: &str = "0x688f5d737bad920bdfb2fc2f488d6b6209eebda1dae949a8de91398d932c517a";

fn address(n: u8) -> String {
    Address::repeat_byte(n).to_string()
}

fn parse(value: &Value) -> Result<GatewayList, ListError> {
    GatewayList::parse(value.to_string().as_bytes())
}

fn addresses(value: &Value) -> Vec<Address> {
    parse(value).unwrap().addresses()
}

#[test]
fn rows_of_every_form_are_read() {
    let both = [Address::repeat_byte(1), Address::repeat_byte(2)];
    for rows in [
        json!([[URL, address(1), JWT], [URL, address(2), JWT]]),
        json!([[URL, address(1)], [URL, address(2)]]),
        json!([[7, URL, address(1), JWT], [37, URL, address(2), JWT]]),
        json!([[7, URL, address(1)], [37, URL, address(2)]]),
        json!([["0x7", URL, address(1)], [URL, address(2).to_lowercase(), JWT]]),
    ] {
        assert_eq!(addresses(&rows), both, "{rows}");
    }
    let row: OneRow = serde_json::from_value(json!([1_234, URL, address(3), JWT])).unwrap();
    let (block, gateway) = row.into_row().unwrap();
    assert_eq!((block, gateway.address, &*gateway.url), (1_234, Address::repeat_byte(3), URL));
    let row: OneRow = serde_json::from_value(json!([URL, address(3), JWT])).unwrap();
    assert_eq!(row.into_row(), Err(RowError::NoBlock));
}

#[test]
fn what_is_wrong_is_told_by_row() {
    let row = |reason| ListError::Row { number: 2, reason };
    let good = json!([URL, address(1), JWT]);
    for (second, reason) in [
        (json!([]), RowError::Fields),
        (json!([URL]), RowError::Fields),
        (json!([7, URL]), RowError::Fields),
        (json!([URL, address(2), JWT, 1]), RowError::Fields),
        (json!([7, URL, address(2), JWT, 1]), RowError::Fields),
        (json!({ "url": URL }), RowError::NotARow),
        (json!("row"), RowError::NotARow),
        (json!(null), RowError::NotARow),
        (json!([-7, URL, address(2)]), RowError::First),
        (json!([true, URL, address(2)]), RowError::First),
        (json!([[URL], address(2)]), RowError::First),
        (json!(["", address(2)]), RowError::Url),
        (json!(["x".repeat(513), address(2)]), RowError::Url),
        (json!([7, 8, address(2)]), RowError::Url),
        (json!([URL, JWT, address(2)]), RowError::Address),
        (json!([URL, &address(2)[..41]]), RowError::Address),
        (json!([URL, address(2).replace("0x", "00")]), RowError::Address),
        (json!([URL, address(2).replace('2', "g")]), RowError::Address),
        (json!([URL, 2]), RowError::Address),
        (json!([URL, address(2), 7]), RowError::Jwt),
        (json!([URL, address(2), [JWT]]), RowError::Jwt),
    ] {
        let rows = json!([good, second, good]);
        assert_eq!(parse(&rows), Err(row(reason)), "{second}");
    }
    for other in [json!({}), json!("text"), json!(7), json!(null), json!(1.5), json!(-1)] {
        assert_eq!(parse(&other), Err(ListError::NotAList), "{other}");
    }
    let truncated = GatewayList::parse(b"[[\"http://x\",\n\"0x");
    assert!(matches!(truncated, Err(ListError::Json { line: 2, .. })), "{truncated:?}");
}

#[test]
fn lists_that_are_no_rotation_are_refused() {
    assert_eq!(parse(&json!([])), Err(ListError::Empty));
    let zero = json!([[URL, address(1)], [URL, Address::ZERO.to_string()]]);
    assert_eq!(parse(&zero), Err(ListError::Zero { number: 2 }));
    let twice = json!([[URL, address(1)], [URL, address(2)], [7, "http://y", address(1)]]);
    let address = Address::repeat_byte(1);
    assert_eq!(parse(&twice), Err(ListError::Duplicate { first: 1, second: 3, address }));
    let rows = |n: u64| -> Value {
        let row = |n| json!([URL, Address::from_word(alloy_primitives::U256::from(n).into())]);
        (1..=n).map(row).collect()
    };
    assert_eq!(addresses(&rows(MAX_ROWS as u64)).len(), MAX_ROWS);
    assert_eq!(parse(&rows(MAX_ROWS as u64 + 1)), Err(ListError::TooMany));
}

#[test]
fn no_jwt_is_in_what_is_kept_or_told() {
    let secret = JWT.trim_start_matches("0x");
    let shows = |what: &dyn fmt::Debug| format!("{what:?}").contains(secret);
    let list = parse(&json!([[7, URL, address(1), JWT], [URL, address(2), JWT]])).unwrap();
    assert!(!shows(&list));
    let rows: Rows = serde_json::from_value(json!([[URL, address(1), JWT]])).unwrap();
    assert!(!shows(&rows));
    // Nor where it was registered as the URL, or as a part of it.
    let (path, login) = (format!("{URL}/{JWT}"), format!("http://user:{JWT}@host"));
    for url in [JWT, &path, &login] {
        for row in [json!([url, address(1)]), json!([7, url, address(1), JWT])] {
            let list = parse(&json!([row])).unwrap();
            assert!(!shows(&list), "{list:?}");
        }
    }
    // Nor of rows in which it stands where it should not.
    for wrong in [
        json!([[JWT, URL, address(1)]]),
        json!([[URL, JWT]]),
        json!([[URL, JWT, JWT]]),
        json!([[7, JWT, JWT]]),
        json!([[URL, address(1), [JWT]]]),
        json!([{ JWT: JWT }]),
        json!(JWT),
        json!([JWT]),
    ] {
        if let Err(error) = parse(&wrong) {
            assert!(!shows(&error) && !error.to_string().contains(secret), "{error}");
        }
    }
    for broken in [format!("[[\"{URL}\", \"{JWT}"), format!("[\"{JWT}\" x"), JWT.to_owned()] {
        let error = GatewayList::parse(broken.as_bytes()).unwrap_err();
        assert!(!shows(&error) && !error.to_string().contains(secret), "{error}");
    }
}

fn json_of(depth: u32) -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        Just(URL.to_owned()),
        Just(JWT.to_owned()),
        (0u8..4).prop_map(address),
        "[ -~]{0,50}"
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text.prop_map(Value::from),
    ];
    leaf.prop_recursive(depth, 64, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            proptest::collection::btree_map("[a-z]{1,3}", inner, 0..3)
                .prop_map(|map| map.into_iter().collect()),
        ]
    })
}

proptest! {
    #[test]
    fn bytes_are_a_list_or_an_error(bytes: Vec<u8>) {
        let _ = GatewayList::parse(&bytes);
    }

    #[test]
    fn json_is_a_rotation_or_an_error(value in json_of(4)) {
        if let Ok(list) = parse(&value) {
            let mut addresses = list.addresses();
            prop_assert!((1..=MAX_ROWS).contains(&addresses.len()));
            prop_assert!(!addresses.contains(&Address::ZERO));
            addresses.sort();
            addresses.dedup();
            prop_assert_eq!(addresses.len(), list.gateways().len());
        }
    }

    #[test]
    fn what_is_registered_is_read_in_its_order(
        gateways in proptest::collection::btree_set(1u64.., 1..40),
        forms in proptest::collection::vec(0u8..4, 40),
    ) {
        let expected: Vec<Address> = gateways
            .iter()
            .map(|n| Address::from_word(alloy_primitives::U256::from(*n).into()))
            .collect();
        let row = |(address, form): (&Address, &u8)| match form {
            0 => json!([URL, address]),
            1 => json!([URL, address, JWT]),
            2 => json!([9, URL, address]),
            _ => json!([9, URL, address, JWT]),
        };
        let rows: Value = expected.iter().zip(&forms).map(row).collect();
        prop_assert_eq!(addresses(&rows), expected);
    }
}

/// Found by the fuzz target: rows of one form must not be read as rows of the other.
#[test]
fn a_url_that_reads_as_a_block_is_none() {
    let address = "0x0101010101010101010101010101010101010101";
    let row = format!(r#"[["0x3c","0x68","{address}","0x22"]]"#);
    let reason = RowError::Url;
    assert_eq!(GatewayList::parse(row.as_bytes()), Err(ListError::Row { number: 1, reason }));
    let row = format!(r#"[["0x3c","http://h:1","{address}","0x22"]]"#);
    assert!(GatewayList::parse(row.as_bytes()).is_ok());
}
