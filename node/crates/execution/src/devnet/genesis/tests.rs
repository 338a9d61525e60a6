//! State root and hash against the Ethereum project's own block tests, if they are present.

use std::io::Read;

use flate2::read::GzDecoder;
use fragcast_shredder::testing::data;
use serde_json::Value;

use super::*;

/// The files of a tar archive: 512-byte headers (size in octal at 124, type at 156), contents
/// padded to 512 bytes.
fn files(tar: &[u8]) -> Vec<&[u8]> {
    let mut files = Vec::new();
    let mut rest = tar;
    while rest.len() > 512 && rest[0] != 0 {
        let (header, body) = rest.split_at(512);
        let size = std::str::from_utf8(&header[124..135]).expect("octal");
        let size = usize::from_str_radix(size.trim(), 8).expect("octal");
        if header[156] == b'0' {
            files.push(&body[..size]);
        }
        rest = &body[size.next_multiple_of(512)..];
    }
    files
}

fn field<T: serde::de::DeserializeOwned>(object: &Value, name: &str) -> T {
    serde_json::from_value(object[name].clone()).expect(name)
}

/// An account; slots are padded, because the tests write numbers of any length.
fn account(pre: &Value) -> GenesisAccount {
    let storage: BTreeMap<U256, U256> = field(pre, "storage");
    GenesisAccount {
        balance: field(pre, "balance"),
        nonce: field(pre, "nonce"),
        code: field(pre, "code"),
        storage: storage.into_iter().map(|(slot, value)| (slot.into(), value.into())).collect(),
    }
}

#[test]
fn state_root_and_hash_are_those_of_ethereum_tests() {
    let Some(path) = data("ethereum-tests/blockchain-tests.tar.gz") else { return };
    let archive = std::fs::read(path).expect("the archive");
    let mut tar = Vec::new();
    GzDecoder::new(&archive[..]).read_to_end(&mut tar).expect("gzip");
    let (mut checked, mut slots) = (0, 0);
    for file in files(&tar) {
        let tests: BTreeMap<String, Value> = serde_json::from_slice(file).expect("json");
        let Some((_, test)) = tests.iter().find(|(_, test)| test["network"] == "Cancun") else {
            continue;
        };
        let alloc = test["pre"].as_object().expect("accounts");
        let alloc: BTreeMap<Address, _> = alloc
            .iter()
            .map(|(address, pre)| (address.parse().expect("an address"), account(pre)))
            .collect();
        slots += alloc.values().map(|account| account.storage.len()).sum::<usize>();
        let expected = &test["genesisBlockHeader"];
        let genesis = Genesis {
            config: ChainConfig::cancun(1),
            nonce: U64::ZERO,
            timestamp: field(expected, "timestamp"),
            extra_data: field(expected, "extraData"),
            gas_limit: field(expected, "gasLimit"),
            difficulty: field(expected, "difficulty"),
            mix_hash: field(expected, "mixHash"),
            coinbase: field(expected, "coinbase"),
            base_fee_per_gas: field(expected, "baseFeePerGas"),
            alloc,
        };
        let mut header = genesis.header();
        assert_eq!(header.state_root, field::<B256>(expected, "stateRoot"));
        // The one field that a devnet's genesis does not choose.
        header.excess_blob_gas = Some(field::<U64>(expected, "excessBlobGas").to());
        assert_eq!(header.hash_slow(), field::<B256>(expected, "hash"));
        checked += 1;
    }
    assert!(checked > 100 && slots > 100, "{checked} {slots}");
}
