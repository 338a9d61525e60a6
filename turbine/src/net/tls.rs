//! Mutual TLS 1.3 in which both sides prove an ed25519 key, and nothing else.
//!
//! Raw public keys (RFC 7250) instead of certificates: the 44 bytes of a SubjectPublicKeyInfo
//! are compared, not parsed, and there is no chain, name or date to check. What remains, and
//! is checked, is the handshake's signature. Session tickets and early data are off: early data
//! can be replayed.

use std::sync::Arc;

use ed25519_dalek::SigningKey;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{
    CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible,
    SignatureScheme,
};
use tokio::sync::watch;

use crate::epoch::EpochsView;
use crate::peer::PeerId;

/// The protocol's name in the handshake; a later wire format gets another.
const ALPN: &[u8] = b"fragcast/1";

/// SubjectPublicKeyInfo of an ed25519 key up to the key itself (RFC 8410).
const SPKI_PREFIX: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// PKCS#8 of an ed25519 secret up to the secret itself (RFC 8410).
const PKCS8_PREFIX: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// The peer behind a raw public key.
pub(super) fn peer_of(spki: &[u8]) -> Option<PeerId> {
    spki.strip_prefix(&SPKI_PREFIX)?.try_into().ok().map(PeerId)
}

fn certified(identity: &SigningKey) -> Result<Arc<CertifiedKey>, Error> {
    let mut pkcs8 = zeroize::Zeroizing::new([0u8; 48]);
    pkcs8[..16].copy_from_slice(&PKCS8_PREFIX);
    pkcs8[16..].copy_from_slice(identity.as_bytes());
    let key = ring::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(&pkcs8[..]))?;
    let spki = [&SPKI_PREFIX[..], &identity.verifying_key().to_bytes()].concat();
    Ok(Arc::new(CertifiedKey::new(vec![CertificateDer::from(spki)], key)))
}

/// The peer that a handshake expects.
#[derive(Debug)]
enum Expected {
    /// Any peer that is known, of a living epoch or a contact, for incoming calls.
    Known(watch::Receiver<Arc<EpochsView>>),
    /// Anybody who proves a key, for incoming calls where there are guests.
    Anybody,
    /// One peer: for whom we call.
    Peer(PeerId),
}

#[derive(Debug)]
struct Verifier {
    expected: Expected,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn check(&self, spki: &CertificateDer<'_>) -> Result<(), Error> {
        let peer = peer_of(spki).ok_or(CertificateError::BadEncoding)?;
        let fine = match &self.expected {
            Expected::Known(epochs) => epochs.borrow().peers().key(&peer).is_some(),
            Expected::Anybody => true,
            Expected::Peer(expected) => peer == *expected,
        };
        if fine { Ok(()) } else { Err(CertificateError::ApplicationVerificationFailure.into()) }
    }
}

/// The handshake's signature, checked in the same way for both sides: rustls has one trait for
/// those who call and one for those who are called, with the same four methods.
macro_rules! checks_signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            _message: &[u8],
            _spki: &CertificateDer<'_>,
            _signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Err(PeerIncompatible::Tls12NotOffered.into())
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            spki: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            rustls::crypto::verify_tls13_signature_with_raw_key(
                message,
                &SubjectPublicKeyInfoDer::from(spki.as_ref()),
                signed,
                &self.provider.signature_verification_algorithms,
            )
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            vec![SignatureScheme::ED25519]
        }

        fn requires_raw_public_keys(&self) -> bool {
            true
        }
    };
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        spki: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(spki).map(|()| ServerCertVerified::assertion())
    }

    checks_signatures!();
}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        spki: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(spki).map(|()| ClientCertVerified::assertion())
    }

    checks_signatures!();
}

/// The configuration for incoming calls, from members only or, where there are `guests`, from
/// whoever proves a key.
pub(super) fn server(
    identity: &SigningKey,
    epochs: watch::Receiver<Arc<EpochsView>>,
    guests: bool,
) -> Result<QuicServerConfig, Error> {
    let provider = Arc::new(ring::default_provider());
    let expected = if guests { Expected::Anybody } else { Expected::Known(epochs) };
    let verifier = Verifier { expected, provider: provider.clone() };
    let resolver = rustls::server::AlwaysResolvesServerRawPublicKeys::new(certified(identity)?);
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.max_early_data_size = 0;
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    QuicServerConfig::try_from(config).map_err(|e| Error::General(e.to_string()))
}

/// The configuration to call `peer`.
pub(super) fn client(identity: &SigningKey, peer: PeerId) -> Result<QuicClientConfig, Error> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Verifier { expected: Expected::Peer(peer), provider: provider.clone() };
    let resolver = rustls::client::AlwaysResolvesClientRawPublicKeys::new(certified(identity)?);
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.enable_early_data = false;
    config.resumption = rustls::client::Resumption::disabled();
    QuicClientConfig::try_from(config).map_err(|e| Error::General(e.to_string()))
}
