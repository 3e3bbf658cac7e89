//! When a certificate is due for another one, and how long to wait after an order that failed. Pure.

use std::time::{Duration, SystemTime};

use net::tls::Certificate;

/// After the first failed order; each further one doubles it. Let's Encrypt allows five failed validations of a name an
/// hour, and from here on there are four in the first.
const BACK_OFF_MIN: Duration = Duration::from_secs(5 * 60);
/// Twice a day, for as long as it takes: there is a month of such days.
const BACK_OFF_MAX: Duration = Duration::from_secs(12 * 3_600);

/// From when on another certificate is to be ordered: when a third of its time is left, as Let's Encrypt advises. That
/// holds for 90 days as for 6.
pub(super) fn due(certificate: &Certificate) -> SystemTime {
    due_between(certificate.not_before(), certificate.not_after())
}

fn due_between(not_before: SystemTime, not_after: SystemTime) -> SystemTime {
    let lifetime = not_after.duration_since(not_before).unwrap_or_default();
    not_after - lifetime / 3
}

/// Counts failed orders.
#[derive(Debug, Default)]
pub(super) struct BackOff {
    failures: u32,
}

impl BackOff {
    /// How long to wait now that another order has failed.
    pub(super) fn failed(&mut self) -> Duration {
        let doubled = BACK_OFF_MIN.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        doubled.min(BACK_OFF_MAX)
    }

    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    #[test]
    fn a_certificate_is_renewed_when_a_third_of_its_time_is_left() {
        for (days, due_on) in [(90, 60), (6, 4)] {
            let day = |day: u32| UNIX_EPOCH + 24 * HOUR * day;
            assert_eq!(due_between(day(1_000), day(1_000 + days)), day(1_000 + due_on));
        }
        assert_eq!(due_between(UNIX_EPOCH + HOUR, UNIX_EPOCH), UNIX_EPOCH, "a certificate of no time");
    }

    #[test]
    fn failures_in_a_row_are_fewer_than_an_authority_forgives_and_never_the_last_try() {
        let mut back_off = BackOff::default();
        let (mut at, mut in_first_hour) = (Duration::ZERO, 0);
        for _ in 0..100 {
            in_first_hour += u32::from(at < HOUR);
            let wait = back_off.failed();
            assert!((BACK_OFF_MIN..=BACK_OFF_MAX).contains(&wait), "{wait:?}");
            at += wait;
        }
        assert_eq!(in_first_hour, 4);
        assert_eq!(back_off.failed(), BACK_OFF_MAX);
        back_off.succeeded();
        assert_eq!(back_off.failed(), BACK_OFF_MIN);
    }
}
