//! What `check-config` says of forks: those that this build lacks, and those about which the chain here
//! and the execution client differ.

use std::io::Write;

use anyhow::bail;
use fragcast_execution::chain::ChainSpec;
use fragcast_upstream::client::{ClientForks, differences};

use crate::serve::forks::{Stage, stage};

/// Prints a warning for each fork that this build lacks.
pub(super) fn warn(spec: &ChainSpec, now: u64, out: &mut impl Write) -> std::io::Result<()> {
    for (time, fork) in spec.lacking() {
        let when = match stage(*time, now) {
            Stage::Far => "comes",
            Stage::Soon => "comes within a week",
            Stage::Active => "is active",
        };
        writeln!(
            out,
            "warning: the fork {fork} {when} (at {time}), which this build lacks: blocks from then on \
             are not verified; update"
        )?;
    }
    Ok(())
}

/// Prints how the client's fork times differ from the chain's. A difference about a fork that one
/// of them goes by already is an error: blocks that the client takes would be refused here.
pub(super) fn compare(
    spec: &ChainSpec,
    told: &ClientForks,
    now: u64,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let by = match told {
        ClientForks::Named(method, _) => *method,
        ClientForks::Times { .. } => "eth_config",
        ClientForks::Unknown => {
            writeln!(
                out,
                "fork times        not compared: the client has none of optimism_rollupConfig, \
                 debug_chainConfig, admin_nodeInfo, eth_config"
            )?;
            return Ok(());
        }
    };
    let differ = differences(spec, told, now);
    for difference in &differ.later {
        writeln!(out, "warning: fork times differ ({by}): {difference}")?;
    }
    if !differ.now.is_empty() {
        bail!(
            "client.url: fork times differ ({by}): {}; give the chain's genesis file as \
             execution.chain, or update what is wrong",
            differ.now.join("; ")
        );
    }
    if differ.later.is_empty() {
        writeln!(out, "fork times        as the client's ({by})")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_790_000_000;

    /// What is printed when the client has OP Mainnet's forks with this change, and the error.
    fn compared(fork: &str, time: Option<u64>) -> (String, Option<String>) {
        let spec = ChainSpec::op_mainnet();
        let mut times: std::collections::BTreeMap<String, u64> = spec
            .forks()
            .into_iter()
            .filter_map(|(name, at)| Some((name.to_owned(), at.to_string().parse().ok()?)))
            .filter(|(name, _)| !["bedrock", "regolith", "delta"].contains(&name.as_str()))
            .collect();
        match time {
            Some(time) => times.insert(fork.to_owned(), time),
            None => times.remove(fork),
        };
        let mut out = Vec::new();
        let told = ClientForks::Named("debug_chainConfig", times);
        let error = compare(&spec, &told, NOW, &mut out).err();
        (String::from_utf8(out).unwrap(), error.map(|error| error.to_string()))
    }

    #[test]
    fn a_difference_is_an_error_once_one_of_the_two_goes_by_it() {
        let (said, error) = compared("karst", Some(1_783_526_401));
        assert!(said.contains("as the client's (debug_chainConfig)"), "{said}");
        assert_eq!(error, None);
        let (_, error) = compared("karst", Some(1_783_526_400));
        let error = error.unwrap();
        assert!(error.contains("karst: 1783526401 here, 1783526400 at the client"), "{error}");
        assert!(compared("karst", None).1.unwrap().contains("none at the client"));
        // Of a fork to come it is told, and the node can still be started.
        let (said, error) = compared("lagoon", Some(NOW + 1));
        assert!(
            said.starts_with("warning: fork times differ (debug_chainConfig): lagoon"),
            "{said}"
        );
        assert_eq!(error, None);
        let mut out = Vec::new();
        compare(&ChainSpec::op_mainnet(), &ClientForks::Unknown, NOW, &mut out).unwrap();
        assert!(String::from_utf8(out).unwrap().contains("not compared"));
    }
}
