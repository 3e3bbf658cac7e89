//! Where the certificate for viewers and publishers comes from.

use std::path::{Path, PathBuf};

use super::{Config, Effective, Origin, Problem, value};

/// Let's Encrypt's directories (letsencrypt.org/docs/acme-protocol-updates).
const LETS_ENCRYPT: [(&str, &str); 2] = [
    ("letsencrypt", "https://acme-v02.api.letsencrypt.org/directory"),
    ("letsencrypt-staging", "https://acme-staging-v02.api.letsencrypt.org/directory"),
];

/// Names in one certificate. Each is checked by the authority, every time.
const NAMES_MAX: usize = 16;

#[derive(Default)]
pub(super) struct Tls {
    pub(super) certificate: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
    pub(super) self_signed: bool,
}

pub(super) struct Acme {
    pub(super) names: Vec<String>,
    pub(super) terms_agreed: bool,
    pub(super) contact: Vec<String>,
    /// As the operator wrote it: a name of [`LETS_ENCRYPT`], or a URL.
    pub(super) directory: String,
    pub(super) authority: Option<PathBuf>,
}

impl Default for Acme {
    fn default() -> Self {
        Self {
            names: Vec::new(),
            terms_agreed: false,
            contact: Vec::new(),
            directory: LETS_ENCRYPT[0].0.to_owned(),
            authority: None,
        }
    }
}

/// What an order takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AcmeSettings {
    /// At least one, in lower case.
    pub(crate) names: Vec<String>,
    /// URL.
    pub(crate) directory: String,
    /// Mail addresses.
    pub(crate) contact: Vec<String>,
    /// Of the authority's own server, if this machine does not trust it anyway.
    pub(crate) authority: Option<PathBuf>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum CertificateSource {
    /// Without `key` it is in the certificate's file.
    Files {
        certificate: PathBuf,
        key: Option<PathBuf>,
    },
    SelfSigned,
    Acme(AcmeSettings),
}

impl Config {
    /// `None`: nothing is encrypted here.
    pub(crate) fn certificate_source(&self) -> Option<CertificateSource> {
        let (tls, acme) = (&self.tls, &self.acme);
        if let Some(certificate) = tls.certificate.clone() {
            return Some(CertificateSource::Files { certificate, key: tls.key.clone() });
        }
        if tls.self_signed {
            return Some(CertificateSource::SelfSigned);
        }
        let named = LETS_ENCRYPT.into_iter().find(|(name, _)| *name == acme.directory);
        let directory = named.map_or_else(|| acme.directory.clone(), |(_, url)| url.to_owned());
        (!acme.names.is_empty()).then(|| {
            CertificateSource::Acme(AcmeSettings {
                names: acme.names.clone(),
                directory,
                contact: acme.contact.clone(),
                authority: acme.authority.clone(),
            })
        })
    }
}

impl Effective {
    /// A domain of one's own is for people who type it, and its authority comes to port 443 and no other: so those are
    /// the ports then, unless the operator says otherwise (and leads port 443 here by other means).
    pub(super) fn use_the_ports_of_the_web(&mut self) {
        if !matches!(self.config.certificate_source(), Some(CertificateSource::Acme(_))) {
            return;
        }
        if *self.origin("http.listen") == Origin::Default {
            self.config.http.listen = value::every_address(80);
        }
        if *self.origin("https.listen") == Origin::Default {
            self.config.https.listen = value::every_address(443);
        }
    }

    /// One certificate, and everything it takes.
    pub(super) fn misplaced_tls(&self) -> Option<Problem> {
        let Config { tls, acme, http, .. } = &self.config;
        let sources = [
            ("tls.certificate", tls.certificate.is_some()),
            ("tls.self_signed", tls.self_signed),
            ("acme.domain", !acme.names.is_empty()),
        ];
        let mut sources = sources.into_iter().filter(|(_, is_set)| *is_set).map(|(key, _)| key);
        let (first, second) = (sources.next(), sources.next());
        let (key, what) = match (first, second) {
            (Some(first), Some(second)) => {
                (second, format!("{second}: there is {first} too; allowed: one certificate"))
            }
            _ if tls.key.is_some() && tls.certificate.is_none() => {
                ("tls.key", "tls.key: belongs to a certificate; set tls.certificate too".to_owned())
            }
            (Some(domain @ "acme.domain"), None) if !acme.terms_agreed => (
                domain,
                "acme.domain: the authority signs only for who has agreed to its terms (Let's Encrypt's are at \
                 https://letsencrypt.org/repository/); if you do, set acme.terms_agreed = true or give --acme-agree"
                    .to_owned(),
            ),
            (None, None) if http.redirect => (
                "http.redirect",
                "http.redirect: there is no HTTPS to lead to; set tls.certificate, tls.self_signed or acme.domain"
                    .to_owned(),
            ),
            _ => return None,
        };
        Some(Problem { origin: self.origin(key).clone(), what })
    }
}

/// Empty for none.
pub(super) fn file(text: &str) -> Result<Option<PathBuf>, String> {
    if text.is_empty() { Ok(None) } else { value::directory(text).map(Some) }
}

pub(super) fn show_file(path: Option<&Path>) -> String {
    path.map(|path| path.display().to_string()).unwrap_or_default()
}

fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}

/// With commas between; empty for none.
pub(super) fn domains(text: &str) -> Result<Vec<String>, String> {
    let names: Vec<_> = list(text).map(str::to_ascii_lowercase).collect();
    if let Some(wrong) = names.iter().find(|name| !is_domain(name)) {
        return Err(if wrong.starts_with("*.") {
            format!(
                "{wrong:?}: for a wildcard the authority wants to see the DNS changed, which is not done here"
            )
        } else {
            format!("{wrong:?} is no name that an authority could check")
        });
    }
    if names.len() > NAMES_MAX {
        return Err(format!("more than {NAMES_MAX} are too many"));
    }
    Ok(names)
}

/// RFC 1123, §2.1, with a dot in it and no number at its end: an address is no name.
fn is_domain(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    name.len() <= 253
        && name.contains('.')
        && name.split('.').all(is_label)
        && !last.bytes().all(|byte| byte.is_ascii_digit())
}

/// Mail addresses with commas between; empty for none.
pub(super) fn contacts(text: &str) -> Result<Vec<String>, String> {
    let mails: Vec<_> = list(text).map(str::to_owned).collect();
    let is_mail = |mail: &String| {
        let visible = mail.bytes().all(|byte| byte.is_ascii_graphic());
        visible && mail.split_once('@').is_some_and(|(user, host)| !user.is_empty() && is_domain(host))
    };
    match mails.iter().find(|mail| !is_mail(mail)) {
        Some(wrong) => Err(format!("{wrong:?} is no mail address")),
        None => Ok(mails),
    }
}

/// A name of [`LETS_ENCRYPT`], or a URL.
pub(super) fn directory(text: &str) -> Result<String, String> {
    let is_named = LETS_ENCRYPT.iter().any(|(name, _)| *name == text);
    let is_url = || {
        text.parse::<http::Uri>()
            .is_ok_and(|url| url.scheme() == Some(&http::uri::Scheme::HTTPS) && url.authority().is_some())
    };
    if is_named || is_url() { Ok(text.to_owned()) } else { Err(format!("{text:?} is no directory")) }
}
