//! TLS identity: both sides of every connection show a raw Ed25519 public key (RFC 7250), TLS 1.3
//! only. There are no X.509 certificates to parse, to expire or to be issued by anybody.

use std::sync::Arc;

use rustls::client::AlwaysResolvesClientRawPublicKeys;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::{default_provider, sign::any_eddsa_type};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{
    CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error,
    SignatureScheme,
};

use zeroize::Zeroizing;

use crate::ids::{NodeId, PublicKey};
use crate::sign::{SecretKey, is_sound};

/// DER of SubjectPublicKeyInfo for Ed25519 (RFC 8410 §4), before the 32 bytes of the key.
const SPKI_PREFIX: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// DER of a PKCS #8 private key for Ed25519 (RFC 8410 §7), before the 32 bytes of the seed.
const PKCS8_PREFIX: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// The key inside a SubjectPublicKeyInfo; `None` for anything but a sound Ed25519 key.
#[must_use]
pub fn key_of_spki(spki: &[u8]) -> Option<PublicKey> {
    let raw = spki.strip_prefix(&SPKI_PREFIX)?;
    let key = PublicKey(<[u8; 32]>::try_from(raw).ok()?);
    is_sound(&key).then_some(key)
}

fn spki_of_key(key: &PublicKey) -> Vec<u8> {
    let mut out = SPKI_PREFIX.to_vec();
    out.extend_from_slice(key.as_bytes());
    out
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(default_provider())
}

fn certified(key: &SecretKey) -> Result<Arc<CertifiedKey>, Error> {
    // Of one size from the start, so that no copy of the seed stays behind where it grew.
    let mut der = Zeroizing::new([0; PKCS8_PREFIX.len() + 32]);
    let (head, seed) = der.split_at_mut(PKCS8_PREFIX.len());
    head.copy_from_slice(&PKCS8_PREFIX);
    seed.copy_from_slice(key.seed().as_slice());
    let signer = any_eddsa_type(&PrivatePkcs8KeyDer::from(der.as_slice()))?;
    let spki = CertificateDer::from(spki_of_key(&key.public()));
    Ok(Arc::new(CertifiedKey::new(vec![spki], signer)))
}

fn bad_key() -> Error {
    Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)
}

/// Accepts one key only (as dialler), or any sound key (as listener: who it is decides the Hello).
#[derive(Debug)]
struct KeyVerifier {
    expected: Option<PublicKey>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl KeyVerifier {
    fn new(expected: Option<PublicKey>) -> Arc<Self> {
        Arc::new(Self {
            expected,
            algorithms: default_provider().signature_verification_algorithms,
        })
    }
    fn check(&self, spki: &[u8]) -> Result<(), Error> {
        let key = key_of_spki(spki).ok_or_else(bad_key)?;
        match self.expected {
            Some(expected) if expected != key => Err(bad_key()),
            _ => Ok(()),
        }
    }
    fn signature(
        &self,
        message: &[u8],
        spki: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let spki = SubjectPublicKeyInfoDer::from(spki.as_ref());
        verify_tls13_signature_with_raw_key(message, &spki, signature, &self.algorithms)
    }
}

fn no_tls12() -> Error {
    Error::PeerIncompatible(rustls::PeerIncompatible::Tls12NotOffered)
}

impl ServerCertVerifier for KeyVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity.as_ref()).map(|()| ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, cert, dss)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for KeyVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }
    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity.as_ref()).map(|()| ClientCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, cert, dss)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// The listener's side: shows `key`, demands a raw key of whoever connects.
pub fn server_config(key: &SecretKey, alpns: &[&[u8]]) -> Result<rustls::ServerConfig, Error> {
    let resolver = AlwaysResolvesServerRawPublicKeys::new(certified(key)?);
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(KeyVerifier::new(None))
        .with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = alpns.iter().map(|a| a.to_vec()).collect();
    // No session tickets: connections are long-lived, and a ticket could be replayed.
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(config)
}

/// The dialler's side: shows `key`, and goes on only if the other side is `expected`.
pub fn client_config(
    key: &SecretKey,
    expected: NodeId,
    alpn: &[u8],
) -> Result<ClientConfig, Error> {
    dialler(key, Some(expected), alpn)
}

/// The same for whoever answers with a sound key: the certificate in its hello decides.
pub fn any_client_config(key: &SecretKey, alpn: &[u8]) -> Result<ClientConfig, Error> {
    dialler(key, None, alpn)
}

fn dialler(key: &SecretKey, expected: Option<NodeId>, alpn: &[u8]) -> Result<ClientConfig, Error> {
    let expected = expected.map(|node| PublicKey(node.0));
    let resolver = AlwaysResolvesClientRawPublicKeys::new(certified(key)?);
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(KeyVerifier::new(expected))
        .with_client_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

/// The key that the other side of a finished handshake showed.
#[must_use]
pub fn peer_key(certs: &[CertificateDer<'_>]) -> Option<PublicKey> {
    match certs {
        [one] => key_of_spki(one.as_ref()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key survives its DER form, and other algorithms or weak keys are refused (tests T053,
    /// T078).
    #[test]
    fn spki() {
        let key = SecretKey::from_seed(&[5; 32]).public();
        let der = spki_of_key(&key);
        assert_eq!(key_of_spki(&der), Some(key));
        assert_eq!(key_of_spki(&der[1..]), None);
        let mut weak = SPKI_PREFIX.to_vec();
        weak.push(1);
        weak.extend_from_slice(&[0; 31]);
        assert_eq!(key_of_spki(&weak), None);
    }
}
