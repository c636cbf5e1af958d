//! Knocking at a host's door in ways that no stork does: other TLS, no key, no protocol.

use std::net::SocketAddr;
use std::sync::Arc;

use quinn::Endpoint;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use stork_wire::ids::{NodeId, unhex};
use stork_wire::sign::SecretKey;
use stork_wire::tls;

use super::quic;

/// How somebody knocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Knock {
    /// With a raw key, but for no protocol that a host speaks.
    OtherProtocol,
    /// With a raw key, and without naming any protocol.
    NoProtocol,
    /// Without a key.
    NoKey,
    /// With an X.509 certificate.
    X509,
    /// As a dialler that expects another host there.
    OtherHost,
}

/// Takes any server: the knocker does not care who opens.
#[derive(Debug)]
struct Anybody {
    raw: bool,
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
    fn requires_raw_public_keys(&self) -> bool {
        self.raw
    }
}

/// A self-signed Ed25519 certificate for `stork`, and its key: made once by
/// `openssl req -x509 -newkey ed25519 -days 36500 -nodes -subj /CN=stork -outform DER`.
const X509_CERT: &str = "\
    308201363081e9a003020102021453eee6b4408c0a0bda0ae0b13f494fcd4ce7cf41300506032b6570301031\
    0e300c06035504030c0573746f726b3020170d3236313132323136323735305a180f32313236313032393136\
    323735305a3010310e300c06035504030c0573746f726b302a300506032b6570032100684e0f102a9572bb76\
    131f55f62c3cb0c751aa3bd16bf55ab09730061a5fcaf1a3533051301d0603551d0e0416041458df53018265\
    d61d51de1488f8a0556d49278cb3301f0603551d2304183016801458df53018265d61d51de1488f8a0556d49\
    278cb3300f0603551d130101ff040530030101ff300506032b6570034100f1bca143f6518e732c9bc4cce642\
    9c437c5184f923dd13d4964fff90f1e4a5bfa517e3a53649a3766636053312da469bdf039dc6482594c1edcc\
    e25091e69702";
const X509_KEY: &str = "\
    302e020100300506032b65700422042068eb15bd923061e99c8ed01ec441b54b29d059851242cf727d1c1af1\
    7cc1a187";

fn config(how: Knock, key: &SecretKey, node: NodeId) -> ClientConfig {
    let with = |node, alpn: &[u8]| tls::client_config(key, node, alpn).unwrap();
    let builder = |raw| {
        ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody { raw }))
    };
    let control = |mut c: ClientConfig| {
        c.alpn_protocols = vec![stork_wire::frame::ALPN_CONTROL.to_vec()];
        c
    };
    match how {
        Knock::OtherProtocol => with(node, b"h3"),
        Knock::NoProtocol => {
            let mut config = with(node, b"");
            config.alpn_protocols.clear();
            config
        }
        Knock::NoKey => control(builder(true).with_no_client_auth()),
        Knock::X509 => {
            let chain = vec![CertificateDer::from(unhex(X509_CERT).unwrap())];
            let key = PrivatePkcs8KeyDer::from(unhex(X509_KEY).unwrap()).into();
            control(builder(false).with_client_auth_cert(chain, key).unwrap())
        }
        Knock::OtherHost => with(NodeId([7; 32]), stork_wire::frame::ALPN_CONTROL),
    }
}

/// Knocks, and says how the connection ended. TLS 1.3 lets a client believe in a connection that
/// the server refuses a moment later, so the end is waited for.
pub async fn knock(how: Knock, node: NodeId, addr: SocketAddr) -> String {
    let key = SecretKey::from_seed(&[9; 32]);
    let endpoint = Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let config = quic(config(how, &key, node));
    match endpoint.connect_with(config, addr, "stork").unwrap().await {
        Ok(connection) => connection.closed().await.to_string(),
        Err(e) => e.to_string(),
    }
}
