//! The layers of a publisher's picture (simulcast), and which track of the session each of them has.
//!
//! The stream's own video is made of the largest, so that one needs no track of its own; but if a larger one may still come,
//! in whose favour the video gives it up, it has one. The tracks are fixed when the log opens. A publisher that comes back
//! puts its layers into those that are there, by size. Pure.

use media::{TrackId, TrackKind, VideoConfig};
use relay::{Bandwidth, Derived, TrackRecord};

/// A layer of a publisher that comes back belongs to a track of which it has at most so many times the pixels, or at least
/// that part of them: layers of browsers differ by four.
const PIXELS_RATIO_MAX: u64 = 2;

#[derive(Debug, Default)]
pub(crate) struct Layers {
    /// By the publisher's numbers.
    layers: Vec<Layer>,
}

#[derive(Debug, Default)]
struct Layer {
    config: Option<VideoConfig>,
    /// Its configuration stands in the log already.
    is_told: bool,
    /// Number of its track; inside `None` if it has none.
    track: Option<Option<usize>>,
}

impl Layers {
    /// The configuration of what follows of a layer.
    pub(crate) fn config(&mut self, number: usize, config: VideoConfig) {
        if self.layers.len() <= number {
            self.layers.resize_with(number + 1, Layer::default);
        }
        let layer = &mut self.layers[number];
        (layer.config, layer.is_told) = (Some(config), false);
    }

    /// Tracks for those that have been seen of the layers that were announced, the largest first. `own`: the publisher's tracks, the lead first.
    pub(crate) fn open(&mut self, announced: usize, own: &[TrackRecord]) -> Vec<TrackRecord> {
        let Some(lead) = own.first().filter(|lead| lead.codec.kind() == TrackKind::Video) else {
            return Vec::new();
        };
        let mut seen: Vec<_> = self.layers.iter_mut().filter(|layer| layer.config.is_some()).collect();
        // Of equals the first in the offer.
        seen.sort_by_key(|layer| std::cmp::Reverse(layer.pixels()));
        let is_complete = seen.len() >= announced;
        let mut tracks = Vec::<TrackRecord>::new();
        for (rank, layer) in seen.into_iter().enumerate() {
            layer.track = Some(None);
            let Some(config) = layer.config.as_ref().filter(|_| rank > 0 || !is_complete) else { continue };
            layer.track = Some(Some(tracks.len()));
            layer.is_told = true;
            let height = config.dimensions().1;
            let is_taken = |name: &str| tracks.iter().any(|track| &*track.name == name);
            let names =
                std::iter::once(format!("s{height}")).chain((2..).map(|twin| format!("s{height}x{twin}")));
            let Some(name) = names.into_iter().find(|name| !is_taken(name)) else { continue };
            tracks.push(TrackRecord {
                id: TrackId((own.len() + tracks.len()) as u16),
                name: name.into(),
                codec: config.clone().into(),
                derived: Some(Derived {
                    from: lead.id,
                    every: 1,
                    // It is measured, as what else the publisher sends.
                    bandwidth: Bandwidth::default(),
                    on_demand: false,
                    for_webrtc: true,
                    layer: true,
                }),
                ..lead.clone()
            });
        }
        tracks
    }

    /// A publisher goes on with a session that another one has begun, which has tracks of its own.
    pub(crate) fn join(&mut self) {
        self.layers.iter_mut().for_each(|layer| (layer.track, layer.is_told) = (None, false));
    }

    /// The track of a layer, and its configuration. `pixels`: of the session's tracks.
    pub(crate) fn track(&mut self, number: usize, pixels: &[u64]) -> Option<(usize, &VideoConfig)> {
        let own = self.layers.get(number)?.pixels();
        if self.layers[number].track.is_none() {
            let taken: Vec<_> = self.layers.iter().filter_map(|layer| layer.track.flatten()).collect();
            let fits = |pixels: u64| own <= pixels * PIXELS_RATIO_MAX && pixels <= own * PIXELS_RATIO_MAX;
            let free =
                pixels.iter().enumerate().filter(|(track, pixels)| !taken.contains(track) && fits(**pixels));
            let nearest = free.min_by_key(|(_, pixels)| pixels.abs_diff(own)).map(|(track, _)| track);
            self.layers[number].track = Some(nearest);
        }
        let layer = &self.layers[number];
        Some((layer.track??, layer.config.as_ref()?))
    }

    /// Whether the log does not have the configuration of a layer yet; then it counts as told.
    pub(crate) fn take_untold(&mut self, number: usize) -> bool {
        self.layers.get_mut(number).is_some_and(|layer| !std::mem::replace(&mut layer.is_told, true))
    }
}

impl Layer {
    fn pixels(&self) -> u64 {
        let (width, height) = self.config.as_ref().map_or((0, 0), VideoConfig::dimensions);
        u64::from(width) * u64::from(height)
    }
}

#[cfg(test)]
mod tests {
    use media::CodecConfig;
    use media::codec::h264;

    use super::*;

    fn config(width: u32, height: u32) -> VideoConfig {
        VideoConfig::H264(h264::Config::nominal(width, height, 30.0, 1_000_000).unwrap())
    }

    fn own() -> Vec<TrackRecord> {
        vec![TrackRecord {
            id: TrackId(0),
            name: "v".into(),
            codec: CodecConfig::from(config(1280, 720)),
            part_target_ms: 501,
            reorder_delay: 0,
            derived: None,
        }]
    }

    fn layers(sizes: &[(u32, u32)]) -> Layers {
        let mut layers = Layers::default();
        sizes
            .iter()
            .enumerate()
            .for_each(|(number, &(width, height))| layers.config(number, config(width, height)));
        layers
    }

    fn names(tracks: &[TrackRecord]) -> Vec<(u16, &str)> {
        tracks.iter().map(|track| (track.id.0, &*track.name)).collect()
    }

    #[test]
    fn all_but_the_largest_have_a_track_the_largest_first() {
        let mut layers = layers(&[(320, 180), (1280, 720), (640, 360)]);
        let tracks = layers.open(3, &own());
        assert_eq!(names(&tracks), [(1, "s360"), (2, "s180")]);
        assert!(tracks.iter().all(|track| track.is_sent() && track.derived.unwrap().for_webrtc));
        let pixels = [640 * 360, 320 * 180];
        let track = |layers: &mut Layers, number| layers.track(number, &pixels).map(|(track, _)| track);
        assert_eq!([0, 1, 2].map(|number| track(&mut layers, number)), [Some(1), None, Some(0)]);
        assert!(!layers.take_untold(0), "it stands in the record");
        layers.config(0, config(160, 90));
        assert!(layers.take_untold(0) && !layers.take_untold(0));
        assert_eq!(track(&mut layers, 0), Some(1), "it stays what it is when it changes its size");
    }

    /// The video goes over to the largest when that comes, and what it was made of before is then a layer.
    #[test]
    fn where_one_has_not_come_yet_all_others_have_a_track() {
        let mut layers = layers(&[(320, 180), (640, 360)]);
        assert_eq!(names(&layers.open(3, &own())), [(1, "s360"), (2, "s180")]);
        layers.config(2, config(1280, 720));
        assert!(layers.track(2, &[640 * 360, 320 * 180]).is_none());
    }

    #[test]
    fn layers_of_one_size_have_names_of_their_own() {
        let mut layers = layers(&[(640, 360), (640, 360), (640, 360)]);
        assert_eq!(names(&layers.open(3, &own())), [(1, "s360"), (2, "s360x2")]);
    }

    #[test]
    fn a_publisher_that_comes_back_finds_its_tracks_by_size() {
        let pixels = [640 * 360, 320 * 180];
        let mut layers = layers(&[(1280, 720), (300, 170), (640, 360)]);
        layers.join();
        let found = [0, 1, 2].map(|number| layers.track(number, &pixels).map(|(track, _)| track));
        assert_eq!(found, [None, Some(1), Some(0)]);
        assert!(layers.take_untold(2), "the log has the configuration of another publisher");
        assert!(layers.track(3, &pixels).is_none());
    }
}
