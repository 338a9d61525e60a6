//! The configuration file.

use super::*;
use crate::network::{NetworkError, NetworkFile};

#[test]
fn the_example_is_the_default() {
    let default = Config::default();
    let parsed: Config = toml::from_str(&default.example()).unwrap();
    assert_eq!(parsed, default);
    default.check().unwrap();
}

#[test]
fn the_example_names_every_key() {
    let table: toml::Table = toml::from_str(&Config::default().example()).unwrap();
    let all = toml::Table::try_from(Config::default()).unwrap();
    let keys = |table: &toml::Table| {
        let mut keys: Vec<String> = Vec::new();
        for (name, value) in table {
            keys.push(name.clone());
            keys.extend(
                value.as_table().iter().flat_map(|t| t.keys()).map(|k| format!("{name}.{k}")),
            );
        }
        keys.sort();
        keys
    };
    assert_eq!(keys(&table), keys(&all));
}

#[test]
fn mistakes_are_told_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.toml");
    for (text, part) in [
        ("[p2p]\nuplnk_mbit = 5", "uplnk_mbit"),
        ("[p2p]\nuplink_mbit = 0", "p2p.uplink_mbit"),
        ("[p2p]\nlisten = \"here\"", "listen"),
        ("[leader]\nroute = \"gossip\"", "unknown variant `gossip`, expected one of `auto`"),
        ("[leader]\nloss_per_hop = 0.9", "leader.loss_per_hop"),
        ("[leader]\nfanout = 0", "leader.fanout"),
        (
            "[members]\nweights = \"http://me:secret@127.0.0.1/weights\"",
            "write no name or password into a URL",
        ),
        ("[leader]\nprofile = \"rich\"", "unknown variant `rich`, expected `lean` or `fast`"),
        ("[log]\nformat = \"xml\"", "unknown variant `xml`, expected `text` or `json`"),
        ("[log]\nfilter = \"fragcast=loud\"", "log.filter"),
        ("[leader]\nunreached = \"hope\"", "unknown variant `hope`, expected `refuse` or `tell`"),
        ("[leader]\nsigner = \"https://x\"", "leader.signer: `https://x`"),
        ("[leader]\nsigner = \"http://me:secret@x\"", "no name or password"),
        ("[leader]\nsigner = \"http://x\"", "leader.gateway: must be the address"),
        ("[leader]\ngateway = \"0x01\"", "leader.gateway: is for leader.signer"),
        (
            "[leader]\nsigner_api = \"ledger\"",
            "unknown variant `ledger`, expected one of `web3signer`, `clef`, `eth_sign`",
        ),
        ("[leader]\nsubstitute_after_ms = 0", "leader.substitute_after_ms"),
        ("[leader]\nsigner_timeout_ms = 0", "leader.signer_timeout_ms"),
        ("[leader]\ndelegation_blocks = 5", "leader.delegation_blocks"),
        ("[engine]\nurl = \"http://x\"", "engine.jwt_secret"),
        ("[p2p]\nreassembly_mib = 1", "reassembly_mib"),
        ("[p2p]\ncatch_up_blocks = 0", "p2p.catch_up_blocks"),
        ("[p2p]\ncatch_up_blocks = 5000", "p2p.catch_up_blocks"),
        ("[p2p]\ncatch_up_mbit = 0", "p2p.catch_up_mbit"),
        (
            "[members]\nadvertise = [\"203.0.113.1:9300\", \"10.0.0.1:9300\"]",
            "private network beside public ones",
        ),
        (
            "[execution]\nsource = \"witness\"",
            "unknown variant `witness`, expected `genesis` or `client`",
        ),
        ("[execution]\nchain = \"dev\"\nsource = \"client\"", "client.url"),
        ("[execution]\nreorg_depth = 0", "execution.reorg_depth"),
        ("[execution]\nqueue = 1", "execution.queue"),
        ("[client]\npoll_ms = 0", "client.poll_ms"),
        ("[calls]\nqueue = 0", "calls.queue"),
        ("[rpc]\nmax_batch = 0", "rpc.max_batch"),
        ("[rpc]\nmax_logs = 0", "rpc.max_logs"),
        ("[rpc]\nsafe_behind = 9\nfinalized_behind = 8", "rpc.finalized_behind"),
        ("[rpc]\nmax_bath = 1", "max_bath"),
        ("[flashblocks]\nlisten = \"here\"", "flashblocks.listen: `here`"),
        ("[flashblocks]\nmax_subscribers = 0", "flashblocks.max_subscribers"),
        ("[flashblocks]\nbuffer_mib = 0", "flashblocks.buffer_mib"),
        ("[flashblocks]\nslow_subscriber_ms = 0", "flashblocks.slow_subscriber_ms"),
        ("[registry]\nsources = [\"https://x\"]", "registry.sources: `https://x`"),
        ("[registry]\nsources = [\"\"]", "registry.sources"),
        ("[registry]\nsources = [\"http://a:b@x\"]", "no name or password"),
        ("[registry]\npoll_ms = 1", "registry.poll_ms"),
        ("[registry]\ntimeout_ms = 0", "registry.timeout_ms"),
        // Numbers that are multiplied.
        ("[p2p]\nreassembly_mib = 9223372036854775807", "p2p.reassembly_mib"),
        ("[p2p]\nrepair_mib = 17592186044416", "p2p.repair_mib"),
        ("[p2p]\nmax_handshakes = 9223372036854775807", "p2p.max_handshakes"),
        ("[gossip]\nmemory_mib = 17592186044416", "gossip.memory_mib"),
        ("[client]\ncache_mib = 17592186044416", "client.cache_mib"),
        ("[calls]\nmemory_mib = 17592186044416", "calls.memory_mib"),
        ("[members]\nrenew_s = 9223372036854775807", "members.renew_s"),
        (
            "[registry]\npoll_ms = 60000\nmax_age_s = 60",
            "registry.max_age_s: must be 0, or at least 180",
        ),
        ("network = ", "node.toml"),
    ] {
        std::fs::write(&path, text).unwrap();
        let error = Config::load(&path).unwrap_err().to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
    let error = Config::load(&dir.path().join("none.toml")).unwrap_err().to_string();
    assert!(error.contains("fragcast init"), "{error}");
}

#[test]
fn no_secret_of_a_url_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.toml");
    for (text, part) in [
        ("[registry]\nsources = [\"https://u:SECRET@x\"]", "registry.sources: `https://x`"),
        ("[registry]\nsources = [\"https://x/?jwt=SECRET\"]", "registry.sources: `https://x/…`"),
        ("[members]\nweights = \"https://x/SECRET\"", "members.weights: `https://x/…`"),
        ("[members]\nweights = \"http://u:SECRET@x\"", "no name or password"),
        ("[leader]\nsigner = \"https://x/SECRET\"", "leader.signer: `https://x/…`"),
        ("[leader]\nsigner = \"http://u:SECRET@x\"", "no name or password"),
        ("[leader]\nsigner = \"http://x?SECRET\"", "no name or password"),
        // The parser quotes lines.
        ("[client]\nurl = \"http://u:SECRET@x", "line 2, column 25"),
        ("[client]\nport = \"http://x/SECRET\"", "line 2, column 1"),
        ("[client]\npoll_ms = \"http://x/SECRET\"", "line 2, column 11"),
    ] {
        std::fs::write(&path, text).unwrap();
        let error = Config::load(&path).unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(shown.contains(part) && !shown.contains("SECRET"), "{text}: {shown}");
    }
    let mut config = Config::default();
    config.engine.url = "https://u:SECRET@x".into();
    let error = config.engine_settings().unwrap_err();
    assert!(!format!("{error} {error:?}").contains("SECRET"), "{error}");
    config.client.url = "http://x/SECRET".into();
    let client = config.client_settings(false);
    assert!(!format!("{client:?}").contains("SECRET"), "{client:?}");
    let gateway = "0x0000000000000000000000000000000000000001";
    let text = format!("chain_id = 5\ngateways = [\"{gateway}\"]\n[gateway_urls]\n{gateway} = ");
    for url in ["https://x/SECRET", "http://u:SECRET@x"] {
        let file: NetworkFile = toml::from_str(&format!("{text}\"{url}\"")).unwrap();
        let error = file.check().unwrap_err();
        assert!(!format!("{error} {error:?}").contains("SECRET"), "{error}");
    }
    let file: NetworkFile = toml::from_str(&format!("{text}\"http://x/SECRET\"")).unwrap();
    let forward = config.forward_settings(&file.check().unwrap());
    assert!(!format!("{forward:?}").contains("SECRET"), "{forward:?}");
}

#[test]
fn what_is_kept_for_nodes_that_were_away_and_what_they_are_sent_is_configured() {
    let mut config = Config::default();
    let usual = fragcast_turbine::CatchUpConfig::default();
    let text = "chain_id = 5\ngateways = [\"0x0000000000000000000000000000000000000001\"]";
    let network = toml::from_str::<NetworkFile>(text).unwrap().check().unwrap();
    assert_eq!(config.protocol_settings(&network).unwrap().catch_up, usual);
    (config.p2p.catch_up_mib, config.p2p.catch_up_blocks, config.p2p.catch_up_mbit) = (8, 90, 20);
    config.check().unwrap();
    let settings = config.protocol_settings(&network).unwrap().catch_up;
    assert_eq!((settings.memory, settings.blocks), (8 << 20, 90));
    assert_eq!(settings.answers_bps, 20_000_000);
}

#[test]
fn the_time_between_two_blocks_is_the_chain_s_or_the_network_file_s() {
    let time = |chain_id: u64, more: &str| {
        let gateway = "0x0000000000000000000000000000000000000001";
        let text = format!("chain_id = {chain_id}\ngateways = [\"{gateway}\"]\n{more}");
        let network = toml::from_str::<NetworkFile>(&text).unwrap().check()?;
        let settings = Config::default().protocol_settings(&network).unwrap();
        Ok::<_, NetworkError>(settings.block_time.as_millis())
    };
    let unknown = fragcast_turbine::Config::new(5).block_time.as_millis();
    assert_eq!(
        [1, 10, 130, 57_073, 100, 20_261].map(|id| time(id, "").unwrap()),
        [12_000, 2_000, 1_000, 1_000, 5_000, unknown]
    );
    assert_eq!(time(20_261, "block_time_ms = 250").unwrap(), 250);
    assert_eq!(time(10, "block_time_ms = 200").unwrap(), 200, "a fork of it may be faster");
    assert!(matches!(time(10, "block_time_ms = 0"), Err(NetworkError::BlockTime)));
}
