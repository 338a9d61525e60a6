//! `chains`: the chains that are known by name.

use std::io::Write;

use fragcast_execution::chain::{Activation, ChainSpec, presets};
use fragcast_execution::devnet::load_chain;
use serde_json::{Map, Value, json};

use crate::node::execution::not_executed;

/// Arguments of `fragcast chains`.
#[derive(Debug, clap::Args)]
pub(super) struct ChainsArgs {
    /// Only these: names, ids, or genesis files.
    chains: Vec<String>,
    /// Prints JSON instead of a line a chain.
    #[arg(long)]
    json: bool,
}

/// A chain and its other names.
type Listed = (ChainSpec, &'static [&'static str]);

/// The chains to print.
fn listed(names: &[String]) -> anyhow::Result<Vec<Listed>> {
    let known = presets();
    if names.is_empty() {
        let all = known.into_iter().map(|preset| (preset.spec, preset.also));
        return Ok(all.chain([(load_chain("dev")?, &[][..])]).collect());
    }
    let mut found = Vec::new();
    for name in names {
        let spec = load_chain(name)?;
        let preset = known.iter().find(|preset| preset.spec.name == spec.name);
        found.push((spec, preset.map_or(&[][..], |preset| preset.also)));
    }
    Ok(found)
}

/// What this build lacks of a chain, as text.
fn lacks(spec: &ChainSpec) -> Vec<String> {
    let forks = spec.lacking().iter().map(|(time, fork)| format!("{fork}@{time}"));
    let carried = not_executed(spec)
        .map(|_| "execution (its blocks have withdrawals, which messages do not carry)".to_owned());
    forks.chain(carried).collect()
}

fn line((spec, also): &Listed) -> String {
    let forks = spec.forks().into_iter().map(|(name, at)| match at {
        Activation::Block(number) => format!("{name}=#{number}"),
        Activation::Time(time) => format!("{name}={time}"),
    });
    let forks = forks.collect::<Vec<_>>().join(" ");
    let mut lacks = lacks(spec).join(", ");
    if lacks.is_empty() {
        lacks.push_str("nothing");
    }
    let seconds = spec.block_time.map_or(String::new(), |seconds| format!(" block_time={seconds}"));
    let also = if also.is_empty() { String::new() } else { format!("; also {}", also.join(", ")) };
    format!("{:<17} {:>8} {forks}{seconds}; lacks {lacks}{also}", spec.name, spec.chain_id)
}

fn object((spec, also): &Listed) -> Value {
    let forks = spec.forks().into_iter().map(|(name, at)| {
        let at = match at {
            Activation::Block(number) => json!({ "block": number }),
            Activation::Time(time) => json!(time),
        };
        (name.to_owned(), at)
    });
    let lacks = spec.lacking().iter().map(|(time, fork)| json!({ "fork": fork, "time": time }));
    json!({
        "name": spec.name,
        "also": also,
        "id": spec.chain_id,
        "kind": if spec.is_op() { "op" } else { "ethereum" },
        "blockTime": spec.block_time,
        "forks": forks.collect::<Map<String, Value>>(),
        "lacks": lacks.collect::<Vec<Value>>(),
        "executed": not_executed(spec).is_none(),
    })
}

/// Prints them.
pub(super) fn chains(args: &ChainsArgs) -> anyhow::Result<()> {
    let listed = listed(&args.chains)?;
    let mut out = std::io::stdout().lock();
    if args.json {
        let all: Vec<Value> = listed.iter().map(object).collect();
        writeln!(out, "{}", serde_json::to_string_pretty(&all)?)?;
    } else {
        for chain in &listed {
            writeln!(out, "{}", line(chain))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_name_id_forks_and_what_is_lacking() {
        let all = listed(&[]).unwrap();
        assert_eq!(all.len(), presets().len() + 1);
        let of = |name: &str| line(all.iter().find(|(spec, _)| spec.name == name).unwrap());
        let op = of("op-mainnet");
        assert!(op.starts_with("op-mainnet ") && op.contains(" 10 bedrock=#105235063 "), "{op}");
        assert!(op.contains("karst=1783526401 block_time=2; lacks nothing; also op"), "{op}");
        let base = of("base");
        assert!(base.contains("jovian=1764691201 block_time=2; lacks after-jovian@"), "{base}");
        assert!(of("sepolia").contains("bpo2=1761607008"));
        assert!(of("sepolia").contains("lacks amsterdam@1791294816, execution"));
        assert!(of("dev").contains("cancun=0; lacks nothing"));
        assert!(all.iter().all(|chain| !line(chain).contains('\n')));
    }

    #[test]
    fn json_has_the_same() {
        let one = listed(&["480".into()]).unwrap();
        let object = object(&one[0]);
        assert_eq!((&object["name"], &object["id"]), (&json!("world"), &json!(480)));
        assert_eq!(object["forks"]["karst"], 1_789_992_000);
        assert_eq!(object["forks"]["bedrock"]["block"], 0);
        assert_eq!((&object["lacks"], &object["executed"]), (&json!([]), &json!(true)));
        assert!(listed(&["nowhere".into()]).is_err());
    }
}
