//! `GATEWAY.md` is what a gateway is written from: its JSON, signatures and digests are checked.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::*;

const PAGE: &str = include_str!("../../../../GATEWAY.md");

/// The requests of the page, one a line.
fn requests() -> Vec<Value> {
    let fenced = PAGE.split("```json\n").skip(1).map(|rest| rest.split_once("\n```").unwrap().0);
    fenced.map(|text| serde_json::from_str(text).unwrap()).collect()
}

fn read<M: DeserializeOwned>(message: &Value) -> M {
    serde_json::from_value(message.clone()).unwrap()
}

fn message(request: &Value) -> Message {
    let message = &request["params"][0]["message"];
    let blob = message.get("blobGasUsed").is_some();
    let dialect = if blob { Dialect::V0Blob } else { Dialect::V0 };
    match request["method"].as_str().unwrap() {
        "based_env" => read::<EnvJson>(message).into_message().unwrap(),
        "based_newFrag" => read::<FragJson>(message).into_message(dialect).unwrap(),
        "based_sealFrag" => read::<SealJson>(message).into_message(dialect).unwrap(),
        other => panic!("{other}"),
    }
}

#[test]
fn the_requests_are_signed_as_the_page_says() {
    let secret = hex!("ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80");
    assert!(PAGE.contains(&hex::encode(secret)));
    let key = GatewayKey::from_bytes(secret).unwrap();
    assert!(PAGE.contains(&key.address().to_string()));
    let mut kinds = Vec::new();
    for request in requests() {
        let message = message(&request);
        kinds.push((message.kind(), message.dialect()));
        let signed = key.sign(message);
        let expected = hex::encode_prefixed(signed.signature.as_bytes());
        assert_eq!(request["params"][0]["signature"], expected, "{:?}", signed.message);
        assert!(PAGE.contains(&hex::encode(signed.root())), "{:?}", signed.message);
    }
    let (v0, blob) = (Some(Dialect::V0), Some(Dialect::V0Blob));
    assert_eq!(
        kinds,
        [
            (Kind::Env, None),
            (Kind::Frag, v0),
            (Kind::Seal, v0),
            (Kind::Frag, blob),
            (Kind::Seal, blob)
        ]
    );
}

#[test]
fn the_digests_and_bodies_are_those_of_the_page() {
    let two: &[&[u8]] = &[&[1, 2, 3], &[4, 5, 6, 7]];
    let one: &[&[u8]] = &[&[1, 2, 3]];
    for message in [
        env(),
        frag(1, 0, true, None, one),
        frag(1, 0, true, Some(0), one),
        frag(5, 1, false, None, &[]),
        frag(7, 3, false, None, two),
        frag(7, 3, false, Some(0), two),
        seal(None),
        seal(Some(1)),
    ] {
        assert!(PAGE.contains(&hex::encode(message.root())), "{message:?}");
    }
    assert!(PAGE.contains(&hex::encode(body(&frag(1, 0, true, None, one)))));
}
