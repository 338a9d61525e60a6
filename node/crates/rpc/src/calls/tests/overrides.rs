//! Overrides of precompiles, and what a request is refused for.

use alloy_primitives::B256;

use super::*;

const PLACE: Address = Address::repeat_byte(0xcc);
/// Returns 42.
const ANSWER: &str = "0x602a5f5260205ff3";

fn precompile(number: u8) -> Address {
    Address::with_last_byte(number)
}

#[tokio::test]
async fn code_of_a_precompile_that_is_overridden_runs_instead_of_it() {
    let chain = devnet();
    let module = serve(&chain);
    // Every precompile of the fork, and an account that is none.
    for number in [1, 2, 3, 4, 5, 6, 7, 8, 9, 0x0a, 0x55] {
        let state = json!({ precompile(number).to_string(): { "code": ANSWER } });
        let call = json!({ "to": precompile(number), "data": "0x1234" });
        let answer = ask(&module, "eth_call", json!([call, "latest", state])).await;
        assert_eq!(answer, Ok(word(U256::from(42))), "{number}");
        let gas = ask(&module, "eth_estimateGas", json!([call, "latest", state])).await.unwrap();
        let gas = number_of(&gas);
        assert!((21_040..22_000).contains(&gas), "{number}: {gas}");
        let list = ask(&module, "eth_createAccessList", json!([call, "latest", state])).await;
        assert!(list.unwrap().get("error").is_none());
    }
    // Also when a contract calls it: STATICCALL to 4, its 32 bytes returned.
    let run = hex!("60205f5f5f60045afa5060205ff3");
    let state = json!({
        precompile(4).to_string(): { "code": ANSWER },
        PLACE.to_string(): { "code": hex::encode_prefixed(run) },
    });
    let answer = ask(&module, "eth_call", json!([{ "to": PLACE }, "latest", state])).await;
    assert_eq!(answer, Ok(word(U256::from(42))));
    // Any other field makes it an ordinary account, too, as in geth.
    let state = json!({ precompile(4).to_string(): { "balance": "0x1" } });
    let call = json!([{ "to": precompile(4), "data": "0x1234" }, "latest", state]);
    assert_eq!(ask(&module, "eth_call", call).await, Ok(json!("0x")));
    let call = json!([{ "to": precompile(4), "data": "0x1234" }]);
    assert_eq!(ask(&module, "eth_call", call).await, Ok(json!("0x1234")));
}

fn number_of(value: &Value) -> u64 {
    number(value)
}

#[tokio::test]
async fn a_precompile_moves() {
    let chain = devnet();
    let module = serve(&chain);
    let moved = json!({ precompile(4).to_string(): { "movePrecompileToAddress": PLACE } });
    for (to, expected) in [(PLACE, "0x1234"), (precompile(4), "0x")] {
        let call = json!([{ "to": to, "data": "0x1234" }, "latest", moved]);
        assert_eq!(ask(&module, "eth_call", call).await, Ok(json!(expected)));
    }
    // Whatever the case of the name.
    let other = json!({ precompile(4).to_string(): { "MovePrecompileToAddress": PLACE } });
    let call = json!([{ "to": PLACE, "data": "0x1234" }, "latest", other]);
    assert_eq!(ask(&module, "eth_call", call).await, Ok(json!("0x1234")));
    // With code at the old address; both at once.
    let both = json!({
        precompile(4).to_string(): { "movePrecompileToAddress": PLACE, "code": ANSWER },
    });
    for (to, expected) in [(PLACE, json!("0x1234")), (precompile(4), word(U256::from(42)))] {
        let call = json!([{ "to": to, "data": "0x1234" }, "latest", both]);
        assert_eq!(ask(&module, "eth_call", call).await, Ok(expected));
    }
    // Onto another precompile, which is lost.
    let onto = json!({ precompile(4).to_string(): { "movePrecompileToAddress": precompile(2) } });
    let call = json!([{ "to": precompile(2), "data": "0x1234" }, "latest", onto]);
    assert_eq!(ask(&module, "eth_call", call).await, Ok(json!("0x1234")));
    // Two onto one place: the greater address is there.
    let two = json!({
        precompile(2).to_string(): { "movePrecompileToAddress": PLACE },
        precompile(4).to_string(): { "movePrecompileToAddress": PLACE },
    });
    let call = json!([{ "to": PLACE, "data": "0x1234" }, "latest", two]);
    assert_eq!(ask(&module, "eth_call", call).await, Ok(json!("0x1234")));

    let itself = json!({ precompile(4).to_string(): { "movePrecompileToAddress": precompile(4) } });
    let none = json!({ PLACE.to_string(): { "movePrecompileToAddress": precompile(4) } });
    let taken = json!({
        precompile(4).to_string(): { "movePrecompileToAddress": PLACE },
        PLACE.to_string(): { "balance": "0x1" },
    });
    let four = precompile(4);
    for (state, expected) in [
        (itself, format!("account {four} is already overridden")),
        (none, format!("account {PLACE} is not a precompile")),
        (taken, format!("account {PLACE} is already overridden")),
    ] {
        let error = ask(&module, "eth_call", json!([{ "to": PLACE }, "latest", state])).await;
        assert_eq!(error.unwrap_err(), (-32000, expected, Value::Null));
    }
}

#[tokio::test]
async fn what_is_warm_stays_as_the_fork_has_it() {
    let chain = devnet();
    let module = serve(&chain);
    // GAS, BALANCE of an address, GAS: the difference is returned. A warm account costs 100, a cold
    // one 2,600; POP, GAS and the like 15 more.
    let probe = |address: Address| {
        let mut run = vec![0x5a, 0x73];
        run.extend(address);
        run.extend(hex!("31505a900360005260206000f3"));
        hex::encode_prefixed(run)
    };
    let state = |address: Address| {
        json!({
            precompile(4).to_string(): { "movePrecompileToAddress": PLACE },
            Address::repeat_byte(1).to_string(): { "code": probe(address) },
        })
    };
    let mut gas = Vec::new();
    for address in [precompile(4), precompile(2), PLACE, Address::repeat_byte(9)] {
        let call = json!([{ "to": Address::repeat_byte(1) }, "latest", state(address)]);
        gas.push(
            U256::from_str_radix(
                &ask(&module, "eth_call", call).await.unwrap().as_str().unwrap()[2..],
                16,
            )
            .unwrap(),
        );
    }
    assert_eq!((gas[0], gas[2]), (gas[1], gas[3]));
    assert_eq!(gas[2] - gas[0], U256::from(2_500));
}

#[tokio::test]
async fn an_account_that_is_overridden_exists_and_keeps_its_storage() {
    let chain = devnet();
    let module = serve(&chain);
    let slot = |number: u8| B256::with_last_byte(number).to_string();
    let load = "0x60015460005260206000f3";
    // Two overrides of a slot each in two blocks: the second leaves the first.
    let payload = json!({ "blockStateCalls": [
        { "stateOverrides": { PLACE.to_string(): { "stateDiff": { slot(1): slot(7) } } } },
        {
            "stateOverrides": { PLACE.to_string(): { "stateDiff": { slot(2): slot(8) }, "code": load } },
            "calls": [{ "to": PLACE }],
        },
    ] });
    let blocks = ask(&module, "eth_simulateV1", json!([payload])).await.unwrap();
    assert_eq!(blocks[1]["calls"][0]["returnData"], word(U256::from(7)));
}

#[tokio::test]
async fn what_a_call_cannot_have_is_refused_by_name() {
    let chain = devnet();
    let module = serve(&chain);
    for (overrides, name) in [
        (json!({ "beaconRoot": B256::ZERO }), "beaconRoot"),
        (json!({ "withdrawals": [] }), "withdrawals"),
    ] {
        for method in ["eth_call", "eth_estimateGas", "eth_createAccessList"] {
            let params = json!([{ "to": PLACE }, "latest", {}, overrides]);
            let (code, message, _) = ask(&module, method, params).await.unwrap_err();
            assert_eq!(code, -32000);
            let expected = format!("block override {name:?} is not supported for this RPC method");
            assert_eq!(message, expected);
        }
    }
    let other = json!([{ "to": PLACE, "chainId": "0x1" }]);
    let (code, message, _) = ask(&module, "eth_call", other).await.unwrap_err();
    let id = chain.spec.chain_id;
    let expected = format!("chainId does not match node's (have=1, want={id})");
    assert_eq!((code, message), (-32000, expected));
    // A fee for blobs without blobs is nothing.
    let none = json!([{ "to": PLACE, "maxFeePerBlobGas": "0x0", "maxFeePerGas": "0x0" }]);
    assert_eq!(ask(&module, "eth_call", none).await, Ok(json!("0x")));
    for (call, expected) in [
        (json!({ "to": PLACE, "blobVersionedHashes": [] }), "blob transaction missing blob hashes"),
        (
            json!({ "blobVersionedHashes": [B256::repeat_byte(1)] }),
            "blob transaction of type create",
        ),
        (
            json!({ "to": PLACE, "blobVersionedHashes": [B256::repeat_byte(2)] }),
            "blob 0 has invalid hash version",
        ),
        (
            json!({ "to": PLACE, "authorizationList": [] }),
            "EIP-7702 transaction with empty auth list",
        ),
        (
            json!({ "authorizationList": [] }),
            "EIP-7702 transaction cannot be used to create contract",
        ),
        (
            json!({ "to": PLACE, "maxPriorityFeePerGas": "0x1" }),
            "max priority fee per gas higher than max fee per gas: address \
             0x0000000000000000000000000000000000000000, maxPriorityFeePerGas: 1, maxFeePerGas: 0",
        ),
    ] {
        // A fork that has all kinds of transactions.
        let prague = osaka::on_a_block(false);
        let (code, message, _) = ask(&prague, "eth_call", json!([call])).await.unwrap_err();
        assert_eq!((code, message), (-32000, format!("err: {expected} (supplied gas 50000000)")));
    }
    // The devnet has Cancun's rules.
    let delegating = json!({ "to": PLACE, "authorizationList": [] });
    let sender = "0x0000000000000000000000000000000000000000";
    let lacking = format!("transaction type not supported: setcode tx (sender {sender})");
    let told = async |method, call: &Value| ask(&module, method, json!([call])).await.unwrap_err();
    let expected = format!("err: {lacking} (supplied gas 50000000)");
    assert_eq!(told("eth_call", &delegating).await.1, expected);
    let expected = format!("failed with 50000000 gas: {lacking}");
    assert_eq!(told("eth_estimateGas", &delegating).await.1, expected);
    // What is paid for a blob is no reason to refuse a call where there are blobs.
    let paying = json!({ "to": PLACE, "maxFeePerBlobGas": "0x1" });
    assert_eq!(ask(&module, "eth_call", json!([paying])).await, Ok(json!("0x")));
}

#[tokio::test]
async fn a_poor_sender_is_told_of_funds_and_not_of_gas() {
    let chain = devnet();
    let module = serve(&chain);
    let poor = PLACE;
    let price = 100_000_000_000_u64;
    let has = |wei: u64| json!({ poor.to_string(): { "balance": format!("{wei:#x}") } });
    let call = json!({ "from": poor, "to": account(1), "gasPrice": format!("{price:#x}") });
    // Nothing at all; less than a transfer; less than its data costs.
    let mut long = call.clone();
    long["data"] = json!(format!("0x{}", "ff".repeat(1_000)));
    for (call, wei) in [(&call, 0), (&call, 20_999 * price), (&long, 30_000 * price)] {
        let error = ask(&module, "eth_call", json!([call, "latest", has(wei)])).await;
        let (code, message, _) = error.unwrap_err();
        assert_eq!(code, -32000);
        assert!(message.contains("insufficient funds for gas * price + value"), "{message}");
        assert!(!message.contains("have 0,") || wei == 0, "{message}");
    }
    // Enough for the call, though not for all gas that a call may have.
    let answer = ask(&module, "eth_call", json!([call, "latest", has(21_000 * price)])).await;
    assert_eq!(answer, Ok(json!("0x")));
}
