use super::*;

#[tokio::test]
async fn blocks_build_on_one_another() {
    let mut chain = devnet();
    chain.block(1, 10);
    let module = serve(&chain);
    let (middle, last) = (Address::repeat_byte(0xaa), Address::repeat_byte(0xbb));
    // The second transfer spends what the first brought; the third, a block later, of the second.
    let move_on = |from: Address, to: Address, value: u64| {
        json!({
            "from": from, "to": token::ADDRESS,
            "input": token::transfer_call(to, U256::from(value)),
        })
    };
    let payload = json!({
        "blockStateCalls": [
            { "calls": [move_on(account(0), middle, 9), move_on(middle, last, 7)] },
            {
                "blockOverrides": { "number": "0x5", "baseFeePerGas": "0x9" },
                "stateOverrides": { last.to_string(): { "balance": "0x64" } },
                "calls": [
                    move_on(last, middle, 8),
                    move_on(last, account(1), 7),
                    { "from": last, "to": middle, "value": "0x64" },
                    balance_of(middle),
                ],
            },
        ],
        "traceTransfers": true,
        "returnFullTransactions": true,
    });
    let blocks = ask(&module, "eth_simulateV1", json!([payload, "latest"])).await.unwrap();
    let blocks = blocks.as_array().unwrap();
    // Blocks 3 and 4 are empty ones in between.
    let numbers: Vec<_> = blocks.iter().map(|block| number(&block["number"])).collect();
    assert_eq!(numbers, [2, 3, 4, 5]);
    let times: Vec<_> = blocks.iter().map(|block| number(&block["timestamp"])).collect();
    assert_eq!(times, [14, 26, 38, 50]);
    assert_eq!(blocks[0]["parentHash"], json!(chain.head.hash()));
    for pair in blocks.windows(2) {
        assert_eq!(pair[1]["parentHash"], pair[0]["hash"]);
    }
    let first = &blocks[0]["calls"];
    assert_eq!((&first[0]["status"], &first[1]["status"]), (&json!("0x1"), &json!("0x1")));
    assert_eq!(first[1]["logs"][0]["logIndex"], "0x1");
    assert_eq!(first[1]["logs"][0]["blockHash"], blocks[0]["hash"]);
    let used = number(&first[0]["gasUsed"]) + number(&first[1]["gasUsed"]);
    assert_eq!(number(&blocks[0]["gasUsed"]), used);
    assert_eq!(blocks[0]["baseFeePerGas"], "0x0");
    assert_eq!(blocks[0]["transactions"][1]["from"], json!(middle));
    assert_eq!(blocks[0]["transactions"][1]["hash"], first[1]["logs"][0]["transactionHash"]);

    assert_eq!(blocks[3]["baseFeePerGas"], "0x9");
    let second = &blocks[3]["calls"];
    // One more than there is.
    assert_eq!(second[0]["status"], "0x0");
    assert_eq!(second[0]["error"]["code"], 3);
    assert_eq!(second[0]["error"]["message"], "execution reverted");
    assert_eq!(second[1]["status"], "0x1");
    // Ether moves with a log of its own.
    assert_eq!(second[2]["logs"][0]["address"], json!(Address::repeat_byte(0xee)));
    assert_eq!(second[3]["returnData"], word(U256::from(2)));
}

#[tokio::test]
async fn what_is_wrong_with_a_simulation_has_the_codes_of_the_specification() {
    let chain = devnet();
    let module = serve(&chain);
    let at =
        |number: &str, time: Value| json!({ "blockOverrides": { "number": number, "time": time } });
    let poor = json!({ "from": Address::repeat_byte(9), "to": account(1), "value": "0x1" });
    let cheap = json!({ "from": account(0), "to": account(1), "maxFeePerGas": "0x5" });
    let fees = json!({ "maxFeePerGas": "0x174876e800", "from": account(0), "to": account(1) });
    let with = |key: &str, value: &str| {
        let mut fees = fees.clone();
        fees[key] = json!(value);
        fees
    };
    for (blocks, validation, code) in [
        (json!([]), false, -32602),
        (json!([at("0x2", Value::Null), at("0x2", Value::Null)]), false, -38020),
        (json!([at("0x1", json!("0x0"))]), false, -38021),
        (json!([at("0x200", Value::Null)]), false, -38026),
        (json!([{ "calls": [poor] }]), false, -38014),
        (json!([{ "calls": [with("gas", "0x5")] }]), false, -38013),
        (json!([{ "calls": [with("gas", "0xffffffffffff")] }]), false, -38015),
        (json!([{ "calls": [with("nonce", "0x5")] }]), true, -38011),
        (json!([{ "calls": [cheap.clone()] }]), true, -38012),
        (json!([{ "calls": [{ "from": account(0), "to": account(1) }] }]), true, -38012),
    ] {
        let payload = json!({ "blockStateCalls": blocks, "validation": validation });
        let error = ask(&module, "eth_simulateV1", json!([payload])).await.unwrap_err();
        assert_eq!(error.0, code, "{error:?} {payload}");
    }
    // Nonces follow by themselves, with validation, too.
    let calls = json!([{ "calls": [with("gas", "0x5208"), with("gas", "0x5208")] }]);
    let payload = json!({ "blockStateCalls": calls, "validation": true });
    let blocks = ask(&module, "eth_simulateV1", json!([payload])).await.unwrap();
    assert_eq!(blocks[0]["gasUsed"], "0xa410");
    assert_ne!(blocks[0]["baseFeePerGas"], "0x0");
    assert_eq!(blocks[0]["transactions"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_simulation_has_gas_for_all_its_calls_together() {
    let chain = devnet();
    let config = CallConfig { gas_cap: 50_000, ..CallConfig::default() };
    let module = serve_with(&chain, config);
    let one = json!({ "from": account(0), "to": account(1) });
    let payload = json!({ "blockStateCalls": [{ "calls": [one, one] }] });
    ask(&module, "eth_simulateV1", json!([payload])).await.unwrap();
    let payload = json!({ "blockStateCalls": [{ "calls": [one, one] }, { "calls": [one] }] });
    let error = ask(&module, "eth_simulateV1", json!([payload])).await.unwrap_err();
    assert_eq!(error.0, -38013, "{error:?}");
}

/// Returns the value of an instruction.
fn returns(op: u8) -> String {
    hex::encode_prefixed([op, 0x5f, 0x52, 0x60, 0x20, 0x5f, 0xf3])
}

async fn simulate(module: &RpcModule<Arc<CallContext>>, payload: Value) -> Vec<Value> {
    let blocks = ask(module, "eth_simulateV1", json!([payload])).await;
    blocks.unwrap_or_else(|e| panic!("{e:?}: {payload}")).as_array().unwrap().clone()
}

#[tokio::test]
async fn a_simulated_block_has_the_base_fee_that_it_says() {
    let chain = devnet();
    let module = serve(&chain);
    let place = Address::repeat_byte(0xcc);
    let state = json!({ place.to_string(): { "code": returns(0x48) } });
    for (overrides, expected) in [(json!({}), 0), (json!({ "baseFeePerGas": "0x10" }), 0x10)] {
        let payload = json!({ "blockStateCalls": [{
            "blockOverrides": overrides, "stateOverrides": state,
            "calls": [{ "to": place }, { "to": place }],
        }] });
        let blocks = simulate(&module, payload).await;
        assert_eq!(blocks[0]["baseFeePerGas"], json!(format!("{expected:#x}")));
        for call in blocks[0]["calls"].as_array().unwrap() {
            assert_eq!(call["returnData"], word(U256::from(expected)));
        }
    }
    // With validation it is the next block's.
    let fee = chain.spec.next_base_fee(&chain.head.snapshot.header, 14).unwrap();
    let call =
        json!({ "to": place, "from": account(0), "maxFeePerGas": "0x174876e800", "gas": "0x7530" });
    let payload = json!({
        "blockStateCalls": [{ "stateOverrides": state, "calls": [call] }], "validation": true,
    });
    let blocks = simulate(&module, payload).await;
    assert_eq!(blocks[0]["calls"][0]["returnData"], word(U256::from(fee)));
}

#[tokio::test]
async fn a_moved_precompile_is_back_in_the_next_block() {
    let chain = devnet();
    let module = serve(&chain);
    let (four, place) = (Address::with_last_byte(4), Address::repeat_byte(0xcc));
    let call = |to: Address| json!({ "to": to, "input": "0x1234" });
    let payload = json!({ "blockStateCalls": [
        {
            "stateOverrides": { four.to_string(): { "movePrecompileToAddress": place } },
            "calls": [call(four), call(place)],
        },
        { "calls": [call(four), call(place)] },
    ] });
    let blocks = simulate(&module, payload).await;
    let data = |block: usize, call: usize| blocks[block]["calls"][call]["returnData"].clone();
    assert_eq!((data(0, 0), data(0, 1)), (json!("0x"), json!("0x1234")));
    assert_eq!((data(1, 0), data(1, 1)), (json!("0x1234"), json!("0x")));
}

#[tokio::test]
async fn roots_are_those_of_the_block_that_it_would_be() {
    let mut chain = TestChain::with_trie(&DevnetConfig::default());
    let module = serve(&chain);
    // The next block as it is executed, and simulated with the same transactions.
    let base = chain.head.hash();
    let mut open = chain.open();
    let txs: Vec<_> = (0..30).map(|_| chain.workload.next_tx().bytes).collect();
    chain.frag(&mut open, &txs, true);
    let block = chain.seal(open);
    let header = &block.snapshot.header;
    let calls: Vec<Value> = block
        .snapshot
        .txs()
        .map(|placed| {
            let tx = &placed.executed.tx;
            let fragcast_execution::exec::Envelope::Eth(envelope) = &tx.envelope else { panic!() };
            use alloy_consensus::Transaction as _;
            let hex = |number: u128| json!(format!("{number:#x}"));
            let mut call = json!({
                "from": tx.sender, "to": envelope.kind().to(), "value": envelope.value(),
                "input": envelope.input(), "gas": hex(envelope.gas_limit().into()),
                "nonce": hex(envelope.nonce().into()),
            });
            match envelope.max_priority_fee_per_gas() {
                None => call["gasPrice"] = hex(envelope.max_fee_per_gas()),
                Some(tip) => {
                    call["maxFeePerGas"] = hex(envelope.max_fee_per_gas());
                    call["maxPriorityFeePerGas"] = hex(tip);
                }
            }
            call
        })
        .collect();
    let payload = json!({
        "blockStateCalls": [{
            "blockOverrides": {
                "time": format!("{:#x}", header.timestamp), "prevRandao": header.mix_hash,
                "feeRecipient": header.beneficiary, "beaconRoot": header.parent_beacon_block_root,
            },
            "calls": calls,
        }],
        "validation": true,
    });
    let params = json!([payload, { "blockHash": base }]);
    let blocks = ask(&module, "eth_simulateV1", params).await.unwrap();
    let simulated = &blocks[0];
    for (call, placed) in simulated["calls"].as_array().unwrap().iter().zip(block.snapshot.txs()) {
        assert_eq!(number(&call["gasUsed"]), placed.executed.gas_used);
    }
    assert_ne!(header.state_root, alloy_primitives::B256::ZERO);
    assert_eq!(simulated["stateRoot"], json!(header.state_root));
    assert_eq!(simulated["receiptsRoot"], json!(header.receipts_root));
    assert_eq!(simulated["logsBloom"], json!(header.logs_bloom));
    assert_eq!(simulated["gasUsed"], json!(format!("{:#x}", header.gas_used)));
    assert_eq!(
        simulated["baseFeePerGas"],
        json!(format!("{:#x}", header.base_fee_per_gas.unwrap()))
    );
    assert_eq!(simulated["parentBeaconBlockRoot"], json!(header.parent_beacon_block_root));
}

#[tokio::test]
async fn withdrawals_are_paid_and_shown() {
    let chain = TestChain::with_trie(&DevnetConfig::default());
    let module = serve(&chain);
    let (owner, place) = (Address::repeat_byte(0xdd), Address::repeat_byte(0xcc));
    // BALANCE of the owner.
    let mut run = vec![0x73];
    run.extend(owner);
    run.extend(hex!("3160005260206000f3"));
    let withdrawal = json!({
        "index": "0x5", "validatorIndex": "0x6", "address": owner, "amount": "0x3",
    });
    let payload = json!({ "blockStateCalls": [
        { "blockOverrides": { "withdrawals": [withdrawal] } },
        { "stateOverrides": code(place, &run), "calls": [{ "to": place }] },
    ] });
    let blocks = simulate(&module, payload).await;
    assert_eq!(blocks[0]["withdrawals"], json!([withdrawal]));
    let empty = "0x56e81f171bcc55a6ff8345e692c0f86e5b48e01b996cadc001622fb5e363b421";
    assert_ne!(blocks[0]["withdrawalsRoot"], json!(empty));
    assert_eq!(blocks[1]["withdrawals"], json!([]));
    assert_eq!(blocks[1]["withdrawalsRoot"], json!(empty));
    assert_eq!(blocks[1]["calls"][0]["returnData"], word(U256::from(3_000_000_000_u64)));
    assert_ne!(blocks[0]["stateRoot"], blocks[1]["stateRoot"]);
}

#[tokio::test]
async fn transfers_have_logs_where_they_happen_and_nowhere_else() {
    let chain = devnet();
    let module = serve(&chain);
    let (a, b) = (Address::repeat_byte(0xaa), Address::repeat_byte(0xbb));
    // A log; a call of `b` with 1 wei; a log.
    let mut run = hex!("5f5fa05f5f5f5f600173").to_vec();
    run.extend(b);
    run.extend(hex!("5af15f5fa0"));
    // Sends what it has to 0x11…11 and is destroyed.
    let mut destroyed = vec![0x73];
    destroyed.extend(Address::repeat_byte(0x11));
    destroyed.push(0xff);
    let state = |b_runs: &[u8]| {
        json!({
            a.to_string(): { "code": hex::encode_prefixed(&run), "balance": "0x64" },
            b.to_string(): { "code": hex::encode_prefixed(b_runs), "balance": "0x5" },
        })
    };
    let from = account(0);
    let calls = json!([{ "from": from, "to": a, "value": "0x7" }, { "from": from, "to": account(1), "value": "0x1" }]);
    let payload = |b_runs: &[u8], trace: bool| {
        json!({
            "blockStateCalls": [{ "stateOverrides": state(b_runs), "calls": calls }],
            "traceTransfers": trace,
        })
    };
    let topics = |log: &Value| {
        let topic = |at: usize| log["topics"][at].as_str().map(|t| t[26..].to_owned());
        (topic(1), topic(2), log["data"].clone())
    };
    let ether = json!(Address::repeat_byte(0xee));
    let plain = |address: Address| Some(hex::encode(address));

    let traced = simulate(&module, payload(&destroyed, true)).await;
    let logs = traced[0]["calls"][0]["logs"].as_array().unwrap().clone();
    let places: Vec<bool> = logs.iter().map(|log| log["address"] == ether).collect();
    // The value, the contract's log, the call, the destroyed contract's ether, the other log.
    assert_eq!(places, [true, false, true, true, false]);
    assert_eq!(topics(&logs[0]), (plain(from), plain(a), word(U256::from(7))));
    assert_eq!(topics(&logs[2]), (plain(a), plain(b), word(U256::from(1))));
    assert_eq!(
        topics(&logs[3]),
        (plain(b), plain(Address::repeat_byte(0x11)), word(U256::from(6)))
    );
    let indices: Vec<u64> = logs.iter().map(|log| number(&log["logIndex"])).collect();
    assert_eq!(indices, [0, 1, 2, 3, 4]);
    assert_eq!(traced[0]["calls"][1]["logs"][0]["logIndex"], "0x5");

    // The block is the same with and without them.
    let untraced = simulate(&module, payload(&destroyed, false)).await;
    assert_eq!(untraced[0]["calls"][0]["logs"].as_array().unwrap().len(), 2);
    for field in ["logsBloom", "receiptsRoot", "hash", "gasUsed"] {
        assert_eq!(traced[0][field], untraced[0][field], "{field}");
    }
    // What is undone has no log: `b` reverts, or the whole call does.
    let reverting = hex!("5f5ffd");
    let traced = simulate(&module, payload(&reverting, true)).await;
    let logs = traced[0]["calls"][0]["logs"].as_array().unwrap().clone();
    let places: Vec<bool> = logs.iter().map(|log| log["address"] == ether).collect();
    assert_eq!(places, [true, false, false]);
    let payload = json!({
        "blockStateCalls": [{
            "stateOverrides": state(&reverting), "calls": [{ "from": from, "to": b, "value": "0x1" }],
        }],
        "traceTransfers": true,
    });
    assert_eq!(simulate(&module, payload).await[0]["calls"][0]["logs"], json!([]));
}

#[tokio::test]
async fn the_gas_that_is_used_is_never_more_than_the_most() {
    let chain = devnet();
    let module = serve(&chain);
    let place = Address::repeat_byte(0xcc);
    // Clears a slot: refunds. And much data for little gas (EIP-7623, where it is in force).
    let clears = hex!("5f60015500");
    let one = "0x0000000000000000000000000000000000000000000000000000000000000001";
    let state = json!({ place.to_string(): {
        "code": hex::encode_prefixed(clears), "stateDiff": { one: one },
    } });
    let payload = json!({ "blockStateCalls": [{ "stateOverrides": state, "calls": [
        { "to": place }, { "to": account(1), "input": format!("0x{}", "ff".repeat(2_000)) },
    ] }] });
    let calls = simulate(&module, payload).await[0]["calls"].clone();
    let gas = |call: usize, field: &str| number(&calls[call][field]);
    assert!(gas(0, "maxUsedGas") > gas(0, "gasUsed"));
    assert!(gas(1, "maxUsedGas") >= gas(1, "gasUsed"));
}

#[tokio::test]
async fn checks_are_in_geths_order_and_words() {
    let chain = devnet();
    let module = serve(&chain);
    let (poor, to) = (Address::repeat_byte(0xc0), account(1));
    let base_fee = chain.spec.next_base_fee(&chain.head.snapshot.header, 12).unwrap();
    let rich = json!({ poor.to_string(): { "balance": "0xffffffffffffffffffff" } });
    for (state, call, code, expected) in [
        // The nonce first, then the price, then funds, then gas.
        (
            json!({}),
            json!({ "nonce": "0x5", "value": "0x1", "gas": "0x1" }),
            -38011,
            format!("nonce too high: address {poor}, tx: 5 state: 0"),
        ),
        (
            json!({ poor.to_string(): { "nonce": "0x7" } }),
            json!({ "nonce": "0x5", "gas": "0x1" }),
            -38010,
            format!("nonce too low: address {poor}, tx: 5 state: 7"),
        ),
        (
            json!({ poor.to_string(): { "nonce": "0xffffffffffffffff" } }),
            json!({ "gas": "0x1" }),
            -32603,
            format!("nonce has max value: address {poor}, nonce: 18446744073709551615"),
        ),
        (
            json!({}),
            json!({ "value": "0x1", "gas": "0x1" }),
            -38012,
            format!(
                "max fee per gas less than block base fee: address {poor}, maxFeePerGas: 0, \
                 baseFee: {base_fee}"
            ),
        ),
        (
            json!({}),
            json!({ "maxFeePerGas": "0x1", "maxPriorityFeePerGas": "0x2", "gas": "0x1" }),
            -32602,
            format!(
                "max priority fee per gas higher than max fee per gas: address {poor}, \
                 maxPriorityFeePerGas: 2, maxFeePerGas: 1"
            ),
        ),
        (
            json!({}),
            json!({ "maxFeePerGas": "0x174876e800", "value": "0x1", "gas": "0x1" }),
            -38014,
            format!(
                "insufficient funds for gas * price + value: address {poor} have 0 want 100000000001"
            ),
        ),
        (
            rich,
            json!({ "maxFeePerGas": "0x174876e800", "gas": "0x1" }),
            -38013,
            "intrinsic gas too low: have 1, want 21000".into(),
        ),
    ] {
        let mut call = call;
        (call["from"], call["to"]) = (json!(poor), json!(to));
        let payload = json!({
            "blockStateCalls": [{ "stateOverrides": state, "calls": [call] }], "validation": true,
        });
        let (number, message, _) =
            ask(&module, "eth_simulateV1", json!([payload])).await.unwrap_err();
        assert_eq!((number, message), (code, format!("err: {expected} (supplied gas 1)")));
    }
}

#[tokio::test]
async fn an_account_with_the_last_nonce_creates_nothing() {
    let chain = devnet();
    let module = serve(&chain);
    let from = Address::repeat_byte(0xc0);
    let calls = json!([{ "from": from, "input": "0x" }, { "from": from, "to": account(1) }]);
    let state = json!({ from.to_string(): { "nonce": "0xffffffffffffffff" } });
    let payload = json!({ "blockStateCalls": [{ "stateOverrides": state, "calls": calls }] });
    let blocks = ask(&module, "eth_simulateV1", json!([payload])).await.unwrap();
    let [created, called] = [0, 1].map(|call| blocks[0]["calls"][call].clone());
    assert_eq!(created["status"], "0x0");
    assert_eq!(created["error"]["message"], "nonce uint64 overflow");
    assert_eq!(called["status"], "0x1");
}
