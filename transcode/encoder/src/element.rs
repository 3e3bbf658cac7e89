//! GStreamer's elements by name, never by rank: what has the highest rank may have no hardware to run on.

use gstreamer as gst;
use gstreamer::prelude::*;

use pipe::{Fault, FaultClass};

pub(crate) fn exists(name: &str) -> bool {
    gst::ElementFactory::find(name).is_some()
}

/// # Errors
/// [`FaultClass::Pipeline`] in words: the element is not installed, or does not start.
pub(crate) fn make(name: &str) -> Result<gst::Element, Fault> {
    if !exists(name) {
        return Err(broken(format!("there is no GStreamer element {name}{}", package_of(name))));
    }
    gst::ElementFactory::make(name).build().map_err(|error| broken(error.to_string()))
}

/// Sets a property by its text, as gst-launch does, if this version of the element has it and takes the value: names
/// and ranges differ between versions and drivers. Says whether it was set.
pub(crate) fn set(element: &gst::Element, property: &str, value: &str) -> bool {
    let Some(pspec) = element.find_property(property) else { return false };
    match gst::glib::Value::deserialize_with_pspec(value, &pspec) {
        Ok(value) => {
            element.set_property_from_value(property, &value);
            true
        }
        Err(_) => false,
    }
}

/// Adds `elements` to `pipeline`, each linked to the next.
///
/// # Errors
/// [`FaultClass::Pipeline`]: two of them do not fit together.
pub(crate) fn add_linked(pipeline: &gst::Pipeline, elements: &[gst::Element]) -> Result<(), Fault> {
    let failed = |error: gst::glib::BoolError| broken(error.to_string());
    pipeline.add_many(elements).map_err(failed)?;
    gst::Element::link_many(elements).map_err(failed)
}

pub(crate) fn broken(text: impl Into<String>) -> Fault {
    Fault { class: FaultClass::Pipeline, text: text.into() }
}

/// Where an element comes from on Debian, as the end of a sentence.
pub(crate) fn package_of(name: &str) -> &'static str {
    match name {
        "x264enc" => "; install gstreamer1.0-plugins-ugly",
        "h264parse" | "h265parse" | "av1parse" | "openh264enc" | "voaacenc" | "av1dec" => {
            "; install gstreamer1.0-plugins-bad"
        }
        "vp8dec" | "vp9dec" => "; install gstreamer1.0-plugins-good",
        name if name.starts_with("av") => "; install gstreamer1.0-libav",
        _ => "; install gstreamer1.0-plugins-base",
    }
}
