use super::*;
use alloy_primitives::B256;

use fragcast_execution::devnet::genesis::INITIAL_BALANCE;

#[tokio::test]
async fn a_call_reads_the_block_that_it_names() {
    let mut chain = devnet();
    let blocks: Vec<_> = (0..3).map(|_| chain.block(1, 200)).collect();
    let module = serve(&chain);
    let owner = account(0);
    for block in &blocks {
        let state = &block.snapshot.state;
        let slot = U256::from_be_bytes(token::balance_slot(owner).0);
        let balance = word(state.storage(token::ADDRESS, slot).unwrap());
        let number = format!("{:#x}", block.number());
        for id in [json!(number), json!({ "blockHash": block.hash() })] {
            let answer = ask(&module, "eth_call", json!([balance_of(owner), id])).await;
            assert_eq!(answer, Ok(balance.clone()));
        }
    }
    let latest = ask(&module, "eth_call", json!([balance_of(owner), "latest"])).await.unwrap();
    for params in [
        json!([balance_of(owner)]),
        json!([balance_of(owner), null]),
        json!([balance_of(owner), "pending"]),
    ] {
        assert_eq!(ask(&module, "eth_call", params).await.unwrap(), latest);
    }
    let answer = ask(&module, "eth_call", json!([balance_of(owner), "0x63"])).await;
    let after = "header not found: block 99 is after the newest verified block, which is 3";
    assert_eq!(answer.unwrap_err(), (-32001, after.into(), Value::Null));
    let answer = ask(&module, "eth_call", json!([balance_of(owner), "safe"])).await;
    assert_eq!(answer.unwrap_err().1, "safe block not found");
}

#[tokio::test]
async fn pending_is_the_newest_frag_with_its_own_environment() {
    let mut chain = devnet();
    chain.block(1, 10);
    let mut open = chain.open();
    let txs: Vec<_> = (0..50).map(|_| chain.workload.next_tx().bytes).collect();
    chain.frag(&mut open, &txs, false);
    let module = serve(&chain);
    let pending = chain.view.heads().unwrap().pending.clone().unwrap();
    let place = Address::repeat_byte(0xcc);
    // NUMBER, TIMESTAMP, COINBASE, GASLIMIT, PREVRANDAO, BASEFEE, each returned alone.
    for (op, expected) in [
        (0x43, U256::from(2)),
        (0x42, U256::from(4)),
        (0x41, U256::from_be_slice(pending.header.beneficiary.as_slice())),
        (0x45, U256::from(pending.header.gas_limit)),
        (0x44, pending.header.mix_hash.into()),
        // geth's: 0 unless the call has a price.
        (0x48, U256::ZERO),
    ] {
        let run = [op, 0x5f, 0x52, 0x60, 0x20, 0x5f, 0xf3];
        let params = json!([{ "to": place }, "pending", code(place, &run)]);
        assert_eq!(ask(&module, "eth_call", params).await, Ok(word(expected)), "{op:#x}");
    }
    let run = [0x48, 0x5f, 0x52, 0x60, 0x20, 0x5f, 0xf3];
    let paying = json!({ "from": account(0), "to": place, "gasPrice": "0x174876e800" });
    let params = json!([paying, "pending", code(place, &run)]);
    let base_fee = pending.header.base_fee_per_gas.unwrap();
    assert_eq!(ask(&module, "eth_call", params).await, Ok(word(U256::from(base_fee))));
}

#[tokio::test]
async fn errors_are_geths() {
    let chain = devnet();
    let module = serve(&chain);
    let place = Address::repeat_byte(0xcc);
    let poor = json!({
        "from": place, "to": token::ADDRESS, "data": token::transfer_call(account(1), U256::ONE),
    });
    let error = ask(&module, "eth_call", json!([poor])).await.unwrap_err();
    assert_eq!(error, (3, "execution reverted".into(), json!("0x")));

    // revert("no"): the words of Error(string) in memory.
    let mut run = Vec::new();
    let mut text = hex!("08c379a0").to_vec();
    text.extend(U256::from(32).to_be_bytes::<32>());
    text.extend(U256::from(2).to_be_bytes::<32>());
    text.extend(b"no");
    text.resize(100, 0);
    for (at, chunk) in text.chunks(32).enumerate() {
        let mut word = [0; 32];
        word[..chunk.len()].copy_from_slice(chunk);
        run.push(0x7f);
        run.extend(word);
        run.extend([0x60, 32 * at as u8, 0x52]);
    }
    run.extend([0x60, 100, 0x5f, 0xfd]);
    let error = ask(&module, "eth_call", json!([{ "to": place }, "latest", code(place, &run)]));
    let expected = (3, "execution reverted: no".into(), json!(hex::encode_prefixed(&text)));
    assert_eq!(error.await.unwrap_err(), expected);

    for (run, expected) in [
        (&[0xfe][..], "invalid opcode"),
        (&[0x5f, 0x56], "invalid jump destination"),
        (&[0x50], "stack underflow"),
    ] {
        let params = json!([{ "to": place }, "latest", code(place, run)]);
        let error = ask(&module, "eth_call", params).await.unwrap_err();
        assert_eq!((error.0, error.1.as_str()), (-32000, expected));
    }

    let error = ask(&module, "eth_call", json!([{ "from": place, "to": place, "value": "0x1" }]));
    let (number, message, _) = error.await.unwrap_err();
    assert_eq!(number, -32000);
    let expected = "err: insufficient funds for gas * price + value: address 0x";
    assert!(message.starts_with(expected), "{message}");
    let both = json!({ "to": place, "gasPrice": "0x1", "maxFeePerGas": "0x1" });
    let (_, message, _) = ask(&module, "eth_call", json!([both])).await.unwrap_err();
    assert!(message.contains("both gasPrice and"), "{message}");
    let cheap = json!({ "from": account(0), "to": place, "gasPrice": "0x1" });
    let (_, message, _) = ask(&module, "eth_call", json!([cheap])).await.unwrap_err();
    let expected = "err: max fee per gas less than block base fee: address 0x";
    assert!(message.starts_with(expected), "{message}");
    for params in [json!([]), json!({ "to": place }), json!([{ "to": 7 }]), json!([{}, "never"])] {
        let (number, ..) = ask(&module, "eth_call", params).await.unwrap_err();
        assert_eq!(number, -32602);
    }
}

#[tokio::test]
async fn overrides_change_state_and_block_of_one_call_only() {
    let chain = devnet();
    let module = serve(&chain);
    let owner = Address::repeat_byte(0xab);
    let slot = token::balance_slot(owner);
    let value = hex::encode_prefixed(U256::from(77).to_be_bytes::<32>());
    let diff = json!({ token::ADDRESS.to_string(): { "stateDiff": { slot.to_string(): value } } });
    let params = json!([balance_of(owner), "latest", diff]);
    assert_eq!(ask(&module, "eth_call", params).await, Ok(word(U256::from(77))));
    assert_eq!(ask(&module, "eth_call", json!([balance_of(owner)])).await, Ok(word(U256::ZERO)));

    // `state` replaces all slots, `stateDiff` one.
    let whole = json!({ token::ADDRESS.to_string(): { "state": { slot.to_string(): value } } });
    for (overrides, left) in [(&whole, 0), (&diff, INITIAL_BALANCE)] {
        let params = json!([balance_of(account(0)), "latest", overrides]);
        assert_eq!(ask(&module, "eth_call", params).await, Ok(word(U256::from(left))));
    }
    let both = json!({ token::ADDRESS.to_string(): { "state": {}, "stateDiff": {} } });
    let error = ask(&module, "eth_call", json!([balance_of(owner), "latest", both])).await;
    assert_eq!(error.unwrap_err().0, -32602);

    // Ether that is not there.
    let rich = json!({ owner.to_string(): { "balance": "0x5", "nonce": "0x9" } });
    let pay = json!({ "from": owner, "to": account(1), "value": "0x5", "nonce": "0x1234" });
    assert_eq!(ask(&module, "eth_call", json!([pay, "latest", rich])).await, Ok(json!("0x")));

    let place = Address::repeat_byte(0xcc);
    for (op, overrides, expected) in [
        (0x43, json!({ "number": "0x64" }), U256::from(100)),
        (0x42, json!({ "time": "0xffff" }), U256::from(0xffff)),
        (0x45, json!({ "gasLimit": "0x1234567" }), U256::from(0x1234567)),
        (0x41, json!({ "feeRecipient": place }), U256::from_be_slice(place.as_slice())),
        (0x44, json!({ "prevRandao": B256::repeat_byte(7) }), B256::repeat_byte(7).into()),
        (0x4a, json!({ "blobBaseFee": "0x22" }), U256::from(0x22)),
    ] {
        let run = [op, 0x5f, 0x52, 0x60, 0x20, 0x5f, 0xf3];
        let params = json!([{ "to": place }, "latest", code(place, &run), overrides]);
        assert_eq!(ask(&module, "eth_call", params).await, Ok(word(expected)), "{op:#x}");
    }
    // BLOCKHASH of a block whose hash is given.
    let run = [0x60, 0x63, 0x40, 0x5f, 0x52, 0x60, 0x20, 0x5f, 0xf3];
    let hash = B256::repeat_byte(3);
    let overrides = json!({ "number": "0x64", "blockHash": { "99": hash } });
    let params = json!([{ "to": place }, "latest", code(place, &run), overrides]);
    assert_eq!(ask(&module, "eth_call", params).await, Ok(json!(hash)));
    // The identity precompile somewhere else.
    let identity = Address::with_last_byte(4).to_string();
    let moved = json!({ identity: { "movePrecompileToAddress": place } });
    let params = json!([{ "to": place, "data": "0x1234" }, "latest", moved]);
    assert_eq!(ask(&module, "eth_call", params).await, Ok(json!("0x1234")));
}

#[tokio::test]
async fn an_estimate_suffices_and_is_close() {
    let mut chain = devnet();
    let module = serve(&chain);
    let block = chain.block(1, 100);
    for placed in block.snapshot.txs() {
        let envelope = &placed.executed.tx.envelope;
        let request = json!({
            "from": placed.executed.tx.sender,
            "to": envelope.kind().to(),
            "value": envelope.value(),
            "input": envelope.input(),
        });
        // On the state before it; other transactions of the block change none of its cost but for
        // whether a recipient had tokens.
        let answer = ask(&module, "eth_estimateGas", json!([request, "0x0"])).await;
        let gas = number(&answer.unwrap());
        let mut limited = request.clone();
        limited["gas"] = json!(format!("{gas:#x}"));
        ask(&module, "eth_call", json!([limited, "0x0"])).await.unwrap();
        let used = placed.executed.gas_used;
        if envelope.input().is_empty() {
            assert_eq!((gas, used), (21_000, 21_000));
        } else {
            assert!(gas >= used && gas < used * 103 / 100 + 3_000, "{gas} for {used}");
        }
    }
}

#[tokio::test]
async fn an_estimate_fails_as_the_transaction_does() {
    let chain = devnet();
    let module = serve(&chain);
    let place = Address::repeat_byte(0xcc);
    let poor = json!({
        "from": place, "to": token::ADDRESS, "data": token::transfer_call(account(1), U256::ONE),
    });
    let error = ask(&module, "eth_estimateGas", json!([poor])).await.unwrap_err();
    assert_eq!(error, (3, "execution reverted".into(), json!("0x")));
    let mut little = transfer(5);
    little["gas"] = json!("0x7530");
    let error = ask(&module, "eth_estimateGas", json!([little])).await.unwrap_err();
    assert_eq!(error.1, "gas required exceeds allowance (30000)");
    let value = json!({ "from": place, "to": account(0), "value": "0x1" });
    let error = ask(&module, "eth_estimateGas", json!([value])).await.unwrap_err();
    assert_eq!(error.1, "insufficient funds for transfer");
    // Enough for 30,000 gas at this price.
    let rich =
        json!({ place.to_string(): { "balance": format!("{:#x}", 30_000 * 100_000_000_000_u64) } });
    let mut priced = poor;
    priced["gasPrice"] = json!("0x174876e800");
    let error = ask(&module, "eth_estimateGas", json!([priced, "latest", rich])).await.unwrap_err();
    assert!(error.1.contains("execution reverted") || error.1.contains("allowance"), "{error:?}");
}

#[tokio::test]
async fn an_estimate_tells_lack_of_funds_from_lack_of_gas() {
    let module = serve(&devnet());
    let place = Address::repeat_byte(0xcc);
    let blob = json!([format!("0x01{}", "00".repeat(31))]);
    let transfer = "insufficient funds for transfer";
    let funds = "insufficient funds for gas * price + value";
    // One blob at 16 wei a gas: 0x200000 wei.
    for (balance, fields, text) in [
        ("0x0", json!({ "maxFeePerGas": "0x174876e800" }), transfer),
        ("0x0", json!({ "gasPrice": "0x174876e800" }), transfer),
        ("0x5", json!({ "gasPrice": "0x174876e800", "value": "0x5" }), transfer),
        ("0x5", json!({ "gasPrice": "0x174876e800", "value": "0x6" }), transfer),
        ("0x5", json!({ "value": "0x6" }), transfer),
        (
            "0x200001",
            json!({
                "maxFeePerGas": "0x174876e800", "value": "0x1", "blobVersionedHashes": blob,
                "maxFeePerBlobGas": "0x10",
            }),
            funds,
        ),
        (
            "0x1fffff",
            json!({
                "maxFeePerGas": "0x174876e800", "blobVersionedHashes": blob,
                "maxFeePerBlobGas": "0x10",
            }),
            funds,
        ),
    ] {
        let mut call = fields.clone();
        (call["from"], call["to"]) = (json!(place), json!(account(0)));
        let state = json!({ place.to_string(): { "balance": balance } });
        let params = json!([call, "latest", state]);
        let error = ask(&module, "eth_estimateGas", params).await.unwrap_err();
        assert_eq!((error.0, error.1.as_str()), (-32000, text), "{balance} {fields}");
    }
    // Without a price all that an account has may be moved.
    let state = json!({ place.to_string(): { "balance": "0x5" } });
    let all = json!({ "from": place, "to": account(0), "value": "0x5" });
    let gas = ask(&module, "eth_estimateGas", json!([all, "latest", state])).await.unwrap();
    assert_eq!(gas, "0x5208");
    let none = json!({ "from": place, "to": account(0) });
    assert_eq!(ask(&module, "eth_estimateGas", json!([none])).await.unwrap(), "0x5208");
}

#[tokio::test]
async fn an_access_list_has_what_a_transfer_touches() {
    let chain = devnet();
    let module = serve(&chain);
    let answer = ask(&module, "eth_createAccessList", json!([transfer(5)])).await.unwrap();
    let list = answer["accessList"].as_array().unwrap();
    assert_eq!(list.len(), 1);
    assert_eq!(list[0]["address"], json!(token::ADDRESS));
    let mut slots = vec![token::balance_slot(account(0)), token::balance_slot(account(1))];
    slots.sort();
    assert_eq!(list[0]["storageKeys"], json!(slots));
    assert!(answer.get("error").is_none());
    // Used with the list it takes that much gas.
    let mut with = transfer(5);
    with["accessList"] = answer["accessList"].clone();
    let again = ask(&module, "eth_createAccessList", json!([with])).await.unwrap();
    assert_eq!(again, answer);

    let mut poor = transfer(5);
    poor["from"] = json!(Address::repeat_byte(0xcc));
    let answer = ask(&module, "eth_createAccessList", json!([poor])).await.unwrap();
    assert_eq!(answer["error"], "execution reverted");
}

#[tokio::test]
async fn calls_of_bundles_build_on_one_another() {
    let mut chain = devnet();
    let block = chain.block(1, 20);
    let module = serve(&chain);
    let (middle, last) = (Address::repeat_byte(0xaa), Address::repeat_byte(0xbb));
    let moves = |from: Address, to: Address, value: u64| json!({ "from": from, "to": token::ADDRESS, "data": token::transfer_call(to, U256::from(value)) });
    let place = Address::repeat_byte(0xcc);
    let number = hex::encode_prefixed([0x43, 0x5f, 0x52, 0x60, 0x20, 0x5f, 0xf3]);
    let state = json!({ place.to_string(): { "code": number } });
    let bundles = json!([
        { "transactions": [moves(account(0), middle, 9), moves(middle, last, 10), { "to": place }] },
        {
            "transactions": [moves(middle, last, 7), balance_of(last), { "to": place }],
            "blockOverride": { "number": "0x64" },
        },
        { "transactions": [{ "to": place }] },
    ]);
    let answer = ask(&module, "eth_callMany", json!([bundles, null, state])).await.unwrap();
    assert_eq!(answer[0][0]["value"], word(U256::ONE));
    assert_eq!(answer[0][1]["error"], "execution reverted");
    assert_eq!(answer[0][2]["value"], word(U256::ONE));
    assert_eq!(answer[1][1]["value"], word(U256::from(7)));
    assert_eq!(answer[1][2]["value"], word(U256::from(100)));
    assert_eq!(answer[2][0]["value"], word(U256::from(3)));
    // Before a transaction of a block, and after all.
    let moved = |placed: &fragcast_execution::exec::Placed<'_>| {
        placed.executed.tx.envelope.kind().to() == Some(&token::ADDRESS)
    };
    let placed = block.snapshot.txs().find(moved).unwrap();
    let bundles = json!([{ "transactions": [balance_of(placed.executed.tx.sender)] }]);
    let mut values = Vec::new();
    for index in [json!(placed.index), json!(placed.index + 1), json!(-1)] {
        let place = json!({ "blockNumber": "0x1", "transactionIndex": index });
        let answer = ask(&module, "eth_callMany", json!([bundles, place])).await.unwrap();
        values.push(answer[0][0]["value"].clone());
    }
    assert_ne!(values[0], values[1]);
    let last = ask(&module, "eth_call", json!([balance_of(placed.executed.tx.sender)])).await;
    assert_eq!(values[2], last.unwrap());
    for wrong in [json!([[{}]]), json!([[{ "transactions": [], "foo": 1 }]]), json!([{}])] {
        assert_eq!(ask(&module, "eth_callMany", wrong).await.unwrap_err().0, -32602);
    }
}
