//! Sources that answer, answer wrongly, and do not answer.

use alloy_primitives::Address;

use super::*;
use crate::lab::registry::{Registered, SECRET, TestRegistry};

const GUARD: Duration = Duration::from_secs(60);

fn gateways(n: u8) -> Vec<Address> {
    (1..=n).map(Address::repeat_byte).collect()
}

fn source(text: &str) -> Source {
    Source::new(text, 30, GUARD).unwrap()
}

async fn asked(source: &Source) -> Result<Vec<Address>, SourceError> {
    source.ask().await.map(|answer| answer.list.addresses())
}

#[tokio::test]
async fn a_registry_is_asked_in_every_form_of_rows() {
    let registry = TestRegistry::start(Registered::new(gateways(3))).await.unwrap();
    let source = source(&registry.url());
    for (with_jwt, with_block) in [(true, true), (true, false), (false, true), (false, false)] {
        {
            let mut registered = registry.registered();
            (registered.with_jwt, registered.with_block) = (with_jwt, with_block);
        }
        let answer = source.ask().await.unwrap();
        assert_eq!((answer.list.addresses(), answer.contradicts_at), (gateways(3), None));
        let secret = SECRET.trim_start_matches("0x");
        assert!(!format!("{answer:?} {source:?}").contains(secret));
    }
}

#[tokio::test]
async fn a_portal_without_the_list_is_asked_for_one_term_after_the_other() {
    let registry = TestRegistry::start(Registered::new(gateways(5))).await.unwrap();
    let source = source(&registry.url());
    for (head, with_jwt) in [(0, true), (29, false), (30, true), (100, false), (3_017, true)] {
        {
            let mut registered = registry.registered();
            (registered.head, registered.with_jwt) = (head, with_jwt);
            registered.knows_list = false;
        }
        assert_eq!(asked(&source).await, Ok(gateways(5)), "at block {head}");
    }
    (registry.registered().gateways, registry.registered().head) = (gateways(1), 3_060);
    assert_eq!(asked(&source).await, Ok(gateways(1)));
    registry.registered().gateways = gateways(MAX_WALK as u8);
    assert_eq!(asked(&source).await, Ok(gateways(MAX_WALK as u8)));
    registry.registered().gateways = gateways(MAX_WALK as u8 + 1);
    assert_eq!(asked(&source).await, Err(SourceError::TooFar));
}

#[tokio::test]
async fn a_walk_asks_for_many_gateways_at_once_and_fits_its_time() {
    let mut registered = Registered::new(gateways(20));
    // One by one it would have no answer at all.
    (registered.knows_list, registered.at_once) = (false, AT_ONCE);
    let registry = TestRegistry::start(registered).await.unwrap();
    let source = source(&registry.url());
    assert_eq!(asked(&source).await, Ok(gateways(20)));
    assert_eq!(registry.registered().walked, 2 * AT_ONCE);
    let each = GUARD * 2;
    assert_eq!(source.longest(), each * 6, "each step of the longest walk has its own time-outs");
}

#[tokio::test]
async fn a_portal_is_walked_again_with_the_next_term_another_gateway_or_after_a_while() {
    let mut registered = Registered::new(gateways(5));
    registered.knows_list = false;
    let registry = TestRegistry::start(registered).await.unwrap();
    let mut source = source(&registry.url());
    source.walk_again = GUARD * 60;
    let walks = || registry.registered().walked / AT_ONCE;
    for head in [0, 7, 29] {
        registry.registered().head = head;
        assert_eq!((asked(&source).await, walks()), (Ok(gateways(5)), 1), "at block {head}");
    }
    registry.registered().head = 30;
    assert_eq!((asked(&source).await, walks()), (Ok(gateways(5)), 2), "the next term");
    let other: Vec<Address> = gateways(6)[1..].to_vec();
    registry.registered().gateways.clone_from(&other);
    assert_eq!((asked(&source).await, walks()), (Ok(other.clone()), 3), "another gateway leads");
    // What is told only of later terms.
    registry.registered().gateways.push(Address::repeat_byte(9));
    assert_eq!((asked(&source).await, walks()), (Ok(other), 3));
    source.walk_again = Duration::ZERO;
    assert_eq!((asked(&source).await.unwrap().len(), walks()), (6, 4), "after a while");
}

#[tokio::test]
async fn a_registry_that_counts_terms_otherwise_is_noticed() {
    let registry = TestRegistry::start(Registered::new(gateways(3))).await.unwrap();
    (registry.registered().head, registry.registered().term) = (45, 20);
    let answer = source(&registry.url()).ask().await.unwrap();
    assert_eq!(answer.contradicts_at, Some(45), "gateway 2 there, gateway 1 here");
}

#[tokio::test]
async fn a_registry_that_is_away_or_empty_gives_no_list() {
    let mut registry = TestRegistry::start(Registered::new(Vec::new())).await.unwrap();
    let source = source(&registry.url());
    assert_eq!(asked(&source).await, Err(ListError::Empty.into()));
    registry.registered().knows_list = false;
    let error = SourceError::Rpc { method: "registry_currentGateway", code: -32000 };
    assert_eq!(asked(&source).await, Err(error));
    registry.go_away().await;
    assert!(matches!(asked(&source).await, Err(SourceError::Http(HttpError::NotSent(_)))));
    registry.come_back().await.unwrap();
    *registry.registered() = Registered::new(gateways(2));
    assert_eq!(asked(&source).await, Ok(gateways(2)));
}

#[tokio::test]
async fn a_file_is_read_each_time_it_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gateways.json");
    let source = source(path.to_str().unwrap());
    assert_eq!(asked(&source).await, Err(SourceError::Io(std::io::ErrorKind::NotFound)));
    let mut registered = Registered::new(gateways(2));
    std::fs::write(&path, registered.rows().to_string()).unwrap();
    assert_eq!(asked(&source).await, Ok(gateways(2)));
    registered.gateways = gateways(4);
    registered.with_jwt = false;
    std::fs::write(&path, registered.rows().to_string()).unwrap();
    assert_eq!(asked(&source).await, Ok(gateways(4)));
    std::fs::write(&path, " ".repeat(MAX_BYTES + 1)).unwrap();
    assert_eq!(asked(&source).await, Err(SourceError::TooLong));
    std::fs::write(&path, "[]").unwrap();
    assert_eq!(asked(&source).await, Err(ListError::Empty.into()));
    let folder = Source::new(dir.path().to_str().unwrap(), 30, GUARD).unwrap();
    assert_eq!(asked(&folder).await, Err(SourceError::NotAFile));
}

#[test]
fn what_cannot_be_asked_is_no_source() {
    let new = |text| Source::new(text, 30, GUARD);
    let source = new("http://h:1/SECRET?key=SECRET").unwrap();
    assert_eq!(source.name(), "http://h:1/…");
    assert!(!format!("{source:?}").contains("SECRET"), "{source:?}");
    for (text, part) in [
        ("https://registry.example", "http://host:port"),
        ("http://", "http://host:port"),
        ("http://user:SECRET@host:1", "no name or password"),
        ("https://user:SECRET@portal", "`https://portal`"),
        ("https://x/?jwt=SECRET", "`https://x/…`"),
        ("https://x/SECRET", "`https://x/…`"),
        ("", "an empty name"),
    ] {
        let error = new(text).unwrap_err().to_string();
        assert!(error.starts_with("registry.sources: ") && error.contains(part), "{error}");
        assert!(!error.contains("SECRET"), "{error}");
    }
}
