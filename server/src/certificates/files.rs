//! The operator's own files, which some other program renews.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use net::tls::{Certificate, Served};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;
use tracing::warn;

use super::Told;
use super::kept::PEM_BYTES_MAX;
use crate::files::read_bounded;

/// How often the files are looked at. They are loaded when two looks in a row saw the same change: whoever replaces
/// two files is then done with both.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

pub(super) struct Files {
    certificate: PathBuf,
    /// The same file, if the key is in it.
    key: PathBuf,
    changes: Changes,
}

/// By which a file is told from its successor; `None` for a file that is not there.
type Stamp = [Option<(SystemTime, u64)>; 2];

impl Files {
    /// # Errors
    /// If the two cannot be read, or do not fit.
    pub(super) fn load(certificate: &Path, key: Option<&Path>) -> anyhow::Result<(Self, Certificate)> {
        let key = key.unwrap_or(certificate).to_owned();
        let mut files = Self { certificate: certificate.to_owned(), key, changes: Changes::default() };
        let certificate = files.read()?;
        Ok((files, certificate))
    }

    fn read(&mut self) -> anyhow::Result<Certificate> {
        // Before the files are: a change from now on is seen as one.
        self.changes.loaded(self.stamp());
        let text = |path: &Path| {
            read_bounded(path, PEM_BYTES_MAX).with_context(|| format!("cannot read {}", path.display()))
        };
        let pair = Certificate::from_pem(&text(&self.certificate)?, &text(&self.key)?);
        pair.with_context(|| format!("{} and {}", self.certificate.display(), self.key.display()))
    }

    fn stamp(&self) -> Stamp {
        [&self.certificate, &self.key].map(|path| {
            let metadata = fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        })
    }

    /// Serves what the files hold, whenever they change. A pair that cannot be used leaves the old one in service.
    pub(super) async fn keep(mut self, served: &Served, told: &Told) {
        let mut hangup = signal(SignalKind::hangup()).ok();
        loop {
            let asked = async {
                match &mut hangup {
                    Some(hangup) => hangup.recv().await,
                    None => std::future::pending().await,
                }
            };
            let is_asked = tokio::select! {
                _ = asked => true,
                () = sleep(LOOK_INTERVAL) => false,
            };
            let stamp = self.stamp();
            if is_asked || self.changes.is_settled(stamp) {
                self.reload(served, told);
            }
        }
    }

    fn reload(&mut self, served: &Served, told: &Told) {
        match self.read() {
            Ok(certificate) => {
                told.loaded(&certificate);
                served.set(certificate);
            }
            Err(error) => {
                told.failed();
                warn!("the new certificate cannot be used, the old one stays in service: {error:#}");
            }
        }
    }
}

/// Which state of the files was loaded, and which is on its way.
#[derive(Debug, Default)]
struct Changes {
    loaded: Stamp,
    /// Seen at the last look, and not loaded.
    seen: Option<Stamp>,
}

impl Changes {
    fn loaded(&mut self, stamp: Stamp) {
        (self.loaded, self.seen) = (stamp, None);
    }

    /// Whether the files have changed, and stayed so since the last look.
    fn is_settled(&mut self, stamp: Stamp) -> bool {
        let before = self.seen.take();
        if stamp == self.loaded {
            return false;
        }
        self.seen = Some(stamp);
        before == Some(stamp)
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;

    fn stamp(certificate: u64, key: u64) -> Stamp {
        [certificate, key].map(|bytes| Some((SystemTime::UNIX_EPOCH, bytes)))
    }

    #[test]
    fn a_change_is_loaded_when_nothing_changes_any_more_and_only_once() {
        let mut changes = Changes::default();
        changes.loaded(stamp(1, 1));
        assert!(!changes.is_settled(stamp(1, 1)));
        assert!(!changes.is_settled(stamp(2, 1)), "the key may follow");
        assert!(!changes.is_settled(stamp(2, 2)), "it did");
        assert!(changes.is_settled(stamp(2, 2)));
        // Whether it could be used or not.
        changes.loaded(stamp(2, 2));
        assert!(!changes.is_settled(stamp(2, 2)));
        assert!(!changes.is_settled([None, None]), "gone");
        assert!(!changes.is_settled(stamp(2, 2)), "and back");
        assert!(!changes.is_settled(stamp(2, 2)));
    }

    fn write(files: &Files, names: &[&str]) -> String {
        let names = names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        fs::write(&files.certificate, made.cert.pem()).unwrap();
        fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
        made.cert.pem()
    }

    #[test]
    fn a_pair_that_cannot_be_used_leaves_the_old_one_in_service() {
        let home = tempfile::tempdir().unwrap();
        let (certificate, key) = (home.path().join("c.pem"), home.path().join("k.pem"));
        let mut files =
            Files { certificate: certificate.clone(), key: key.clone(), changes: Changes::default() };
        assert!(Files::load(&certificate, Some(&key)).is_err(), "not there");
        write(&files, &["one.example"]);
        let served = Served::new(Some(Files::load(&certificate, Some(&key)).unwrap().1));
        let mut registry = Registry::default();
        let told = Told::register(&mut registry);
        let names = || served.get().unwrap().names().to_vec();

        fs::write(&key, rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap();
        files.reload(&served, &told);
        assert_eq!(names(), ["one.example"]);
        fs::remove_file(&certificate).unwrap();
        files.reload(&served, &told);
        assert_eq!(names(), ["one.example"]);
        write(&files, &["two.example"]);
        files.reload(&served, &told);
        assert_eq!(names(), ["two.example"]);

        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        assert!(text.contains("tls_certificate_loads_total{result=\"failed\"} 2"), "{text}");
        assert!(text.contains("tls_certificate_expiry_seconds 67"), "in the year 4096: {text}");
    }

    #[test]
    fn one_file_may_hold_both() {
        let home = tempfile::tempdir().unwrap();
        let both = home.path().join("both.pem");
        let made = rcgen::generate_simple_self_signed(vec!["one.example".to_owned()]).unwrap();
        fs::write(&both, format!("{}{}", made.cert.pem(), made.signing_key.serialize_pem())).unwrap();
        assert_eq!(Files::load(&both, None).unwrap().1.names(), ["one.example"]);
    }
}
