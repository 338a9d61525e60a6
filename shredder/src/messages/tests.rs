//! All vectors of the existing system, and inputs that must be refused.

use alloy_primitives::{Address, B256, Bytes, U256, b256, hex};
use proptest::prelude::*;

use super::json::{EnvJson, FragJson, JsonError, MessageJson, SealJson};
use super::wire::WireError;
use super::*;
use crate::signature::{GatewayKey, Signature, SignatureError, SignedMessage};

const H: B256 = b256!("e75fae0065403d4091f3d6549c4219db69c96d9de761cfc75fe9792b6166c758");

pub(crate) fn env() -> Message {
    Message::Env(Env {
        number: 1,
        parent_hash: H,
        beneficiary: "0x1234567890123456789012345678901234567890".parse().unwrap(),
        timestamp: 2,
        gas_limit: 3,
        basefee: 4,
        difficulty: U256::from(5),
        prevrandao: H,
        extra_data: Bytes::from_static(&[1, 2, 3]),
        parent_beacon_block_root: H,
    })
}

fn frag(block_number: u64, seq: u64, is_last: bool, blob: Option<u64>, txs: &[&[u8]]) -> Message {
    let txs = txs.iter().map(|tx| Bytes::copy_from_slice(tx)).collect();
    Message::Frag(Frag { block_number, seq, is_last, blob_gas_used: blob, txs })
}

fn seal(blob_gas_used: Option<u64>) -> Message {
    Message::Seal(Seal {
        total_frags: 8,
        block_number: 123,
        gas_used: 25_000,
        gas_limit: 1_000_000,
        parent_hash: H,
        transactions_root: H,
        receipts_root: H,
        state_root: H,
        block_hash: H,
        blob_gas_used,
    })
}

fn body(message: &Message) -> Bytes {
    let mut out = Vec::new();
    message.encode_body(&mut out);
    out.into()
}

#[test]
fn roots_are_those_of_the_existing_system() {
    let two: &[&[u8]] = &[&[1, 2, 3], &[4, 5, 6, 7]];
    for (message, root) in [
        (env(), "fa09df7670737568ba783dfd934e19b06e6681e367a866a5647449bd4e5ca324"),
        (
            frag(1, 0, true, None, &[&[1, 2, 3]]),
            "2a5ebad20a81878e5f229928e5c2043580051673b89a7a286008d30f62b10963",
        ),
        (
            frag(1, 0, true, Some(0), &[&[1, 2, 3]]),
            "03ad6cf2f1dcaa15376a664e013eb33765310ef6fe22247096593834350b4fca",
        ),
        (seal(None), "e86afda21ddc7338c7e84561681fde45e2ab55cce8cde3163e0ae5f1c378439e"),
        (seal(Some(0)), "e86afda21ddc7338c7e84561681fde45e2ab55cce8cde3163e0ae5f1c378439e"),
        (seal(Some(1)), "efccff69077bc6a2531c80e19a4aca20d15bef1452a873e6b66c39b71d9ce2a3"),
        (
            frag(7, 3, false, None, two),
            "dac4143ca4a13445c6d07e7f16b35598a92d912a5c506599055784943ef05108",
        ),
        (
            frag(7, 3, false, Some(0), two),
            "63d9b95a9b737290e280e4ac8e15ca1115a9546ffebaf578fa73fd487ed34bcd",
        ),
    ] {
        assert_eq!(hex::encode(message.root()), root, "{message:?}");
    }
}

#[test]
fn bodies_are_those_of_the_existing_system() {
    let h = hex::encode(H);
    let five = format!("05{}", "00".repeat(31));
    let env_body = format!(
        "0100000000000000{h}1234567890123456789012345678901234567890020000000000000003000000000000000400000000000000{five}{h}b8000000010203{h}"
    );
    let two: &[&[u8]] = &[&[1, 2, 3], &[4, 5, 6, 7]];
    for (message, dialect, expected) in [
        (env(), Dialect::V0, env_body.as_str()),
        (
            frag(1, 0, true, None, &[&[1, 2, 3]]),
            Dialect::V0,
            "01000000000000000000000000000000011500000004000000010203",
        ),
        (
            frag(1, 0, true, Some(0), &[&[1, 2, 3]]),
            Dialect::V0Blob,
            "010000000000000000000000000000000100000000000000001d00000004000000010203",
        ),
        (
            frag(7, 3, false, None, two),
            Dialect::V0,
            "070000000000000003000000000000000015000000080000000b00000001020304050607",
        ),
        (
            frag(7, 3, false, Some(0), two),
            Dialect::V0Blob,
            "070000000000000003000000000000000000000000000000001d000000080000000b00000001020304050607",
        ),
        (frag(5, 1, false, None, &[]), Dialect::V0, "050000000000000001000000000000000015000000"),
    ] {
        let bytes = body(&message);
        assert_eq!(hex::encode(&bytes), expected);
        assert_eq!(Message::decode_body(message.kind(), dialect, &bytes).unwrap(), message);
    }
    assert_eq!(body(&env()).len(), 187);
    assert_eq!(body(&seal(None)).len(), 192);
    assert_eq!(body(&seal(Some(7))).len(), 200);
}

#[test]
fn frag_and_seal_equal_a_standard_ssz_library() {
    #[derive(ssz_derive::Encode)]
    struct SszFrag {
        a: u64,
        b: u64,
        c: bool,
        d: Vec<Vec<u8>>,
    }
    #[derive(ssz_derive::Encode)]
    struct SszFragBlob {
        a: u64,
        b: u64,
        c: bool,
        d: u64,
        e: Vec<Vec<u8>>,
    }
    #[derive(ssz_derive::Encode)]
    struct SszSeal {
        a: u64,
        b: u64,
        c: u64,
        d: u64,
        e: B256,
        f: B256,
        g: B256,
        h: B256,
        i: B256,
    }
    use ssz::Encode as _;
    for txs in [vec![], vec![vec![]], vec![vec![1; 100], vec![], vec![2; 7]]] {
        let refs: Vec<&[u8]> = txs.iter().map(Vec::as_slice).collect();
        assert_eq!(
            body(&frag(9, 4, true, None, &refs)),
            SszFrag { a: 9, b: 4, c: true, d: txs.clone() }.as_ssz_bytes()
        );
        assert_eq!(
            body(&frag(9, 4, true, Some(6), &refs)),
            SszFragBlob { a: 9, b: 4, c: true, d: 6, e: txs.clone() }.as_ssz_bytes()
        );
    }
    let theirs = SszSeal { a: 8, b: 123, c: 25_000, d: 1_000_000, e: H, f: H, g: H, h: H, i: H };
    assert_eq!(body(&seal(None)), theirs.as_ssz_bytes());
}

#[test]
fn a_body_of_the_other_dialect_is_told_apart() {
    for (one, other) in [(Dialect::V0, Dialect::V0Blob), (Dialect::V0Blob, Dialect::V0)] {
        let blob = (other == Dialect::V0Blob).then_some(0);
        for message in [frag(1, 0, true, blob, &[&[1]]), frag(1, 0, true, blob, &[]), seal(blob)] {
            assert_eq!(
                Message::decode_body(message.kind(), one, &body(&message)),
                Err(WireError::Dialect { expected: one, found: other })
            );
        }
    }
}

#[test]
fn json_is_what_the_gateway_posts() {
    let text = serde_json::to_string(&MessageJson::from(&env())).unwrap();
    let h = format!("{H}");
    assert_eq!(
        text,
        format!(
            r#"{{"number":1,"parentHash":"{h}","beneficiary":"0x1234567890123456789012345678901234567890","timestamp":2,"gasLimit":3,"basefee":4,"difficulty":"0x5","prevrandao":"{h}","extraData":"0x010203","parentBeaconBlockRoot":"{h}"}}"#
        )
    );
    let parsed: EnvJson = serde_json::from_str(&text).unwrap();
    assert_eq!(parsed.into_message().unwrap(), env());

    let text = r#"{"blockNumber":1,"seq":0,"isLast":true,"txs":["0x010203"]}"#;
    let parsed: FragJson = serde_json::from_str(text).unwrap();
    let message = parsed.clone().into_message(Dialect::V0).unwrap();
    assert_eq!(message, frag(1, 0, true, None, &[&[1, 2, 3]]));
    assert_eq!(serde_json::to_string(&MessageJson::from(&message)).unwrap(), text);
    let wrong = JsonError::Dialect { expected: Dialect::V0Blob, found: Dialect::V0 };
    assert_eq!(parsed.into_message(Dialect::V0Blob), Err(wrong));

    let text = r#"{"blockNumber":1,"seq":0,"isLast":true,"blobGasUsed":0,"txs":["0x010203"]}"#;
    let parsed: FragJson = serde_json::from_str(text).unwrap();
    let wrong = JsonError::Dialect { expected: Dialect::V0, found: Dialect::V0Blob };
    assert_eq!(parsed.clone().into_message(Dialect::V0), Err(wrong));
    let message = parsed.into_message(Dialect::V0Blob).unwrap();
    assert_eq!(serde_json::to_string(&MessageJson::from(&message)).unwrap(), text);

    let text = serde_json::to_string(&MessageJson::from(&seal(None))).unwrap();
    let parsed: SealJson = serde_json::from_str(&text).unwrap();
    assert_eq!(parsed.into_message(Dialect::V0).unwrap(), seal(None));
    assert!(serde_json::from_str::<SealJson>(&text.replace("gasUsed", "gasBurnt")).is_err());
    assert!(serde_json::from_str::<EnvJson>("{}").is_err());
}

#[test]
fn a_message_signed_is_a_message_verified() {
    let key = GatewayKey::from_bytes([0x11; 32]).unwrap();
    let signed = key.sign(env());
    assert!(signed.signature.is_canonical());
    let wire = Bytes::from(signed.to_wire());
    let decoded = SignedMessage::from_wire(Kind::Env, Dialect::V0, &wire).unwrap();
    assert_eq!(decoded, signed);
    let verified = decoded.clone().verify(key.address()).unwrap();
    assert_eq!(verified.root(), env().root());
    assert_eq!(verified.to_wire(), wire);
    assert!(matches!(
        decoded.verify(Address::ZERO),
        Err(SignatureError::WrongSigner { found, .. }) if found == key.address()
    ));
}

#[test]
fn the_address_of_a_known_key_is_known() {
    // The first account of the well-known test mnemonic.
    let secret = hex!("ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80");
    let key = GatewayKey::from_bytes(secret).unwrap();
    let expected: Address = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266".parse().unwrap();
    assert_eq!(key.address(), expected);
}

/// n − s and the other parity: the same signature, not canonical.
fn high_s(signature: &Signature) -> Signature {
    let order = U256::from_be_bytes(hex!(
        "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141"
    ));
    let mut bytes = *signature.as_bytes();
    let s = U256::from_be_slice(&bytes[32..64]);
    bytes[32..64].copy_from_slice(&(order - s).to_be_bytes::<32>());
    bytes[64] ^= 1;
    Signature::from_bytes(bytes)
}

#[test]
fn all_four_forms_normalise_to_one_and_only_that_is_taken_from_peers() {
    for secret in 1..20u8 {
        let key = GatewayKey::from_bytes([secret; 32]).unwrap();
        let signed = key.sign(seal(None));
        let low = signed.signature;
        for form in [low, high_s(&low)] {
            for add in [0, 27] {
                let mut bytes = *form.as_bytes();
                bytes[64] += add;
                let form = Signature::from_bytes(bytes);
                assert_eq!(form.normalise().unwrap(), low);
                let foreign = SignedMessage::new(seal(None), form);
                assert_eq!(foreign.clone().verify(key.address()).is_ok(), form == low);
                let own = foreign.normalise_and_verify(key.address()).unwrap();
                assert_eq!(*own.signature(), low);
            }
        }
    }
}

#[test]
fn impossible_signatures_are_errors() {
    for (r, s, v) in [(0u8, 1u8, 0u8), (1, 0, 0), (0xff, 1, 0), (1, 1, 2), (1, 1, 29)] {
        let mut bytes = [0; 65];
        bytes[..32].fill(r);
        bytes[32..64].fill(s);
        bytes[64] = v;
        let signature = Signature::from_bytes(bytes);
        let message = SignedMessage::new(env(), signature);
        assert!(message.normalise_and_verify(Address::ZERO).is_err(), "{r} {s} {v}");
    }
    assert!(GatewayKey::from_bytes([0; 32]).is_err());
}

#[test]
fn truncated_and_overlong_bodies_are_refused() {
    for message in [env(), frag(7, 3, false, None, &[&[1, 2, 3], &[4]]), seal(None)] {
        let whole = body(&message);
        for len in 0..whole.len() {
            let cut = whole.slice(..len);
            // A shorter last transaction or extra data can still be well-formed; never equal.
            if let Ok(other) = Message::decode_body(message.kind(), Dialect::V0, &cut) {
                assert_ne!(other, message);
                assert_eq!(body(&other), cut);
            }
        }
    }
    let long = Bytes::from(vec![0; crate::MAX_MESSAGE_LEN + 1]);
    assert_eq!(
        Message::decode_body(Kind::Frag, Dialect::V0, &long),
        Err(WireError::TooLong(long.len()))
    );
}

#[test]
fn an_offset_table_that_claims_much_allocates_nothing() {
    // One transaction offset of 2^32 − 4: a naive decoder would reserve a gigabyte.
    let mut bytes = body(&frag(1, 0, false, None, &[&[1, 2, 3]])).to_vec();
    bytes[21..25].copy_from_slice(&0xffff_fffcu32.to_le_bytes());
    let decoded = Message::decode_body(Kind::Frag, Dialect::V0, &bytes.into());
    assert!(matches!(decoded, Err(WireError::Offset { .. })));
}

proptest! {
    #[test]
    fn frags_round_trip(
        block in any::<u64>(),
        seq in any::<u64>(),
        is_last in any::<bool>(),
        blob in any::<Option<u64>>(),
        txs in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..80), 0..20),
    ) {
        let refs: Vec<&[u8]> = txs.iter().map(Vec::as_slice).collect();
        let message = frag(block, seq, is_last, blob, &refs);
        let dialect = message.dialect().unwrap();
        let decoded = Message::decode_body(Kind::Frag, dialect, &body(&message)).unwrap();
        prop_assert_eq!(&decoded, &message);
        prop_assert_eq!(decoded.root(), message.root());
    }

    #[test]
    fn envs_round_trip(extra in proptest::collection::vec(any::<u8>(), 0..=256), number in any::<u64>()) {
        let Message::Env(mut m) = env() else { unreachable!() };
        m.extra_data = extra.into();
        m.number = number;
        let message = Message::Env(m);
        prop_assert_eq!(Message::decode_body(Kind::Env, Dialect::V0, &body(&message)).unwrap(), message);
    }
}

#[test]
fn more_transactions_than_the_list_has_room_for_are_refused() {
    let body = |count: usize| {
        let mut body = vec![0; 21];
        body[17..21].copy_from_slice(&21u32.to_le_bytes());
        // Empty ones, all at the end.
        body.extend(((4 * count) as u32).to_le_bytes().repeat(count));
        Bytes::from(body)
    };
    let decode = |count| Message::decode_body(Kind::Frag, Dialect::V0, &body(count));
    assert!(decode(1 << 20).is_ok());
    assert!(matches!(decode((1 << 20) + 1), Err(WireError::Length(_))));
}

mod page;
