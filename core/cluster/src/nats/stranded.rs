//! When a connection by which nothing can be written is left for one to another server.

use std::time::Duration;

use tokio::time::Instant;

/// Longer than an election (up to 9 s). The server may be the one that is cut off from the others, while this node is not.
const PATIENCE: Duration = Duration::from_secs(12);

/// Where no server is of use, leaving one mends nothing, and is told in the log each time.
const PATIENCE_MAX: Duration = Duration::from_secs(120);

pub(super) struct Stranded {
    /// Since when nothing could be written, and by which connection.
    since: Option<(Instant, u64)>,
    /// Until that is left. Doubles with each that was, until something can be written.
    patience: Duration,
}

impl Default for Stranded {
    fn default() -> Self {
        Self { since: None, patience: PATIENCE }
    }
}

impl Stranded {
    /// What became of a write. Whether `connection`, `None` if there is none, is to be left now.
    pub(super) fn told(&mut self, is_answered: bool, connection: Option<u64>, now: Instant) -> bool {
        if is_answered {
            *self = Self::default();
            return false;
        }
        let since = match (self.since, connection) {
            (_, None) => None,
            (Some((since, same)), Some(connection)) if same == connection => Some((since, same)),
            (_, Some(connection)) => Some((now, connection)),
        };
        let is_over = since.is_some_and(|(since, _)| now.duration_since(since) >= self.patience);
        self.since = since.filter(|_| !is_over);
        if is_over {
            self.patience = PATIENCE_MAX.min(self.patience * 2);
        }
        is_over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks once a second whether to leave a connection that another one follows each time: in which seconds it was left.
    fn left(stranded: &mut Stranded, began: Instant, seconds: std::ops::Range<u64>) -> Vec<u64> {
        let mut connection = seconds.start;
        let mut ask = |second: &u64| {
            let is_left = stranded.told(false, Some(connection), began + Duration::from_secs(*second));
            connection += u64::from(is_left);
            is_left
        };
        seconds.filter(|second| ask(second)).collect()
    }

    #[test]
    fn where_no_server_is_of_use_each_is_tried_for_twice_as_long() {
        let (mut stranded, began) = (Stranded::default(), Instant::now());
        assert_eq!(left(&mut stranded, began, 0..560), [12, 37, 86, 183, 304, 425, 546]);
        assert!(!stranded.told(true, Some(7), began + Duration::from_secs(560)));
        assert_eq!(left(&mut stranded, began, 600..640), [612, 637]);
    }

    #[test]
    fn a_new_connection_has_as_long_as_the_one_before_and_so_has_one_that_another_task_still_sees() {
        let (mut stranded, began) = (Stranded::default(), Instant::now());
        let mut ask =
            |connection, second| stranded.told(false, connection, began + Duration::from_secs(second));
        assert_eq!([ask(Some(0), 0), ask(Some(0), 11), ask(Some(1), 12), ask(Some(1), 23)], [false; 4]);
        assert_eq!([ask(None, 24), ask(Some(1), 25), ask(Some(1), 36)], [false; 3]);
        assert!(ask(Some(1), 37));
        assert_eq!([ask(Some(1), 37), ask(Some(1), 60)], [false; 2]);
    }
}
