//! With which schedules a node begins.

use super::*;
use crate::lab::registry::{Registered, TestRegistry};
use crate::network::NetworkFile;
use crate::registry::saved::SavedList;

const CHAIN: u64 = 901;

fn gateways(n: u8) -> Vec<Address> {
    (1..=n).map(Address::repeat_byte).collect()
}

/// A network whose file has one gateway.
fn network() -> Network {
    let text = format!("chain_id = {CHAIN}\ngateways = [\"{}\"]", Address::repeat_byte(1));
    toml::from_str::<NetworkFile>(&text).unwrap().check_with_registry().unwrap()
}

fn settings(source: &str, dir: &std::path::Path) -> Settings {
    let patience = Duration::from_secs(60);
    Settings {
        sources: vec![Source::new(source, 30, patience).unwrap()],
        poll: Duration::from_secs(1),
        patience,
        saved: Some(dir.join("schedule.json")),
        max_age: None,
    }
}

fn save(dir: &std::path::Path, lists: &[(u64, u8)]) {
    let list =
        |(from_block, n): &(u64, u8)| SavedList { from_block: *from_block, gateways: gateways(*n) };
    let lists = lists.iter().map(list).collect();
    let saved = Saved { chain_id: CHAIN, blocks_per_term: 30, lists };
    saved.write(&dir.join("schedule.json")).unwrap();
}

/// First blocks and lengths of the lists that a node begins with.
async fn begins(source: &str, dir: &std::path::Path) -> Vec<(u64, usize)> {
    let network = network();
    let beginning = Beginning::of(settings(source, dir), &network).await;
    let epochs = beginning.epochs(&network).unwrap();
    let list = |epoch: &Epoch| (epoch.from_block(), epoch.schedule().gateways().len());
    epochs.iter().map(list).collect()
}

#[test]
fn a_source_that_fails_is_asked_less_and_less_often() {
    let poll = Duration::from_secs(1);
    let seconds = |failures| pause(poll, failures).as_secs();
    assert_eq!([0, 1, 2, 4, 5, 9, u32::MAX].map(seconds), [1, 2, 4, 16, 30, 30, 30]);
    assert_eq!(pause(Duration::from_secs(60), 0), Duration::from_secs(60), "as configured");
    let often = Duration::from_millis(50);
    assert_eq!(pause(often, u32::MAX), often * 30, "a source is missed for 30 polls at most");
}

#[tokio::test]
async fn the_first_list_is_the_registrys_else_the_saved_one_else_the_files() {
    let dir = tempfile::tempdir().unwrap();
    let mut registry = TestRegistry::start(Registered::new(gateways(3))).await.unwrap();
    assert_eq!(begins(&registry.url(), dir.path()).await, [(0, 3)]);
    registry.go_away().await;
    assert_eq!(begins(&registry.url(), dir.path()).await, [(0, 1)], "the network file's");
    save(dir.path(), &[(0, 2), (60, 4)]);
    assert_eq!(begins(&registry.url(), dir.path()).await, [(0, 2), (60, 4)], "the saved one");
}

#[tokio::test]
async fn the_start_waits_for_the_whole_list_of_a_slow_portal_unless_one_is_saved() {
    let dir = tempfile::tempdir().unwrap();
    let mut registered = Registered::new(gateways(20));
    (registered.knows_list, registered.delay) = (false, Duration::from_millis(20));
    let registry = TestRegistry::start(registered).await.unwrap();
    let network = network();
    let begins = async || {
        let patience = Duration::ZERO;
        let settings = Settings { patience, ..settings(&registry.url(), dir.path()) };
        let beginning = Beginning::of(settings, &network).await;
        beginning.epochs(&network).unwrap().last().unwrap().schedule().gateways().to_vec()
    };
    assert_eq!(begins().await, gateways(20));
    // With one that is saved the node begins at once, and the portal's follows.
    save(dir.path(), &[(0, 2)]);
    assert_eq!(begins().await, gateways(2));
}

#[tokio::test]
async fn a_restart_goes_on_with_what_was_saved_and_another_list_follows_it() {
    let dir = tempfile::tempdir().unwrap();
    let registry = TestRegistry::start(Registered::new(gateways(3))).await.unwrap();
    save(dir.path(), &[(0, 2), (60, 3)]);
    assert_eq!(begins(&registry.url(), dir.path()).await, [(0, 2), (60, 3)]);
    registry.registered().gateways = gateways(5);
    assert_eq!(begins(&registry.url(), dir.path()).await, [(0, 2), (60, 3), (90, 5)]);
    // Four are too many, the oldest makes room.
    save(dir.path(), &[(0, 2), (60, 3), (90, 4)]);
    assert_eq!(
        begins(&registry.url(), dir.path()).await,
        [(0, 2), (60, 3), (90, 4), (120, 5)],
        "the protocol keeps the newest three"
    );
    // A damaged file is as good as none.
    std::fs::write(dir.path().join("schedule.json"), "{").unwrap();
    assert_eq!(begins(&registry.url(), dir.path()).await, [(0, 5)]);
}

#[tokio::test]
async fn nothing_that_is_kept_has_a_secret() {
    let dir = tempfile::tempdir().unwrap();
    let registry = TestRegistry::start(Registered::new(gateways(3))).await.unwrap();
    let beginning = Beginning::of(settings(&registry.url(), dir.path()), &network()).await;
    let secret = crate::lab::registry::SECRET.trim_start_matches("0x");
    let status = beginning.status().status(Instant::now(), crate::serve::Reader::Operator);
    assert!(!format!("{beginning:?} {status}").contains(secret));
    assert_eq!(status["sources"][0]["answers"], 1);
}

#[test]
fn delegations_of_those_who_may_register_are_kept_only_with_a_registry() {
    let key = fragcast_shredder::GatewayKey::from_bytes([7; 32]).unwrap();
    let leader = ed25519_dalek::SigningKey::from_bytes(&[7; 32]).verifying_key();
    let peer = fragcast_turbine::PeerId([7; 32]);
    let delegation = fragcast_turbine::Delegation {
        chain_id: CHAIN,
        first: 0,
        last: u64::MAX,
        sequence: 1,
        peer,
        key: leader.to_bytes(),
    };
    let file = |signed: SignedDelegation| {
        let text = format!("chain_id = {CHAIN}\ngateways = [\"{}\"]", Address::repeat_byte(1));
        let mut file: NetworkFile = toml::from_str(&text).unwrap();
        file.delegations.push(signed.to_string());
        file
    };
    let early = file(delegation.sign(&key));
    assert!(early.check().unwrap_err().to_string().contains("is not a gateway of the schedule"));
    let network = early.check_with_registry().unwrap();
    assert_eq!((network.delegations.len(), network.early.len()), (0, 1));
    let ours = delegations(&network);
    assert_eq!(of(&ours, &gateways(3)).count(), 0);
    assert_eq!(of(&ours, &[key.address()]).count(), 1);
    // One that no epoch could take is a mistake all the same.
    let weak = fragcast_turbine::Delegation { key: [0; 32], ..delegation };
    assert!(file(weak.sign(&key)).check_with_registry().is_err());
}
