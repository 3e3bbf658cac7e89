//! The log of events, as the admin port tells it: from any place on, and to readers whose places the cluster keeps.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use cluster::{AcknowledgeError, Acknowledgement, Journal, Logged, ReaderName, Sequence, StoreError};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout, timeout_at};

use crate::api::now_ms;

/// Of one answer.
const EVENTS_MAX: usize = 500;

/// Without a place to begin at, so many of the newest are told.
const EVENTS_RECENT: u64 = 100;

/// How long an answer waits for an event, and for the store. Shorter than a connection may last.
const WAIT_MAX: Duration = Duration::from_secs(3);
const _: () = assert!(WAIT_MAX.as_millis() < crate::admin::CONNECTION_TIME_MAX.as_millis());

/// From one event to the next, once there was one: those that are there come at once.
const GATHER_MAX: Duration = Duration::from_millis(100);

/// For a server of NATS that is behind another: milliseconds, or tens of them.
const BEHIND_MAX: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_millis(20);
const _: () = assert!(BEHIND_MAX.as_millis() < WAIT_MAX.as_millis());

/// Of the word by which processes under one name are told apart.
const BY_BYTES_MAX: usize = 64;

/// Where somebody begins to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Since {
    /// That event is the first.
    Event(Sequence),
    Age(Duration),
}

/// Why a text is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither the number of an event, as in 1200, nor an age, as in 90s, 15m, 2h or 7d")]
pub(crate) struct SinceError(String);

impl FromStr for Since {
    type Err = SinceError;

    fn from_str(text: &str) -> Result<Self, SinceError> {
        let wrong = || SinceError(text.to_owned());
        // A sign is no digit.
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let unit_seconds = match unit {
            "" => return Ok(Self::Event(Sequence(number))),
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            "d" => 24 * 3_600,
            _ => return Err(wrong()),
        };
        let seconds = number.checked_mul(unit_seconds).ok_or_else(wrong)?;
        Ok(Self::Age(Duration::from_secs(seconds)))
    }
}

impl fmt::Display for Since {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Event(sequence) => sequence.fmt(f),
            Self::Age(age) => write!(f, "{}s", age.as_secs()),
        }
    }
}

/// Why events are not told, or an acknowledgement is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EventsError {
    /// Whoever asked must ask otherwise.
    #[error("{0}")]
    Query(String),
    #[error("not {{\"from\": EVENT, \"to\": EVENT}}: {0}")]
    Body(String),
    #[error("event {first} is not in the log yet, whose newest is {newest}")]
    Ahead { first: Sequence, newest: Sequence },
    #[error(transparent)]
    Acknowledge(#[from] AcknowledgeError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the cluster's store does not answer in time")]
    Late,
}

impl EventsError {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Query(_) | Self::Body(_) | Self::Ahead { .. } => StatusCode::BAD_REQUEST,
            Self::Acknowledge(AcknowledgeError::Ahead { .. }) => StatusCode::BAD_REQUEST,
            Self::Acknowledge(AcknowledgeError::Elsewhere { .. } | AcknowledgeError::TooMany) => {
                StatusCode::CONFLICT
            }
            Self::Acknowledge(_) | Self::Store(_) | Self::Late => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// `after=EVENT`, `since=EVENT` or `since=AGE`, `as=NAME`; `wait=false`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    after: Option<Sequence>,
    since: Option<Since>,
    reader: Option<ReaderName>,
    /// An answer without any event comes at once.
    hurries: bool,
}

impl Asked {
    /// # Errors
    /// [`EventsError::Query`]. What it does not know it passes over.
    pub(crate) fn parse(query: &str) -> Result<Self, EventsError> {
        let mut asked = Self::default();
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            match name {
                "after" => {
                    let number = value.parse();
                    let wrong =
                        |_| EventsError::Query(format!("after={value:?} is not the number of an event"));
                    asked.after = Some(Sequence(number.map_err(wrong)?));
                }
                "since" => {
                    let since = value.parse();
                    asked.since =
                        Some(since.map_err(|error: SinceError| EventsError::Query(error.to_string()))?);
                }
                "as" => {
                    let wrong = |error: cluster::ReaderNameError| EventsError::Query(error.to_string());
                    asked.reader = Some(value.parse().map_err(wrong)?);
                }
                "wait" => asked.hurries = value == "false",
                _ => {}
            }
        }
        Ok(asked)
    }

    /// What a browser that comes again has is more than what its page had.
    #[must_use]
    pub(crate) fn with_seen(self, seen: Option<u64>) -> Self {
        Self { after: seen.map(Sequence).or(self.after), ..self }
    }
}

/// Where an answer begins.
#[derive(Debug, Clone, Copy)]
struct Start {
    after: Sequence,
    newest: Sequence,
    /// What the cluster keeps of the reader, or where it begins.
    from: Sequence,
    is_known: bool,
    /// The log is not the one that the place is of: its events have smaller numbers.
    is_anew: bool,
}

/// Cloning shares it.
#[derive(Clone)]
pub(crate) struct Events {
    journal: Journal,
}

impl Events {
    pub(crate) fn new(journal: Journal) -> Self {
        Self { journal }
    }

    #[cfg(test)]
    pub(crate) fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Of servers of NATS one may have told of an event that another, which says how many there are, has yet to write down. Only a
    /// log that stays behind has begun anew.
    async fn newest(&self, known: Sequence) -> Result<Sequence, StoreError> {
        let until = Instant::now() + BEHIND_MAX;
        loop {
            let newest = self.journal.newest().await?;
            if newest >= known || Instant::now() >= until {
                return Ok(newest);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    async fn start(&self, asked: &Asked) -> Result<Start, EventsError> {
        let place = match &asked.reader {
            Some(name) => self.journal.readers().place(name).await?,
            None => asked.after,
        };
        let newest = self.newest(place.unwrap_or(Sequence(0))).await?;
        let at = |after: Sequence| {
            let is_anew = after > newest;
            Start {
                after: if is_anew { Sequence(0) } else { after },
                newest,
                from: after,
                is_known: true,
                is_anew,
            }
        };
        if let Some(place) = place {
            return Ok(at(place));
        }
        let after = match asked.since {
            Some(Since::Event(Sequence(number))) => {
                let after = Sequence(number.saturating_sub(1));
                if after > newest {
                    return Err(EventsError::Ahead { first: Sequence(number), newest });
                }
                after
            }
            Some(Since::Age(age)) => {
                let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
                let now_ms = u64::try_from(now_ms()).unwrap_or_default();
                self.journal.before(now_ms.saturating_sub(age_ms)).await?
            }
            // All that there is.
            None if asked.reader.is_some() => self.journal.before(0).await?,
            None => Sequence(newest.0.saturating_sub(EVENTS_RECENT)),
        };
        Ok(Start { is_known: false, ..at(after) })
    }

    /// What is asked for, and then what happens, without an end. Of a log that has begun anew since, from some of the newest on.
    ///
    /// # Errors
    /// [`EventsError`].
    pub(crate) async fn follow(&self, asked: &Asked) -> Result<BoxStream<'static, Logged>, EventsError> {
        let start = timeout(WAIT_MAX, self.start(asked)).await.map_err(|_| EventsError::Late)??;
        let after = if start.is_anew { start.newest.0.saturating_sub(EVENTS_RECENT) } else { start.after.0 };
        Ok(self.journal.follow(Sequence(after)))
    }

    /// What is asked for, waited for if there is none yet; without a place it is not waited for.
    ///
    /// # Errors
    /// [`EventsError`]. To who has said no more than a number, or nothing, a store that is away has no events to tell.
    pub(crate) async fn answer(&self, asked: &Asked) -> Result<Value, EventsError> {
        let mut until = Instant::now() + WAIT_MAX;
        let is_bare = asked.reader.is_none() && asked.since.is_none();
        let start = match timeout_at(until, self.start(asked)).await {
            Ok(Err(EventsError::Store(_))) | Err(_) if is_bare => {
                // As who asks again at once expects of a log in which nothing happens.
                if !asked.hurries {
                    tokio::time::sleep_until(until).await;
                }
                return Ok(json!({ "events": [] }));
            }
            Ok(start) => start?,
            Err(_) => return Err(EventsError::Late),
        };
        let waits = !asked.hurries && (asked.after.is_some() || !is_bare);
        let mut events = self.journal.follow(start.after);
        let (mut told, mut last) = (Vec::new(), start.after);
        while told.len() < EVENTS_MAX
            && (waits || last < start.newest)
            && let Ok(Some(logged)) = timeout_at(until, events.next()).await
        {
            last = logged.sequence;
            told.push(logged);
            if waits {
                until = until.min(Instant::now() + GATHER_MAX);
            }
        }
        if told.is_empty() && last < start.newest && !is_bare {
            return Err(EventsError::Late);
        }
        let first = told.first().map_or(0, |first| first.sequence.0);
        let missing = first.saturating_sub(start.after.0 + 1);
        let mut answer = json!({ "events": told, "after": last, "newest": start.newest, "missing": missing });
        if let Some(name) = &asked.reader {
            answer["reader"] = json!({
                "name": name.to_string(),
                "from": start.from,
                "known": start.is_known,
                "anew": start.is_anew,
            });
        }
        Ok(answer)
    }

    /// # Errors
    /// [`EventsError`]. What could not be said may be said again.
    pub(crate) async fn acknowledge(&self, name: &ReaderName, body: &[u8]) -> Result<Value, EventsError> {
        let moved: Acknowledgement =
            serde_json::from_slice(body).map_err(|error| EventsError::Body(error.to_string()))?;
        if moved.by.len() > BY_BYTES_MAX {
            return Err(EventsError::Body(format!("\"by\" has at most {BY_BYTES_MAX} bytes")));
        }
        let acknowledged = timeout(WAIT_MAX, self.journal.readers().acknowledge(name, &moved)).await;
        acknowledged.map_err(|_| EventsError::Late)??;
        Ok(json!({ "name": name.to_string(), "from": moved.to }))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use cluster::{Boot, Bucket, Key, Kind, Memory, Store};

    use super::*;

    #[test]
    fn where_somebody_begins_is_an_event_or_an_age() {
        let age = |seconds| Ok(Since::Age(Duration::from_secs(seconds)));
        for (text, wanted) in [
            ("0", Ok(Since::Event(Sequence(0)))),
            ("1200", Ok(Since::Event(Sequence(1200)))),
            ("18446744073709551615", Ok(Since::Event(Sequence(u64::MAX)))),
            ("0s", age(0)),
            ("90s", age(90)),
            ("15m", age(900)),
            ("2h", age(7_200)),
            ("7d", age(604_800)),
            // What overflows as a time before now is all of the log.
            ("18446744073709551615s", age(u64::MAX)),
        ] {
            assert_eq!(text.parse(), wanted, "{text}");
            let told = text.parse::<Since>().unwrap().to_string();
            assert_eq!(told.parse(), wanted, "{told}");
        }
        for wrong in [
            "",
            "h",
            "-1",
            "+1",
            "-1h",
            "1.5h",
            "2 h",
            " 2h",
            "2H",
            "2hours",
            "2h30m",
            "1w",
            "18446744073709551616",
            "18446744073709551615d",
            "yesterday",
            "٣h",
            "2é",
        ] {
            let error = wrong.parse::<Since>().unwrap_err();
            assert!(error.to_string().contains("nor an age, as in 90s"), "{wrong}: {error}");
        }
    }

    async fn log(count: u64) -> (Journal, Events) {
        let journal = Journal::new(Arc::new(Memory::default()), "a".parse().unwrap(), Boot(1));
        tell(&journal, count).await;
        (journal.clone(), Events::new(journal))
    }

    async fn tell(journal: &Journal, count: u64) {
        for _ in 0..count {
            journal.tell(Kind::StreamStarted, "live/cam".to_owned(), String::new()).await;
        }
    }

    async fn asked(events: &Events, query: &str) -> Result<Value, EventsError> {
        events.answer(&Asked::parse(query)?).await
    }

    fn numbers(answer: &Value) -> Vec<u64> {
        let events = answer["events"].as_array().unwrap();
        events.iter().map(|event| event["sequence"].as_u64().unwrap()).collect()
    }

    /// Or whoever follows it is told everything twice.
    #[tokio::test(start_paused = true)]
    async fn a_log_that_is_a_moment_behind_has_not_begun_anew() {
        let (journal, events) = log(5).await;
        let late = async {
            tokio::time::sleep(BEHIND_MAX / 2).await;
            tell(&journal, 2).await;
        };
        let (answer, ()) = tokio::join!(asked(&events, "after=6"), late);
        assert_eq!(numbers(&answer.unwrap()), [7]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_log_is_told_from_where_it_is_asked_for() {
        let (_, events) = log(5).await;
        for (query, wanted) in [
            ("", &[1, 2, 3, 4, 5][..]),
            ("after=3", &[4, 5]),
            ("since=3", &[3, 4, 5]),
            ("since=0", &[1, 2, 3, 4, 5]),
            ("since=1h", &[1, 2, 3, 4, 5]),
            ("since=18446744073709551615s", &[1, 2, 3, 4, 5]),
            ("since=6&wait=false", &[]),
            ("after=5&wait=false", &[]),
            // The log has begun anew.
            ("after=70", &[1, 2, 3, 4, 5]),
            ("after=18446744073709551615", &[1, 2, 3, 4, 5]),
        ] {
            let answer = asked(&events, query).await.unwrap();
            assert_eq!((numbers(&answer), answer["missing"].as_u64()), (wanted.to_vec(), Some(0)), "{query}");
        }
        for (query, words) in [
            ("since=7", "event 7 is not in the log yet, whose newest is 5"),
            ("since=soon", "nor an age"),
            ("after=-1", "is not the number of an event"),
            ("as=a.b", "1 to 64 letters"),
            ("as=*", "1 to 64 letters"),
            ("as=", "1 to 64 letters"),
        ] {
            let refused = asked(&events, query).await.unwrap_err();
            assert!(refused.to_string().contains(words), "{query}: {refused}");
            assert_eq!(refused.status(), StatusCode::BAD_REQUEST, "{query}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_is_told_what_it_has_not_acknowledged_and_waited_for() {
        let (journal, events) = log(3).await;
        let name: ReaderName = "mail".parse().unwrap();
        let new = asked(&events, "as=mail&since=2").await.unwrap();
        assert_eq!(new["reader"], json!({ "name": "mail", "from": 1, "known": false, "anew": false }));
        assert_eq!(numbers(&new), [2, 3]);
        let body = br#"{"from":1,"to":2,"by":"one"}"#;
        for _ in 0..2 {
            events.acknowledge(&name, body).await.unwrap();
        }
        // Where a new one would begin says nothing to one that is known.
        let known = asked(&events, "as=mail&since=1").await.unwrap();
        assert_eq!(known["reader"], json!({ "name": "mail", "from": 2, "known": true, "anew": false }));
        assert_eq!(numbers(&known), [3]);
        let other = events.acknowledge(&name, br#"{"from":1,"to":2,"by":"two"}"#).await.unwrap_err();
        assert_eq!(other.status(), StatusCode::CONFLICT, "{other}");
        for wrong in ["", "{}", r#"{"from":-1,"to":2}"#, r#"{"from":2,"to":99}"#] {
            let refused = events.acknowledge(&name, wrong.as_bytes()).await.unwrap_err();
            assert_eq!(refused.status(), StatusCode::BAD_REQUEST, "{wrong}: {refused}");
        }
        events.acknowledge(&name, br#"{"from":2,"to":3}"#).await.unwrap();
        let (answer, ()) = tokio::join!(asked(&events, "as=mail"), async {
            tokio::time::sleep(WAIT_MAX / 2).await;
            tell(&journal, 1).await;
        });
        assert_eq!(numbers(&answer.unwrap()), [4]);
        // All that there is, if it does not say otherwise.
        assert_eq!(numbers(&asked(&events, "as=another&wait=false").await.unwrap()), [1, 2, 3, 4]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_log_that_forgot_says_how_many_are_missing_and_one_that_began_anew_that_it_did() {
        let (journal, events) = log(4).await;
        tokio::time::sleep(cluster::EVENTS_AGE_MAX).await;
        let name: ReaderName = "mail".parse().unwrap();
        events.acknowledge(&name, br#"{"from":0,"to":1}"#).await.unwrap();
        tell(&journal, 2).await;
        let answer = asked(&events, "as=mail").await.unwrap();
        assert_eq!((numbers(&answer), answer["missing"].as_u64()), (vec![5, 6], Some(3)));
        // Who is new misses nothing.
        let answer = asked(&events, "as=another").await.unwrap();
        assert_eq!((numbers(&answer), answer["missing"].as_u64()), (vec![5, 6], Some(0)));
        assert_eq!(answer["reader"]["from"], 4);
        let answer = asked(&events, "since=2").await.unwrap();
        assert_eq!((numbers(&answer), answer["missing"].as_u64()), (vec![5, 6], Some(3)));

        let store = Arc::new(Memory::default());
        let journal = Journal::new(store.clone(), "a".parse().unwrap(), Boot(1));
        tell(&journal, 2).await;
        let events = Events::new(journal);
        let kept = json!({ "from": 900, "to": 900, "put_ms": now_ms() }).to_string();
        store.put(Bucket::Readers, &Key::from(&name), kept.into()).await.unwrap();
        let answer = asked(&events, "as=mail").await.unwrap();
        assert_eq!(answer["reader"], json!({ "name": "mail", "from": 900, "known": true, "anew": true }));
        assert_eq!((numbers(&answer), answer["missing"].as_u64()), (vec![1, 2], Some(0)));
        events.acknowledge(&name, br#"{"from":900,"to":2}"#).await.unwrap();
        assert_eq!(numbers(&asked(&events, "as=mail&wait=false").await.unwrap()), [0; 0]);
    }
}
