//! A multivariant playlist.

use super::attributes::Attributes;
use super::{Violation, integer, lines, relative_uri};

#[derive(Debug, Clone, PartialEq)]
pub struct MultivariantPlaylist {
    pub version: Option<u64>,
    pub variants: Vec<Variant>,
    pub renditions: Vec<Rendition>,
    /// INSTREAM-ID of the captions that are declared.
    pub captions: Vec<String>,
    /// Where a steering manifest is, in a cluster.
    pub steering: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Variant {
    pub uri: String,
    /// Bits per second, the peak.
    pub bandwidth: u64,
    pub average_bandwidth: Option<u64>,
    pub codecs: Vec<String>,
    pub resolution: Option<(u64, u64)>,
    /// As written: at most three decimals.
    pub frame_rate: Option<String>,
    /// GROUP-ID of its audio renditions.
    pub audio: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Rendition {
    pub group_id: String,
    pub name: String,
    pub uri: Option<String>,
    pub is_default: bool,
    pub autoselect: bool,
    pub channels: Option<String>,
}

impl MultivariantPlaylist {
    /// # Errors
    /// The first thing that is not as §4.4.6 wants it, or that this server has no reason to write.
    pub fn parse(text: &str) -> Result<Self, Violation> {
        let mut playlist = Self {
            version: None,
            variants: Vec::new(),
            renditions: Vec::new(),
            captions: Vec::new(),
            steering: None,
        };
        let mut captioned = Vec::new();
        let mut announced: Option<Variant> = None;
        for (line, text) in lines(text)? {
            if !text.starts_with('#') {
                let Some(variant) = announced.take() else {
                    return Err(Violation::at_line(line, "a URI without EXT-X-STREAM-INF"));
                };
                playlist.variants.push(Variant { uri: relative_uri(line, text)?, ..variant });
                continue;
            }
            if announced.is_some() {
                return Err(Violation::at_line(
                    line,
                    "EXT-X-STREAM-INF must be followed by its URI (§4.4.6.2)",
                ));
            }
            match text.split_once(':') {
                Some(("#EXT-X-VERSION", value)) => {
                    if playlist.version.replace(integer(line, value)?).is_some() {
                        return Err(Violation::at_line(line, "EXT-X-VERSION appears twice"));
                    }
                }
                Some(("#EXT-X-MEDIA", value)) if value.starts_with("TYPE=CLOSED-CAPTIONS,") => {
                    playlist.captions.push(captions(line, value)?);
                }
                Some(("#EXT-X-CONTENT-STEERING", value)) => {
                    if playlist.steering.replace(steering(line, value)?).is_some() {
                        return Err(Violation::at_line(
                            line,
                            "EXT-X-CONTENT-STEERING appears twice (§4.4.6.6)",
                        ));
                    }
                }
                Some(("#EXT-X-MEDIA", value)) => playlist.renditions.push(rendition(line, value)?),
                Some(("#EXT-X-STREAM-INF", value)) => {
                    let (variant, has_captions) = variant(line, value)?;
                    captioned.push((variant.resolution.is_some(), has_captions));
                    announced = Some(variant);
                }
                // EXT-X-INDEPENDENT-SEGMENTS too: here it would promise for every rendition, whatever comes.
                _ => {
                    return Err(Violation::at_line(
                        line,
                        format!("{text} has no place in our multivariant playlists"),
                    ));
                }
            }
        }
        if announced.is_some() {
            return Err(Violation::at("the end", "EXT-X-STREAM-INF without its URI"));
        }
        let declared = !playlist.captions.is_empty();
        let has_services = playlist.captions.iter().any(|id| id.starts_with("SERVICE"));
        if has_services && playlist.version < Some(7) {
            return Err(Violation {
                place: "the playlist".into(),
                what: "services want version 7 (§8)".into(),
            });
        }
        if captioned.iter().any(|(has_picture, has_captions)| *has_captions != (*has_picture && declared)) {
            return Err(Violation::at(
                "CLOSED-CAPTIONS",
                "must be of all pictures if there are any (§4.4.6.2)",
            ));
        }
        playlist.check()
    }

    fn check(self) -> Result<Self, Violation> {
        if self.variants.is_empty() {
            return Err(Violation::at("playlist", "no variant"));
        }
        for variant in &self.variants {
            let has_group =
                |group: &String| self.renditions.iter().any(|rendition| rendition.group_id == *group);
            if !variant.audio.as_ref().is_none_or(has_group) {
                return Err(Violation::at(
                    &variant.uri,
                    "AUDIO names a group that is not there (§4.4.6.2.1)",
                ));
            }
        }
        for (index, rendition) in self.renditions.iter().enumerate() {
            let twin =
                |other: &Rendition| (&other.group_id, &other.name) == (&rendition.group_id, &rendition.name);
            if self.renditions.iter().take(index).any(twin) {
                return Err(Violation::at(
                    &rendition.name,
                    "two renditions of one group share a NAME (§4.4.6.1.1)",
                ));
            }
        }
        Ok(self)
    }
}

/// What a variant says of its bit rate must hold: Apple's authoring specification allows live media a peak of 125 % of
/// BANDWIDTH. `peak` is that of its renditions together, over single segments, in bits per second.
#[must_use]
pub fn check_bandwidth(variant: &Variant, peak: u64) -> Option<Violation> {
    let allowed = variant.bandwidth.saturating_mul(5) / 4;
    (peak > allowed).then(|| {
        let what = format!("BANDWIDTH is {}, and a segment had {peak} bit/s (Apple)", variant.bandwidth);
        Violation::at(&variant.uri, what)
    })
}

/// What a filtered playlist must satisfy beside the `whole` one: it adds nothing, and names everything by the same address.
#[must_use]
pub fn check_filtered(whole: &MultivariantPlaylist, filtered: &MultivariantPlaylist) -> Vec<Violation> {
    let address = |variant: &Variant| variant.uri.clone();
    let known: Vec<String> = whole
        .variants
        .iter()
        .map(address)
        .chain(whole.renditions.iter().filter_map(|r| r.uri.clone()))
        .collect();
    let mut found = Vec::new();
    for variant in &filtered.variants {
        if !known.contains(&variant.uri) {
            found.push(Violation::at(&variant.uri, "is not in the whole playlist"));
        }
        if let Some(same) = whole.variants.iter().find(|same| same.uri == variant.uri) {
            let is_less = variant.bandwidth <= same.bandwidth
                && variant.codecs.iter().all(|codec| same.codecs.contains(codec));
            if !is_less || variant.resolution != same.resolution || variant.frame_rate != same.frame_rate {
                found.push(Violation::at(
                    &variant.uri,
                    format!("is {variant:?}, in the whole playlist {same:?}"),
                ));
            }
        }
    }
    for rendition in filtered.renditions.iter().filter(|rendition| !whole.renditions.contains(rendition)) {
        found.push(Violation::at(&rendition.name, "is not in the whole playlist"));
    }
    found
}

/// And whether it has captions.
fn variant(line: usize, value: &str) -> Result<(Variant, bool), Violation> {
    let mut attributes = Attributes::parse(line, value)?;
    let (bandwidth, codecs) = (attributes.integer("BANDWIDTH")?, attributes.quoted("CODECS")?);
    let variant = Variant {
        uri: String::new(),
        bandwidth: attributes.required("BANDWIDTH", bandwidth)?,
        average_bandwidth: attributes.integer("AVERAGE-BANDWIDTH")?,
        codecs: attributes.required("CODECS", codecs)?.split(',').map(str::to_owned).collect(),
        resolution: attributes.bare("RESOLUTION")?.map(|text| resolution(line, text)).transpose()?,
        frame_rate: attributes.bare("FRAME-RATE")?.map(str::to_owned),
        audio: attributes.quoted("AUDIO")?.map(str::to_owned),
    };
    let has_captions = match attributes.quoted("CLOSED-CAPTIONS")? {
        None => false,
        Some(CAPTIONS_GROUP) => true,
        Some(_) => return Err(Violation::at_line(line, "CLOSED-CAPTIONS names a group that we do not make")),
    };
    attributes.finish()?;
    if variant.bandwidth == 0 || variant.average_bandwidth.is_some_and(|average| average > variant.bandwidth)
    {
        return Err(Violation::at_line(line, "BANDWIDTH is 0 or below AVERAGE-BANDWIDTH"));
    }
    // Apple's authoring specification asks for these of every stream that adapts.
    if variant.average_bandwidth.is_none() {
        return Err(Violation::at_line(line, "AVERAGE-BANDWIDTH is missing (Apple)"));
    }
    let has_picture = variant.codecs.iter().any(|codec| codec.starts_with("avc1"));
    if has_picture && (variant.resolution.is_none() || variant.frame_rate.is_none()) {
        return Err(Violation::at_line(line, "RESOLUTION or FRAME-RATE is missing beside a picture (Apple)"));
    }
    if let Some(codec) = variant.codecs.iter().find(|codec| !is_codec(codec)) {
        return Err(Violation::at_line(line, format!("{codec:?} is not a codec as RFC 6381 writes it")));
    }
    let fits = |rate: &String| {
        let decimals = rate.split_once('.').map_or(0, |(_, decimals)| decimals.len());
        decimals <= 3 && rate.parse().is_ok_and(|rate: f64| rate > 0.0)
    };
    if !variant.frame_rate.as_ref().is_none_or(fits) {
        return Err(Violation::at_line(line, "FRAME-RATE must be positive, with at most three decimals"));
    }
    Ok((variant, has_captions))
}

/// Of the only group that we make.
const CAPTIONS_GROUP: &str = "captions";

/// The SERVER-URI (§4.4.6.6). It is outside of what a viewing token is for.
fn steering(line: usize, value: &str) -> Result<String, Violation> {
    let mut attributes = Attributes::parse(line, value)?;
    let uri = attributes.quoted("SERVER-URI")?;
    let uri = attributes.required("SERVER-URI", uri)?.to_owned();
    attributes.finish()?;
    if !uri.starts_with("/where/") {
        return Err(Violation::at_line(line, format!("{uri:?} is not where steering manifests are")));
    }
    Ok(uri)
}

/// The INSTREAM-ID of captions (§4.4.6.1).
fn captions(line: usize, value: &str) -> Result<String, Violation> {
    let mut attributes = Attributes::parse(line, value)?;
    attributes.bare("TYPE")?;
    let (group, id) = (attributes.quoted("GROUP-ID")?, attributes.quoted("INSTREAM-ID")?);
    let id = attributes.required("INSTREAM-ID", id)?.to_owned();
    let name = attributes.quoted("NAME")?;
    attributes.required("NAME", name)?;
    attributes.yes("AUTOSELECT")?;
    attributes.finish()?;
    let number = id.strip_prefix("CC").or(id.strip_prefix("SERVICE")).and_then(|number| number.parse().ok());
    if group != Some(CAPTIONS_GROUP) || !number.is_some_and(|number: u8| (1..=63).contains(&number)) {
        return Err(Violation::at_line(line, format!("captions {id:?} of the group {group:?}")));
    }
    Ok(id)
}

fn rendition(line: usize, value: &str) -> Result<Rendition, Violation> {
    let mut attributes = Attributes::parse(line, value)?;
    if attributes.bare("TYPE")? != Some("AUDIO") {
        return Err(Violation::at_line(line, "only audio renditions are made here"));
    }
    let (group_id, name) = (attributes.quoted("GROUP-ID")?, attributes.quoted("NAME")?);
    let rendition = Rendition {
        group_id: attributes.required("GROUP-ID", group_id)?.to_owned(),
        name: attributes.required("NAME", name)?.to_owned(),
        uri: attributes.uri("URI")?,
        is_default: attributes.yes("DEFAULT")?,
        autoselect: attributes.yes("AUTOSELECT")?,
        channels: attributes.quoted("CHANNELS")?.map(str::to_owned),
    };
    attributes.finish()?;
    if rendition.is_default && !rendition.autoselect {
        return Err(Violation::at_line(line, "DEFAULT=YES needs AUTOSELECT=YES (§4.4.6.1)"));
    }
    Ok(rendition)
}

fn resolution(line: usize, text: &str) -> Result<(u64, u64), Violation> {
    let Some((width, height)) = text.split_once('x') else {
        return Err(Violation::at_line(line, format!("RESOLUTION {text:?} is not WIDTHxHEIGHT")));
    };
    Ok((integer(line, width)?, integer(line, height)?))
}

/// avc1.PPCCLL and mp4a.40.N: the codecs of this release.
fn is_codec(text: &str) -> bool {
    match text.split_once('.') {
        None => text == "opus",
        Some(("hvc1", rest)) => is_hevc(rest),
        Some(("av01", rest)) => is_av1(rest),
        Some(("avc1", rest)) => {
            rest.len() == 6 && rest.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase())
        }
        Some(("mp4a", rest)) => rest.strip_prefix("40.").is_some_and(|object| object.parse::<u8>().is_ok()),
        _ => false,
    }
}

/// Profile, compatibility, tier and level, then up to six bytes of constraints (ISO/IEC 14496-15, annex E).
fn is_hevc(text: &str) -> bool {
    let is_hex = |field: &&str| u32::from_str_radix(field, 16).is_ok() && *field == field.to_uppercase();
    let fields: Vec<_> = text.split('.').collect();
    let [profile, compatibility, level, constraints @ ..] = fields.as_slice() else { return false };
    profile.trim_start_matches(['A', 'B', 'C']).parse::<u8>().is_ok()
        && is_hex(compatibility)
        && level.strip_prefix(['L', 'H']).is_some_and(|level| level.parse::<u8>().is_ok())
        && constraints.len() <= 6
        && constraints.iter().all(|flags| is_hex(flags) && flags.len() <= 2)
        && constraints.last().is_none_or(|flags| *flags != "0")
}

/// Profile, level with tier, and bit depth; then all of chroma and colour, or nothing (AV1 in ISO BMFF, §5).
fn is_av1(text: &str) -> bool {
    let digits =
        |field: &str, length: usize| field.len() == length && field.bytes().all(|b| b.is_ascii_digit());
    let fields: Vec<_> = text.split('.').collect();
    let [profile, level, depth, colour @ ..] = fields.as_slice() else { return false };
    let level_fits = level.strip_suffix(['M', 'H']).is_some_and(|level| digits(level, 2));
    let colour_fits = match colour {
        [] => true,
        [monochrome, chroma, primaries, transfer, matrix, range] => {
            digits(monochrome, 1)
                && digits(chroma, 3)
                && [primaries, transfer, matrix].iter().all(|field| digits(field, 2))
                && digits(range, 1)
        }
        _ => false,
    };
    digits(profile, 1) && level_fits && ["08", "10", "12"].contains(depth) && colour_fits
}
