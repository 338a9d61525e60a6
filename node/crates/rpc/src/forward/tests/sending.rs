use alloy_consensus::{
    BlobTransactionSidecar, TxEip4844, TxEip4844Variant, TxEip4844WithSidecar, TxLegacy,
};
use alloy_eips::eip4844::kzg_to_versioned_hash;
use alloy_eips::eip7594::BlobTransactionSidecarVariant;

use super::gateway::Answer;
use super::*;

type Variant = TxEip4844Variant<BlobTransactionSidecarVariant>;

#[tokio::test]
async fn the_leader_then_the_next_then_the_execution_client() {
    let mut chain = devnet();
    let (mut a, mut b, mut c) = (Gateway::good(), Gateway::good(), Gateway::good());
    let mut config = to(&[(first(), &a), (second(), &b)]);
    config.fallback = Some(c.url.clone());
    let forwarder = forwarder(&chain, config);
    let txs: Vec<_> = (0..4).map(|_| chain.workload.next_tx().bytes).collect();
    assert_eq!(forwarder.send(&txs[0]).await, Ok(keccak256(&txs[0])));
    assert_eq!([a.arrived().len(), b.arrived().len(), c.arrived().len()], [1, 0, 0]);
    a.stop().await;
    forwarder.send(&txs[1]).await.unwrap();
    assert_eq!([a.arrived().len(), b.arrived().len(), c.arrived().len()], [1, 1, 0]);
    b.stop().await;
    forwarder.send(&txs[2]).await.unwrap();
    assert_eq!([a.arrived().len(), b.arrived().len(), c.arrived().len()], [1, 1, 1]);
    assert_eq!(c.arrived()[0], txs[2]);
    c.stop().await;
    let error = forwarder.send(&txs[3]).await.unwrap_err();
    assert_eq!(error.message(), "no gateway could be reached; try again later");
    assert_eq!(forwarder.len(), 3);
    assert!(forwarder.get(keccak256(&txs[3])).is_none());
}

#[tokio::test]
async fn the_leader_is_that_of_the_block_being_built() {
    let mut chain = devnet();
    let (a, b) = (Gateway::good(), Gateway::good());
    for _ in 0..9 {
        chain.block(1, 1);
    }
    let forwarder = forwarder(&chain, to(&[(first(), &a), (second(), &b)]));
    // Block 10 is the first of the second gateway's term.
    forwarder.send(&chain.workload.next_tx().bytes).await.unwrap();
    assert_eq!([a.arrived().len(), b.arrived().len()], [0, 1]);
}

#[tokio::test]
async fn the_leader_is_that_of_the_epoch_of_the_block() {
    let mut chain = devnet();
    let (a, b) = (Gateway::good(), Gateway::good());
    let members = Arc::new(Membership::new(5, Vec::new()).unwrap());
    let epoch = |from_block, gateway| {
        let schedule = Schedule::new(vec![gateway], 10).unwrap();
        Arc::new(Epoch::new(5, from_block, Arc::clone(&members), schedule, []).unwrap())
    };
    let view = |epochs| Arc::new(EpochsView::new(epochs).unwrap());
    let (published, epochs) = watch::channel(view(vec![epoch(0, first())]));
    let forwarder = forwarder_in(&chain, to(&[(first(), &a), (second(), &b)]), epochs);
    forwarder.send(&chain.workload.next_tx().bytes).await.unwrap();
    assert_eq!([a.arrived().len(), b.arrived().len()], [1, 0]);

    // The second gateway leads from block 3 on; block 1 is still the first one's.
    published.send_replace(view(vec![epoch(0, first()), epoch(3, second())]));
    forwarder.send(&chain.workload.next_tx().bytes).await.unwrap();
    assert_eq!([a.arrived().len(), b.arrived().len()], [2, 0]);

    published.send_replace(view(vec![epoch(0, first()), epoch(1, second())]));
    forwarder.send(&chain.workload.next_tx().bytes).await.unwrap();
    assert_eq!([a.arrived().len(), b.arrived().len()], [2, 1]);
}

/// [`to`] for gateways of which one never answers.
fn impatient(gateways: &[(Address, &Gateway)]) -> ForwardConfig {
    // The next one has to answer in this time, on a busy machine, too.
    ForwardConfig { timeout: Duration::from_secs(2), ..to(gateways) }
}

#[tokio::test]
async fn whoever_answers_decides_and_whoever_does_not_is_passed_over() {
    let mut chain = devnet();
    let error = json!({ "code": -32003, "message": "underpriced", "data": { "tip": 1 } });
    let told = error.clone();
    let a = Gateway::start(move |_| Answer::Error(told.clone()));
    let b = Gateway::good();
    let sender = forwarder(&chain, to(&[(first(), &a), (second(), &b)]));
    let tx = chain.workload.next_tx().bytes;
    let refused = sender.send(&tx).await.unwrap_err();
    assert_eq!(serde_json::to_value(&refused).unwrap(), error);
    assert_eq!(b.arrived().len(), 0);
    assert!(sender.is_empty());

    for answer in [|| Answer::Silence, || Answer::Status(503), || Answer::Status(200)] {
        let a = Gateway::start(move |_| answer());
        let sender = forwarder(&chain, impatient(&[(first(), &a), (second(), &b)]));
        let before = b.arrived().len();
        sender.send(&tx).await.unwrap();
        assert_eq!(b.arrived().len(), before + 1);
    }
    // The first may have passed it on to the second before it fell silent.
    let a = Gateway::start(|_| Answer::Silence);
    let known = || Answer::Error(json!({ "code": -32000, "message": "already known" }));
    let b = Gateway::start(move |_| known());
    let both = forwarder(&chain, impatient(&[(first(), &a), (second(), &b)]));
    both.send(&tx).await.unwrap();
    // The second alone means it.
    let alone = forwarder(&chain, to(&[(first(), &b)]));
    assert_eq!(alone.send(&tx).await.unwrap_err().message(), "already known");
}

#[tokio::test]
async fn what_is_plainly_invalid_is_not_sent() {
    let mut chain = devnet();
    chain.block(1, 2);
    let gateway = Gateway::good();
    let mut config = to(&[(first(), &gateway)]);
    config.max_tx_bytes = 2_000;
    let forwarder = forwarder(&chain, config);
    let good = TxEip1559 { nonce: 2, ..plain(&chain) };
    let with = |change: &dyn Fn(&mut TxEip1559)| {
        let mut tx = good.clone();
        change(&mut tx);
        sign(tx)
    };
    let legacy = TxLegacy { nonce: 2, gas_price: 1 << 40, gas_limit: 21_000, ..Default::default() };
    let mut broken = sign(good.clone()).to_vec();
    let end = broken.len() - 1;
    broken.truncate(end);
    for (raw, message) in [
        (with(&|tx| tx.nonce = 1), "nonce too low: next nonce 2, tx nonce 1"),
        (with(&|tx| tx.value = U256::MAX >> 8), "insufficient funds for gas * price + value: "),
        (with(&|tx| tx.chain_id += 1), "invalid chain id for signer: have "),
        (with(&|tx| tx.gas_limit = 20_999), "intrinsic gas too low: gas 20999, minimum needed 2"),
        (with(&|tx| tx.gas_limit = u64::MAX / 4), "exceeds block gas limit"),
        (with(&|tx| tx.max_priority_fee_per_gas = u128::MAX), "max priority fee per gas higher"),
        (with(&|tx| tx.input = vec![0; 2_000].into()), "oversized data: transaction size 2"),
        (sign(legacy), "only replay-protected (EIP-155) transactions allowed over RPC"),
        (broken.into(), "it does not decode: "),
        (Bytes::new(), "typed transaction too short"),
        (Bytes::from_static(&[0x03, 0xc0]), "it does not decode: "),
        (Bytes::from_static(&[0x80, 1]), "it does not decode: "),
        (Bytes::from_static(&[0xc0]), "it does not decode: "),
        (Bytes::from_static(&[0x7e, 1, 2]), "transaction type not supported"),
        (Bytes::from_static(&[0x05, 0xc0]), "transaction type not supported"),
        (Bytes::from_static(&[0x00, 0xc0]), "transaction type not supported"),
        (Bytes::from_static(&[0x7f, 0xc0]), "transaction type not supported"),
        (Bytes::from_static(&[0x05]), "typed transaction too short"),
        (Bytes::from_static(&[0x02]), "typed transaction too short"),
    ] {
        let error = forwarder.send(&raw).await.unwrap_err();
        assert_eq!(error.code(), -32000);
        assert!(error.message().starts_with(message), "{}: {message}", error.message());
    }
    assert!(gateway.arrived().is_empty());
    let raw = sign(good);
    forwarder.send(&raw).await.unwrap();
    let again = forwarder.send(&raw).await.unwrap_err();
    assert_eq!((again.code(), again.message()), (-32000, "already known"));
    assert_eq!(gateway.arrived().len(), 1);
}

#[tokio::test]
async fn blobs_are_sent_and_not_remembered() {
    let chain = devnet();
    let gateway = Gateway::good();
    let forwarder = forwarder(&chain, to(&[(first(), &gateway)]));
    let tx = TxEip4844 {
        chain_id: chain.spec.chain_id,
        gas_limit: 21_000,
        max_fee_per_gas: 100_000_000_000,
        max_fee_per_blob_gas: 1_000,
        blob_versioned_hashes: vec![kzg_to_versioned_hash(&[0; 48])],
        ..Default::default()
    };
    let sidecar = BlobTransactionSidecar {
        blobs: vec![Default::default()],
        commitments: vec![Default::default()],
        proofs: vec![Default::default()],
    };
    let other =
        TxEip4844 { blob_versioned_hashes: vec![kzg_to_versioned_hash(&[1; 48])], ..tx.clone() };
    let bare = sign(Variant::TxEip4844(tx.clone()));
    let error = forwarder.send(&bare).await.unwrap_err();
    assert_eq!(error.message(), "missing sidecar in blob transaction");
    let sidecar = BlobTransactionSidecarVariant::Eip4844(sidecar);
    let two =
        TxEip4844 { blob_versioned_hashes: vec![kzg_to_versioned_hash(&[0; 48]); 2], ..tx.clone() };
    for (tx, text) in [
        (other, "blob 0: computed hash "),
        (two, "invalid number of 1 blobs and 1 blob commitments compared to 2 blob hashes"),
    ] {
        let sidecar = sidecar.clone();
        let raw = sign(Variant::TxEip4844WithSidecar(TxEip4844WithSidecar { tx, sidecar }));
        let error = forwarder.send(&raw).await.unwrap_err();
        assert!(error.message().starts_with(text), "{error}");
    }
    let full = sign(Variant::TxEip4844WithSidecar(TxEip4844WithSidecar { tx, sidecar }));
    assert!(full.len() > 131_072);
    let hash = forwarder.send(&full).await.unwrap();
    assert_eq!(hash, keccak256(&bare));
    assert_eq!(forwarder.get(hash).unwrap().bytes, bare);
    assert_eq!(gateway.arrived(), [full]);
}

#[tokio::test]
async fn the_pending_nonce_counts_what_is_on_its_way() {
    let mut chain = devnet();
    let gateway = Gateway::good();
    let forwarder = forwarder(&chain, to(&[(first(), &gateway)]));
    let txs: Vec<_> = (0..4).map(|_| chain.workload.next_tx().bytes).collect();
    assert_eq!(forwarder.pending_nonce(sender(), 0), 0);
    for raw in [&txs[0], &txs[1], &txs[3]] {
        forwarder.send(raw).await.unwrap();
    }
    // The third is missing.
    assert_eq!(forwarder.pending_nonce(sender(), 0), 2);
    forwarder.send(&txs[2]).await.unwrap();
    assert_eq!(forwarder.pending_nonce(sender(), 0), 4);
    assert_eq!(forwarder.pending_nonce(Address::ZERO, 7), 7);
    let hash = keccak256(&txs[1]);
    assert_eq!(forwarder.get(hash).unwrap().bytes, txs[1]);

    let mut open = chain.open();
    chain.frag(&mut open, &txs[..2], false);
    eventually("taken out", || forwarder.len() == 2).await;
    assert!(forwarder.get(hash).is_none());
    assert_eq!(forwarder.pending_nonce(sender(), 2), 4);
    chain.frag(&mut open, &txs[2..], true);
    eventually("taken out", || forwarder.is_empty()).await;
    assert_eq!(forwarder.pending_nonce(sender(), 4), 4);
    let error = forwarder.send(&txs[3]).await.unwrap_err();
    assert_eq!(error.message(), "nonce too low: next nonce 4, tx nonce 3");
}
