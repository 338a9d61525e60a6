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
