//! Files made here, and what is no test or no block.

use alloy_primitives::{Bytes, keccak256};
use proptest::prelude::*;
use serde_json::json;

use super::fixture::{Fixture, TestParts};
use super::*;

fn parse(value: &Value) -> Result<Vec<EthereumTest>, TestsError> {
    Tests::parse(Path::new("t.json"), value.to_string().as_bytes()).map(Iterator::collect)
}

fn a_block() -> TestParts {
    Fixture::new().block(None, 3, 12).0
}

#[test]
fn a_block_comes_out_as_it_went_in() {
    let parts = a_block();
    let body = Body::decode(&parts.rlp()).unwrap();
    assert_eq!(body.header, parts.header);
    assert_eq!(body.hash, parts.header.hash_slow());
    assert_eq!((&body.txs, &body.withdrawals), (&parts.txs, &parts.withdrawals));
    assert_eq!(body.blob_gas, [0; 3]);
    let env = body.env();
    assert_eq!((env.number, env.timestamp), (1, 1_012));
    assert_eq!(Some(env.basefee), parts.header.base_fee_per_gas);
    assert_eq!(env.prevrandao, parts.header.mix_hash);
    assert_eq!(Some(env.parent_beacon_block_root), parts.header.parent_beacon_block_root);
}

#[test]
fn what_messages_cannot_say_is_refused() {
    let good = a_block();
    let refused = |change: &dyn Fn(&mut TestParts), why: &str| {
        let mut parts = good.clone();
        change(&mut parts);
        let error = Body::decode(&parts.rlp()).unwrap_err();
        assert!(error.contains(why), "{why}: {error}");
    };
    refused(&|p| p.ommers.push(Header::default()), "ommers");
    refused(&|p| p.withdrawals = None, "withdrawals");
    refused(&|p| p.txs.push(Bytes::from_static(&[0x05, 1])), "transaction 3");
    refused(&|p| p.txs.push(Bytes::from_static(&[0xc1, 0x01])), "transaction 3");
    refused(&|p| p.header.extra_data = vec![0; 300].into(), "extra_data");
    refused(
        &|p| {
            p.header = Header { number: 1, ..Header::default() };
            p.withdrawals = None;
        },
        "base fee",
    );
    // Legacy transactions are not packed into strings.
    let mut parts = good.clone();
    let legacy = loop {
        let tx = a_legacy_transaction(&mut Fixture::new());
        if let Some(tx) = tx {
            break tx;
        }
    };
    parts.txs = vec![legacy.clone()];
    assert_eq!(Body::decode(&parts.rlp()).unwrap().txs, std::slice::from_ref(&legacy));
    let packed = alloy_rlp::encode(&legacy);
    assert!(transaction_error(&good, &packed).contains("no type"));
}

fn a_legacy_transaction(fixture: &mut Fixture) -> Option<Bytes> {
    fixture.block(None, 40, 12).0.txs.into_iter().find(|tx| tx[0] >= 0xc0)
}

/// The error of a block whose only transaction is this item.
fn transaction_error(good: &TestParts, item: &[u8]) -> String {
    let list = |payload: &[u8]| {
        let mut out = Vec::new();
        alloy_rlp::Header { list: true, payload_length: payload.len() }.encode(&mut out);
        out.extend_from_slice(payload);
        out
    };
    let mut payload = alloy_rlp::encode(&good.header);
    payload.extend(list(item));
    payload.extend([0xc0, 0xc0]);
    Body::decode(&list(&payload)).unwrap_err()
}

#[test]
fn every_cut_and_every_addition_is_refused() {
    let rlp = a_block().rlp();
    for cut in 0..rlp.len() {
        assert!(Body::decode(&rlp[..cut]).is_err(), "{cut}");
    }
    assert!(Body::decode(&[&rlp[..], &[0]].concat()).unwrap_err().contains("come after it"));
}

proptest! {
    #[test]
    fn any_bytes_decode_or_not(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = Body::decode(&bytes);
    }

    /// What decodes is the only way to write what was decoded.
    #[test]
    fn a_changed_byte_is_seen(at in any::<prop::sample::Index>(), flip in 1..=255_u8) {
        let good = a_block();
        let mut rlp = good.rlp();
        let at = at.index(rlp.len());
        rlp[at] ^= flip;
        if let Ok(body) = Body::decode(&rlp) {
            let parts = TestParts {
                header: body.header,
                txs: body.txs,
                ommers: Vec::new(),
                withdrawals: body.withdrawals,
            };
            prop_assert_eq!(keccak256(parts.rlp()), keccak256(&rlp));
        }
    }
}

#[test]
fn files_say_what_is_valid() {
    let mut fixture = Fixture::new();
    let (one, sealed) = fixture.block(None, 2, 12);
    let (two, _) = fixture.block(Some(&sealed), 0, 12);
    let mut wrong = two.valid();
    wrong["blockHeader"]["hash"] = json!(B256::repeat_byte(9));
    let mut other = two.valid();
    other["rlp"] = one.valid()["rlp"].clone();
    let blocks = [
        one.valid(),
        two.invalid("TR_Whatever"),
        json!({ "rlp": "0xzz", "expectException": "no hex", "blocknumber": "7" }),
        json!({ "rlp": "0xc0" }),
        wrong,
        other,
    ];
    let file = json!({
        "a": fixture.test("Cancun", &blocks, sealed.hash()),
        "b": fixture.test("London", &blocks, sealed.hash()),
    });
    let tests = parse(&file).unwrap();
    assert_eq!(tests.len(), 2);
    let test = &tests[0];
    let genesis = test.genesis.as_ref().unwrap().as_ref().unwrap();
    assert_eq!(genesis.header, fixture.genesis.header());
    assert_eq!(genesis.state.trie().unwrap().root(), genesis.header.state_root);
    let expected: Vec<_> = test.blocks.iter().map(|b| b.expected.clone()).collect();
    assert_eq!(expected[0], Expected::Valid(Ok(one.header.hash_slow())));
    assert_eq!(expected[1], Expected::Invalid("TR_Whatever".into()));
    assert_eq!(expected[2], Expected::Invalid("no hex".into()));
    assert!(matches!(expected[3], Expected::Invalid(_)));
    assert!(matches!(expected[4], Expected::Valid(Err(_))));
    assert!(matches!(expected[5], Expected::Valid(Err(_))));
    assert_eq!(test.blocks[2].number, Some(7));
    assert!(test.blocks[2].body.is_err() && test.blocks[3].body.is_err());
    // A network that is not executed: names and numbers alone.
    assert!(matches!(tests[1].genesis, Ok(None)));
    assert_eq!(tests[1].blocks.len(), blocks.len());
    assert_eq!(tests[1].blocks[0].number, Some(1));
}

#[test]
fn what_contradicts_itself_is_told() {
    let fixture = Fixture::new();
    let good = fixture.test("Cancun", &[], fixture.genesis.hash());
    let genesis = |change: &dyn Fn(&mut Value)| {
        let mut test = good.clone();
        change(&mut test);
        let mut tests = parse(&json!({ "t": test })).unwrap();
        tests.remove(0).genesis
    };
    assert!(genesis(&|_| {}).unwrap().is_some());
    assert!(genesis(&|t| t["genesisBlockHeader"]["gasLimit"] = json!("0x1")).is_err());
    assert!(genesis(&|t| t["genesisRLP"] = json!("0xc0")).is_err());
    assert!(genesis(&|t| t["pre"] = json!({ "0x01": {} })).is_err());
    assert!(genesis(&|t| t["genesisBlockHeader"] = json!(7)).is_err());
    // A test that is passed over need not be whole.
    let skipped = genesis(&|t| {
        t["network"] = json!("Frontier");
        t["pre"] = json!(null);
    });
    assert!(skipped.unwrap().is_none());
}

#[test]
fn other_json_is_told_apart() {
    for other in ["{}", "[]", "7", r#"{"a": 1}"#, r#"{"a": {"blocks": 1}}"#] {
        let error = Tests::parse(Path::new("x.json"), other.as_bytes()).unwrap_err();
        assert!(matches!(error, TestsError::Kind { .. }), "{other}: {error}");
        assert!(error.to_string().contains("x.json"), "{error}");
    }
    for damaged in ["", "{", r#"{"a": {"blocks": []"#, "[1, 2"] {
        let error = Tests::parse(Path::new("x.json"), damaged.as_bytes()).unwrap_err();
        assert!(matches!(error, TestsError::Json { .. }), "{damaged}: {error}");
    }
}
