//! Requests, blocks and headers.

use std::time::Instant;

use alloy_primitives::{B256, Bytes};
use serde_json::value::RawValue;

use super::*;
use crate::client::ClientError;
use crate::http::HttpClient;
use crate::testing::{Fault, Lie};

fn served(txs: usize) -> (Server, Vec<Arc<SealedBlock>>) {
    let mut chain = TestChain::new(&config());
    let blocks = blocks(&mut chain, 3, txs);
    (Server::up(config().chain_id, blocks.clone()), blocks)
}

#[tokio::test]
async fn blocks_and_heads_are_read_in_every_way() {
    let (server, blocks) = served(5);
    server.state().safe = Some(1);
    for raw in [true, false] {
        for (batch, no_batches) in [(100, false), (1, false), (2, false), (100, true)] {
            server.state().raw_blocks = raw;
            server.state().no_batches = no_batches;
            let client = client_with(&server, |config| config.batch = batch);
            let heads = client.heads().await.unwrap();
            assert_eq!(heads.latest, (3, blocks[3].hash()));
            assert_eq!(heads.safe, Some((1, blocks[1].hash())));
            assert_eq!(heads.finalized, None);
            for expected in &blocks {
                let header = client.header(expected.hash()).await.unwrap().unwrap();
                assert_eq!(header, expected.snapshot.header);
                let block = client.block(expected.hash()).await.unwrap().unwrap();
                let txs: Vec<Bytes> = expected
                    .snapshot
                    .txs()
                    .map(|placed| placed.executed.tx.bytes.clone())
                    .collect();
                assert_eq!(block.txs, txs);
                assert_eq!((block.header, block.hash), (header, expected.hash()));
                let by_number = client.block_by_number(expected.number()).await.unwrap().unwrap();
                assert_eq!(by_number.hash, expected.hash());
            }
            assert_eq!(client.block(B256::ZERO).await, Ok(None));
            assert_eq!(client.header(B256::ZERO).await, Ok(None));
            assert_eq!(client.block_by_number(4).await, Ok(None));
            assert_eq!(client.chain_id().await, Ok(config().chain_id));
        }
    }
}

#[tokio::test]
async fn a_lie_about_a_block_is_found() {
    let (server, blocks) = served(5);
    for raw in [true, false] {
        server.state().raw_blocks = raw;
        for lie in [Lie::Header, Lie::OtherBlock, Lie::TxMissing, Lie::TxOther] {
            server.state().lie = Some(lie);
            let client = client(&server);
            let block = client.block(blocks[2].hash()).await;
            assert!(matches!(block, Err(ClientError::Corrupt(_))), "{lie:?}: {block:?}");
            let header = client.header(blocks[2].hash()).await;
            let wrong = matches!(header, Err(ClientError::Corrupt(_)));
            assert_eq!(wrong, matches!(lie, Lie::Header | Lie::OtherBlock), "{lie:?}");
        }
    }
}

#[tokio::test]
async fn every_failure_has_its_kind() {
    let (mut server, blocks) = served(1);
    let quick = client_with(&server, |config| config.timeout = Duration::from_millis(50));
    let hash = blocks[1].hash();
    for fault in [Fault::Silent, Fault::Slow(GUARD), Fault::Close, Fault::Busy] {
        server.state().fault = Some(fault);
        let begun = Instant::now();
        let heads = quick.heads().await;
        assert!(matches!(heads, Err(ClientError::Unavailable(_))), "{fault:?}: {heads:?}");
        assert!(matches!(quick.block(hash).await, Err(ClientError::Unavailable(_))));
        assert!(begun.elapsed() < GUARD / 2);
    }
    let client = client(&server);
    server.state().fault = Some(Fault::Truncated);
    assert!(matches!(client.heads().await, Err(ClientError::Corrupt(_))));
    assert!(matches!(client.block(hash).await, Err(ClientError::Corrupt(_))));
    server.state().fault = None;
    let refused = client.call::<u8>("no_suchMethod", [(); 0]).await.unwrap_err();
    assert!(refused.is_no_such_method(), "{refused:?}");
    let short = client_with(&server, |config| config.max_response = 100);
    assert!(matches!(short.block(hash).await, Err(ClientError::Unavailable(_))));
    server.stop();
    assert!(matches!(client.heads().await, Err(ClientError::Unavailable(_))));
    server.start();
    assert!(client.heads().await.is_ok());
}

#[tokio::test]
async fn calls_are_passed_on_as_they_are() {
    let (server, _) = served(1);
    let client = client(&server);
    let http = HttpClient { timeout: GUARD, max_response: 10_000 };
    let params = RawValue::from_string("[\"0x02\"]".into()).unwrap();
    let result = client.raw("eth_sendRawTransaction", Some(&params), http).await.unwrap();
    assert_eq!(result.get().len(), 68);
    assert_eq!(server.state().sent, [Bytes::from_static(&[2])]);
    assert_eq!(client.raw("eth_chainId", None, http).await.unwrap().get(), "\"0xdc30d\"");
    let params = RawValue::from_string(format!("[\"{}\", true]", B256::ZERO)).unwrap();
    let null = client.raw("eth_getBlockByHash", Some(&params), http).await.unwrap();
    assert_eq!(null.get(), "null");
}

#[test]
fn blocks_cut_short_or_altered_never_decode_to_another() {
    let (server, blocks) = served(2);
    let client = client(&server);
    let raw = {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let raw = client.call::<Bytes>("debug_getRawBlock", [blocks[1].hash()]);
        runtime.block_on(raw).unwrap().unwrap()
    };
    let whole = client.decode_block(&raw).unwrap();
    assert_eq!(whole.hash, blocks[1].hash());
    for i in 0..raw.len() {
        assert!(client.decode_block(&raw[..i]).is_err(), "{i}");
        let mut altered = raw.to_vec();
        altered[i] ^= 0x41;
        // What is altered and decodes has another hash, unless it is among the ommers.
        if let Ok(block) = client.decode_block(&altered) {
            assert!(block.hash != whole.hash || block == whole, "{i}");
        }
    }
}
