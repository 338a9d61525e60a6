//! What ends entries that are not executed, and what is told of it.

use alloy_consensus::{TxEip7702, TxLegacy};
use fragcast_execution::devnet::genesis::INITIAL_BALANCE;

use super::*;

/// A transfer of account 0 with this nonce and value.
fn transfer(chain: &TestChain, nonce: u64, value: u128) -> Bytes {
    sign(TxEip1559 { nonce, value: U256::from(value), ..plain(chain) })
}

#[tokio::test]
async fn what_a_gateway_took_and_leaves_out_blocks_its_sender_for_four_blocks() {
    let mut chain = devnet();
    let gateway = Gateway::good();
    let forwarder = forwarder(&chain, to(&[(first(), &gateway)]));
    let (raw, later) = (transfer(&chain, 0, 1), transfer(&chain, 1, 1));
    let hash = forwarder.send(&raw).await.unwrap();
    let second = forwarder.send(&later).await.unwrap();
    for _ in 0..3 {
        chain.block(1, 0);
        forwarder.look();
        assert_eq!((forwarder.len(), forwarder.pending_nonce(sender(), 0)), (2, 2));
    }
    chain.block(1, 0);
    forwarder.look();
    assert!(forwarder.get(hash).is_none());
    let why = forwarder.dropped(hash).unwrap();
    assert!(why.to_string().contains("4 blocks came without it"), "{why}");
    // The sender goes on where the state is; what comes after waits for that.
    assert_eq!(forwarder.pending_nonce(sender(), 0), 0);
    assert!(forwarder.get(second).is_some() && forwarder.dropped(second).is_none());
    // Sent again it is on its way again.
    forwarder.send(&raw).await.unwrap();
    assert_eq!((forwarder.dropped(hash), forwarder.pending_nonce(sender(), 0)), (None, 2));
    let mut block = chain.open();
    chain.frag(&mut block, &[raw, later], true);
    eventually("taken out", || forwarder.is_empty()).await;
    assert!(forwarder.dropped(hash).is_none() && forwarder.dropped(second).is_none());
    let dropped: Vec<_> = forwarder.stats().dropped().filter(|(_, n)| *n > 0).collect();
    assert_eq!(dropped, [("left_out", 1)]);
}

#[tokio::test]
async fn whoever_waits_for_what_is_dropped_is_told_why() {
    let mut chain = devnet();
    let gateway = Gateway::good();
    let forwarder = forwarder(&chain, to(&[(first(), &gateway)]));
    // All that it has, but for fees; and as much again.
    let most = INITIAL_BALANCE - 10_000_000_000_000_000_000;
    let (raw, second) = (transfer(&chain, 0, most), transfer(&chain, 1, most));
    let (sync, bytes) = (Arc::clone(&forwarder), second.clone());
    forwarder.send(&raw).await.unwrap();
    let waiting = tokio::spawn(async move { sync.send_sync(&bytes, Some(GUARD)).await });
    eventually("sent", || gateway.arrived().len() == 2).await;
    let mut block = chain.open();
    chain.frag(&mut block, &[raw], true);
    chain.seal(block);
    let error = waiting.await.unwrap().unwrap_err();
    assert_eq!(error.code(), -32_000);
    let begin = "the transaction was dropped: insufficient funds for gas * price + value: balance ";
    assert!(error.message().starts_with(begin), "{error}");
    assert!(forwarder.is_empty());
    assert_eq!(forwarder.dropped(keccak256(&second)).unwrap().label(), "funds");
    // One whose nonce was taken by another.
    let other = transfer(&chain, 1, 2);
    let hash = forwarder.send(&transfer(&chain, 1, 1)).await.unwrap();
    let mut block = chain.open();
    chain.frag(&mut block, std::slice::from_ref(&other), false);
    eventually("taken out", || forwarder.is_empty()).await;
    assert_eq!(forwarder.dropped(hash), Some(Dropped::Replaced(keccak256(&other))));
}

#[tokio::test]
async fn one_that_replaces_another_must_offer_more_and_ends_it_once_it_is_taken() {
    let chain = devnet();
    let gateway = Gateway::good();
    let forwarder = forwarder(&chain, to(&[(first(), &gateway)]));
    let old = forwarder.send(&transfer(&chain, 0, 1)).await.unwrap();
    let error = forwarder.send(&transfer(&chain, 0, 2)).await.unwrap_err();
    assert!(error.message().starts_with("replacement transaction underpriced: "), "{error}");
    assert_eq!(gateway.arrived().len(), 1);
    let mut better = plain(&chain);
    (better.max_fee_per_gas, better.max_priority_fee_per_gas) = (110_000_000_000, 2);
    let new = forwarder.send(&sign(better)).await.unwrap();
    assert!(forwarder.get(old).is_none() && forwarder.get(new).is_some());
    assert_eq!(forwarder.dropped(old), Some(Dropped::Replaced(new)));
    assert_eq!(forwarder.pending_nonce(sender(), 0), 1);
}

#[tokio::test]
async fn what_no_gateway_of_this_chain_could_include_is_not_sent() {
    let chain = devnet();
    let gateway = Gateway::good();
    let forwarder = forwarder(&chain, to(&[(first(), &gateway)]));
    let legacy = |gas_price| TxLegacy {
        chain_id: Some(chain.spec.chain_id),
        gas_price,
        gas_limit: 21_000,
        to: TxKind::Call(Address::ZERO),
        ..Default::default()
    };
    let TxEip1559 { chain_id, max_fee_per_gas, .. } = plain(&chain);
    let delegating =
        TxEip7702 { chain_id, gas_limit: 100_000, max_fee_per_gas, ..Default::default() };
    for (raw, begin) in [
        (sign(legacy(0)), "max fee per gas less than block base fee: "),
        // In a minute of blocks of a second it comes down from 1 gwei to 331,000.
        (sign(legacy(300_000)), "max fee per gas less than block base fee: "),
        (sign(TxEip1559 { nonce: u64::MAX, ..plain(&chain) }), "nonce has max value: "),
        (sign(delegating), "transaction type not supported: type 4 rejected, the fork Prague"),
    ] {
        let error = forwarder.send(&raw).await.unwrap_err();
        assert_eq!(error.code(), -32_000);
        assert!(error.message().starts_with(begin), "{error}");
    }
    assert!(gateway.arrived().is_empty() && forwarder.is_empty());
    assert_eq!(forwarder.stats().refused.load(Ordering::Relaxed), 4);
    // One that a later block may include is the gateway's to judge.
    forwarder.send(&sign(legacy(500_000_000))).await.unwrap();
    assert_eq!(gateway.arrived().len(), 1);
    chain.view.tell(ChainEvent::Verified(Arc::clone(&chain.head)));
    forwarder.look();
    assert_eq!(forwarder.len(), 1, "it waits for the base fee to come down");
}

#[tokio::test]
async fn conditions_are_checked_and_sent_along() {
    let mut chain = devnet();
    chain.block(1, 0);
    let gateway = Gateway::good();
    let forwarder = forwarder(&chain, to(&[(first(), &gateway)]));
    let raw = transfer(&chain, 0, 1);
    let time = chain.head.snapshot.header.timestamp;
    let slot = B256::ZERO;
    for (conditions, code, text) in [
        (json!({ "blockNumberMin": "0x5" }), -32_003, "the block number is 1, below"),
        (json!({ "blockNumberMax": "0x0" }), -32_003, "the block number is 1, above"),
        (json!({ "timestampMin": format!("{:#x}", time + 1) }), -32_003, "the timestamp is"),
        (
            json!({ "knownAccounts": { sender().to_string(): { slot.to_string(): B256::with_last_byte(1) } } }),
            -32_003,
            "slot 0x",
        ),
        (
            json!({ "knownAccounts": { sender().to_string(): B256::ZERO } }),
            -32_003,
            "the storage of",
        ),
        (json!({ "blockNumber": "0x1" }), -32_602, "there is no condition \"blockNumber\""),
        (json!({ "blockNumberMin": "0x01" }), -32_602, "the conditions: blockNumberMin: "),
        (json!({ "knownAccounts": { "0x12": {} } }), -32_602, "the conditions: "),
        (json!("0x1"), -32_602, "the conditions: "),
    ] {
        let error = forwarder.send_conditional(&raw, conditions.clone()).await.unwrap_err();
        assert_eq!(error.code(), code, "{conditions}: {error}");
        assert!(error.message().contains(text), "{conditions}: {error}");
    }
    let many: serde_json::Map<String, Value> = (0..1_001)
        .map(|n| (Address::from_word(B256::from(U256::from(n))).to_string(), json!({})))
        .collect();
    let error =
        forwarder.send_conditional(&raw, json!({ "knownAccounts": many })).await.unwrap_err();
    assert_eq!(error.code(), -32_005);
    assert!(gateway.arrived().is_empty());
    let conditions = json!({
        "blockNumberMin": "0x1",
        "blockNumberMax": "0x9",
        "timestampMin": null,
        "timestampMax": "0xffffffffff",
        "knownAccounts": {
            sender().to_string(): { slot.to_string(): B256::ZERO, B256::repeat_byte(1).to_string(): null },
            Address::ZERO.to_string(): null,
        },
    });
    forwarder.send_conditional(&raw, conditions.clone()).await.unwrap();
    assert_eq!(gateway.arrived(), [raw]);
    assert_eq!(gateway.conditions(), [conditions]);
    // Null is no condition.
    for (nonce, conditions) in [
        (1, json!({ "knownAccounts": null, "blockNumberMin": null, "blockNumberMax": null })),
        (2, json!({ "timestampMin": null, "timestampMax": null })),
    ] {
        let raw = transfer(&chain, nonce, 1);
        forwarder.send_conditional(&raw, conditions.clone()).await.unwrap();
    }
}
