//! The chains that tests are written for, by the names that they have there.

use alloy_genesis::{ChainConfig, Genesis};
use alloy_primitives::{U256, address};

use crate::chain::{ChainError, ChainSpec};

/// Forks since the merge, in order, that are switched on by time.
const FORKS: [&str; 5] = ["Paris", "Shanghai", "Cancun", "Prague", "Osaka"];

/// The time of the second fork in networks such as `ShanghaiToCancunAtTime15k`.
const TRANSITION: u64 = 15_000;

/// `(fork at the start, fork at a time)`: indices into [`FORKS`].
fn parse(network: &str) -> Option<(usize, Option<usize>)> {
    let index = |name: &str| FORKS.iter().position(|fork| *fork == name);
    if network == "Merge" {
        return Some((0, None));
    }
    match network.strip_suffix("AtTime15k").and_then(|forks| forks.split_once("To")) {
        Some((first, then)) => {
            let (first, then) = (index(first)?, index(then)?);
            (first < then).then_some((first, Some(then)))
        }
        None => Some((index(network)?, None)),
    }
}

/// The chain of a network; `None` for one from before the merge, or one that is not known.
///
/// # Errors
/// None in practice.
pub(super) fn spec(network: &str) -> Result<Option<ChainSpec>, ChainError> {
    let Some((first, then)) = parse(network) else { return Ok(None) };
    let time = |fork: usize| match then {
        _ if fork <= first => Some(0),
        Some(then) if fork <= then => Some(TRANSITION),
        _ => None,
    };
    let start = Some(0);
    let config = ChainConfig {
        chain_id: 1,
        homestead_block: start,
        eip150_block: start,
        eip155_block: start,
        eip158_block: start,
        byzantium_block: start,
        constantinople_block: start,
        petersburg_block: start,
        istanbul_block: start,
        berlin_block: start,
        london_block: start,
        terminal_total_difficulty: Some(U256::ZERO),
        terminal_total_difficulty_passed: true,
        shanghai_time: time(1),
        cancun_time: time(2),
        prague_time: time(3),
        osaka_time: time(4),
        // Mainnet's, which the tests of Prague use.
        deposit_contract_address: Some(address!("00000000219ab540356cbb839cbe05303d7705fa")),
        ..ChainConfig::default()
    };
    ChainSpec::from_genesis(network, Genesis { config, ..Genesis::default() }).map(Some)
}

#[cfg(test)]
mod tests {
    use alloy_hardforks::{EthereumHardfork as F, EthereumHardforks};

    use super::*;

    #[test]
    fn networks_have_their_forks() {
        let active = |network: &str, at: u64| {
            let spec = spec(network).unwrap().unwrap();
            let forks = [F::Paris, F::Shanghai, F::Cancun, F::Prague, F::Osaka];
            forks.iter().filter(|f| spec.is_ethereum_fork_active_at_timestamp(**f, at)).count()
        };
        // Paris is no matter of time.
        for (name, first, later) in [
            ("Paris", 0, 0),
            ("Merge", 0, 0),
            ("Shanghai", 1, 1),
            ("Cancun", 2, 2),
            ("Prague", 3, 3),
            ("Osaka", 4, 4),
            ("ParisToShanghaiAtTime15k", 0, 1),
            ("ShanghaiToCancunAtTime15k", 1, 2),
            ("CancunToPragueAtTime15k", 2, 3),
        ] {
            assert_eq!((active(name, 14_999), active(name, 15_000)), (first, later), "{name}");
        }
        for name in
            ["London", "ArrowGlacierToParisAtDiffC0000", "CancunToShanghaiAtTime15k", "", "To"]
        {
            assert!(spec(name).unwrap().is_none(), "{name}");
        }
    }
}
