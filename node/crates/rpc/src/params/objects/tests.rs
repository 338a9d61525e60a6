//! Objects within objects, as wallets and libraries write them.

use alloy_eips::eip7702::SignedAuthorization;
use serde_json::json;

use super::*;

fn authorization(change: &[(&str, Value)]) -> Result<SignedAuthorization, Wrong> {
    let mut item = json!({
        "chainId": "0x1", "address": Address::ZERO, "nonce": "0x0", "r": "0x1", "s": "0x2",
    });
    for (name, value) in change {
        item[*name] = value.clone();
    }
    let request = TransactionRequest::read(json!({ "authorizationList": [item] }))?;
    Ok(request.authorization_list.unwrap().remove(0))
}

#[test]
fn v_is_passed_over_where_there_is_a_parity() {
    let expected = authorization(&[("yParity", json!("0x1"))]).unwrap();
    assert_eq!(expected.y_parity(), 1);
    for v in [json!("0x1"), json!("0x1c"), json!("0x0"), json!(null), json!(28), json!([])] {
        let both = [("yParity", json!("0x1")), ("v", v)];
        assert_eq!(authorization(&both).unwrap(), expected, "{both:?}");
        let reversed = [("V", both[1].1.clone()), ("YPARITY", json!("0x1"))];
        assert_eq!(authorization(&reversed).unwrap(), expected, "{both:?}");
    }
    assert_eq!(authorization(&[("v", json!("0x1"))]).unwrap(), expected);
    let null = [("v", json!("0x1")), ("yParity", json!(null))];
    assert_eq!(authorization(&null).unwrap(), expected);
    assert!(authorization(&[("v", json!(1))]).is_err());
    assert!(authorization(&[]).unwrap_err().contains("yParity is missing"));
    assert!(authorization(&[("yParity", json!(1)), ("v", json!("0x1"))]).is_err());
}

#[test]
fn names_within_lists_have_any_case_and_others_are_passed_over() {
    let request = json!({
        "accessList": [{ "Address": Address::ZERO, "storagekeys": [B256::ZERO], "more": 1 }],
        "AuthorizationList": [{
            "CHAINID": "0x1", "address": Address::ZERO, "Nonce": "0x7", "yparity": "0x0",
            "R": "0x1", "S": "0x2", "hash": {},
        }],
    });
    let request = TransactionRequest::read(request).unwrap();
    assert_eq!(request.access_list.unwrap()[0].storage_keys, [B256::ZERO]);
    assert_eq!(request.authorization_list.unwrap()[0].nonce, 7);
    let changes = json!({ "withdrawals": [{
        "INDEX": "0x1", "validatorindex": "0x2", "address": Address::ZERO, "Amount": "0x3",
    }] });
    let changes = BlockChanges::read(changes).unwrap();
    assert_eq!(changes.withdrawals.unwrap()[0].validator_index, 2);
}

#[test]
fn an_array_is_no_object() {
    let (a, hash) = (Address::ZERO, B256::ZERO);
    for request in [
        json!([a, a]),
        json!({ "accessList": [[a, [hash]]] }),
        json!({ "authorizationList": [["0x1", a, "0x0", "0x1", "0x1", "0x1"]] }),
    ] {
        let wrong = TransactionRequest::read(request.clone()).unwrap_err();
        assert!(wrong.contains("an object is wanted"), "{request}: {wrong}");
    }
    for state in [json!([[a, {}]]), json!({ a.to_string(): ["0x1"] })] {
        assert!(StateOverride::read(state.clone()).is_err(), "{state}");
    }
    for block in [json!(["0x1"]), json!({ "withdrawals": [["0x1", "0x1", a, "0x1"]] })] {
        assert!(BlockChanges::read(block.clone()).is_err(), "{block}");
    }
    for blocks in [json!([[[]]]), json!([[{}, {}, []]])] {
        assert!(SimPayload::read(json!({ "blockStateCalls": blocks })).is_err(), "{blocks}");
    }
    assert!(SimPayload::read(json!([[]])).is_err());
    assert!(Filter::read(json!(["latest"])).is_err());
}

#[test]
fn data_and_input_may_both_be_there_if_they_are_the_same() {
    let both = json!({ "data": "0x01", "input": "0x01" });
    let request = TransactionRequest::read(both).unwrap();
    let input = request.input.try_into_unique_input().unwrap();
    assert_eq!(input, Some(Bytes::from_static(&[1])));
    let differ = TransactionRequest::read(json!({ "data": "0x01", "input": "0x02" })).unwrap();
    assert!(differ.input.try_into_unique_input().is_err());
}
