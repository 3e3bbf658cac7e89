use std::net::Ipv4Addr;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, HandshakeKind, RootCertStore, SignatureScheme, version};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream as ClientStream;

use super::super::Certificate;
use super::super::certificate::tests::pair;
use super::*;

const PEER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const HOST: &str = "live.example";

struct Pair {
    certificate: Certificate,
    der: CertificateDer<'static>,
}

fn certificate() -> Pair {
    let (chain, key) = pair(&[HOST]);
    let der = CertificateDer::from_pem_slice(chain.as_bytes()).unwrap();
    Pair { certificate: Certificate::from_pem(chain.as_bytes(), key.as_bytes()).unwrap(), der }
}

/// A client that trusts these, and no other.
fn client(trusted: &[&CertificateDer<'static>], protocols: &[&[u8]]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for certificate in trusted {
        roots.add((*certificate).clone()).unwrap();
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    config
}

type Accepted = Result<TlsStream<DuplexStream>, HandshakeError>;

async fn connect(
    tls: &Tls,
    config: &Arc<ClientConfig>,
) -> (io::Result<ClientStream<DuplexStream>>, Accepted) {
    let (near, far) = duplex(16 * 1024);
    let name = ServerName::try_from(HOST).unwrap();
    let connector = TlsConnector::from(Arc::clone(config));
    tokio::join!(connector.connect(name, near), tls.accept(PEER, far))
}

/// A certificate is replaced a hundred times while clients come.
#[tokio::test]
async fn no_handshake_fails_while_the_certificate_changes() {
    let (one, other) = (certificate(), certificate());
    let served = Arc::new(Served::new(Some(one.certificate.clone())));
    let tls = Tls::new(Arc::clone(&served), Protocols::Http).unwrap();
    let trusting_both = client(&[&one.der, &other.der], &[b"h2"]);
    let mut seen = [0, 0];
    for round in 0..100 {
        let next = if round % 2 == 0 { &other } else { &one };
        // New each time, so that nothing is resumed.
        let config = Arc::new(trusting_both.clone());
        let change = async {
            // Somewhere between the first byte and the last.
            for _ in 0..round % 7 {
                tokio::task::yield_now().await;
            }
            served.set(next.certificate.clone());
        };
        let ((client, accepted), ()) = tokio::join!(connect(&tls, &config), change);
        let (client, _accepted) = (client.unwrap(), accepted.unwrap());
        let shown = &client.get_ref().1.peer_certificates().unwrap()[0];
        seen[usize::from(*shown == other.der)] += 1;
    }
    assert!(seen[0] > 10 && seen[1] > 10, "both were seen: {seen:?}");
}

#[tokio::test]
async fn both_versions_of_the_protocol_are_spoken_and_h2_is_preferred() {
    let one = certificate();
    let served = Arc::new(Served::new(Some(one.certificate.clone())));
    let http = Tls::new(Arc::clone(&served), Protocols::Http).unwrap();
    for version in [&version::TLS12, &version::TLS13] {
        let mut roots = RootCertStore::empty();
        roots.add(one.der.clone()).unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec(), b"h2".to_vec()];
        let (client, accepted) = connect(&http, &Arc::new(config)).await;
        assert_eq!(client.unwrap().get_ref().1.protocol_version(), Some(version.version));
        assert_eq!(accepted.unwrap().get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    }
    let unnamed = Tls::new(served, Protocols::Unnamed).unwrap();
    let (_client, accepted) = connect(&unnamed, &Arc::new(client(&[&one.der], &[]))).await;
    assert_eq!(accepted.unwrap().get_ref().1.alpn_protocol(), None);
}

#[tokio::test]
async fn who_comes_back_spares_us_the_signature() {
    let one = certificate();
    let served = Arc::new(Served::new(Some(one.certificate.clone())));
    let tls = Tls::new(served, Protocols::Http).unwrap();
    let config = Arc::new(client(&[&one.der], &[b"h2"]));
    let mut kinds = Vec::new();
    for _ in 0..2 {
        let (client, accepted) = connect(&tls, &config).await;
        let (mut client, mut accepted) = (client.unwrap(), accepted.unwrap());
        // Tickets come after the handshake (RFC 8446, §4.6.1), so something must be read.
        accepted.write_all(b"x").await.unwrap();
        accepted.flush().await.unwrap();
        client.read_u8().await.unwrap();
        kinds.push(accepted.get_ref().1.handshake_kind());
    }
    assert_eq!(kinds, [Some(HandshakeKind::Full), Some(HandshakeKind::Resumed)]);
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_does_not_end_is_ended() {
    let tls = Tls::new(Arc::new(Served::new(Some(certificate().certificate))), Protocols::Http).unwrap();
    let (mut near, far) = duplex(1_024);
    let start = Instant::now();
    // The beginning of a record, and no more.
    near.write_all(&[22, 3, 1]).await.unwrap();
    assert!(matches!(tls.accept(PEER, far).await, Err(HandshakeError::TooSlow)));
    assert_eq!(start.elapsed(), HANDSHAKE_TIME_MAX);
}

/// Threat 12: one address opens connections and says nothing on them.
#[tokio::test]
async fn handshakes_under_way_are_bounded_by_address_and_others_still_come_in() {
    let one = certificate();
    let tls = Tls::new(Arc::new(Served::new(Some(one.certificate.clone()))), Protocols::Http).unwrap();
    let mut silent = Vec::new();
    for _ in 0..HANDSHAKES.per_address {
        silent.push(tls.handshakes.take(PEER).unwrap());
    }
    let (_near, far) = duplex(1_024);
    assert!(matches!(tls.accept(PEER, far).await, Err(HandshakeError::Full(Full::Address))));
    let (_near, far) = duplex(1_024);
    let other = IpAddr::from([192, 0, 2, 1]);
    let accepting = timeout(Duration::from_millis(1), tls.accept(other, far));
    assert!(accepting.await.is_err(), "waits for its first byte");
    silent.pop();
    let (client, accepted) = connect(&tls, &Arc::new(client(&[&one.der], &[]))).await;
    assert!(client.is_ok() && accepted.is_ok());
}

#[tokio::test]
async fn what_is_no_tls_fails_and_so_does_everybody_while_there_is_no_certificate() {
    let one = certificate();
    let served = Arc::new(Served::default());
    let tls = Tls::new(Arc::clone(&served), Protocols::Http).unwrap();
    let config = Arc::new(client(&[&one.der], &[]));
    let (client, accepted) = connect(&tls, &config).await;
    assert!(client.is_err() && matches!(accepted, Err(HandshakeError::Failed(_))));
    served.set(one.certificate);
    assert!(connect(&tls, &config).await.1.is_ok());

    let (mut near, far) = duplex(1_024);
    near.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    assert!(matches!(tls.accept(PEER, far).await, Err(HandshakeError::Failed(_))));
}

/// An authority looks at the certificate itself, and not by the rules of browsers.
#[derive(Debug)]
struct Authority(CertificateDer<'static>);

impl ServerCertVerifier for Authority {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        assert_eq!(*shown, self.0);
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// RFC 8737: the authority gets the certificate made for its challenge, and viewers get what they always get.
#[tokio::test]
async fn an_authority_is_answered_by_the_name_it_asks_for_and_viewers_do_not_notice() {
    let one = certificate();
    let served = Arc::new(Served::new(Some(one.certificate.clone())));
    let tls = Tls::new(Arc::clone(&served), Protocols::Http).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec![HOST.to_owned()]).unwrap();
    params.custom_extensions = vec![rcgen::CustomExtension::new_acme_identifier(&[7; 32])];
    let challenge = params.self_signed(&key).unwrap().der().clone();
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
    served.challenge(&HOST.to_uppercase(), challenge.clone(), key).unwrap();

    let mut authority = client(&[], &[ACME_CHALLENGE]);
    authority.dangerous().set_certificate_verifier(Arc::new(Authority(challenge)));
    let authority = Arc::new(authority);
    let (asked, accepted) = connect(&tls, &authority).await;
    let asked = asked.unwrap();
    assert_eq!(asked.get_ref().1.alpn_protocol(), Some(ACME_CHALLENGE));
    assert!(matches!(accepted, Err(HandshakeError::Challenge)));

    let viewer = Arc::new(client(&[&one.der], &[b"h2", ACME_CHALLENGE]));
    assert!(connect(&tls, &viewer).await.1.is_ok());
    served.end_challenges();
    assert!(connect(&tls, &authority).await.0.is_err());
}
