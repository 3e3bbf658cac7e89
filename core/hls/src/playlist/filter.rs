//! Which renditions a viewer wants to see in the multivariant playlist: `?max=480` for data savers, `?only=audio` for
//! radio. For players that choose by themselves and cannot be told by a page, native ones above all.
//!
//! A pure function of the query and of the renditions, so every node answers alike. Whatever is asked for, something
//! plays: a filter that would leave nothing leaves what comes closest.

/// What a query asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Filter {
    /// Of the picture, in lines.
    height_max: Option<u32>,
    only: Option<Only>,
    /// Nothing of the upper half of what there is: not of the viewer's asking.
    lower_only: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Only {
    Audio,
    Video,
}

/// A query that names no filter. The viewer must change it: 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FilterError {
    #[error("max is the greatest picture height, in lines: a whole number from 1 on")]
    Max,
    #[error("only is audio or video")]
    Only,
    #[error("max and only may be given once each")]
    Twice,
}

/// What is left of a stream. There are as few of these as the stream has heights, whatever strangers ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Selection {
    Audio,
    /// Video up to the height with this place among the stream's, lowest first.
    Video {
        level: usize,
        with_audio: bool,
    },
}

impl Filter {
    /// Reads the filter out of a query; other parameters are the business of whoever put them there.
    ///
    /// # Errors
    /// [`FilterError`], in words for whoever typed the query.
    pub(crate) fn parse(query: &str) -> Result<Self, FilterError> {
        let mut filter = Self::default();
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let twice = match name {
                "max" => filter.height_max.replace(height(value)?).is_some(),
                "only" => filter.only.replace(only(value)?).is_some(),
                _ => false,
            };
            if twice {
                return Err(FilterError::Twice);
            }
        }
        Ok(filter)
    }

    /// The lower renditions of what was asked for.
    pub(crate) fn lower(self) -> Self {
        Self { lower_only: true, ..self }
    }

    /// Applies the filter to a stream with these different picture heights, lowest first.
    pub(crate) fn select(self, heights: &[u32], has_audio: bool) -> Selection {
        // Closest to sound alone where there is none, or to a picture where there is none: what there is.
        if heights.is_empty() || (self.only == Some(Only::Audio) && has_audio) {
            return Selection::Audio;
        }
        let fitting = heights.partition_point(|height| self.height_max.is_none_or(|max| *height <= max));
        // Closest to a picture lower than all there are: the lowest.
        let highest = fitting.saturating_sub(1);
        let lower = heights.len().div_ceil(2).saturating_sub(1);
        Selection::Video {
            level: if self.lower_only { highest.min(lower) } else { highest },
            with_audio: has_audio && self.only != Some(Only::Video),
        }
    }
}

fn height(text: &str) -> Result<u32, FilterError> {
    // `parse` alone would let a sign through.
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|height| digits && *height > 0).ok_or(FilterError::Max)
}

fn only(text: &str) -> Result<Only, FilterError> {
    match text {
        "audio" => Ok(Only::Audio),
        "video" => Ok(Only::Video),
        _ => Err(FilterError::Only),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LADDER: [u32; 3] = [360, 480, 1080];

    fn select(query: &str, heights: &[u32], has_audio: bool) -> Selection {
        Filter::parse(query).unwrap().select(heights, has_audio)
    }

    #[test]
    fn a_greatest_height_leaves_every_rung_up_to_it() {
        for (query, level) in [
            ("", 2),
            ("max=1080", 2),
            ("max=4294967295", 2),
            ("max=1079", 1),
            ("max=480", 1),
            ("max=0480", 1),
            ("max=360", 0),
            ("token=a%3Db&max=360&_HLS_msn=x", 0),
        ] {
            let expected = Selection::Video { level, with_audio: true };
            assert_eq!(select(query, &LADDER, true), expected, "{query}");
        }
    }

    #[test]
    fn the_lower_renditions_are_all_but_the_upper_half() {
        let level = |query: &str, heights: &[u32]| match Filter::parse(query)
            .unwrap()
            .lower()
            .select(heights, true)
        {
            Selection::Video { level, with_audio: true } => level,
            other => panic!("{other:?}"),
        };
        let ladder = [240, 360, 480, 720, 1080];
        for (heights, expected) in [(1, 0), (2, 0), (3, 1), (4, 1), (5, 2)] {
            assert_eq!(level("", &ladder[..heights]), expected, "of {heights}");
        }
        assert_eq!(level("max=240", &ladder), 0, "less than there is room for");
        assert_eq!(level("max=1080", &ladder), 2);
    }

    #[test]
    fn one_kind_alone() {
        assert_eq!(select("only=audio", &LADDER, true), Selection::Audio);
        assert_eq!(select("max=480&only=audio", &LADDER, true), Selection::Audio);
        let video = Selection::Video { level: 1, with_audio: false };
        assert_eq!(select("only=video&max=480", &LADDER, true), video);
    }

    #[test]
    fn what_comes_closest_is_left_where_nothing_would_be() {
        let lowest = Selection::Video { level: 0, with_audio: true };
        assert_eq!(select("max=144", &LADDER, true), lowest);
        let silent = Selection::Video { level: 2, with_audio: false };
        assert_eq!(select("only=audio", &LADDER, false), silent);
        for query in ["only=video", "max=480", "only=video&max=1"] {
            assert_eq!(select(query, &[], true), Selection::Audio, "{query}");
        }
    }

    #[test]
    fn what_is_no_filter_is_refused_in_words() {
        for query in ["max", "max=", "max=0", "max=-1", "max=+480", "max=480p", "max=4294967296", "max=%34"] {
            assert_eq!(Filter::parse(query), Err(FilterError::Max), "{query}");
        }
        for query in ["only", "only=", "only=Audio", "only=subtitles", "only=audio,video"] {
            assert_eq!(Filter::parse(query), Err(FilterError::Only), "{query}");
        }
        for query in ["max=1&max=1", "only=audio&only=video"] {
            assert_eq!(Filter::parse(query), Err(FilterError::Twice), "{query}");
        }
    }
}
