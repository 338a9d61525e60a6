use super::gateway::Answer;
use super::*;
use crate::calls::{CallConfig, CallContext, module};
use crate::resolve::Blocks;

/// A gateway that puts every transaction into a frag at once, and a chain that it extends.
async fn including(answer: impl Fn() -> Answer + Send + Sync + 'static) -> (Gateway, TestChain) {
    let chain = devnet();
    let open = Mutex::new(chain.open());
    let view = Arc::clone(&chain.view);
    let gateway = Gateway::start(move |raw| {
        let mut open = open.lock().unwrap();
        let tx = Tx::decode(raw, false);
        open.execute(vec![tx], false, fragcast_execution::exec::OnInvalid::Fail).unwrap();
        let pending = open.snapshot();
        let heads = view.heads().unwrap();
        let shown = Some(Arc::clone(&pending));
        view.set_heads(fragcast_execution::executor::Heads {
            open: shown.iter().cloned().collect(),
            pending: shown,
            ..(*heads).clone()
        });
        view.tell(ChainEvent::Frag(pending));
        answer()
    });
    (gateway, chain)
}

#[tokio::test]
async fn the_receipt_comes_with_the_frag_even_before_the_gateways_answer() {
    // The frag is there before the answer, or there is no answer at all.
    for answer in [|| Answer::Hash, || Answer::Silence] {
        let (gateway, mut chain) = including(answer).await;
        let forwarder = forwarder(&chain, to(&[(first(), &gateway)]));
        tokio::task::yield_now().await;
        let raw = chain.workload.next_tx().bytes;
        let receipt = forwarder.send_sync(&raw, Some(GUARD)).await.unwrap();
        assert_eq!(receipt["transactionHash"], json!(keccak256(&raw)));
        assert_eq!(receipt["blockHash"], json!(B256::ZERO));
        // Asked again it is answered from what is there.
        let again = forwarder.send_sync(&raw, None).await.unwrap();
        assert_eq!(again, receipt);
        assert_eq!(gateway.arrived().len(), 1);
        eventually("taken out", || forwarder.is_empty()).await;
    }
}

#[tokio::test]
async fn it_resolves_when_a_later_frag_has_it() {
    let mut chain = devnet();
    let gateway = Gateway::good();
    let forwarder = forwarder(&chain, to(&[(first(), &gateway)]));
    let raw = chain.workload.next_tx().bytes;
    let (sync, bytes) = (Arc::clone(&forwarder), raw.clone());
    let waiting = tokio::spawn(async move { sync.send_sync(&bytes, Some(GUARD)).await });
    eventually("sent", || !gateway.arrived().is_empty()).await;
    let mut open = chain.open();
    chain.frag(&mut open, &[], false);
    chain.frag(&mut open, std::slice::from_ref(&raw), true);
    let receipt = waiting.await.unwrap().unwrap();
    assert_eq!(receipt["transactionHash"], json!(keccak256(&raw)));
}

#[tokio::test]
async fn it_times_out_with_code_4_and_can_be_asked_again() {
    let mut chain = devnet();
    let gateway = Gateway::good();
    let mut config = to(&[(first(), &gateway)]);
    config.sync_timeout = Duration::from_millis(30);
    config.max_sync_timeout = Duration::from_millis(200);
    let forwarder = forwarder(&chain, config);
    let call = CallConfig::default();
    let module = module(Arc::new(CallContext {
        spec: Arc::clone(&chain.spec),
        blocks: Blocks::new(Arc::clone(&chain.view), false),
        pool: call.pool().unwrap(),
        config: call,
        upstream: None,
        forwarder: Some(Arc::clone(&forwarder)),
        stats: Arc::default(),
    }));
    let raw = chain.workload.next_tx().bytes;
    let ask = async |timeout: Value, shown: &str| {
        let request = json!({
            "jsonrpc": "2.0", "id": 1, "method": "eth_sendRawTransactionSync",
            "params": [raw, timeout],
        });
        let (answer, _) = module.raw_json_request(&request.to_string(), 1).await.unwrap();
        let answer: Value = serde_json::from_str(answer.get()).unwrap();
        assert_eq!(answer["error"]["code"], 4, "{answer}");
        assert_eq!(answer["error"]["data"], json!(keccak256(&raw)));
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.ends_with(shown), "{message}");
    };
    // On a slow machine the time may be up before it is sent.
    let sent = async {
        while gateway.arrived().is_empty() {
            ask(json!(20), "20ms").await;
        }
    };
    tokio::time::timeout(GUARD, sent).await.unwrap();
    // A number, hex, and what is no valid time: the default.
    for (timeout, shown) in [
        (json!(20), "20ms"),
        (json!("0x14"), "20ms"),
        (json!(0), "30ms"),
        (json!("soon"), "30ms"),
        (json!(-5), "30ms"),
        (json!(999_999), "30ms"),
        (Value::Null, "30ms"),
    ] {
        ask(timeout, shown).await;
    }
    // It was sent once only.
    assert_eq!(gateway.arrived().len(), 1);
    assert_eq!(forwarder.len(), 1);
    // Without waiting it is known by now.
    let request = json!({
        "jsonrpc": "2.0", "id": 1, "method": "eth_sendRawTransaction", "params": [raw],
    });
    let (answer, _) = module.raw_json_request(&request.to_string(), 1).await.unwrap();
    assert!(answer.get().contains("already known"), "{answer}");
}

#[tokio::test]
async fn a_gap_and_a_node_without_blocks_have_codes_of_their_own() {
    let mut chain = devnet();
    let gateway = Gateway::good();
    let sending = forwarder(&chain, to(&[(first(), &gateway)]));
    let (_, raw) = (chain.workload.next_tx(), chain.workload.next_tx().bytes);
    let error = sending.send_sync(&raw, None).await.unwrap_err();
    assert_eq!(error.code(), 6);
    assert_eq!(error.data().unwrap().get(), "\"0x0\"");
    assert!(gateway.arrived().is_empty());

    chain.view = Arc::new(ChainView::new(None, 16));
    let empty = forwarder(&chain, to(&[(first(), &gateway)]));
    assert_eq!(empty.send_sync(&raw, None).await.unwrap_err().code(), 5);
}

#[tokio::test]
async fn an_error_is_told_at_once_and_waiters_are_bounded() {
    let mut chain = devnet();
    let no = || Answer::Error(json!({ "code": -32000, "message": "no" }));
    let gateway = Gateway::start(move |_| no());
    let mut config = to(&[(first(), &gateway)]);
    config.waiters = 1;
    let forwarder = forwarder(&chain, config);
    let raw = chain.workload.next_tx().bytes;
    for _ in 0..3 {
        let error = forwarder.send_sync(&raw, Some(GUARD)).await.unwrap_err();
        assert_eq!((error.code(), error.message()), (-32000, "no"));
    }
    let held = forwarder.waiters.register(B256::ZERO);
    let error = forwarder.send_sync(&raw, Some(GUARD)).await.unwrap_err();
    assert_eq!(error.code(), -32005);
    drop(held);
    assert_eq!(forwarder.send_sync(&raw, Some(GUARD)).await.unwrap_err().message(), "no");
}
