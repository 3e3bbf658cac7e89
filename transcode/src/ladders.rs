//! The ladder of each application, as an operator writes it.
//!
//! ```text
//! auto; film = on-demand 1080:6000k, 480:1200k; radio = off
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use media::StreamId;

use crate::ladder::{LadderConfig, RungConfig};

/// Lines and bits per second that a rung may be asked to have; anything else is a slip of the finger.
const HEIGHTS: std::ops::RangeInclusive<u16> = 64..=4096;
const KBIT_S: std::ops::RangeInclusive<u32> = 32..=100_000;

/// Before a ladder whose pictures are made only while somebody watches them. Sound is always made.
const ON_DEMAND: &str = "on-demand";

/// One for every application, and another for some.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ladders {
    default: Ladder,
    apps: BTreeMap<String, Ladder>,
}

/// Of one application.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ladder {
    pub config: LadderConfig,
    /// The rungs are made only while somebody watches them.
    pub on_demand: bool,
}

impl Ladders {
    pub fn of(&self, id: &StreamId) -> &Ladder {
        self.apps.get(id.app()).unwrap_or(&self.default)
    }

    /// Whether no stream gets any rung.
    pub fn is_off(&self) -> bool {
        let is_off = |ladder: &Ladder| ladder.config == LadderConfig::Off;
        is_off(&self.default) && self.apps.values().all(is_off)
    }
}

impl FromStr for Ladders {
    type Err = String;

    /// # Errors
    /// Says in words what is wrong.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut ladders = Self::default();
        for (number, item) in text.split(';').map(str::trim).enumerate() {
            match item.split_once('=') {
                None if number == 0 => ladders.default = ladder(item)?,
                None => return Err(format!("{item:?} names no application")),
                Some((app, item)) => {
                    let app = app.trim();
                    StreamId::new(app, "any")
                        .map_err(|error| format!("{app:?} is no application: {error}"))?;
                    if ladders.apps.insert(app.to_owned(), ladder(item.trim())?).is_some() {
                        return Err(format!("{app:?} comes twice"));
                    }
                }
            }
        }
        Ok(ladders)
    }
}

fn ladder(text: &str) -> Result<Ladder, String> {
    let Some(rest) = text.strip_prefix(ON_DEMAND) else {
        return Ok(Ladder { config: config(text)?, on_demand: false });
    };
    let config = match rest.trim_start() {
        "" => return Err(format!("{text:?} does not say what is made on demand")),
        made if made.len() == rest.len() => return Err(format!("{text:?} is no rung")),
        made => config(made)?,
    };
    if config == LadderConfig::Off {
        return Err(format!("{text:?} makes nothing, on demand or not"));
    }
    Ok(Ladder { config, on_demand: true })
}

fn config(text: &str) -> Result<LadderConfig, String> {
    match text {
        "auto" => Ok(LadderConfig::Auto),
        "off" => Ok(LadderConfig::Off),
        _ => text
            .split(',')
            .map(|rung| rung_config(rung.trim()))
            .collect::<Result<_, _>>()
            .map(LadderConfig::Rungs),
    }
}

fn rung_config(text: &str) -> Result<RungConfig, String> {
    let parsed = text.strip_suffix('k').and_then(|text| text.split_once(':'));
    let parsed = parsed.and_then(|(height, kbit_s)| {
        let (height, kbit_s) = (height.parse().ok()?, kbit_s.parse().ok()?);
        (HEIGHTS.contains(&height) && KBIT_S.contains(&kbit_s)).then_some((height, kbit_s))
    });
    let (height, kbit_s): (u16, u32) = parsed.ok_or_else(|| format!("{text:?} is no rung"))?;
    Ok(RungConfig { height, bitrate: kbit_s * 1_000, frame_rate_max: None })
}

impl fmt::Display for Ladders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_ladder(f, &self.default)?;
        for (app, ladder) in &self.apps {
            write!(f, "; {app} = ")?;
            write_ladder(f, ladder)?;
        }
        Ok(())
    }
}

fn write_ladder(f: &mut fmt::Formatter<'_>, ladder: &Ladder) -> fmt::Result {
    if ladder.on_demand {
        write!(f, "{ON_DEMAND} ")?;
    }
    match &ladder.config {
        LadderConfig::Auto => f.write_str("auto"),
        LadderConfig::Off => f.write_str("off"),
        LadderConfig::Rungs(rungs) => {
            for (number, rung) in rungs.iter().enumerate() {
                let comma = if number > 0 { ", " } else { "" };
                write!(f, "{comma}{}:{}k", rung.height, rung.bitrate / 1_000)?;
            }
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_is_shown() {
        for text in [
            "auto",
            "off",
            "720:2500k, 480:1200k",
            "auto; film = 1080:6000k; radio = off",
            "on-demand auto",
            "auto; film = on-demand 1080:6000k, 480:1200k; radio = off",
        ] {
            assert_eq!(text.parse::<Ladders>().unwrap().to_string(), text);
        }
        let ladders: Ladders = "off;film=auto".parse().unwrap();
        let id = |app| StreamId::new(app, "cam").unwrap();
        assert_eq!(
            (&ladders.of(&id("film")).config, &ladders.of(&id("live")).config),
            (&LadderConfig::Auto, &LadderConfig::Off)
        );
        let ladders: Ladders = "on-demand 720:2500k,360:700k; film = auto".parse().unwrap();
        assert!(ladders.of(&id("live")).on_demand && !ladders.of(&id("film")).on_demand);
        assert!(matches!(&ladders.of(&id("live")).config, LadderConfig::Rungs(rungs) if rungs.len() == 2));
        assert!(!ladders.is_off() && "off; a = off".parse::<Ladders>().unwrap().is_off());
    }

    #[test]
    fn slips_are_named() {
        for (text, named) in [
            ("", "\"\" is no rung"),
            ("automatic", "\"automatic\" is no rung"),
            ("720p:2500k", "\"720p:2500k\""),
            ("720:2500", "\"720:2500\""),
            ("7200:2500k", "\"7200:2500k\""),
            ("720:2500k,", "\"\" is no rung"),
            ("on-demand", "\"on-demand\" does not say"),
            ("on-demand off", "\"on-demand off\" makes nothing"),
            ("on-demandauto", "\"on-demandauto\" is no rung"),
            ("720:2500k, on-demand 360:700k", "\"on-demand 360:700k\" is no rung"),
            ("auto; off", "\"off\" names no application"),
            ("auto; ../x = off", "\"../x\" is no application"),
            ("auto; a = off; a = auto", "\"a\" comes twice"),
        ] {
            let error = text.parse::<Ladders>().unwrap_err();
            assert!(error.starts_with(named), "{text}: {error}");
        }
    }
}
