//! One handshake of `rtc-dtls`, and the association that comes of it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use rtc_crypto::providers::AwsLcRsProvider;
use rtc_dtls::config::{ClientAuthType, ConfigBuilder, ExtendedMasterSecretType, HandshakeConfig};
use rtc_dtls::endpoint::{Endpoint, EndpointEvent};
use rtc_dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use rtc_shared::TransportProtocol;
use rtc_shared::error::Error;

use super::guard::Guard;
use super::{DtlsError, Fingerprint, Identity};
use crate::srtp::{Keys, Profile, Role};

/// RFC 5764, §4.2.
const EXPORTER_LABEL: &str = "EXTRACTOR-dtls_srtp";

/// Under which name the endpoint knows the peer: it has only one, and its address may change.
pub(super) const PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

/// One handshake, and the association that comes of it.
pub(super) struct Attempt {
    pub(super) endpoint: Endpoint,
    pub(super) guard: Guard,
    pub(super) certificate: Arc<CertificateCheck>,
    pub(super) is_complete: bool,
    /// What we sent last, and when to send it again if the endpoint has no timer of its own.
    pub(super) flight: Vec<Bytes>,
    /// Our last flight has our Finished in it.
    pub(super) is_finishing: bool,
    pub(super) repeat_at: Option<Instant>,
    /// A server's only profile.
    pub(super) profile: Profile,
    /// What a server has been told before it had anything to say, to be told again to another endpoint.
    pub(super) hello: Vec<BytesMut>,
}

#[derive(Default)]
pub(super) struct CertificateCheck {
    pub(super) passed: AtomicBool,
    pub(super) failed: AtomicBool,
}

impl Attempt {
    pub(super) fn new(
        identity: &Identity,
        role: Role,
        expected: &Arc<[Fingerprint]>,
        profile: Profile,
    ) -> Result<Self, DtlsError> {
        let certificate = Arc::default();
        let config = config(identity, role, expected, profile, &certificate).map_err(handshake)?;
        Ok(Self {
            endpoint: endpoint(role, config),
            guard: Guard::default(),
            certificate,
            is_complete: false,
            flight: Vec::new(),
            is_finishing: false,
            repeat_at: None,
            profile,
            hello: Vec::new(),
        })
    }

    pub(super) fn config(
        &self,
        identity: &Identity,
        role: Role,
        expected: &Arc<[Fingerprint]>,
    ) -> Result<Arc<HandshakeConfig>, DtlsError> {
        config(identity, role, expected, self.profile, &self.certificate).map_err(handshake)
    }

    /// The same ClientHello to an endpoint that has AES-CM only.
    pub(super) fn fall_back(
        &mut self,
        identity: &Identity,
        role: Role,
        expected: &Arc<[Fingerprint]>,
        now: Instant,
    ) -> Result<Vec<EndpointEvent>, Error> {
        self.profile = Profile::Aes128CmHmacSha1_80;
        self.endpoint = endpoint(role, config(identity, role, expected, self.profile, &self.certificate)?);
        let mut events = Vec::new();
        for datagram in std::mem::take(&mut self.hello) {
            events.extend(self.endpoint.read(now, PEER, None, datagram)?);
        }
        Ok(events)
    }

    pub(super) fn failure(&self, error: Error) -> DtlsError {
        match error {
            _ if self.certificate.failed.load(Ordering::Relaxed) => DtlsError::Fingerprint,
            Error::ErrServerNoMatchingSrtpProfile | Error::ErrRequestedButNoSrtpExtension => {
                DtlsError::Profile
            }
            Error::ErrAlertFatalOrClose => DtlsError::Refused,
            error => handshake(error),
        }
    }

    pub(super) fn keys(&self, role: Role) -> Result<Keys, Error> {
        // The handshake cannot end without a certificate that passed; this is what everything rests on, so: once more.
        if !self.certificate.passed.load(Ordering::Relaxed) {
            return Err(Error::ErrClientCertificateNotVerified);
        }
        let state = self.endpoint.get_connection_state(PEER).ok_or(Error::HandshakeInProgress)?;
        let profile = match state.srtp_protection_profile() {
            SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm => Profile::Aes128Gcm,
            SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80 => Profile::Aes128CmHmacSha1_80,
            // A ClientHello without use_srtp.
            _ => return Err(Error::ErrServerNoMatchingSrtpProfile),
        };
        let exported = state.export_keying_material(EXPORTER_LABEL, &[], profile.exported_bytes())?;
        Keys::from_exported(profile, role, exported.as_ref()).map_err(|error| Error::Other(error.to_string()))
    }
}

pub(super) fn handshake(error: Error) -> DtlsError {
    DtlsError::Handshake(error.to_string())
}

fn endpoint(role: Role, config: Arc<HandshakeConfig>) -> Endpoint {
    Endpoint::new(PEER, TransportProtocol::UDP, (role == Role::Server).then_some(config))
}

fn config(
    identity: &Identity,
    role: Role,
    expected: &Arc<[Fingerprint]>,
    profile: Profile,
    check: &Arc<CertificateCheck>,
) -> Result<Arc<HandshakeConfig>, Error> {
    const GCM: SrtpProtectionProfile = SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm;
    const CM: SrtpProtectionProfile = SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80;
    let profiles = match (role, profile) {
        // The server chooses, usually by our order.
        (Role::Client, _) => vec![GCM, CM],
        (Role::Server, Profile::Aes128Gcm) => vec![GCM],
        (Role::Server, Profile::Aes128CmHmacSha1_80) => vec![CM],
    };
    let (expected, check) = (Arc::clone(expected), Arc::clone(check));
    let config = ConfigBuilder::default()
        .with_crypto_provider(Arc::new(AwsLcRsProvider::new()))
        .with_certificates(vec![identity.certificate().clone()])
        .with_srtp_protection_profiles(profiles)
        .with_extended_master_secret(ExtendedMasterSecretType::Require)
        .with_client_auth(ClientAuthType::RequireAnyClientCert)
        // There is no chain of trust: the SDP says which certificate it is (RFC 8122, §6.2).
        .with_insecure_skip_verify(true)
        .with_verify_peer_certificate(Some(Arc::new(move |certificates: &[Vec<u8>], _: &[_]| {
            let passes = certificates
                .first()
                .is_some_and(|own| expected.iter().any(|fingerprint| fingerprint.matches(own)));
            if passes { &check.passed } else { &check.failed }.store(true, Ordering::Relaxed);
            if passes { Ok(()) } else { Err(Error::ErrClientCertificateNotVerified) }
        })));
    Ok(Arc::new(config.build(role == Role::Client, None)?))
}
