//! Bodies of the fuzz targets. `cargo fuzz` runs them on its corpus, the test below on bytes of a
//! seeded generator, so that they cannot rot.
//!
//! Each takes any bytes and panics if an invariant breaks.

use std::path::Path;

use serde_json::json;

use super::fixtures::RecordedBlock;
use super::fixtures::ethereum_tests::Tests;
use crate::config::Config;
use crate::network::NetworkFile;
use crate::registry::list::MAX_ROWS;
use crate::registry::{Gateway, GatewayList};

/// A named fuzz target.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("recorded", recorded),
    ("tests", tests_file),
    ("config", config),
    ("network", network),
    ("registry", registry),
];

/// A recorded block of any shape is an error or a block with messages.
pub fn recorded(data: &[u8]) {
    if let Ok(block) = RecordedBlock::parse(Path::new("fuzz.json"), data) {
        let _ = (block.chain_spec(), block.witness(), block.env());
    }
}

/// Tests of any shape are an error or tests.
pub fn tests_file(data: &[u8]) {
    let _ = Tests::parse(Path::new("fuzz.json"), data);
}

/// A configuration of any shape is an error, or one that is the same when it is written and read
/// again, and whose checks answer.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(config) = toml::from_str::<Config>(text) else { return };
    let _ = config.check();
    let written = toml::to_string(&config).expect("what was read can be written");
    let again = toml::from_str::<Config>(&written).expect("what was written can be read");
    assert!(again == config || written.contains("nan"));
}

/// A network file of any shape is an error, or a network whose delegations are of its gateways.
pub fn network(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(file) = toml::from_str::<NetworkFile>(text) else { return };
    if let Ok(network) = file.check() {
        for delegation in &network.delegations {
            let gateway = delegation.gateway().expect("it was checked");
            assert!(network.schedule.gateways().contains(&gateway));
        }
    }
}

/// A file or an answer of a registry of any shape is an error, or a list that can be a rotation and
/// that is read the same from rows of either form.
pub fn registry(data: &[u8]) {
    let Ok(list) = GatewayList::parse(data) else { return };
    assert!((1..=MAX_ROWS).contains(&list.gateways().len()));
    let rows = |with_jwt: bool| -> Vec<u8> {
        let row = |gateway: &Gateway| match with_jwt {
            true => json!([gateway.url, gateway.address, "0x00"]),
            false => json!([7, gateway.url, gateway.address]),
        };
        let rows: serde_json::Value = list.gateways().iter().map(row).collect();
        rows.to_string().into_bytes()
    };
    for with_jwt in [true, false] {
        assert_eq!(GatewayList::parse(&rows(with_jwt)).as_ref(), Ok(&list));
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn targets_hold_on_seeded_bytes() {
        // Bytes, JSON of the wrong shape, and texts that are right but for a few bytes.
        let texts = [
            r#"{"config":{"chainId":1},"alloc":{}}"#.to_owned(),
            toml::to_string(&crate::config::Config::default()).unwrap(),
            r#"[["http://h:1","0x0101010101010101010101010101010101010101","0x22"],[7,"http://h:2",
                "0x0202020202020202020202020202020202020202"]]"#
                .to_owned(),
            "chain_id = 5\ngateways = [\"0x0101010101010101010101010101010101010101\"]\n\
             [[members]]\nrecord = \"00\"\nweight = 1\ngossip = [\"/ip4/1.2.3.4/tcp/1\"]\n"
                .to_owned(),
        ];
        let shape = |round: usize, data: &mut Vec<u8>| {
            let Some(text) = texts.get(round % 5) else { return };
            let mut changed = text.as_bytes().to_vec();
            for change in data.chunks_exact(3).take(round / 5 % 4) {
                let at = usize::from(change[0]) * 256 + usize::from(change[1]);
                let at = at % changed.len();
                changed[at] = change[2] % 128;
            }
            *data = changed;
        };
        fragcast_shredder::fuzzing::run_on_seeded_bytes(super::TARGETS, "fuzz", (100, 700), shape);
    }
}
