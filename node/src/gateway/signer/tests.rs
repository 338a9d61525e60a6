//! A remote signer over sockets, in each of its interfaces and moods.

use fragcast_shredder::GatewayKey;
use fragcast_turbine::PeerId;

use super::*;
use crate::lab::signer::{Mood, TestSigner};

/// A guard against hanging; nothing waits for it.
const GUARD: Duration = Duration::from_secs(60);
const APIS: [SignerApi; 3] = [SignerApi::Web3signer, SignerApi::Clef, SignerApi::EthSign];

fn delegation() -> Delegation {
    let key = ed25519_dalek::SigningKey::from_bytes(&[4; 32]).verifying_key().to_bytes();
    Delegation { chain_id: 901, first: 30, last: 59, sequence: 7, peer: PeerId([4; 32]), key }
}

async fn server() -> TestSigner {
    TestSigner::start(GatewayKey::from_bytes([0x11; 32]).unwrap()).await.unwrap()
}

fn signer(server: &TestSigner, api: SignerApi) -> Signer {
    Signer::new(&server.url(), api, server.gateway(), GUARD)
}

#[tokio::test]
async fn every_interface_gives_a_delegation_that_nodes_take() {
    let server = server().await;
    for api in APIS {
        let signer = signer(&server, api);
        signer.check().await.unwrap();
        let signed = signer.sign(delegation()).await.unwrap();
        assert_eq!(signed.delegation, delegation());
        let mut known = fragcast_turbine::Delegations::new(901, &[server.gateway()]);
        assert_eq!(known.insert(signed).unwrap().gateway, server.gateway(), "{api}");
    }
    assert_eq!(server.desk().asked, 3);
    assert_eq!(server.desk().texts, vec![delegation().text(); 2], "what people are shown");
    let with_slash = format!("{}/", server.url());
    let signer = Signer::new(&with_slash, SignerApi::Web3signer, server.gateway(), GUARD);
    signer.sign(delegation()).await.unwrap();
}

#[tokio::test]
async fn whatever_a_signer_answers_is_told_with_what_to_do() {
    let server = server().await;
    for api in APIS {
        for (mood, asked, part) in [
            (Mood::Refuses, None, "refused"),
            (Mood::Junk, Some(Asked::Malformed), "leader.signer_api"),
            (Mood::Endless, Some(Asked::NoAnswer), "leader.signer_timeout_ms"),
            (Mood::SignsElse, Some(Asked::WrongSigner), "leader.gateway"),
        ] {
            server.desk().mood = mood;
            let error = signer(&server, api).sign(delegation()).await.unwrap_err();
            let text = error.to_string();
            match (api, asked) {
                (SignerApi::Web3signer, None) => {
                    assert_eq!(error, SignerError::Status(500), "Web3Signer has no code for it");
                }
                (_, None) => assert!(text.contains(part) && text.contains("approve"), "{text}"),
                (_, Some(asked)) => {
                    assert_eq!(Asked::from(&error), asked, "{api} {mood:?}: {text}");
                    assert!(text.contains(part), "{text}");
                }
            }
            assert!(!text.contains("Request denied"), "what it says is not shown: {text}");
        }
        server.desk().mood = Mood::Silent;
        let hasty = Signer { timeout: Duration::from_millis(50), ..signer(&server, api) };
        let error = hasty.sign(delegation()).await.unwrap_err();
        assert!(matches!(error, SignerError::NoAnswer(_)), "{error}");
        server.desk().mood = Mood::Signs;
        let gateway = Address::repeat_byte(7);
        let other = Signer { gateway, ..signer(&server, api) };
        let error = other.sign(delegation()).await.unwrap_err();
        match api {
            SignerApi::Web3signer => assert_eq!(error, SignerError::UnknownKey(gateway)),
            _ => assert_eq!(error, SignerError::Refused(-32000)),
        }
    }
    server.desk().has_key = false;
    for api in [SignerApi::Web3signer, SignerApi::EthSign] {
        let error = signer(&server, api).check().await.unwrap_err();
        assert_eq!(Asked::from(&error), Asked::UnknownKey);
        assert!(error.to_string().contains("load the key"), "{error}");
    }
}

#[tokio::test]
async fn a_signer_that_is_away_is_unreachable() {
    let mut server = server().await;
    let signer = signer(&server, SignerApi::Clef);
    server.go_away().await;
    for error in [signer.sign(delegation()).await.unwrap_err(), signer.check().await.unwrap_err()] {
        assert_eq!(Asked::from(&error), Asked::Unreachable);
        assert!(error.to_string().contains("start the signer"), "{error}");
    }
    server.come_back().await.unwrap();
    signer.sign(delegation()).await.unwrap();
}

#[test]
fn public_keys_in_any_form_have_their_address_and_junk_none() {
    let key = GatewayKey::from_bytes([0x11; 32]).unwrap();
    let point = hex::encode(key.public_key());
    for text in [format!("0x{point}"), point.clone(), format!("0x04{point}")] {
        assert_eq!(address_of(&text), Some(key.address()), "{text}");
    }
    for text in ["", "0x", "../x", &point[2..], &format!("0x05{point}"), &format!("{point}/..")] {
        assert_eq!(address_of(text), None, "{text}");
    }
}
