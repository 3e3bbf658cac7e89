//! The encoders of H.264 we know, and how each is told the same thing: no B-frames, no picture held back, an IDR where
//! it is asked for and nowhere else.

use gstreamer as gst;
use pipe::{Fault, FaultClass, Preset};

use crate::element;

/// What an encoder is to do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) kbit_s: u32,
    pub(crate) preset: Preset,
}

/// An encoder that we know how to talk to.
pub(crate) struct Profile {
    pub(crate) name: &'static str,
    settings: fn(Settings) -> Vec<(&'static str, String)>,
}

/// In the order in which they are preferred. That one is there says little: `probe` says whether it works. Those on
/// hardware are written from their documentation.
pub(crate) const PROFILES: &[Profile] = &[
    Profile { name: "nvh264enc", settings: nvidia },
    Profile { name: "vah264enc", settings: va },
    Profile { name: "qsvh264enc", settings: quick_sync },
    Profile { name: "v4l2h264enc", settings: video4linux },
    Profile { name: "x264enc", settings: x264 },
    Profile { name: "openh264enc", settings: openh264 },
];

/// Largest distance between keys where "only when asked" cannot be said; a key every half hour does not hurt, and is
/// counted.
const GOP_MAX: &str = "65535";

/// Milliseconds of bitrate that a keyframe may take from the pictures after it.
const VBV_MS: &str = "1000";

/// The first of `preferred` that is known and there; without any preferred, of all.
///
/// # Errors
/// [`FaultClass::MissingEncoder`], in words.
pub(crate) fn choose(preferred: &[String]) -> Result<&'static Profile, Fault> {
    let known = |name: &String| PROFILES.iter().find(|profile| profile.name == name);
    let found = if preferred.is_empty() {
        PROFILES.iter().find(|profile| element::exists(profile.name))
    } else {
        preferred.iter().filter_map(known).find(|profile| element::exists(profile.name))
    };
    found.ok_or_else(|| {
        let names = if preferred.is_empty() {
            PROFILES.iter().map(|profile| profile.name).collect::<Vec<_>>().join(", ")
        } else {
            preferred.join(", ")
        };
        Fault {
            class: FaultClass::MissingEncoder,
            text: format!("no encoder of H.264: none of {names} is here; install gstreamer1.0-plugins-ugly"),
        }
    })
}

impl Profile {
    /// # Errors
    /// [`FaultClass::Pipeline`] if the element does not start.
    pub(crate) fn element(&self, settings: Settings) -> Result<gst::Element, Fault> {
        let encoder = element::make(self.name)?;
        for (property, value) in (self.settings)(settings) {
            element::set(&encoder, property, &value);
        }
        element::set(&encoder, "qos", "false");
        Ok(encoder)
    }

    /// Whether it takes pictures as the scaler makes them. If not, a converter goes before it.
    pub(crate) fn takes_i420(&self) -> bool {
        let i420 = gst::Caps::builder("video/x-raw").field("format", "I420").build();
        let factory = gst::ElementFactory::find(self.name);
        factory.is_some_and(|factory| {
            let mut templates = factory.static_pad_templates().into_iter();
            templates.any(|template| {
                template.direction() == gst::PadDirection::Sink && template.caps().can_intersect(&i420)
            })
        })
    }
}

fn text(settings: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
    settings.iter().map(|&(property, value)| (property, value.to_owned())).collect()
}

/// What goes into the parameter sets does not depend on the preset, so that a rung can change it and keep its init
/// segment: entropy coding, transform, references, weights.
fn x264(Settings { kbit_s, preset }: Settings) -> Vec<(&'static str, String)> {
    let mut all = text(&[
        ("tune", "zerolatency"),
        ("speed-preset", preset.name()),
        // Rungs and jobs are parallel by themselves; slices cost bits.
        ("threads", "1"),
        ("bframes", "0"),
        ("rc-lookahead", "0"),
        ("sync-lookahead", "0"),
        ("key-int-max", "1073741824"), // X264_KEYINT_MAX_INFINITE
        ("vbv-buf-capacity", VBV_MS),
        ("aud", "false"),
        ("cabac", "true"),
        ("dct8x8", "true"),
        ("ref", "1"),
        ("option-string", "scenecut=0:open-gop=0:weightp=0"),
    ]);
    all.push(("bitrate", kbit_s.to_string()));
    all
}

fn openh264(Settings { kbit_s, .. }: Settings) -> Vec<(&'static str, String)> {
    let mut all = text(&[
        ("complexity", "low"),
        ("rate-control", "bitrate"),
        ("gop-size", GOP_MAX),
        ("scene-change-detection", "false"),
        ("enable-frame-skip", "false"),
        ("multi-thread", "1"),
        ("slice-mode", "n-slices"),
        ("num-slices", "1"),
    ]);
    all.push(("bitrate", (u64::from(kbit_s) * 1_000).to_string()));
    all
}

fn nvidia(Settings { kbit_s, .. }: Settings) -> Vec<(&'static str, String)> {
    let mut all = text(&[
        ("preset", "low-latency-hq"),
        ("zerolatency", "true"),
        ("rc-mode", "cbr"),
        ("bframes", "0"),
        ("b-frames", "0"),
        ("rc-lookahead", "0"),
        ("gop-size", "-1"), // never by itself
        ("i-adapt", "false"),
        ("aud", "false"),
    ]);
    all.push(("bitrate", kbit_s.to_string()));
    all
}

fn va(Settings { kbit_s, .. }: Settings) -> Vec<(&'static str, String)> {
    let mut all = text(&[
        ("rate-control", "cbr"),
        ("b-frames", "0"),
        ("ref-frames", "1"),
        ("key-int-max", "1024"), // the most it takes
        ("aud", "false"),
    ]);
    all.push(("bitrate", kbit_s.to_string()));
    all
}

fn quick_sync(Settings { kbit_s, .. }: Settings) -> Vec<(&'static str, String)> {
    let mut all = text(&[
        ("low-latency", "true"),
        ("rate-control", "cbr"),
        ("b-frames", "0"),
        ("ref-frames", "1"),
        ("gop-size", GOP_MAX),
        ("idr-interval", "0"),
    ]);
    all.push(("bitrate", kbit_s.to_string()));
    all
}

fn video4linux(Settings { kbit_s, .. }: Settings) -> Vec<(&'static str, String)> {
    let bitrate = u64::from(kbit_s) * 1_000;
    let controls = format!(
        "controls,video_bitrate_mode=1,video_bitrate={bitrate},video_b_frames=0,video_gop_size={GOP_MAX},\
         h264_i_frame_period={GOP_MAX}"
    );
    vec![("extra-controls", controls)]
}
