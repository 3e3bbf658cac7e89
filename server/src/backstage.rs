//! What the connect page asks of this process: the key's check, and whom ingest turned away.

use std::net::IpAddr;
use std::time::Instant;

use edge::Refused;
use ingest::{Authorize, Refusals, Secret};
use media::StreamId;
use net::{Guesses, TooManyGuesses};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

use crate::keeper::OneKey;

impl Authorize for OneKey {
    fn may_publish(&self, _: &StreamId, key: &Secret) -> bool {
        self.verify(key.expose())
    }
}

/// Joins edge's page to ingest's gate; roles do not know each other.
pub(crate) struct Backstage {
    key: OneKey,
    refusals: Refusals,
    guesses: Guesses,
    wrong_keys: Counter,
}

impl Backstage {
    /// `guesses`: the same as publishers', or a stranger would have as many again here.
    pub(crate) fn new(key: OneKey, refusals: Refusals, guesses: Guesses, metrics: &mut Registry) -> Self {
        let wrong_keys = Counter::default();
        metrics.register(
            "connect_wrong_keys",
            "Requests of the connect page with a wrong key",
            wrong_keys.clone(),
        );
        Self { key, refusals, guesses, wrong_keys }
    }
}

impl edge::Backstage for Backstage {
    fn may_publish(&self, id: &StreamId, key: &str, viewer: IpAddr) -> Result<bool, TooManyGuesses> {
        let key = Secret::new(key.to_owned());
        let allowed = self.guesses.attempt(
            viewer,
            Instant::now(),
            || self.key.may_publish(id, &key),
            |allowed| !allowed,
        );
        if allowed != Ok(true) {
            self.wrong_keys.inc();
        }
        allowed
    }

    fn refusals(&self) -> Vec<Refused> {
        let newest_first = self.refusals.newest_first().into_iter();
        newest_first
            .map(|ingest::Refused { at, times, peer, stream, encoder, words }| Refused {
                at,
                times,
                peer,
                stream,
                encoder,
                words,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use edge::Backstage as _;

    use super::*;
    use crate::keys::PublishKey;

    /// Threat 26: six guesses at the publishers' port, and six more here.
    #[test]
    fn who_guessed_as_a_publisher_waits_here_too() {
        let (key, viewer) = ("0123456789abcdef", IpAddr::from([192, 0, 2, 1]));
        let guesses = Guesses::default();
        let one_key = OneKey::new(PublishKey::parse(key).unwrap());
        let backstage =
            Backstage::new(one_key, Refusals::default(), guesses.clone(), &mut Registry::default());
        let id = StreamId::new("live", "cam").unwrap();
        assert_eq!(backstage.may_publish(&id, key, viewer), Ok(true));
        for _ in 0..6 {
            assert_eq!(guesses.attempt(viewer, Instant::now(), || false, |right| !right), Ok(false));
        }
        assert!(backstage.may_publish(&id, key, viewer).is_err());
        assert_eq!(backstage.may_publish(&id, key, IpAddr::from([192, 0, 2, 2])), Ok(true));
    }
}
