//! Consumers, as they are written against the types and formats that others have published.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use alloy_eips::eip4895::Withdrawal;
use alloy_primitives::{Address, B64, B256, Bloom, U256};
use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use super::serving::{Client, GUARD, connect, next, open, payload, until};
use super::*;
use crate::flashblocks::Door;

/// A consumer with op-alloy's types, which never takes a flashblock that does not follow the one
/// before.
#[derive(Default)]
struct OpAlloy {
    blocks: BTreeMap<u64, Vec<OpFlashblockPayload>>,
    newest: Option<(u64, u64)>,
}

impl OpAlloy {
    /// What it asks for when it comes back.
    fn path(&self) -> String {
        let (block, index) = self.newest.expect("it has had some");
        format!("ws?block_number={block}&flashblock_index={index}")
    }

    fn take(&mut self, payload: OpFlashblockPayload) {
        let (block, index) = (payload.block_number(), payload.index);
        let payloads = self.blocks.entry(block).or_default();
        assert_eq!(payloads.len() as u64, index, "there is a gap in block {block}");
        assert_eq!(payload.base.is_some(), index == 0);
        assert!(payloads.iter().all(|before| before.payload_id == payload.payload_id));
        payloads.push(payload);
        self.newest = Some((block, index));
    }

    fn transactions(&self, block: u64) -> Vec<Bytes> {
        let payloads = self.blocks.get(&block).into_iter().flatten();
        payloads.flat_map(|payload| payload.diff.transactions.iter().cloned()).collect()
    }
}

fn of(block: &SealedBlock) -> Vec<Bytes> {
    block.snapshot.txs().map(|placed| placed.executed.tx.bytes.clone()).collect()
}

async fn published(door: &Door, count: u64) {
    until(|| door.stats().published.load(Ordering::Relaxed) == count).await;
}

#[tokio::test]
async fn a_consumer_with_op_alloy_s_types_comes_back_in_mid_block_and_misses_nothing() {
    let mut chain = chain();
    let (door, address) = open(&chain).await;
    let mut consumer = OpAlloy::default();
    let mut client = connect(address, "ws").await.unwrap();
    until(|| door.stats().subscribers.load(Ordering::Relaxed) == 1).await;
    let mut block = opened(&mut chain);
    consumer.take(payload(&mut client).await);
    let more = txs(&mut chain, 3);
    chain.frag(&mut block, &more, false);
    consumer.take(payload(&mut client).await);
    drop(client);
    // While it is away: the end of this block, and all of the next.
    let more = txs(&mut chain, 1);
    chain.frag(&mut block, &more, true);
    let first = chain.seal(block);
    let mut block = opened(&mut chain);
    chain.frag(&mut block, &[], true);
    let second = chain.seal(block);
    published(&door, 4 + 3).await;
    let mut client = connect(address, &consumer.path()).await.unwrap();
    for _ in 0..2 + 3 {
        consumer.take(payload(&mut client).await);
    }
    for block in [&first, &second] {
        assert_eq!(consumer.transactions(block.number()), of(block));
        let last = &consumer.blocks[&block.number()].last().unwrap().diff;
        assert_eq!(
            (last.block_hash, last.state_root),
            (block.hash(), block.snapshot.header.state_root)
        );
    }
    assert_eq!(door.stats().resumed.load(Ordering::Relaxed), 1);
    // A position that is none is refused, with the reason, before anything is opened.
    for (query, reason) in [
        ("?block_number=1", "give both"),
        ("?block_number=0x1&flashblock_index=2", "block_number must be a decimal number"),
        ("?block_number=1&flashblock_index=-1", "flashblock_index must be a decimal number"),
    ] {
        let refused = connect(address, query).await.unwrap_err();
        let tokio_tungstenite::tungstenite::Error::Http(answer) = refused else {
            panic!("{refused:?}")
        };
        assert_eq!(answer.status(), 400);
        let body = String::from_utf8(answer.into_body().unwrap_or_default()).unwrap();
        // The client reads the body only if it came with the head.
        assert!(body.is_empty() || body.contains(reason), "{body}");
    }
    door.close().await;
}

/// A payload as rollup-boost publishes it: nothing is missing, and nothing is null that has a type.
#[derive(Debug, Deserialize)]
struct FlashblocksPayloadV1 {
    payload_id: B64,
    index: u64,
    #[serde(default)]
    base: Option<ExecutionPayloadBaseV1>,
    diff: ExecutionPayloadFlashblockDeltaV1,
    metadata: Value,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "that they are there is what is tested")]
struct ExecutionPayloadBaseV1 {
    parent_beacon_block_root: B256,
    parent_hash: B256,
    fee_recipient: Address,
    prev_randao: B256,
    #[serde(with = "alloy_serde::quantity")]
    block_number: u64,
    #[serde(with = "alloy_serde::quantity")]
    gas_limit: u64,
    #[serde(with = "alloy_serde::quantity")]
    timestamp: u64,
    extra_data: Bytes,
    base_fee_per_gas: U256,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "that they are there is what is tested")]
struct ExecutionPayloadFlashblockDeltaV1 {
    state_root: B256,
    receipts_root: B256,
    logs_bloom: Bloom,
    #[serde(with = "alloy_serde::quantity")]
    gas_used: u64,
    block_hash: B256,
    transactions: Vec<Bytes>,
    withdrawals: Vec<Withdrawal>,
    withdrawals_root: B256,
    #[serde(default, with = "alloy_serde::quantity::opt")]
    blob_gas_used: Option<u64>,
}

/// What rollup-boost does with payloads: it begins with the base, takes what follows in order, and
/// has a block at any time.
#[derive(Default)]
struct RollupBoost {
    id: B64,
    base: Option<ExecutionPayloadBaseV1>,
    deltas: Vec<ExecutionPayloadFlashblockDeltaV1>,
}

impl RollupBoost {
    fn take(&mut self, payload: FlashblocksPayloadV1) {
        match payload.base {
            Some(base) => {
                assert_eq!(payload.index, 0, "a base comes first");
                *self = Self { id: payload.payload_id, base: Some(base), deltas: Vec::new() };
            }
            None => assert_eq!(
                (payload.payload_id, payload.index),
                (self.id, self.deltas.len() as u64),
                "payloads of a block follow one another"
            ),
        }
        let number = self.base.as_ref().unwrap().block_number;
        assert_eq!(payload.metadata["block_number"], number);
        self.deltas.push(payload.diff);
    }
}

async fn text(client: &mut Client) -> String {
    match next(client).await {
        Message::Text(text) => text.to_string(),
        other => panic!("{other:?} is no text"),
    }
}

#[tokio::test]
async fn a_consumer_of_rollup_boost_s_format_builds_the_block() {
    let mut chain = chain();
    let (door, address) = open(&chain).await;
    let mut client = connect(address, "text").await.unwrap();
    until(|| door.stats().subscribers.load(Ordering::Relaxed) == 1).await;
    let mut consumer = RollupBoost::default();
    for frags in [2, 1, 3] {
        let (snapshots, sealed) = build(&mut chain, &vec![2; frags]);
        for _ in 0..=snapshots.len() {
            consumer.take(serde_json::from_str(&text(&mut client).await).unwrap());
        }
        let (header, base) = (&sealed.snapshot.header, consumer.base.as_ref().unwrap());
        assert_eq!(
            (base.block_number, base.gas_limit, base.timestamp, base.fee_recipient),
            (header.number, header.gas_limit, header.timestamp, header.beneficiary)
        );
        assert_eq!(
            (base.parent_hash, &base.extra_data, base.prev_randao),
            (header.parent_hash, &header.extra_data, header.mix_hash)
        );
        assert_eq!(Some(base.parent_beacon_block_root), header.parent_beacon_block_root);
        let all: Vec<Bytes> =
            consumer.deltas.iter().flat_map(|delta| delta.transactions.clone()).collect();
        assert_eq!(all, of(&sealed));
        let last = consumer.deltas.last().unwrap();
        assert_eq!(
            (last.block_hash, last.state_root, last.receipts_root, last.gas_used),
            (sealed.hash(), header.state_root, header.receipts_root, header.gas_used)
        );
        assert_eq!(
            (last.logs_bloom, last.blob_gas_used),
            (header.logs_bloom, header.blob_gas_used)
        );
    }
    door.close().await;
}

/// Opens a WebSocket and offers compression, as browsers do; the answer's head.
async fn offering(address: SocketAddr, extensions: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "GET /text HTTP/1.1\r\nhost: {address}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         sec-websocket-extensions: {extensions}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tokio::time::timeout(GUARD, stream.read_u8()).await.unwrap().unwrap());
    }
    (stream, String::from_utf8(head).unwrap())
}

/// The next frame: its first byte, and its payload.
async fn frame(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    let read = async {
        let first = stream.read_u8().await.unwrap();
        let length = match stream.read_u8().await.unwrap() {
            126 => u64::from(stream.read_u16().await.unwrap()),
            127 => stream.read_u64().await.unwrap(),
            short => short.into(),
        };
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        stream.read_exact(&mut payload).await.unwrap();
        (first, payload)
    };
    tokio::time::timeout(GUARD, read).await.unwrap()
}

#[tokio::test]
async fn who_offers_compression_gets_it_and_may_use_it() {
    let mut chain = chain();
    let (door, address) = open(&chain).await;
    let (mut stream, head) = offering(address, "permessage-deflate; client_max_window_bits").await;
    let taken = "sec-websocket-extensions: permessage-deflate; server_no_context_takeover; \
                 client_no_context_takeover\r\n";
    assert!(head.starts_with("HTTP/1.1 101 ") && head.to_lowercase().contains(taken), "{head}");
    let (_other, head) = offering(address, "permessage-deflate; server_max_window_bits=9").await;
    assert!(!head.to_lowercase().contains("sec-websocket-extensions"), "{head}");
    until(|| door.stats().subscribers.load(Ordering::Relaxed) == 2).await;
    // What it sends may be compressed, and is not used: a text that is no text if it is not inflated.
    stream.write_all(&[0xc1, 0x84, 0, 0, 0, 0, 0xff, 0xfe, 0xfd, 0xfc]).await.unwrap();
    let mut consumer = RollupBoost::default();
    for _ in 0..3 {
        let (_, sealed) = build(&mut chain, &[3, 3]);
        for _ in 0..3 {
            let (first, mut payload) = frame(&mut stream).await;
            assert_eq!(first, 0x80 | 0x40 | 1, "it is whole, compressed, and a text");
            let length = payload.len();
            payload.extend([0, 0, 0xff, 0xff]);
            let mut text = Vec::with_capacity(1 << 20);
            let mut inflate = flate2::Decompress::new(false);
            let flush = flate2::FlushDecompress::Sync;
            inflate.decompress_vec(&payload, &mut text, flush).unwrap();
            assert!(length < text.len() / 2, "{length} of {}", text.len());
            consumer.take(serde_json::from_slice(&text).unwrap());
        }
        assert_eq!(consumer.deltas.last().unwrap().block_hash, sealed.hash());
    }
    door.close().await;
}
