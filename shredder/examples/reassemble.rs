//! Cuts a signed message into shreds, loses half of them, and restores the message from the rest.
//!
//! ```text
//! cargo run -p fragcast-shredder --example reassemble
//! ```

use std::error::Error;
use std::io::Write;

use ed25519_dalek::SigningKey;
use fragcast_shredder::{
    BlockBuilder, CodeRate, Dialect, GatewayKey, HashedShred, Kind, Limits, LossTarget, MessageKey,
    MessageParams, Push, Reassembler, Shred, Shredder, SignedMessage, Timestamp, Validator,
};

const CHAIN: u64 = 901;

fn main() -> Result<(), Box<dyn Error>> {
    run(&mut std::io::stdout())
}

fn run(out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    // A gateway signs the first frag of block 42: 200 transactions of 180 bytes.
    let gateway = GatewayKey::from_bytes([7; 32])?;
    let txs = (0..200u8).map(|i| vec![i; 180]);
    let wire = gateway.sign_verified(BlockBuilder::new(42).frag_at(0, txs)).to_wire();
    writeln!(out, "message   {} bytes, signed by {}", wire.len(), gateway.address())?;

    // The leader's node cuts it under its own ed25519 key, with as many coding shreds as data.
    let identity = SigningKey::from_bytes(&[9; 32]);
    let leader = identity.verifying_key();
    let params = MessageParams {
        key: MessageKey { block: 42, attempt: 0, message: 1 },
        kind: Kind::Frag,
        plan: 0,
        route: 0,
        route_param: 0,
        sent_at: Timestamp::from_micros(1_700_000_000_000_000),
    };
    let rate = CodeRate::new(wire.len(), LossTarget::default()).with_coding(1.0);
    let cut = Shredder::new(CHAIN, identity).shred(&wire, &params, rate)?;
    let (set_count, first) = (cut.sets.len(), &cut.sets[0]);
    writeln!(
        out,
        "cut       {set_count} sets of {} data and {} coding shreds, {} bytes each",
        rate.k,
        rate.m,
        first.shreds[0].len()
    )?;

    // The network loses every other shred, and somebody forges one that was lost.
    let mut arrived: Vec<_> = cut
        .in_sending_order()
        .filter(|(_, index)| index % 2 == 0)
        .map(|(set, index)| set.shreds[usize::from(index)].clone())
        .collect();
    let mut forged = first.shreds[1].to_vec();
    forged[100] ^= 1;
    arrived.insert(5, forged.into());
    let (came, sent) = (arrived.len() - 1, cut.in_sending_order().count());
    writeln!(out, "network   {came} of {sent} shreds arrive, and a forged one")?;

    // A node checks each shred alone, before it keeps or forwards it.
    let mut validator = Validator::new(CHAIN, Validator::DEFAULT_CAPACITY);
    let mut reassembler = Reassembler::new(Limits::default());
    let mut restored = None;
    for (place, bytes) in arrived.into_iter().enumerate() {
        let shred = HashedShred::new(Shred::parse(bytes)?);
        let shred = match validator.validate(shred, &leader) {
            Ok(shred) => shred,
            Err(error) => {
                writeln!(out, "refused   shred {place}: {error}")?;
                continue;
            }
        };
        let set = shred.header().set;
        if let Push::Complete { recovered, message } = reassembler.push(&shred)? {
            let missing = recovered.map_or(0, |set| set.missing().count());
            writeln!(
                out,
                "set {set}     complete with arrival {place}, {missing} shreds computed"
            )?;
            restored = message.or(restored);
        }
    }

    // The bytes are a message of the scheduled gateway only if its signature recovers.
    let restored = restored.ok_or("the message is incomplete")?;
    let (kind, bytes) = (restored.header.message_kind(), restored.wire.into());
    let message = SignedMessage::from_wire(kind, Dialect::V0, &bytes)?.verify(gateway.address())?;
    writeln!(
        out,
        "restored  {} bytes: {} of block {}, index {}, root {}",
        bytes.len(),
        message.message().kind().name(),
        message.message().block(),
        message.message().index().ok_or("the index fits")?,
        message.root()
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn prints_what_happened() {
        let mut out = Vec::new();
        super::run(&mut out).unwrap();
        let expected = include_str!("reassemble.txt");
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
