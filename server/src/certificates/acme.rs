//! Certificates from an authority that checks by itself that a name leads here: ACME (RFC 8555), by default from Let's
//! Encrypt.
//!
//!   account (kept) ─▶ order ─▶ the authority connects to port 443 of each name (TLS-ALPN-01, RFC 8737), where
//!   `net::tls::Served` answers it ─▶ certificate (kept) ─▶ a third of its time before its end: again

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail, ensure};
use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, ChallengeType, Identifier, NewAccount, NewOrder, Order,
    OrderStatus, RetryPolicy,
};
use net::tls::{Certificate, Served};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use serde::{Deserialize, Serialize};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::kept::{Kept, PEM_BYTES_MAX};
use super::renewal::{BackOff, due};
use super::{Told, day};
use crate::config::AcmeSettings;
use crate::files::{PRIVATE, make_private_dir, read_bounded, write_whole};

/// One order, with everything the authority does meanwhile.
const ORDER_TIME_MAX: Duration = Duration::from_secs(5 * 60);
/// For each of the two things that are waited for: that the authority has been here, and that it has signed.
const POLLING: RetryPolicy = RetryPolicy::new().timeout(Duration::from_secs(90));
/// At most so long between two looks at the clock: a laptop that slept, or whose clock was set, finds out.
const LOOK_INTERVAL: Duration = Duration::from_secs(3_600);

const FILE: &str = "acme.pem";
const ACCOUNT_FILE: &str = "acme-account.json";

pub(super) struct Acme {
    settings: AcmeSettings,
    kept: Kept,
    account_path: PathBuf,
}

/// The account as it is kept. One of another authority is worth nothing here.
#[derive(Serialize, Deserialize)]
struct KeptAccount {
    directory: String,
    credentials: AccountCredentials,
}

impl Acme {
    /// The kept certificate, if it is for the names that are wanted; else the first thing that is done is to order one.
    pub(super) fn load(data_dir: &Path, settings: &AcmeSettings) -> (Self, Option<Certificate>) {
        // The client of the authority asks for it; without one, rustls panics where a dependency brings another library
        // too. An error says that there is one already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let kept = Kept::new(data_dir, FILE);
        let account_path = kept.path().with_file_name(ACCOUNT_FILE);
        let certificate = Self::look(data_dir, settings).unwrap_or_else(|error| {
            warn!("{error:#}; ordering another certificate");
            None
        });
        let certificate = certificate.map(|(certificate, _)| certificate);
        (Self { settings: settings.clone(), kept, account_path }, certificate)
    }

    /// What is kept for these names, and where.
    ///
    /// # Errors
    /// If it cannot be used.
    pub(super) fn look(
        data_dir: &Path,
        settings: &AcmeSettings,
    ) -> anyhow::Result<Option<(Certificate, String)>> {
        let kept = Kept::new(data_dir, FILE);
        let certificate = kept.read()?.filter(|certificate| {
            settings.names.iter().all(|name| certificate.names().iter().any(|other| other == name))
        });
        Ok(certificate.map(|certificate| (certificate, kept.path().display().to_string())))
    }

    pub(super) fn names(&self) -> &[String] {
        &self.settings.names
    }

    pub(super) async fn keep(self, served: &Served, told: &Told) {
        let mut back_off = BackOff::default();
        loop {
            if let Some(certificate) = served.get()
                && let Ok(wait) = due(&certificate).duration_since(SystemTime::now())
            {
                sleep(wait.min(LOOK_INTERVAL)).await;
                continue;
            }
            let names = self.settings.names.join(", ");
            info!("ordering a certificate for {names} from {}", self.settings.directory);
            let ordered = timeout(ORDER_TIME_MAX, self.order(served)).await;
            served.end_challenges();
            let ordered = ordered.unwrap_or_else(|_| bail!("not done after {} s", ORDER_TIME_MAX.as_secs()));
            match ordered {
                Ok(certificate) => {
                    back_off.succeeded();
                    told.loaded(&certificate);
                    served.set(certificate);
                }
                Err(error) => {
                    told.failed();
                    let wait = back_off.failed();
                    let minutes = wait.as_secs() / 60;
                    match served.get() {
                        Some(old) => warn!(
                            "no new certificate for {names}: {error:#}. The old one is good until {}; next try in \
                             {minutes} min",
                            day(old.not_after())
                        ),
                        None => warn!(
                            "no certificate for {names}, so no HTTPS yet: {error:#}. Next try in {minutes} min"
                        ),
                    }
                    sleep(wait).await;
                }
            }
        }
    }

    async fn order(&self, served: &Served) -> anyhow::Result<Certificate> {
        let account = self.account().await?;
        let names: Vec<_> = self.settings.names.iter().cloned().map(Identifier::Dns).collect();
        let mut order =
            account.new_order(&NewOrder::new(&names)).await.context("the authority takes no order")?;
        answer_challenges(&mut order, served).await?;
        let status = order.poll_ready(&POLLING).await;
        if !matches!(status, Ok(OrderStatus::Ready)) {
            bail!("{}", refusal(&mut order, &status).await);
        }
        // A key of its own for each certificate.
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("cannot make a key")?;
        let mut params = CertificateParams::new(self.settings.names.clone())?;
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&key).context("cannot make a certificate request")?;
        order.finalize_csr(request.der()).await.context("the authority does not sign")?;
        let chain = order.poll_certificate(&POLLING).await.context("the authority has not signed")?;
        self.kept.write(&chain, &key.serialize_pem())
    }

    /// The kept account, else a new one.
    async fn account(&self) -> anyhow::Result<Account> {
        let builder = || {
            let builder = match &self.settings.authority {
                Some(path) => Account::builder_with_root(path),
                None => Account::builder(),
            };
            builder.context("cannot set up the way to the authority")
        };
        let directory = self.settings.directory.clone();
        if let Some(kept) = self.kept_account()?.filter(|kept| kept.directory == directory) {
            let account = builder()?.from_credentials(kept.credentials).await;
            return account.context("the authority cannot be reached");
        }
        let contact: Vec<_> = self.settings.contact.iter().map(|mail| format!("mailto:{mail}")).collect();
        let contact: Vec<_> = contact.iter().map(String::as_str).collect();
        // The operator said so: without `acme.terms_agreed` the configuration is refused.
        let new =
            NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
        let (account, credentials) = builder()?
            .create(&new, directory.clone(), None)
            .await
            .context("the authority cannot be reached, or makes no account")?;
        let kept = serde_json::to_string(&KeptAccount { directory, credentials })?;
        let write = || -> io::Result<()> {
            if let Some(dir) = self.account_path.parent() {
                make_private_dir(dir)?;
            }
            write_whole(&self.account_path, PRIVATE, &kept)
        };
        write().with_context(|| format!("cannot write {}: set data_dir", self.account_path.display()))?;
        Ok(account)
    }

    fn kept_account(&self) -> anyhow::Result<Option<KeptAccount>> {
        let path = self.account_path.display();
        let text = match read_bounded(&self.account_path, PEM_BYTES_MAX) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.with_context(|| format!("cannot read {path}"))?,
        };
        serde_json::from_slice(&text)
            .map(Some)
            .with_context(|| format!("{path} holds no account; delete it, and another is made"))
    }
}

async fn answer_challenges(order: &mut Order, served: &Served) -> anyhow::Result<()> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        match authorization.status {
            // Checked not long ago.
            AuthorizationStatus::Valid => continue,
            AuthorizationStatus::Pending => {}
            ref other => bail!("the authority has given up on a name: {other:?}"),
        }
        let mut challenge = authorization
            .challenge(ChallengeType::TlsAlpn01)
            .context("the authority does not check by TLS-ALPN-01, and Tidecast knows no other way")?;
        let name = challenge.identifier().to_string();
        let digest = challenge.key_authorization().digest().as_ref().to_vec();
        let (certificate, key) = challenge_certificate(&name, &digest)?;
        served.challenge(&name, certificate, key)?;
        challenge.set_ready().await?;
    }
    Ok(())
}

/// RFC 8737, §3: the name, and what only the holder of the account could know.
fn challenge_certificate(
    name: &str,
    digest: &[u8],
) -> anyhow::Result<(rustls::pki_types::CertificateDer<'static>, rustls::pki_types::PrivateKeyDer<'static>)> {
    ensure!(digest.len() == 32, "the authority's challenge is not of SHA-256");
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("cannot make a key")?;
    let mut params = CertificateParams::new(vec![name.to_owned()])?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let certificate = params.self_signed(&key).context("cannot sign a challenge")?;
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der());
    Ok((certificate.der().clone(), key.into()))
}

/// Why an order came to nothing: what the authority says of the names, which says more than what it says of the order.
async fn refusal(order: &mut Order, status: &Result<OrderStatus, instant_acme::Error>) -> String {
    let mut words = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let Ok(state) = authorization.refresh().await else { continue };
        let told = state.challenges.iter().filter_map(|challenge| challenge.error.as_ref()?.detail.clone());
        words.extend(told);
    }
    if words.is_empty() {
        // An authority may say it of the order first, and of the name a moment later.
        words.extend(order.state().error.as_ref().and_then(|problem| problem.detail.clone()));
    }
    if !words.is_empty() {
        return format!(
            "the authority could not check that the name leads here, to port 443: {}",
            words.join("; ")
        );
    }
    match status {
        Ok(status) => format!("the authority says that the order is {status:?}"),
        Err(error) => error.to_string(),
    }
}
